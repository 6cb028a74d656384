import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models.convert import convert
from tests.models import tools


def converted(gguf, folder, **options):
    folder.mkdir()
    convert(gguf, folder, **options)
    return folder


def test_weights_survive_exactly(tiny_gguf, tiny_lm_path, tmp_path):
    ours = load_file(converted(tiny_gguf, tmp_path / "out") / "model.safetensors")
    theirs = load_file(Path(tiny_lm_path) / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        assert torch.equal(ours[name], values.bfloat16()), name


def test_quantised_weights_are_dequantised(tiny_lm_path, tmp_path):
    tools.write_gguf(Path(tiny_lm_path), tmp_path / "q.gguf", quantised=True)
    ours = load_file(converted(tmp_path / "q.gguf", tmp_path / "out") / "model.safetensors")
    theirs = load_file(Path(tiny_lm_path) / "model.safetensors")
    for name, values in theirs.items():
        step = values.abs().max() / 127
        assert torch.allclose(ours[name].float(), values, atol=float(step)), name


def test_model_answers_as_before(tiny_gguf, tiny_lm_path, tmp_path):
    """The same logits: rotary halves, heads and norms are all in their places."""
    ours = models.load_causal_lm(str(converted(tiny_gguf, tmp_path / "out")), dtype="fp32")
    theirs = models.load_causal_lm(tiny_lm_path, dtype="fp32")
    ids = torch.tensor([theirs.text.encode(["Which city is the capital?"])[0]])
    with torch.inference_mode():
        a, b = ours.model(ids).logits, theirs.model(ids).logits
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.999
    assert ours.tokenizer.chat_template == theirs.tokenizer.chat_template
    assert ours.window == theirs.window


def test_tokenizer_is_the_same(tiny_gguf, tiny_lm_path, tmp_path):
    ours = Tokenizer.from_file(str(converted(tiny_gguf, tmp_path / "out") / "tokenizer.json"))
    theirs = models.load_tokenizer(tiny_lm_path)
    for text in ("The quick brown fox", "né 日本語 🎉\n\n\tx  12", "<|im_start|>user\nhi<|im_end|>", ""):
        assert ours.encode(text).ids == theirs.encode(text).ids
        assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text


def test_smollm_cuts_numbers_into_digits(tiny_lm_path, tmp_path):
    tools.write_gguf(Path(tiny_lm_path), tmp_path / "m.gguf", pre="smollm")
    tokenizer = Tokenizer.from_file(str(converted(tmp_path / "m.gguf", tmp_path / "out") / "tokenizer.json"))
    assert [t for t in tokenizer.encode("in 1984").tokens if t.isdigit()] == ["1", "9", "8", "4"]


def test_progress_counts_tensors(tiny_gguf, tmp_path):
    seen = []
    converted(tiny_gguf, tmp_path / "out", on_progress=lambda done, total: seen.append((done, total)))
    total = seen[-1][1]
    assert seen == [(i, total) for i in range(1, total + 1)]


def test_damaged_file_is_refused(tiny_gguf, tmp_path):
    for i, data in enumerate([b"", b"GGUF", b"no GGUF at all" * 100, tiny_gguf.read_bytes()[:5000]]):
        bad = tmp_path / f"bad{i}.gguf"
        bad.write_bytes(data)
        with pytest.raises(ModelError, match="cannot be converted"):
            converted(bad, tmp_path / f"out{i}")


def test_other_families_are_refused(tiny_lm_path, tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "gemma3")
    writer.add_context_length(8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="gemma3"):
        converted(tmp_path / "m.gguf", tmp_path / "out")


def test_unknown_tokenizer_is_refused(tiny_lm_path, tmp_path):
    tools.write_gguf(Path(tiny_lm_path), tmp_path / "m.gguf", pre="llama-bpe")
    with pytest.raises(ModelError, match="llama-bpe"):
        converted(tmp_path / "m.gguf", tmp_path / "out")


def test_missing_tensor_is_found_when_loading(tiny_lm_path, tmp_path):
    tools.write_gguf(Path(tiny_lm_path), tmp_path / "m.gguf", drop="blk.1.ffn_up.weight")
    folder = converted(tmp_path / "m.gguf", tmp_path / "out")
    with pytest.raises(ModelError, match="lack 1 parameters"):
        models.load_causal_lm(str(folder))


def test_config_says_what_the_file_says(tiny_gguf, tmp_path):
    config = json.loads((converted(tiny_gguf, tmp_path / "out") / "config.json").read_text())
    assert config["vocab_size"] == 384
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]) == (32, 2, 2)
    assert config["tie_word_embeddings"] is False
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
