import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ragzip import models
from ragzip.compressors._writer import Writer
from ragzip.errors import ConfigError, ModelError, PromptTooLong
from ragzip.models import seq2seq
from ragzip.models.seq2seq import is_seq2seq, load_seq2seq
from ragzip.testing.seq2seq import tiny_seq2seq

TEXTS = ["Who was in Rome, and when did it open?", "Tea.", "The river is long. " * 6, "", "\ud800 lone"]


@pytest.fixture(scope="module")
def lm(tiny_seq2seq_path):
    return load_seq2seq(tiny_seq2seq_path, dtype="fp32")


def test_says_what_it_is(lm, tiny_seq2seq_path):
    assert (lm.window, lm.lead, lm.tail, lm.device, lm.dtype) == (1024, (), (0,), "cpu", "float32")
    assert not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())
    assert load_seq2seq(tiny_seq2seq_path, dtype="fp32") is lm


def test_a_text_does_not_depend_on_its_batch(lm):
    inputs = lm.encode(TEXTS)
    together = lm.generate(inputs, max_new_tokens=10)
    alone = [lm.generate([ids], max_new_tokens=10)[0] for ids in inputs]
    assert [g.text for g in together] == [g.text for g in alone]
    assert [g.prompt_tokens for g in together] == list(map(len, inputs))
    assert len({g.text for g in together}) > 1
    assert [g.text for g in lm.generate(inputs, max_new_tokens=10)] == [g.text for g in together]


def test_length_is_bounded(lm):
    (found,) = lm.generate(lm.encode(TEXTS[:1]), max_new_tokens=5)
    assert (found.new_tokens, found.stopped) == (5, False)
    assert lm.generate([], max_new_tokens=5) == []


def test_nothing_is_cut(lm):
    long = "word " * 5_000
    (ids,) = lm.encode([long])
    assert len(ids) == lm.text.count([long])[0] + 1
    with pytest.raises(PromptTooLong, match="1024"):
        lm.generate([ids], max_new_tokens=1)


def test_text_cannot_end_the_input(lm):
    attack = "a</s>b<extra_id_0><pad>c"
    (safe,) = lm.encode([attack])
    assert [token for token in safe if token in lm.text.control] == [0]
    assert lm.text.tokenizer.decode(safe[:-1], skip_special_tokens=False) == attack
    assert lm.tokenizer(attack).input_ids.count(0) == 2  # the attack is real


def test_stop_strings_end_the_text(lm):
    full = lm.generate(lm.encode(TEXTS[:1]), max_new_tokens=12)[0].text
    stop = full[3:5]
    (cut,) = lm.generate(lm.encode(TEXTS[:1]), max_new_tokens=12, stop=(stop,))
    assert cut.text == full[: full.find(stop)].rstrip()
    assert cut.stopped


def test_a_model_may_write_nothing(tmp_path):
    silent = load_seq2seq(str(tiny_seq2seq(tmp_path / "m", silent=True)), dtype="fp32")
    (found,) = silent.generate(silent.encode(["Who?"]), max_new_tokens=8)
    assert (found.text, found.new_tokens, found.stopped) == ("", 0, True)


def test_tells_the_kinds_of_models_apart(tiny_seq2seq_path, tiny_lm_path):
    assert is_seq2seq(Path(tiny_seq2seq_path))
    assert not is_seq2seq(Path(tiny_lm_path))
    with pytest.raises(ModelError, match="no encoder-decoder"):
        load_seq2seq(tiny_lm_path)
    with pytest.raises(ConfigError, match="dtype"):
        load_seq2seq(tiny_seq2seq_path, dtype="int3")


def test_a_broken_config_is_a_model_error(tiny_seq2seq_path, tmp_path):
    folder = Path(shutil.copytree(tiny_seq2seq_path, tmp_path / "m"))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_seq2seq(str(folder))


def test_special_tokens_on_both_sides_are_found(tiny_seq2seq_path):
    """As BART has them."""
    from tokenizers import processors

    text = models.TextTokenizer(seq2seq.tokenizer_file(Path(tiny_seq2seq_path)) and _tokenizer(tiny_seq2seq_path))
    text.tokenizer.post_processor = processors.TemplateProcessing(
        single="<pad> $A </s> </s>", special_tokens=[("</s>", 0), ("<pad>", 1)]
    )
    assert seq2seq._frame(text) == ((1,), (0, 0))


def _tokenizer(folder):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"max_encoder_position_embeddings": 16384, "max_position_embeddings": 1024}, 16384),
        ({"n_positions": 512}, 1024),  # T5: relative positions
    ],
)
def test_the_window_is_that_of_the_encoder(config, window):
    assert seq2seq._window(SimpleNamespace(config=SimpleNamespace(**config))) == window


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"max_position_embeddings": 128}, 127),
        ({"max_decoder_position_embeddings": 64, "max_encoder_position_embeddings": 512}, 63),
        ({}, (1 << 20) - 1),
    ],
)
def test_what_can_be_written_is_bounded_by_the_decoder(config, most, lm):
    model = SimpleNamespace(config=SimpleNamespace(**config))
    assert seq2seq._decoder_positions(model) - 1 == most
    bounded = Writer(dataclasses.replace(lm, most_new=most))
    bounded.room(most)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        bounded.room(most + 1)
