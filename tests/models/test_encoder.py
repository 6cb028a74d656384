import json
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip import models
from ragzip.errors import ConfigError, ModelError
from ragzip.models.pooling import read_recipe
from ragzip.testing.models import tiny_encoder


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path):
    return models.load_encoder(tiny_encoder_path, dtype="fp32")


@pytest.fixture
def folder(tiny_encoder_path, tmp_path):
    return Path(shutil.copytree(tiny_encoder_path, tmp_path / "encoder"))


texts = st.lists(st.text(max_size=40), max_size=12)


@settings(max_examples=30)
@given(batch=texts, size=st.integers(1, 40))
def test_vectors_are_unit_finite_and_do_not_depend_on_the_batch(encoder, batch, size):
    vectors = encoder.encode(batch, batch_size=size)
    assert vectors.shape == (len(batch), encoder.dimensions)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, encoder.encode_each(batch), atol=1e-5)


def test_order_is_kept_whatever_the_lengths(encoder):
    batch = ["word " * n for n in random.Random(0).sample(range(60), 60)]
    vectors = encoder.encode(batch, batch_size=7)
    for i, text in enumerate(batch):
        assert np.allclose(vectors[i], encoder.encode([text])[0], atol=1e-5)


def test_equals_the_transformer_pooled_by_hand(encoder):
    """Mean of the last hidden states over all tokens, special ones included, scaled to length 1."""
    from transformers import AutoModel

    text = "Which city is the capital?"
    model = AutoModel.from_pretrained(encoder.folder)
    ids = models.load_tokenizer(encoder.name).encode(text).ids
    with torch.inference_mode():
        hidden = model(torch.tensor([ids])).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
    assert np.allclose(encoder.encode([text])[0], expected, atol=1e-5)


def test_long_texts_are_cut_with_special_tokens_kept(encoder):
    long = "word " * 10_000
    cut = encoder._cutting.encode(long).ids
    assert len(cut) == encoder.max_tokens
    assert (cut[0], cut[-1]) == (1, 2)
    assert np.isfinite(encoder.encode([long, "x" * 100_000])).all()
    assert encoder.count_tokens([long])[0] > encoder.max_tokens


def test_what_fills_the_room_is_read_whole(encoder):
    vectors = []
    for count in (encoder.room - 1, encoder.room, encoder.room + 1):
        text = "z" * count
        assert encoder.count_tokens([text]) == [count]
        vectors.append(encoder.encode([text])[0].tolist())
    assert vectors[0] != vectors[1] == vectors[2]  # the last token of the last one is cut off


def test_no_texts_give_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, encoder.dimensions)
    assert encoder.count_tokens([]) == []


def test_same_call_gives_the_same_bits(encoder):
    batch = [f"text number {i} " * (i % 5 + 1) for i in range(50)]
    assert np.array_equal(encoder.encode(batch), encoder.encode(batch))


def test_lone_surrogates_are_read_as_question_marks(encoder):
    assert np.allclose(encoder.encode(["a\ud800b"]), encoder.encode(["a?b"]), atol=1e-6)


def test_progress_reaches_the_end(encoder):
    seen = []
    encoder.encode([f"a {i}" for i in range(70)], batch_size=32, on_progress=lambda *a: seen.append(a))
    assert seen == [(32, 70), (64, 70), (70, 70)]
    seen.clear()
    encoder.encode([*["a"] * 40, *["b"] * 2], batch_size=1, on_progress=lambda *a: seen.append(a))
    assert seen == [(40, 42), (42, 42)]  # texts, not what is read of them


def test_count_is_without_special_tokens(encoder):
    plain = models.load_tokenizer(encoder.name).encode("a b c", add_special_tokens=False).ids
    assert encoder.count_tokens(["a b c", ""]) == [len(plain), 0]


def test_loaded_once_also_from_threads(tiny_encoder_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(models.load_encoder(tiny_encoder_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(encoder) for encoder in found}) == 1
    assert models.load_encoder(tiny_encoder_path, dtype="fp32") is not models.load_encoder(
        tiny_encoder_path, dtype="bf16"
    )


def test_nothing_global_changes(folder, capfd):
    import logging
    import os

    import transformers

    def state():
        return (
            torch.get_rng_state().numpy().tobytes(),
            random.getstate(),
            np.random.get_state()[1].tobytes(),
            dict(os.environ),
            os.getcwd(),
            logging.getLogger("transformers").level,
            logging.getLogger().level,
            transformers.utils.logging.is_progress_bar_enabled(),
            torch.is_grad_enabled(),
        )

    before = state()
    models.load_encoder(str(folder)).encode(["a", "b"])
    assert state() == before
    assert capfd.readouterr() == ("", "")


def write(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_pooling_is_what_the_folder_says(folder, config, mode):
    write(folder / "1_Pooling/config.json", lambda _: {"word_embedding_dimension": 32, **config})
    encoder = models.load_encoder(str(folder), dtype="fp32")
    ids = models.load_tokenizer(str(folder)).encode("some words here").ids
    with torch.inference_mode():
        hidden = encoder._model(torch.tensor([ids])).last_hidden_state[0]
    pooled = {"cls": hidden[0], "lasttoken": hidden[-1], "mean": hidden.mean(0)}[mode]
    expected = torch.nn.functional.normalize(pooled, dim=0).numpy()
    # a longer neighbour puts padding behind the text; the last token must still be its own
    assert np.allclose(encoder.encode(["some words here", "longer " * 30])[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [{"pooling_mode_max_tokens": True}, {}, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}],
)
def test_other_poolings_are_refused(folder, config):
    write(folder / "1_Pooling/config.json", lambda _: config)
    with pytest.raises(ModelError, match="asks for the pooling"):
        models.load_encoder(str(folder))


def test_a_prompt_that_would_be_left_out_is_refused(folder):
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": {"query": "query: "}, "default_prompt_name": None}))
    assert read_recipe(folder).mode == "mean"
    path.write_text(json.dumps({"prompts": {"query": "query: "}, "default_prompt_name": "query"}))
    with pytest.raises(ModelError, match="behind the prompt 'query: '"):
        read_recipe(folder)


@pytest.mark.parametrize(
    ("prompts", "before"),
    [
        ({"query": "Ask: ", "document": ""}, "Ask: "),
        ({"query": "Ask: "}, "Ask: "),
        ({"query": "Ask: ", "passage": "Say: "}, ""),  # passages are encoded as they are, and so are questions then
        ({"sts": "Same: "}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_questions_are_read_behind_their_prompt(folder, encoder, prompts, before):
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    found = models.load_encoder(str(folder), dtype="fp32")
    assert found.query_prompt == before
    assert np.array_equal(found.encode_queries(["where?", ""]), encoder.encode_each([f"{before}where?", before]))
    assert np.array_equal(found.encode(["where?"]), encoder.encode(["where?"]))


@pytest.mark.parametrize("settings", [[], {"prompts": ["query: "]}, {"prompts": {"query": 3}}])
def test_prompts_that_are_none_are_refused(folder, settings):
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="names no prompts"):
        models.load_encoder(str(folder))


def test_other_modules_are_refused(folder):
    write(folder / "modules.json", lambda m: [*m, {"path": "3_Dense", "type": "sentence_transformers.models.Dense"}])
    with pytest.raises(ModelError, match="Dense"):
        models.load_encoder(str(folder))


def test_modules_cannot_point_outside(folder):
    write(folder / "modules.json", lambda m: [{**m[0], "path": "../other"}, *m[1:]])
    with pytest.raises(ModelError, match="outside its folder"):
        models.load_encoder(str(folder))


def test_plain_folder_is_pooled_by_the_mean(folder, encoder):
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (folder / name).unlink()
    plain = models.load_encoder(str(folder), dtype="fp32")
    assert np.allclose(plain.encode(["a b"]), encoder.encode(["a b"]), atol=1e-6)
    assert plain.max_tokens == encoder.max_tokens


def test_window_is_the_least_of_what_is_said(folder):
    write(folder / "sentence_bert_config.json", lambda c: {**c, "max_seq_length": 16})
    assert models.load_encoder(str(folder)).max_tokens == 16
    write(folder / "sentence_bert_config.json", lambda c: {**c, "max_seq_length": 4096})
    assert models.load_encoder(str(folder)).max_tokens == 128


def test_fingerprint_is_the_models(encoder, tmp_path):
    assert encoder.fingerprint == models.fingerprint(encoder.name)
    assert encoder.fingerprint != models.fingerprint(str(tiny_encoder(tmp_path / "e", seed=1)))


def test_options_are_checked(tiny_encoder_path):
    with pytest.raises(ConfigError, match="dtype: must be one of"):
        models.load_encoder(tiny_encoder_path, dtype="int4")
    with pytest.raises(ConfigError, match="device: must be"):
        models.load_encoder(tiny_encoder_path, device="tpu")
    with pytest.raises(ModelError, match="is not on this machine"):
        models.load_encoder(tiny_encoder_path, device="cuda:99")
