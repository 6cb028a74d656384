"""Token vectors of every layout against those that are made by hand, with ``transformers`` and nothing of ragzip."""

from __future__ import annotations

import json
import shutil
import string
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModel, BertConfig, BertModel

from ragzip import models
from ragzip.errors import ConfigError, ModelError
from ragzip.models.late_interaction import load_late_interaction
from ragzip.models.tuned import save_tuned
from ragzip.models.weights import weight_files
from tests.models.late_models import base, pylate, stanford, write

QUERY = "Which city is the capital?"
TEXT = "The river, quick and brown, runs to the sea. A dog."
WINDOW = 128


def load(folder):
    return load_late_interaction(str(folder), dtype="fp32", device="cpu")


def hidden_by_hand(folder, ids, seen, prefix=""):
    """``[n, width]``: the encoder's hidden states of one row."""
    if prefix:  # the encoder among other weights
        weights = load_file(folder / "model.safetensors")
        model = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
        model.load_state_dict(
            {k.removeprefix(prefix): v for k, v in weights.items() if "pooler" not in k}, strict=False
        )
    else:
        model = AutoModel.from_pretrained(folder)
    mask = torch.tensor([[1] * seen + [0] * (len(ids) - seen)])
    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0]


def by_hand(folder, text, marker, length, project, *, query, expand=True, attend=False, skip=(), prefix=""):
    """Vectors as the published libraries make them: cut, marker after the first token, filled up, skipped."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(length - bool(marker))
    ids = tokenizer.encode(text).ids
    if marker:
        ids = [ids[0], tokenizer.token_to_id(marker), *ids[1:]]
    seen = len(ids)
    if query and expand:
        ids = ids + [tokenizer.token_to_id("[MASK]")] * (length - seen)
    found = project(hidden_by_hand(folder, ids, len(ids) if attend else seen, prefix))
    skipped = {tokenizer.token_to_id(word) for word in skip} if not query else set()
    kept = torch.tensor([i not in skipped for i in ids])
    return torch.nn.functional.normalize(found[kept], dim=-1).numpy()


def linear(path):
    weights = load_file(path)
    return lambda hidden: torch.nn.functional.linear(hidden, weights["linear.weight"], weights.get("linear.bias"))


@pytest.mark.parametrize("said", [
    {}, {"attend_to_expansion_tokens": True}, {"do_query_expansion": False}, {"skiplist_words": []},
    {"query_length": 5, "document_length": 8}, {"query_prefix": "", "document_prefix": ""},
])  # fmt: skip
@pytest.mark.parametrize("text", [QUERY, TEXT, "a", ",."])
def test_pylate(tmp_path, said, text):
    folder = pylate(tmp_path / "m", **said)
    model = load(folder)
    said = {
        "query_length": 16, "document_length": 24, "do_query_expansion": True, "attend_to_expansion_tokens": False,
        "skiplist_words": [",", "."], "query_prefix": "[Q] ", "document_prefix": "[D] ", **said,
    }  # fmt: skip
    project = linear(folder / "1_Dense" / "model.safetensors")
    options = {"expand": said["do_query_expansion"], "attend": said["attend_to_expansion_tokens"]}
    (asked,) = model.encode_queries([text])
    wanted = by_hand(folder, text, said["query_prefix"], said["query_length"], project, query=True, **options)
    assert asked.shape == wanted.shape
    assert np.allclose(asked, wanted, atol=1e-5)
    (found,) = model.encode_documents([text])
    length, skip = said["document_length"], said["skiplist_words"]
    wanted = by_hand(folder, text, said["document_prefix"], length, project, query=False, skip=skip)
    assert found.vectors.shape == wanted.shape
    assert np.allclose(found.vectors, wanted, atol=1e-5)
    assert (model.dimensions, model.max_tokens) == (8, length)


def test_dense_layers_with_bias_activation_and_residual(tmp_path):
    layers = [
        {"out_features": 32, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"},
        {"out_features": 32, "use_residual": True},
        {"out_features": 8, "use_residual": True, "activation_function": "torch.nn.modules.activation.ReLU"},
    ]
    folder = pylate(tmp_path / "m", layers)
    first, second, third = (linear(folder / f"{n}_Dense" / "model.safetensors") for n in (1, 2, 3))
    residual = load_file(folder / "3_Dense" / "model.safetensors")["residual.weight"]

    def project(hidden):
        one = torch.tanh(first(hidden))
        two = second(one) + one
        return torch.relu(third(two)) + two @ residual.T

    (found,) = load(folder).encode_documents([TEXT])
    assert np.allclose(found.vectors, by_hand(folder, TEXT, "[D] ", 24, project, query=False, skip=",."), atol=1e-5)


@pytest.mark.parametrize("said", [{}, {"attend_to_mask_tokens": True}, {"mask_punctuation": False}])
def test_stanford(tmp_path, said):
    folder = stanford(tmp_path / "m", **said)
    model = load(folder)
    project = linear(folder / "model.safetensors")
    attend = said.get("attend_to_mask_tokens", False)
    wanted = by_hand(folder, QUERY, "[unused0]", 16, project, query=True, attend=attend, prefix="bert.")
    assert np.allclose(model.encode_queries([QUERY])[0], wanted, atol=1e-5)
    skip = string.punctuation if said.get("mask_punctuation", True) else ""
    wanted = by_hand(folder, TEXT, "[unused1]", 24, project, query=False, skip=skip, prefix="bert.")
    assert np.allclose(model.encode_documents([TEXT])[0].vectors, wanted, atol=1e-5)


def test_an_encoder_that_was_not_trained_for_it(tiny_encoder_path):
    model = load(tiny_encoder_path)
    (asked,) = model.encode_queries([QUERY])
    (found,) = model.encode_documents([TEXT])
    for text, vectors in ((QUERY, asked), (TEXT, found.vectors)):
        wanted = by_hand(model.folder, text, "", WINDOW, lambda hidden: hidden, query=True, expand=False)
        assert np.allclose(vectors, wanted, atol=1e-5)
    assert model.dimensions == 32
    assert model.fingerprint == models.fingerprint(tiny_encoder_path)


def test_an_encoder_with_an_adapter(tmp_path, tiny_encoder_path):
    adapter, draw = tmp_path / "adapter", torch.Generator().manual_seed(0)
    said = {"peft_type": "LORA", "base_model_name_or_path": tiny_encoder_path, "r": 2, "lora_alpha": 4}
    write(adapter / "adapter_config.json", **said, target_modules=["query"])
    whole = shutil.copytree(models.resolve(tiny_encoder_path), tmp_path / "whole")
    weights, tensors = load_file(whole / "model.safetensors"), {}
    for layer in range(2):
        name = f"encoder.layer.{layer}.attention.self.query"
        a, b = torch.randn(2, 32, generator=draw), torch.randn(32, 2, generator=draw)
        tensors |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
        weights[f"{name}.weight"] += 2 * b @ a
    save_file(tensors, adapter / "adapter_model.safetensors")
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    model, (found,) = load(adapter), load(whole).encode_documents([TEXT])
    assert np.allclose(model.encode_documents([TEXT])[0].vectors, found.vectors, atol=1e-5)
    assert model.fingerprint not in {load(tiny_encoder_path).fingerprint, load(whole).fingerprint}


def test_ragzips_own(tmp_path, tiny_encoder_path):
    weight = torch.randn(6, 32)
    key = "encoder.layer.1.output.dense.bias"
    changed = load_file(models.resolve(tiny_encoder_path) / "model.safetensors")[key] + 0.5
    tensors = {"heads.projection.weight": weight, f"backbone.{key}": changed}
    own = {"architecture": "late_interaction", "base": tiny_encoder_path, "max_tokens": 20, "skipped": [","]}
    save_tuned(tmp_path / "own", tensors=tensors, **own)
    whole = shutil.copytree(models.resolve(tiny_encoder_path), tmp_path / "whole")
    save_file({**load_file(whole / "model.safetensors"), key: changed.half().float()}, whole / "model.safetensors")
    model = load(tmp_path / "own")

    def project(hidden):
        return hidden @ weight.half().float().T

    wanted = by_hand(whole, TEXT, "", 20, project, query=False, skip=",")
    assert np.allclose(model.encode_documents([TEXT])[0].vectors, wanted, atol=1e-4)
    wanted = by_hand(whole, QUERY, "", 20, project, query=True, expand=False)
    assert np.allclose(model.encode_queries([QUERY])[0], wanted, atol=1e-4)
    assert (model.dimensions, model.max_tokens) == (6, 20)


texts = st.lists(st.text(max_size=40), max_size=8)


@settings(max_examples=25)
@given(batch=texts)
def test_documents_do_not_depend_on_each_other(tiny_late, batch):
    together = tiny_late.encode_documents(batch)
    assert len(together) == len(batch)
    for text, found in zip(batch, together, strict=True):
        (alone,) = tiny_late.encode_documents([text])
        assert found.vectors.shape == alone.vectors.shape == (len(found.weights), tiny_late.dimensions)
        assert found.vectors.dtype == found.weights.dtype == np.float32
        assert np.allclose(found.vectors, alone.vectors, atol=1e-5)
        assert np.allclose(found.weights, alone.weights, atol=1e-4)
        assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
        assert (found.weights >= 0).all()
        assert (len(found.vectors) == 0) == (tiny_late.count_tokens([text]) == [0]) or "," in text or "." in text


@settings(max_examples=25)
@given(batch=texts)
def test_a_query_gives_the_same_bits_whoever_else_asks(tiny_late, batch):
    for text, found in zip(batch, tiny_late.encode_queries(batch), strict=True):
        assert np.array_equal(found, tiny_late.encode_queries([text])[0])
        assert found.shape == (16, 8)


@pytest.fixture(scope="module")
def tiny_late(tmp_path_factory):
    return load(pylate(tmp_path_factory.mktemp("late") / "m"))


def test_weights_are_the_attention_that_the_encoder_itself_tells(tiny_encoder_path):
    model = load(tiny_encoder_path)
    told = AutoModel.from_pretrained(model.folder, attn_implementation="eager").eval()
    batch = [TEXT, QUERY * 3]
    for text, found in zip(batch, model.encode_documents(batch), strict=True):
        ids = torch.tensor([Tokenizer.from_file(str(model.folder / "tokenizer.json")).encode(text).ids])
        with torch.inference_mode():
            attention = told(input_ids=ids, output_attentions=True).attentions[-1][0]
        assert np.allclose(found.weights, attention.mean(0).sum(0).numpy(), atol=1e-4)
        assert found.weights.sum() == pytest.approx(len(found.weights), rel=1e-4)


def test_weights_of_other_encoders_are_lengths(tmp_path):
    from transformers import ModernBertConfig, ModernBertModel

    folder = base(tmp_path / "m")
    config = ModernBertConfig(
        vocab_size=500, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    ModernBertModel(config).save_pretrained(folder)
    (found,) = load(folder).encode_documents([TEXT])
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
    assert np.allclose(found.weights, hidden_by_hand(folder, ids, len(ids)).norm(dim=-1).numpy(), atol=1e-4)


def test_progress_empty_texts_and_control_tokens(tiny_late):
    seen = []
    found = tiny_late.encode_documents(["", "a b", "", "c"], on_progress=lambda *a: seen.append(a))
    assert seen[-1] == (4, 4)
    assert [len(one.vectors) > 0 for one in found] == [False, True, False, True]
    assert tiny_late.encode_documents([]) == tiny_late.encode_queries([]) == tiny_late.count_tokens([]) == []
    markers = {tiny_late._document.before[1], tiny_late._query.before[1], tiny_late._query.filling}
    assert markers.isdisjoint(tiny_late._text.encode(["[Q] [D] [MASK] [CLS]"])[0])
    assert np.isfinite(tiny_late.encode_documents(["x" * 100_000, "\ud800"])[0].vectors).all()


def test_fingerprints_follow_what_decides(tmp_path, tiny_encoder_path):
    folder = pylate(tmp_path / "m")
    seen = {load(folder).fingerprint}
    copied = shutil.copytree(folder, tmp_path / "copy")
    assert load(copied).fingerprint in seen
    write(folder / "config_sentence_transformers.json", query_length=9)
    seen.add(load(folder).fingerprint)
    path = folder / "1_Dense" / "model.safetensors"
    save_file({key: value * 2 for key, value in load_file(path).items()}, path)
    seen.add(load(folder).fingerprint)
    for number, base_ in enumerate((tiny_encoder_path, str(base(tmp_path / "base", seed=3)))):
        own = tmp_path / f"own{number}"
        weight = torch.ones(4, 32)
        save_tuned(
            own, architecture="late_interaction", base=base_, max_tokens=20, tensors={"heads.projection.weight": weight}
        )
        write(own / "config.json", base=base_)
        seen.add(load(own).fingerprint)
    assert len(seen) == 5


def test_loaded_once_also_from_threads(tmp_path):
    folder = pylate(tmp_path / "m")
    found = []
    threads = [threading.Thread(target=lambda: found.append(load(folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(model) for model in found}) == 1


def pickled(folder):
    (folder / "1_Dense" / "model.safetensors").rename(folder / "1_Dense" / "pytorch_model.bin")


def lacks_linear(folder):
    save_file({"other": torch.ones(1)}, folder / "1_Dense" / "model.safetensors")


def too_wide(folder):
    save_file({"linear.weight": torch.ones(8, 31)}, folder / "1_Dense" / "model.safetensors")


def pooled_first(folder):
    modules = json.loads((folder / "modules.json").read_text())
    pooling = {"idx": 1, "name": "p", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    (folder / "modules.json").write_text(json.dumps([modules[0], pooling, *modules[1:]]))


def settings_of(**said):
    return lambda folder: write(folder / "config_sentence_transformers.json", **said)


def dense_of(**said):
    return lambda folder: write(folder / "1_Dense" / "config.json", **said)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (pickled, "pickled"),
        (lacks_linear, r"lack linear\.weight"),
        (too_wide, r"\[8, 31\]"),
        (pooled_first, "one vector"),
        (settings_of(query_prefix="[X] "), r"does not know its marker '\[X\] '"),
        (settings_of(query_length="9"), "query_length"),
        (settings_of(query_length=0), "query_length"),
        (settings_of(skiplist_words="x"), "skiplist_words"),
        (settings_of(do_query_expansion="yes"), "do_query_expansion"),
        (dense_of(activation_function="os.system"), "activation"),
        (lambda f: (f / "modules.json").write_text('[{"type": "x.Transformer"}, {"type": "x.LSTM"}]'), "LSTM"),
        (lambda f: (f / "modules.json").write_text("[1]"), "no list of modules"),
        (lambda f: (f / "1_Dense" / "config.json").write_text("[]"), "no object"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, damage, match):
    folder = pylate(tmp_path / "m")
    damage(folder)
    with pytest.raises(ModelError, match=match):
        load(folder)


def test_other_things_are_refused(tmp_path, tiny_encoder_path):
    folder = stanford(tmp_path / "m", similarity="l2")
    with pytest.raises(ModelError, match="cosine"):
        load(folder)
    tensors = {"heads.a.weight": torch.ones(1, 32)}
    save_tuned(tmp_path / "own", architecture="provence", base=tiny_encoder_path, max_tokens=20, tensors=tensors)
    with pytest.raises(ModelError, match="provence"):
        load(tmp_path / "own")
    write(tmp_path / "own" / "config.json", architecture="late_interaction")
    with pytest.raises(ModelError, match=r"heads\.projection"):
        load(tmp_path / "own")
    with pytest.raises(ConfigError):
        load_late_interaction(tiny_encoder_path, dtype="int3")
    assert weight_files(folder)
