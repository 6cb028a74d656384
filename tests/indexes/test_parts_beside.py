"""Parts beside the rest of an index: vectors that are stored otherwise, and passages most of which are gone."""

from __future__ import annotations

import warnings

import pytest

from ragzip.indexes import Index
from ragzip.retrievers import JPQ, MultiVector
from ragzip.types import Query
from tests.indexes import test_jpq as jpq
from tests.indexes import test_multi_vector as tokens
from tests.indexes.tools import WordEncoder, document, documents


def test_when_nearly_all_is_replaced_what_is_left_is_found(tmp_path, tiny_encoder_path):
    kb, model = tmp_path / "kb", jpq.trained(tmp_path / "model", tiny_encoder_path)
    jpq.build(kb, documents(40), model, tiny_encoder_path)

    def items():
        yield from (document(number, version=1) for number in range(38))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jpq.build(kb, items(), model, tiny_encoder_path, sync=False, commit_passages=8)
    left = {p.id for p in Index.open(kb) if p.metadata["number"] >= 38}
    for question in jpq.QUESTIONS:
        (found,) = JPQ(str(kb), top_k=len(left)).retrieve([Query(question)])
        assert left <= {p.id for p in JPQ(str(kb), top_k=10_000).retrieve([Query(question)])[0]}
        assert len(found) == len(left)


@pytest.mark.parametrize("storage", ["float16", "float8", "pca8,float8"])
def test_the_share_of_dense_is_of_the_vectors_as_they_are_stored(tmp_path, tiny_encoder_path, monkeypatch, storage):
    monkeypatch.setattr("ragzip.indexes.storage.LEAST_ROWS", 20)
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **_: WordEncoder())
    kb, model = tmp_path / "kb", str(tiny_encoder_path)
    with warnings.catch_warnings():  # a random model has no clusters: the check of the encodings may warn
        warnings.filterwarnings("ignore", message=".*encodings of multi_vector find only")
        tokens.build(kb, documents(20), model, storage=storage)
    for text in tokens.QUESTIONS:
        (found,) = MultiVector(str(kb), top_k=10_000, candidates=0).retrieve([Query(text)])
        off = 0.2 if "pca" in storage else 0.03
        expected = tokens.brute(kb, model, text, 0.3)
        assert {p.id: pytest.approx(p.score, abs=off) for p in found} == expected
