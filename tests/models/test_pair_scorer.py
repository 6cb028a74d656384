"""Cross-encoders in the format of sentence-transformers, against plain transformers on tiny models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.errors import ConfigError, ModelError
from ragzip.models import load_pair_scorer
from ragzip.testing.pair_scorers import tiny_pair_scorer

CPU = {"dtype": "fp32", "device": "cpu"}
TEXTS = ["The river runs to the sea.", "", "A fox, and (numbers) 1 22 333.", "railway " * 9, "x"]
TITLES = ["", "Fox", "A title", "", "T"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_encoder_path):
    return tiny_pair_scorer(tmp_path_factory.mktemp("pairs") / "one", tiny_encoder_path)


def logits(folder, question, texts):
    """As sentence-transformers reads pairs: the tokenizer's own pair encoding, one pass each."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_input_names=["input_ids", "token_type_ids"]
    )
    found = []
    for text in texts:
        pair = tokenizer(question, text, return_tensors="pt")
        types = {} if "distil" in model.config.model_type else {"token_type_ids": pair["token_type_ids"]}
        with torch.no_grad():
            found.append(model(input_ids=pair["input_ids"], **types).logits[0].numpy())
    return np.array(found)


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
@pytest.mark.parametrize(("labels", "activation"), [(1, ""), (1, "Sigmoid"), (1, "Identity"), (2, ""), (2, "Identity")])
def test_scores_are_those_of_transformers(tmp_path, tiny_encoder_path, kind, labels, activation):
    folder = tiny_pair_scorer(tmp_path / "m", tiny_encoder_path, kind=kind, labels=labels, activation=activation)
    scorer = load_pair_scorer(str(folder), **CPU)
    assert (scorer.labels, scorer.sigmoid) == (labels, activation != "Identity")
    whole = [f"{title}\n{text}" if title else text for text, title in zip(TEXTS, TITLES, strict=True)]
    plain = logits(folder, "Which city?", whole)
    expected = plain[:, 0] if labels == 1 else plain[:, 1] - plain[:, 0]
    if activation != "Identity":
        expected = 1 / (1 + np.exp(-expected))
    got = scorer.score("Which city?", TEXTS, TITLES)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert np.ptp(got) > 1e-3  # the model tells them apart


def test_where_activations_are_written(tmp_path, tiny_encoder_path):
    folder = tiny_pair_scorer(tmp_path / "m", tiny_encoder_path)
    config = json.loads((folder / "config.json").read_text())

    def sigmoid(**more):
        (folder / "config.json").write_text(json.dumps({**config, **more}))
        return load_pair_scorer(str(folder), **CPU).sigmoid

    assert sigmoid()
    assert not sigmoid(sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    assert not sigmoid(sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
    assert sigmoid(sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "4.1.0"})
    with pytest.raises(ModelError, match="Tanh"):
        sigmoid(sbert_ce_default_activation_function="torch.nn.modules.activation.Tanh")


def test_large_logits(folder, monkeypatch):
    scorer = load_pair_scorer(str(folder), **CPU)
    monkeypatch.setattr(type(scorer), "_run", lambda self, rows: np.array([200.0, -200.0][: len(rows)], np.float32))
    with np.errstate(all="raise", under="ignore"):
        assert scorer.score("q", ["a", "b"]).tolist() == [1.0, pytest.approx(0.0, abs=1e-30)]


def test_scores_that_are_no_number_are_refused(folder, monkeypatch):
    scorer = load_pair_scorer(str(folder), **CPU)
    monkeypatch.setattr(type(scorer), "_run", lambda self, rows: np.array([np.nan, 1.0][: len(rows)], np.float32))
    with pytest.raises(ModelError, match="no number"):
        scorer.score("q", ["a", "b"])


@settings(max_examples=25)
@given(st.text(max_size=30), st.lists(st.text(max_size=600), max_size=5), st.data())
def test_a_score_does_not_depend_on_company(folder, question, texts, data):
    scorer = load_pair_scorer(str(folder), **CPU)
    titles = data.draw(st.lists(st.text(max_size=80), min_size=len(texts), max_size=len(texts)))
    got = scorer.score(question, texts, titles)
    assert got.shape == (len(texts),)
    assert np.isfinite(got).all()
    for text, title, score in zip(texts, titles, got, strict=True):
        assert scorer.score(question, [text], [title])[0] == pytest.approx(score, abs=1e-5)


def test_long_passages_are_read_to_the_end_with_their_title(folder, monkeypatch):
    scorer = load_pair_scorer(str(folder), **CPU)
    read, run = [], type(scorer)._run
    monkeypatch.setattr(type(scorer), "_run", lambda self, rows: read.append(rows) or run(self, rows))
    sentence = "The river runs to the sea, and the fox jumps over {}. "
    text = "".join(sentence.format(n) for n in range(60))
    (score,) = scorer.score("Which fox?", [text], ["Rivers"])
    rows = [row for batch in read for row in batch]
    assert len(rows) > 5
    assert max(len(ids) for _, ids, _ in rows) <= scorer.max_tokens
    decode = scorer._text.tokenizer.decode
    parts = [decode(ids[start:]) for _, ids, start in sorted(rows, key=lambda row: text.find(decode(row[1][-12:])))]
    for n in range(60):
        assert any(sentence.format(n).strip() in part for part in parts), n
    assert all("Rivers" in part for part in parts)
    each = [run(scorer, [row])[0] for row in rows]
    assert score == pytest.approx(1 / (1 + np.exp(-max(each))), abs=1e-5)


def test_long_questions_are_read_in_parts(folder):
    scorer = load_pair_scorer(str(folder), **CPU)
    words = "Which city is the capital of the country, and when was the first railway opened there? " * 9
    assert scorer.score(words, ["The river runs."])[0] > 0
    assert len(scorer._parts(words)) > 1
    assert [token for part in scorer._parts(words) for token in part] == scorer._text.encode([words])[0]


def test_batches_hold_pairs_of_like_length(folder, monkeypatch):
    scorer = load_pair_scorer(str(folder), **CPU)
    sizes, run = [], type(scorer)._run
    monkeypatch.setattr(
        type(scorer), "_run", lambda self, rows: sizes.append([len(i) for _, i, _ in rows]) or run(self, rows)
    )
    scorer.score("q", ["word " * n for n in (1, 30, 2, 28, 1, 29)])
    assert len(sizes) > 1
    assert all(min(batch) >= max(batch) * 3 // 4 for batch in sizes)
    assert scorer.score("q", []).tolist() == []


def test_text_that_names_a_control_token_is_text(folder, monkeypatch):
    scorer = load_pair_scorer(str(folder), **CPU)
    rows = []
    monkeypatch.setattr(
        type(scorer), "_run", lambda self, found: rows.extend(found) or np.zeros(len(found), np.float32)
    )
    scorer.score("[SEP] me", ["a [SEP] b [CLS]"])
    assert rows[0][1].count(2) == 2


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"architectures": ["BertModel"]}, "BertModel, not a sequence classifier"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
        ({"max_position_embeddings": 8}, "8 tokens at once"),
    ],
)
def test_models_that_are_none(tmp_path, tiny_encoder_path, values, says):
    folder = tiny_pair_scorer(tmp_path / "m", tiny_encoder_path)
    change(folder, **values)
    with pytest.raises(ModelError, match=says):
        load_pair_scorer(str(folder), **CPU)


def test_files_that_are_damaged_or_missing(tmp_path, tiny_encoder_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(ModelError, match="BertModel"):
        load_pair_scorer(tiny_encoder_path, **CPU)
    with pytest.raises(ConfigError, match="dtype"):
        load_pair_scorer(tiny_encoder_path, dtype="int4")
    folder = tiny_pair_scorer(tmp_path / "m", tiny_encoder_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 parameters.*classifier\.weight"):
        load_pair_scorer(str(folder), **CPU)
    settings_file = folder / "config_sentence_transformers.json"
    settings_file.write_text(json.dumps({"prompts": {"q": "query: "}, "default_prompt_name": "q"}))
    with pytest.raises(ModelError, match="prompt"):
        load_pair_scorer(str(folder), **CPU)
    settings_file.write_text("[]")
    with pytest.raises(ModelError, match="no JSON object"):
        load_pair_scorer(str(folder), **CPU)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    settings_file.unlink()
    with pytest.raises(ModelError, match="pickled"):
        load_pair_scorer(str(folder), **CPU)
