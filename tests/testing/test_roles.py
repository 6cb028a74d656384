"""The contracts of retrievers and generators, over sound components and over ones that break them."""

import json
import random
from dataclasses import dataclass, replace

import pytest

from ragzip.generators.echo import Echo
from ragzip.retrievers import BM25, Dense, Fusion, Oracle
from ragzip.testing import GeneratorContract, RetrieverContract
from ragzip.types import Passage
from tests.indexes.tools import WordEncoder, documents, make

# Sound ones.


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contracts") / "kb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ragzip.models.load_encoder", lambda name, **_: WordEncoder())
        make(folder, documents(8))
    return str(folder)


class OverAnIndex(RetrieverContract):
    @pytest.fixture(autouse=True)
    def index(self, kb, monkeypatch):
        monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **_: WordEncoder())
        self.kb = kb


class TestDense(OverAnIndex):
    def make(self):
        return Dense(self.kb)


class TestBM25(OverAnIndex):
    def make(self):
        return BM25(self.kb)


class TestFusion(OverAnIndex):
    def make(self):
        return Fusion((Dense(self.kb), BM25(self.kb)))


class TestOracle(RetrieverContract):
    @pytest.fixture(autouse=True)
    def labels(self, tmp_path):
        file = tmp_path / "labels.jsonl"
        passages = [{"id": f"p{i}", "text": f"Text {i}."} for i in range(3)]
        rows = [{"question": f"Question {q.id}", "id": q.id, "passages": passages} for q in self.queries()]
        file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        self.path = str(file)

    def make(self):
        return Oracle(self.path)


class TestEcho(GeneratorContract):
    def make(self):
        return Echo()


# Ones that break a law each.

CORPUS = tuple(Passage(f"p{i}", text) for i, text in enumerate(("Who was in Rome", "a word", "another word")))


@dataclass(frozen=True)
class Overlap:
    """Scores by shared words: sound, unless told to break something."""

    broken: str = ""
    top_k: int = 2

    def retrieve(self, queries, *, top_k=None):
        found = [self.one(query, top_k or self.top_k) for query in queries]
        if self.broken == "loses a list":
            return found[:-1]
        if self.broken == "depends on its batch" and len(queries) > 1:
            return [[replace(p, score=p.score * 2) for p in ps] for ps in found]
        if self.broken == "depends on order":
            return sorted(found, key=lambda ps: -sum(p.score for p in ps))
        return found

    def one(self, query, k):
        asked = set(query.text.lower().split())
        scored = [replace(p, score=float(len(asked & set(p.text.lower().split())))) for p in CORPUS]
        scored.sort(key=lambda p: -p.score)
        if self.broken == "worst first":
            scored.reverse()
        if self.broken == "no scores":
            scored = [replace(p, score=None) for p in scored]
        if self.broken == "repeats":
            scored = [scored[0], *scored]
        if self.broken == "chance":
            scored = [replace(scored[0], score=9 + random.random()), *scored[1:]]
        if self.broken == "own default" and k == 2:
            k = 3
        if self.broken == "too many":
            k += 1
        return scored[:k]


class Unpicklable(Overlap):
    def __reduce__(self):
        raise TypeError("cannot")


def contract(base, made):
    return type("Contract", (base,), {"make": lambda self: made})()


def laws(base):
    return [name for name in vars(base) if name.startswith("test_")]


@pytest.mark.parametrize("law", laws(RetrieverContract))
def test_a_sound_retriever_passes(law):
    getattr(contract(RetrieverContract, Overlap()), law)()


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        ("loses a list", "test_gives_one_list_a_query_best_first_and_no_longer_than_asked"),
        ("worst first", "test_gives_one_list_a_query_best_first_and_no_longer_than_asked"),
        ("no scores", "test_gives_one_list_a_query_best_first_and_no_longer_than_asked"),
        ("repeats", "test_gives_one_list_a_query_best_first_and_no_longer_than_asked"),
        ("too many", "test_gives_one_list_a_query_best_first_and_no_longer_than_asked"),
        ("depends on its batch", "test_a_batch_gives_what_its_queries_give_alone"),
        ("depends on order", "test_a_batch_gives_what_its_queries_give_alone"),
        ("chance", "test_is_deterministic"),
    ],
)
def test_a_broken_retriever_is_caught(broken, law):
    with pytest.raises((AssertionError, ValueError)):
        getattr(contract(RetrieverContract, Overlap(broken)), law)()


def test_an_own_top_k_that_is_not_used_is_caught():
    class Ignores(Overlap):
        def retrieve(self, queries, *, top_k=None):
            return super().retrieve(queries, top_k=top_k or 3)

    with pytest.raises(AssertionError, match="other passages"):
        contract(RetrieverContract, Ignores()).test_own_top_k_is_the_default()


def test_an_unpicklable_component_is_caught():
    with pytest.raises(TypeError, match="cannot"):
        contract(RetrieverContract, Unpicklable()).test_pickles_and_has_a_config()


@dataclass(frozen=True)
class BrokenEcho(Echo):
    broken: str = ""

    def generate(self, prompts, *, on_text=None):
        if self.broken == "streams something else":
            return super().generate(prompts, on_text=on_text and (lambda i, piece: on_text(i, piece.upper())))
        found = super().generate(prompts, on_text=on_text)
        if self.broken == "depends on its batch":
            return [replace(g, text=f"{g.text} {len(prompts)}") for g in found]
        if self.broken == "loses an answer":
            return found[1:]
        if self.broken == "no account":
            return [replace(g, prompt_tokens=0) for g in found]
        if self.broken == "untidy":
            return [replace(g, text=g.text + "\n") for g in found]
        if self.broken == "first after last":
            return [replace(g, first_token_seconds=g.seconds + 1) for g in found]
        return found

    def count_tokens(self, texts):
        extra = self.broken == "counts its batch" and len(texts) > 1
        return [n + extra for n in super().count_tokens(texts)]


@pytest.mark.parametrize("law", laws(GeneratorContract))
def test_a_sound_generator_passes(law):
    getattr(contract(GeneratorContract, BrokenEcho()), law)()


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        ("loses an answer", "test_gives_one_answer_a_prompt_with_its_account"),
        ("no account", "test_gives_one_answer_a_prompt_with_its_account"),
        ("untidy", "test_gives_one_answer_a_prompt_with_its_account"),
        ("first after last", "test_gives_one_answer_a_prompt_with_its_account"),
        ("depends on its batch", "test_an_answer_does_not_depend_on_its_batch"),
        ("streams something else", "test_streams_what_it_answers"),
        ("counts its batch", "test_counts_tokens"),
    ],
)
def test_a_broken_generator_is_caught(broken, law):
    with pytest.raises(AssertionError):
        getattr(contract(GeneratorContract, BrokenEcho(broken=broken)), law)()
