"""What parts of an index are made from: models and folders that are here and fit, and passages enough to learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragzip.errors import ModelError, StoreError, StoreMismatch
from ragzip.indexes import Index, verify
from ragzip.indexes.multi_vector import part as module
from ragzip.indexes.multi_vector.reader import MultiVectors
from ragzip.models import load_encoder
from ragzip.retrievers import MultiVector
from ragzip.testing.models import tiny_encoder
from ragzip.types import Query
from tests.indexes import test_jpq
from tests.indexes.tools import WordEncoder, documents, make

SMALL = {"repetitions": 4, "planes": 3, "projection": 8, "width": 0, "residual_bits": 8, "centroids": 8}
QUESTION = "amber bridge copper"

pytestmark = pytest.mark.filterwarnings("ignore:.*encodings of multi_vector find only")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("late") / "encoder"))


@pytest.fixture
def words(monkeypatch):
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **_: WordEncoder())


def build(kb, items, model, **settings):
    return make(kb, items, retriever="multi_vector", settings={"model": model, **SMALL, **settings})


def found(kb):
    assert verify(kb) == []
    return MultiVector(str(kb)).retrieve([Query(QUESTION)])[0]


def test_a_model_named_by_a_relative_folder_is_found_from_anywhere(tmp_path, model, monkeypatch, words):
    kb, elsewhere = tmp_path / "kb", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(Path(model).parent)
    build(kb, documents(5), Path(model).name)
    monkeypatch.chdir(elsewhere)
    assert found(kb)
    make(kb, documents(7))
    assert found(kb)
    build(kb, documents(8), model)  # the same, by another name
    assert found(kb)


def test_a_missing_model_is_noticed_before_anything_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(WordEncoder, "encode", lambda *_, **__: pytest.fail("encoded"))
    kb = tmp_path / "kb"
    with pytest.raises(ModelError, match="does not exist"):
        build(kb, documents(5), str(tmp_path / "none"))
    with pytest.raises(StoreError):
        Index.open(kb)


def test_a_folder_that_does_not_fit_is_noticed_before_anything_is_encoded(tmp_path, tiny_encoder_path, monkeypatch):
    other = str(tiny_encoder(tmp_path / "other", seed=5))
    for asked, error, said in (
        (str(tmp_path / "none"), ModelError, "does not exist"),
        (test_jpq.trained(tmp_path / "strange", other), StoreMismatch, "made with"),
    ):
        kb = tmp_path / "kb"
        encoder = load_encoder(tiny_encoder_path)
        monkeypatch.setattr(type(encoder), "encode", lambda *_, **__: pytest.fail("encoded"))
        with pytest.raises(error, match=said):
            make(kb, documents(5), encoder=encoder, retriever="jpq", settings={"model": asked})
        with pytest.raises(StoreError):
            Index.open(kb)


def test_more_centroids_are_learned_from_more_passages(tmp_path, model, monkeypatch):
    monkeypatch.setattr(module, "STEP", 8)
    monkeypatch.setattr(module, "_SAMPLE", 4)
    seen = {}
    for wanted in (2, 16):
        kb = tmp_path / str(wanted)
        build(kb, documents(60), model, centroids=wanted)
        with Index.open(kb) as index:
            settings = index.part("multi_vector").settings
            assert len(index.opened("multi_vector", MultiVectors)._tokens.codec.centroids) == wanted
            seen[wanted] = settings["learned_from"]
    assert 4 <= seen[2] < seen[16] <= 60
