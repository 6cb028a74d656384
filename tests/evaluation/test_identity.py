"""What a run remembers of the models, indexes and files behind its names."""

from __future__ import annotations

import json
import shutil

import pytest

from ragzip import BM25Sentences, Pipeline
from ragzip.compressors._stored import fill
from ragzip.compressors.comp_llm import CompLLM
from ragzip.compressors.gate import Gate
from ragzip.compressors.refrag import REFRAG
from ragzip.compressors.structured import Structured
from ragzip.evaluation.identity import identities, window_of
from ragzip.evaluation.rows import plan
from ragzip.generators.echo import Echo
from ragzip.generators.huggingface import HuggingFace
from ragzip.generators.openai import OpenAI
from ragzip.models import EMBEDDER, GENERATOR
from ragzip.models.shipped import PROVENCE
from ragzip.retrievers.oracle import Oracle
from ragzip.types import Passage
from tests.matrix import soft_model


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


def test_a_store_that_grows_is_another_one(tmp_path):
    method = CompLLM(model=soft_model("comp_llm"), store=str(tmp_path), dtype="fp32", device="cpu")
    fill(method, [Passage("a", "Alba is a town.")], tmp_path)
    before = identities(rows(method))
    assert before[f"store of comp_llm {tmp_path}"]
    fill(method, [Passage("b", "Borgo is a hill.")], tmp_path)
    after = identities(rows(method))
    assert {key for key in after if after[key] != before[key]} == {f"store of comp_llm {tmp_path}"}


def test_models_that_no_option_names_have_an_identity_too():
    def found(*parts):
        return {key for key in identities(rows(*parts)) if key.startswith("model ")}

    assert found(Gate()) >= {f"model {EMBEDDER}"}
    assert found(Gate(by="perplexity")) >= {f"model {GENERATOR}"}
    refrag = {policy: REFRAG(model=soft_model("refrag"), policy=policy) for policy in ("provence", "similarity")}
    assert found(refrag["provence"]) - found(refrag["similarity"]) == {f"model {PROVENCE}"}
    assert found(Structured(inner=refrag["provence"] >> Gate())) >= {f"model {PROVENCE}", f"model {EMBEDDER}"}


def test_how_a_model_is_asked_is_part_of_what_it_is(tiny_lm_path, tmp_path):
    folder = tmp_path / "lm"
    shutil.copytree(tiny_lm_path, folder)

    def found():
        return identities(rows(generator=HuggingFace(str(folder))))[f"asked {folder}"]

    first = found()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "noise": 1}))
    assert found() == first
    other = {**settings, "chat_template": "Otherwise: {{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(other))
    second = found()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    assert len({first, second, found()}) == 3
    (folder / "generation_config.json").write_text("{")
    broken = found()
    (folder / "generation_config.json").unlink()
    assert found() == broken
