"""Encoders that want a prompt before questions: whoever compares with a question puts it there, and nobody twice."""

from __future__ import annotations

import json
import shutil

import pytest

from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.indexes import build
from ragzip.ingest import Document
from ragzip.retrievers import Dense, Graph
from ragzip.retrievers.lexsem import LexSem
from ragzip.types import Passage, Query, context_of

PROMPT = "capital "
TEXTS = ["The river runs to the sea.", "A quick fox jumps.", "The capital of the country.", "Numbers 1, 22 and 333."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_encoder_path):
    """Two encoders that differ by the prompt of questions alone, and an index of each."""
    root = tmp_path_factory.mktemp("prompts")
    wants = root / "wants"
    shutil.copytree(tiny_encoder_path, wants)
    (wants / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": PROMPT}}))
    made = [Document(f"{i}.md", f"{TEXTS[i % 4]} Number {i}.", f"T{i}") for i in range(24)]
    for name, model in (("plain", tiny_encoder_path), ("wants", str(wants))):
        build(made, root / f"{name} kb", sync=True, model=model, tokens=80, overlap=0, retriever="graph")
    return (tiny_encoder_path, str(root / "plain kb")), (str(wants), str(root / "wants kb"))


@pytest.mark.parametrize(
    "make", [Dense, lambda kb: Graph(kb, words=0.0, entities=0.0), lambda kb: LexSem(kb, strength=0)]
)
def test_retrieval_puts_it_before_questions(folders, make):
    (_, plain), (_, wants) = folders

    def found(kb, question):
        (passages,) = make(kb).retrieve([Query(question)])
        return [(passage.text, passage.score) for passage in passages]

    assert found(wants, "fox") == found(plain, f"{PROMPT}fox")
    assert found(wants, "fox") != found(plain, "fox")


def test_compressors_put_it_before_questions(folders):
    (plain, _), (wants, _) = folders
    passages = tuple(Passage(str(i), text) for i, text in enumerate(TEXTS))

    def kept(model, question, threshold):
        method = SentenceFilter(model=model, threshold=threshold, dtype="fp32")
        (after,) = method.compress([context_of(Query(question), passages)])
        return [segment.text for segment in after.segments]

    thresholds = [number / 50 for number in range(50)]
    asked = [kept(wants, "fox", at) for at in thresholds]
    assert asked == [kept(plain, f"{PROMPT}fox", at) for at in thresholds]
    assert asked != [kept(plain, "fox", at) for at in thresholds]
