"""The dual encoder and the sentences it chooses, on random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ragzip.compressors.recomp_extractive import RecompExtractive
from ragzip.errors import ConfigError, ModelError
from ragzip.models.dual_encoder import DualEncoder, load_dual_encoder
from ragzip.models.token_windows import split
from ragzip.models.tuned import save_tuned
from ragzip.protocols import WordCounter
from ragzip.testing.models import tiny_causal_lm, tiny_encoder
from ragzip.types import Passage, Query, context_of

TEXTS = ["The capital of the country.", "", "[SEP] and [CLS] are words here.", "quick brown fox", "\ud800 🦊 ❤️ 字"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the paper's authors publish them: transformers, nothing else."""
    folder = tiny_encoder(tmp_path_factory.mktemp("published"), window=48)
    shutil.rmtree(folder / "1_Pooling", ignore_errors=True)
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink(missing_ok=True)
    return folder


def plainly(folder: Path, text: str) -> np.ndarray:
    """What the paper's code computes: one text, mean of the last hidden states of all tokens."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    ids = tokenizer.encode(text, add_special_tokens=True).ids
    model = BertModel.from_pretrained(str(folder)).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()


def test_vectors_are_unscaled_means_of_all_tokens(published: Path) -> None:
    encoder = load_dual_encoder(str(published), dtype="fp32")
    found = encoder.encode([TEXTS[0], TEXTS[3]])
    assert (encoder.title, encoder.normalize) == (False, False)
    np.testing.assert_allclose(found, [plainly(published, TEXTS[0]), plainly(published, TEXTS[3])], atol=1e-5)
    assert not np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=0.05)


def test_scores_are_inner_products_in_order_of_the_sentences(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    made = RecompExtractive(model=str(published), dtype="fp32", keep=0.5).bind(WordCounter())
    text = "The quick brown fox. The river runs to the sea. Which city is the capital? Numbers are tokens."
    context = context_of(Query("Which city?"), (Passage("p", text, "A title"),))
    (segment,) = made.compress([context])[0].segments
    asked = plainly(published, "Which city?")
    sentences = [s if s.endswith(("?", ".")) else s + "." for s in text.replace("? ", "?. ").split(". ")]
    scores = {sentence: float(plainly(published, sentence) @ asked) for sentence in sentences}
    kept = [sentence for sentence in sentences if sentence in segment.text]
    assert 0 < len(kept) < len(sentences)
    assert segment.text == " ".join(kept)
    assert max(scores, key=lambda sentence: scores[sentence]) in kept


@settings(max_examples=20)
@given(words=st.lists(st.sampled_from(["fox", "river", "city", "22", "[SEP]", "字"]), min_size=1, max_size=300))
def test_the_vector_of_a_long_text_is_the_mean_over_its_windows(published: Path, words: list[str]) -> None:
    encoder = load_dual_encoder(str(published), dtype="fp32")
    text = " ".join(words)
    (vector,) = encoder.encode([text])
    room = encoder.max_tokens - 2
    (ids,) = encoder._text.encode([text])
    parts = split((0, len(ids)), room, [])
    assert [i for a, b in parts for i in ids[a:b]] == ids and max(b - a for a, b in parts) <= room
    rows = [[1, *ids[a:b], 2] for a, b in parts]
    tokens = sum(map(len, rows))
    np.testing.assert_allclose(vector, sum(encoder._sums([row])[0] for row in rows) / tokens, atol=1e-5)
    longer = encoder.encode([text, "fox"])[0]
    np.testing.assert_allclose(longer, vector, atol=1e-4)
    changed = encoder.encode([text + " river river river"])[0]
    assert not np.allclose(changed, vector, atol=1e-6), "the end of the text was not read"


def test_odd_texts_have_finite_vectors(published: Path) -> None:
    found = load_dual_encoder(str(published)).encode([*TEXTS, "fox " * 30_000])
    assert found.shape == (len(TEXTS) + 1, 32)
    assert np.isfinite(found).all()


def own(folder: Path, base: Path, **extra: object) -> Path:
    from transformers import BertModel

    weights = BertModel.from_pretrained(str(base)).state_dict()
    key = next(key for key in weights if "layer.1" in key and key.endswith("dense.weight"))
    settings = {"architecture": "dual_encoder", "base": str(base), "max_tokens": 40, **extra}
    save_tuned(folder, tensors={f"backbone.{key}": -weights[key]}, **settings)  # type: ignore[arg-type]
    return folder


def test_own_weights_say_whether_titles_and_lengths_count(tmp_path: Path, published: Path) -> None:
    folder = own(tmp_path / "own", published, title=True, normalize=True)
    encoder = load_dual_encoder(str(folder), dtype="fp32")
    assert (encoder.title, encoder.normalize, encoder.max_tokens) == (True, True, 40)
    vectors = encoder.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    base = load_dual_encoder(str(published), dtype="fp32").encode(TEXTS)
    assert not np.allclose(vectors, base / np.linalg.norm(base, axis=1, keepdims=True), atol=1e-3)


def test_titles_are_read_where_the_weights_know_them(dual, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    encode = dual.encode
    monkeypatch.setattr(dual, "encode", lambda texts: seen.extend(texts) or encode(texts), raising=False)
    context = context_of(Query("who"), (Passage("p", "He ran. She sat.", "Rome"),))
    for title in (True, False):
        monkeypatch.setattr(dual, "title", title, raising=False)
        RecompExtractive().bind(WordCounter()).compress([context])
    assert seen == ["Rome: He ran.", "Rome: She sat.", "who", "He ran.", "She sat.", "who"]


def test_what_is_no_dual_encoder_is_refused(tmp_path: Path, published: Path) -> None:
    other = own(tmp_path / "other", published, architecture="provence")
    with pytest.raises(ModelError, match="trained to be a provence"):
        load_dual_encoder(str(other))
    language_model = tiny_causal_lm(tmp_path / "lm")
    with pytest.raises(ModelError, match="not an encoder"):
        load_dual_encoder(str(language_model))
    judge = shutil.copytree(published, tmp_path / "judge")
    values = json.loads((judge / "config.json").read_text("utf-8"))
    for kind in ("BertForSequenceClassification", "BertForQuestionAnswering"):
        (judge / "config.json").write_text(json.dumps({**values, "architectures": [kind]}))
        with pytest.raises(ModelError, match=f"is a {kind}, not an encoder"):
            load_dual_encoder(str(judge))
    lacking = shutil.copytree(published, tmp_path / "lacking")
    config = json.loads((lacking / "config.json").read_text("utf-8"))
    (lacking / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}), "utf-8")
    with pytest.raises(ModelError, match=r"layer\.2"):
        load_dual_encoder(str(lacking))
    pooled = tiny_encoder(tmp_path / "cls")
    path = pooled / "1_Pooling" / "config.json"
    path.write_text(json.dumps({"pooling_mode_cls_token": True}), "utf-8")
    with pytest.raises(ModelError, match="pools by 'cls'"):
        load_dual_encoder(str(pooled))


@pytest.mark.parametrize("options", [{"model": ""}, {"dtype": "fp8"}, {"device": "tpu"}, {"keep": 0}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        RecompExtractive(**options)  # type: ignore[arg-type]


class TestLoading:
    real_dual = True

    def test_loading_waits_for_the_first_use(self, published: Path) -> None:
        made = RecompExtractive(model=str(published))
        assert isinstance(made.load(), DualEncoder)
        assert made.load() is made.load()


def test_products_below_nothing_are_ranked_too(dual, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of published weights can all be."""
    products = {"Bread is flour.": -4.0, "Rome has hills.": -0.5, "...": 0.0, "Tea is hot.": -6.0}

    def encode(texts: list[str]) -> np.ndarray:
        return np.array([[products.get(text, 1.0)] for text in texts], dtype=np.float32)

    monkeypatch.setattr(dual, "encode", encode, raising=False)
    monkeypatch.setattr(dual, "title", False, raising=False)
    text = "Bread is flour. Tea is hot. Rome has hills."
    (after,) = (
        RecompExtractive(budget=4).bind(WordCounter()).compress([context_of(Query("who"), (Passage("p", text),))])
    )
    assert [segment.text for segment in after.segments] == ["Rome has hills."]
    context = context_of(Query("who"), (Passage("p", text),))
    assert RecompExtractive(threshold=0.0).bind(WordCounter()).compress([context])[0].segments == context.segments


def test_a_base_that_is_not_that_of_training_is_refused(tmp_path: Path, published: Path) -> None:
    base = Path(shutil.copytree(published, tmp_path / "base"))
    folder = own(tmp_path / "own", base)
    before = load_dual_encoder(str(folder), dtype="fp32").encode(["Rome has hills."])
    other = next(path for path in tmp_path.glob("base/*.safetensors"))
    weights = load_file(other)
    save_file({key: value * 2 for key, value in weights.items()}, other, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="was trained from"):
        load_dual_encoder(str(folder), dtype="fp32")
    save_file(weights, other, metadata={"format": "pt"})
    after = load_dual_encoder(str(folder), dtype="fp32").encode(["Rome has hills."])
    np.testing.assert_allclose(before, after)
