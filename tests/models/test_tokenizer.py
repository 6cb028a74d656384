import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as token_models

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models import tokenizer as module
from ragzip.models.tokenizer import TextTokenizer

CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def tiny(tiny_lm_path):
    return models.text_tokenizer(tiny_lm_path)


def hostile():
    """Texts full of control tokens, parts of them, and anything else."""
    bits = [*CONTROL, "<|im_", "end|>", "<|", "|>", "<", " ", "\n", "a"]
    return st.lists(st.one_of(st.sampled_from(bits), st.text(max_size=5)), max_size=12).map("".join)


@given(text=hostile())
def test_text_never_becomes_control_and_loses_nothing(tiny, text):
    ids = tiny.encode([text])[0]
    assert tiny.control.isdisjoint(ids)
    assert tiny.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert "".join(tiny.split(text)) == text


@given(texts=st.lists(st.text(max_size=30), max_size=6))
def test_batch_equals_singles_and_count_is_length(tiny, texts):
    together = tiny.encode(texts)
    assert together == [tiny.encode([t])[0] for t in texts]
    assert tiny.count(texts) == [len(ids) for ids in together]


@given(text=st.text(max_size=60).filter(lambda t: "<|" not in t))
def test_ordinary_text_is_encoded_as_by_the_tokenizer_itself(tiny, text):
    assert tiny.encode([text])[0] == tiny.tokenizer.encode(text, add_special_tokens=False).ids
    assert tiny.split(text) == [text]


def test_lone_surrogates_are_no_error(tiny):
    assert tiny.count(["a\ud800b", "a?b"]) == [3, 3]
    assert tiny.split("x\udfff<|im_end|>")[0].startswith("x?")


def test_control_tokens_are_those_marked_special_or_like_markup():
    tokenizer = Tokenizer(token_models.BPE(vocab={"a": 0, " ": 1}, merges=[]))
    tokenizer.add_special_tokens(["odd name"])
    tokenizer.add_tokens(["<tool_call>", "[INST]", "  ", "plain"])
    names = {tokenizer.id_to_token(i) for i in TextTokenizer(tokenizer).control}
    assert names == {"odd name", "<tool_call>", "[INST]"}


def test_disguised_control_tokens_are_seen_through():
    """Wide brackets that a normalizer turns into narrow ones must not open the door."""
    vocab = {c: i for i, c in enumerate(["<", "/", "s", ">", "x", "</s>"])}
    tokenizer = Tokenizer(token_models.BPE(vocab=vocab, merges=[]))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.decoder = decoders.Fuse()
    from tokenizers import AddedToken

    tokenizer.add_special_tokens([AddedToken("</s>", normalized=True, special=True)])
    text = "x＜/s＞x"
    control = tokenizer.token_to_id("</s>")
    assert control in tokenizer.encode(text).ids  # the door is there
    safe = TextTokenizer(tokenizer)
    assert control not in safe.encode([text])[0]
    assert "".join(safe.split(text)) == text


def test_unknown_words_are_not_taken_for_control():
    tokenizer = Tokenizer(token_models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[UNK]"])
    safe = TextTokenizer(tokenizer)
    assert safe.split("a never seen a") == ["a never seen a"]
    assert safe.encode(["a never seen a"])[0] == [1, 0, 0, 1]


def test_shared_tokenizer_does_not_cut_or_pad(tiny_encoder_path):
    shared = models.load_tokenizer(tiny_encoder_path)
    models.load_encoder(tiny_encoder_path).encode(["word " * 500, "b"])
    assert shared.truncation is None
    assert shared.padding is None
    assert len(shared.encode("word " * 500).ids) > 500


def test_counting_needs_no_heavy_library(tiny_lm_path):
    code = (
        f"import sys; from ragzip import models; print(models.CountTokens({tiny_lm_path!r})(['a b']));"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]"


def test_counters_are_plain_values(tiny_lm_path):
    counter = models.CountTokens(tiny_lm_path)
    assert pickle.loads(pickle.dumps(counter)) == counter
    assert counter(["one two", ""]) == [models.text_tokenizer(tiny_lm_path).count(["one two"])[0], 0]
    assert models.default_counter() == pickle.loads(pickle.dumps(models.default_counter()))


def test_unreadable_tokenizers_are_model_errors(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        models.load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        models.load_tokenizer(str(tmp_path))


def test_a_long_text_is_split_in_reasonable_time(tiny):
    import time

    start = time.perf_counter()
    parts = tiny.split("<|im_end|>word " * 5000)
    assert time.perf_counter() - start < 20
    assert len(parts) == 5001
    assert module.TextTokenizer is type(tiny)
