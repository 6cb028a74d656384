"""Token vectors of an index: the same passages found as by brute force, whatever the index went through."""

from __future__ import annotations

import itertools
import random
import warnings

import numpy as np
import pytest

from ragzip.errors import ConfigError, ModelError, StoreError, StoreMismatch
from ragzip.indexes import Index, info, parts, remove, repair, verify
from ragzip.indexes.multi_vector import part as module
from ragzip.indexes.multi_vector import reader as searching
from ragzip.indexes.multi_vector.reader import MultiVectors
from ragzip.indexes.text import searched_text
from ragzip.models.late_interaction import load_late_interaction
from ragzip.retrievers import Dense, MultiVector, for_index
from ragzip.testing import RetrieverContract
from ragzip.testing.models import tiny_encoder
from ragzip.types import Query
from tests.indexes.tools import WordEncoder, document, documents, make, stop

QUESTIONS = ["amber bridge copper", "title 7", "ocean north 3", "kettle lantern 7 99"]
SMALL = {"repetitions": 4, "planes": 3, "projection": 8, "width": 0, "residual_bits": 8, "centroids": 8}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("late") / "encoder"))


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(module, "STEP", 4)
    monkeypatch.setattr(module, "_MOST_SMALL", 3)


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    words = WordEncoder()
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **_: words)
    return words


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():  # a random model has no clusters: the check of the encodings may warn
        warnings.filterwarnings("ignore", message=".*encodings of multi_vector find only")
        yield


def build(kb, items, model, **options):
    settings = {"model": model, **SMALL, **options.pop("settings", {})}
    return make(kb, items, retriever="multi_vector", settings=settings, **options)


def brute(kb, model, question, share=0.0):
    """Passages and their scores by MaxSim over the model's own vectors, with a share of the cosine of whole ones."""
    loaded = load_late_interaction(model)
    (query,), (whole,) = loaded.encode_queries([question]), WordEncoder().encode([question])
    with Index.open(kb) as index:
        passages = list(index)
    texts = [searched_text(p) for p in passages]
    cosines = WordEncoder().encode(texts) @ whole
    found = {}
    for passage, one, cosine in zip(passages, loaded.encode_documents(texts), cosines, strict=True):
        mean = float((query @ one.vectors.T).max(1).mean())
        found[passage.id] = (1 - share) * mean + share * float(cosine)
    return found


def is_right(kb, model):
    """All passages, with scores that are about those of brute force; candidates give the same."""
    assert verify(kb) == []
    assert info(kb).searchable
    for share, question in itertools.product((0.0, 0.3), QUESTIONS):
        expected = brute(kb, model, question, share)
        (exact,) = MultiVector(str(kb), top_k=10_000, candidates=0, dense=share).retrieve([Query(question)])
        assert {p.id for p in exact} == set(expected)
        for passage in exact:
            assert passage.score == pytest.approx(expected[passage.id], abs=0.02)
        (some,) = MultiVector(str(kb), top_k=3, candidates=10_000, dense=share).retrieve([Query(question)])
        assert [p.id for p in some] == [p.id for p in exact[:3]]


def test_it_finds_what_brute_force_finds_through_a_random_history(tmp_path, model, small_steps):
    rng = random.Random(2)
    kb = tmp_path / "kb"
    build(kb, documents(5), model)
    is_right(kb, model)
    for _ in range(5):
        held = rng.sample(range(12), rng.randint(2, 9))
        make(kb, [document(number, version=rng.randrange(2)) for number in held], sync=rng.random() < 0.6)
        is_right(kb, model)
    remove(kb, ["docs/*"] if info(kb).documents < 2 else [Index.open(kb).documents()[0].source])
    if info(kb).documents:
        is_right(kb, model)


def test_many_small_batches_are_joined_and_old_files_go(tmp_path, model, small_steps, monkeypatch):
    monkeypatch.setattr(module, "STEP", 100)
    kb = tmp_path / "kb"
    for count in range(5, 13):
        build(kb, documents(count), model)
    with Index.open(kb) as index:
        entry = index.part("multi_vector")
        assert len(entry.settings["batches"]) <= 3
        listed = {file.name for file in (*entry.files, *entry.whole)}
    there = {path.relative_to(kb).as_posix() for path in kb.glob("part-*/*")}
    assert there == listed
    is_right(kb, model)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("times", [1, 10_000])
def test_candidates_are_found_and_chosen_before_they_are_ranked(tmp_path, model, monkeypatch, times, share):
    monkeypatch.setattr(searching, "_TIMES", times)
    monkeypatch.setattr(searching, "_ROOT", 0.0)
    kb = tmp_path / "kb"
    build(kb, documents(20), model)
    whole = searching.Whole(WordEncoder().encode([QUESTIONS[0]])[0], share) if share else None
    with Index.open(kb) as index:
        reader = index.opened("multi_vector", MultiVectors)
        (query,) = load_late_interaction(model).encode_queries([QUESTIONS[0]])
        chosen = reader.search(query, 5, 5, None, whole)
        ranked = reader.search(query, 10_000, 0, None, whole)
        some = index.rows[::2]
        among = reader.search(query, 5, 5, some, whole)
        assert set(among.rows) <= set(some)
        assert len(chosen.rows) == len(among.rows) == 5
        scores = dict(zip(ranked.rows.tolist(), ranked.scores.tolist(), strict=True))
        for hits in (chosen, among):
            assert hits.scores.tolist() == sorted(hits.scores.tolist(), reverse=True)
            for row, score in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True):
                assert score == pytest.approx(scores[row], abs=1e-4)  # what is ranked is ranked by MaxSim
    if times > 1:
        assert len(set(chosen.rows) & set(ranked.rows[:5])) >= (2 if share else 1)  # chance finds 5 of 120


def test_the_share_goes_from_tokens_to_dense(tmp_path, model):
    kb = tmp_path / "kb"
    build(kb, documents(8), model)
    queries = [Query(text) for text in QUESTIONS]
    for candidates in (0, 5):
        found = MultiVector(str(kb), top_k=5, candidates=candidates, dense=1.0).retrieve(queries)
        dense = Dense(str(kb), top_k=5).retrieve(queries)
        for one, other in zip(found, dense, strict=True):
            assert [p.score for p in one] == pytest.approx([p.score for p in other], abs=1e-6)
    for wrong in (-0.1, 1.5, True, "half"):
        with pytest.raises(ConfigError, match="dense"):
            MultiVector(str(kb), dense=wrong)


def test_without_a_share_the_encoder_of_the_index_is_not_asked(tmp_path, model, encoder):
    kb = tmp_path / "kb"
    build(kb, documents(3), model)
    MultiVector(str(kb), dense=0).retrieve([Query("amber")])
    assert not encoder.calls
    MultiVector(str(kb)).retrieve([Query("amber")])
    assert encoder.calls


def test_what_few_passages_taught_is_learned_again_from_many(tmp_path, model):
    kb = tmp_path / "kb"
    build(kb, documents(2), model)
    taught = {}
    for count in (3, 9):
        build(kb, documents(count), model)
        with Index.open(kb) as index:
            taught[count] = index.part("multi_vector").settings["learned_from"]
    assert taught[3] < taught[9] == len(Index.open(kb))
    is_right(kb, model)


def test_filters_hold_with_and_without_candidates(tmp_path, model):
    kb = tmp_path / "kb"
    build(kb, documents(12), model)
    for candidates in (0, 2, 100):
        (found,) = MultiVector(str(kb), 4, candidates, ("number>=9",)).retrieve([Query("amber")])
        assert len(found) == 4
        assert all(p.metadata["number"] >= 9 for p in found)
    (every,) = MultiVector(str(kb), 1000, 0, ("number>=9",)).retrieve([Query("amber")])
    (whole,) = MultiVector(str(kb), 1000, 0).retrieve([Query("amber")])
    assert [p.id for p in every] == [p.id for p in whole if p.metadata["number"] >= 9]


@pytest.fixture(scope="module")
def contract_kb(tmp_path_factory, model):
    kb = tmp_path_factory.mktemp("contract") / "kb"
    build(kb, documents(8), model)
    return str(kb)


class TestContract(RetrieverContract):
    @pytest.fixture(autouse=True)
    def made(self, contract_kb):
        self.kb = contract_kb

    def make(self):
        return MultiVector(self.kb, top_k=5)


def test_the_index_says_which_retriever_it_is_for(tmp_path, model):
    kb = tmp_path / "kb"
    build(kb, documents(3), model)
    assert isinstance(for_index(kb), MultiVector)
    assert for_index(kb, kind="bm25").retrieve([Query("amber")])
    make(tmp_path / "plain", documents(3))
    with pytest.raises(StoreMismatch, match=r"without what multi_vector needs.*--retriever multi_vector"):
        for_index(tmp_path / "plain", kind="multi_vector")


def test_keeping_fewer_tokens_and_fewer_bits_takes_fewer_bytes(tmp_path, model):
    sizes = {}
    for name, settings in {
        "whole": {},
        "half": {"keep": 0.5},
        "two bits": {"residual_bits": 2},
        "one byte": {"residual_bits": 0, "centroids": 256},
    }.items():
        kb = tmp_path / name
        build(kb, documents(6), model, settings=settings)
        with Index.open(kb) as index:
            files = index.part("multi_vector").files
            sizes[name] = sum(file.bytes for file in files if "codes" in file.name or "residuals" in file.name)
            tokens = np.load(kb / next(f.name for f in files if f.name.endswith("codes.npy")), mmap_mode="r")
        if name == "one byte":
            assert tokens.dtype == np.uint8
            assert sizes[name] - 256 < tokens.size + 256
        assert MultiVector(str(kb)).retrieve([Query("amber")])[0]
    assert sizes["half"] < 0.6 * sizes["whole"]
    assert sizes["two bits"] < 0.4 * sizes["whole"]
    assert sizes["one byte"] < 0.2 * sizes["whole"]


def test_a_corpus_of_one_passage_duplicates_and_passages_without_a_word(tmp_path, model):
    from ragzip.ingest import Document

    kb = tmp_path / "kb"
    build(kb, [document(0, sentences=1)], model)
    assert len(MultiVector(str(kb)).retrieve([Query("amber")])[0]) == 1
    odd = [
        Document("a.md", "…", "", {}, root="/docs"),
        Document("b.md", "The same text.", "", {}, root="/docs"),
        Document("c.md", "The same text.", "", {}, root="/docs"),
        Document("d.md", "word " * 3000, "", {}, root="/docs"),
        Document("e.md", "x", "", {}, root="/docs"),
    ]
    build(kb, odd, model)
    (found,) = MultiVector(str(kb), top_k=1000).retrieve([Query("The same text.")])
    assert len(found) == len(Index.open(kb))
    assert {found[0].text, found[1].text} == {"The same text."}
    assert [p.score for p in found[:2]] == [found[0].score] * 2
    assert verify(kb) == []


def test_another_model_is_refused_and_named(tmp_path, model, monkeypatch):
    kb = tmp_path / "kb"
    build(kb, documents(3), model)
    other = str(tiny_encoder(tmp_path / "other", seed=9))
    real = load_late_interaction
    monkeypatch.setattr("ragzip.models.late_interaction.load_late_interaction", lambda name, **_: real(other))
    with pytest.raises(StoreMismatch, match="made with"):
        MultiVector(str(kb)).retrieve([Query("amber")])
    with pytest.raises(StoreMismatch, match="made with"):
        make(kb, documents(4))
    monkeypatch.undo()
    with pytest.raises(StoreMismatch, match="made with model="):
        make(kb, documents(4), retriever="multi_vector", settings={"model": other})


def test_vectors_that_are_no_numbers_are_refused_before_anything_is_stored(tmp_path, model, monkeypatch):
    kb = tmp_path / "kb"
    cls = type(load_late_interaction(model))
    real = cls.encode_documents

    def broken(self, texts, **options):
        found = real(self, texts, **options)
        found[-1].vectors[0, 0] = np.nan
        return found

    monkeypatch.setattr(cls, "encode_documents", broken)
    with pytest.raises(ModelError, match="no finite vectors"):
        build(kb, documents(3), model)
    monkeypatch.undo()
    make(kb, documents(3))  # and it goes on from there
    assert info(kb).documents == 3


@pytest.mark.parametrize("when", ["reading", "finishing"])
def test_while_documents_are_added_those_of_before_are_found(tmp_path, model, small_steps, monkeypatch, when):
    kb = tmp_path / "kb"
    build(kb, documents(9), model)
    options = {"sync": False, "commit_passages": 1}
    kept = stop(kb, when, lambda items: build(kb, items, model, **options), module.MultiVectorPart, monkeypatch)
    assert not info(kb).searchable
    assert verify(kb) == []
    found = MultiVector(str(kb), top_k=10_000, candidates=len(kept)).retrieve([Query(text) for text in QUESTIONS])
    for passages in found:
        assert kept <= {p.id for p in passages} <= {p.id for p in Index.open(kb)}
    (exact,) = MultiVector(str(kb), top_k=3, candidates=0).retrieve([Query("amber bridge")])
    (some,) = MultiVector(str(kb), top_k=3, candidates=10_000).retrieve([Query("amber bridge")])
    assert when == "finishing" or some == exact
    (new,) = MultiVector(str(kb), filters=("number=40",)).retrieve([Query("amber bridge")])
    assert bool(new) == (when == "finishing")
    build(kb, [], model, sync=False)
    is_right(kb, model)


def test_a_stopped_run_goes_on(tmp_path, model, small_steps, monkeypatch):
    kb = tmp_path / "kb"
    real = module.MultiVectorPart._batch
    calls = []

    def stops(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(module.MultiVectorPart, "_batch", stops)
        with pytest.raises(KeyboardInterrupt):
            build(kb, documents(9), model)
    with pytest.raises(StoreError, match="stopped before multi_vector was done"):
        MultiVector(str(kb)).retrieve([Query("amber")])
    with Index.open(kb) as index:
        before = {file.name for part in index.manifest.parts for file in part.files}
    monkeypatch.setattr(module, "_MOST_SMALL", 100)
    build(kb, documents(9), model)
    with Index.open(kb) as index:
        assert before <= {file.name for file in index.part("multi_vector").files}
    is_right(kb, model)


@pytest.mark.parametrize(
    "name", ["codes", "centroids", "encodings.faiss", "planes", "leading", "lists.npy", "lists_ends"]
)
def test_damaged_files_are_named_and_made_anew(tmp_path, model, name):
    kb = tmp_path / "kb"
    build(kb, documents(4), model)
    (path,) = [path for path in kb.glob("part-*/*") if name in path.name and "encodings.npy" not in path.name]
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)
    with pytest.raises(StoreError, match=f"{path.name}.*repair"):
        MultiVector(str(kb)).retrieve([Query("amber")])
    assert repair(kb).made_anew == ("multi_vector",)
    is_right(kb, model)


def test_files_that_the_manifest_does_not_list_are_not_read(tmp_path, model):
    import json

    from ragzip.indexes import manifest

    kb = tmp_path / "kb"
    build(kb, documents(3), model)
    raw = json.loads((kb / "manifest.json").read_text())
    body = {k: v for k, v in raw.items() if k not in ("format", "checksum")}
    body["parts"][0]["settings"]["batches"][0][0] = "../elsewhere/0_"
    (kb / "manifest.json").write_text(
        json.dumps({"format": manifest.FORMAT, "checksum": manifest._checksum(body), **body})
    )
    with pytest.raises(StoreError, match=r"elsewhere.*does not list.*repair"):
        MultiVector(str(kb)).retrieve([Query("amber")])


def test_the_check_is_kept_and_a_poor_one_warns(tmp_path, model, monkeypatch):
    monkeypatch.setattr("ragzip.indexes.multi_vector.selfcheck._CANDIDATES", 20)
    kb = tmp_path / "kb"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build(kb, documents(60), model, settings={"repetitions": 1, "planes": 0, "projection": 1})
    with Index.open(kb) as index:
        check = index.part("multi_vector").settings["check"]
    assert 0 <= check["recall"] < 0.9
    assert any("encodings of multi_vector find only" in str(one.message) for one in caught)


@pytest.mark.parametrize(
    "settings",
    [
        {"residual_bits": 3},
        {"keep": 0},
        {"keep": True},
        {"centroids": -1},
        {"planes": 40},
        {"seed": -1},
        {"seed": "x"},
        {"model": ""},
        {"width": 1.5},
    ],
)
def test_options_that_cannot_be(tmp_path, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        parts.part("multi_vector", settings)
