"""What a run remembers of the models, indexes and files behind its names."""

from __future__ import annotations

import pytest

from ragzip import BM25Sentences, Pipeline
from ragzip.evaluation.identity import identities, window_of
from ragzip.evaluation.rows import plan
from ragzip.generators.echo import Echo
from ragzip.generators.openai import OpenAI
from ragzip.retrievers.oracle import Oracle


def rows(*parts, generator=None, retriever=None):
    made = Pipeline(generator or Echo(), retriever, compressors=parts or (BM25Sentences(budget=9),))
    return plan([("mine", made)], baselines="reference")


def test_a_servers_model_is_not_looked_for_on_the_hub(monkeypatch, tiny_lm_path):
    """vLLM serves models under their names on the hub: nothing may be downloaded for that."""
    monkeypatch.setattr("ragzip.models.hub.download", lambda *args, **more: pytest.fail("asked the hub"))
    served = OpenAI(model="Qwen/Qwen2.5-72B-Instruct", base_url="http://localhost:8000/v1", tokenizer=tiny_lm_path)
    found = identities(rows(generator=served))
    assert list(found) == [f"model {tiny_lm_path}"]  # the tokenizer is here, and read
    assert window_of(rows(generator=served)) is None


def test_a_file_that_changes_is_another_one(tmp_path):
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"id": "a", "question": "Why?", "answers": ["b"]}\n')
    before = identities(rows(retriever=Oracle(str(labels))))
    assert list(before) == [f"file {labels}"]
    labels.write_text('{"id": "a", "question": "Why?", "answers": ["c"]}\n')
    assert identities(rows(retriever=Oracle(str(labels)))) != before
    labels.unlink()
    assert identities(rows(retriever=Oracle(str(labels)))) == {}
