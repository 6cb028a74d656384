"""Trained codes of an index: what is found is what the codes say, whatever the index went through."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragzip.config import from_config, to_config
from ragzip.errors import ConfigError, ModelError, StoreError, StoreMismatch
from ragzip.indexes import Index, info, parts, remove, repair, verify
from ragzip.indexes.jpq import learning, quantizer
from ragzip.indexes.jpq import part as module
from ragzip.indexes.jpq.quantizer import FILE
from ragzip.models import load_encoder
from ragzip.retrievers import JPQ, Dense, for_index
from ragzip.testing import RetrieverContract
from ragzip.testing.models import tiny_encoder
from ragzip.types import Query
from tests.indexes.jpq_models import QUESTIONS, WIDTH, brute, build, is_right, trained
from tests.indexes.tools import document, documents, make, stop


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_encoder_path):
    return trained(tmp_path_factory.mktemp("jpq") / "model", tiny_encoder_path)


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(module, "STEP", 7)
    monkeypatch.setattr(module, "_MOST_SMALL", 3)


def test_it_finds_what_the_codes_say_through_a_random_history(tmp_path, model, tiny_encoder_path, small_steps):
    rng = random.Random(5)
    kb = tmp_path / "kb"
    build(kb, documents(5), model, tiny_encoder_path)
    is_right(kb, model)
    for _ in range(6):
        held = rng.sample(range(12), rng.randint(2, 9))
        some = [document(number, version=rng.randrange(2)) for number in held]
        build(kb, some, None, tiny_encoder_path, sync=rng.random() < 0.6)
        is_right(kb, model)
    remove(kb, [Index.open(kb).documents()[0].source])
    is_right(kb, model)


def test_vectors_and_codes_of_before_are_left_alone(tmp_path, model, tiny_encoder_path):
    kb = tmp_path / "kb"
    build(kb, documents(4), None, tiny_encoder_path)
    before = {p.name: p.read_bytes() for p in kb.glob("vectors/*")}
    build(kb, documents(4), model, tiny_encoder_path)
    with Index.open(kb) as index:
        first = index.part("jpq").files
    assert {p.name: p.read_bytes() for p in kb.glob("vectors/*")} == before
    build(kb, documents(6), None, tiny_encoder_path)
    with Index.open(kb) as index:
        assert index.part("jpq").files[: len(first)] == first


def test_many_small_batches_are_joined_and_old_files_go(tmp_path, model, tiny_encoder_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_SMALL", 3)
    kb = tmp_path / "kb"
    build(kb, documents(3), model, tiny_encoder_path)
    for count in range(4, 10):
        build(kb, documents(count), None, tiny_encoder_path)
    with Index.open(kb) as index:
        entry = index.part("jpq")
        assert len(entry.settings["batches"]) <= 3
        listed = {file.name for file in (*entry.files, *entry.whole)}
    assert {path.relative_to(kb).as_posix() for path in kb.glob("part-*/*")} == listed
    is_right(kb, model)


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_other_storages_are_decoded_first(tmp_path, model, tiny_encoder_path, storage):
    kb = tmp_path / "kb"
    build(kb, documents(50), model, tiny_encoder_path, storage=storage)
    is_right(kb, model)


def test_filters_hold_and_score_the_same(tmp_path, model, tiny_encoder_path):
    kb = tmp_path / "kb"
    build(kb, documents(12), model, tiny_encoder_path)
    for rescore in (0, 1000):
        (some,) = JPQ(str(kb), 1000, rescore, ("number>=9",)).retrieve([Query("amber")])
        (whole,) = JPQ(str(kb), 1000, rescore).retrieve([Query("amber")])
        assert some == [p for p in whole if p.metadata["number"] >= 9]
        assert JPQ(str(kb), 5, rescore, ("number=99",)).retrieve([Query("amber")]) == [[]]


def test_rescoring_everything_is_dense(tmp_path, model, tiny_encoder_path):
    kb = str(tmp_path / "kb")
    build(tmp_path / "kb", documents(9), model, tiny_encoder_path)
    for question in QUESTIONS:
        (found,) = JPQ(kb, top_k=20, rescore=10_000).retrieve([Query(question)])
        (dense,) = Dense(kb, top_k=20).retrieve([Query(question)])
        assert [p.id for p in found] == [p.id for p in dense]
        assert [p.score for p in found] == pytest.approx([p.score for p in dense], abs=1e-6)
        (some,) = JPQ(kb, top_k=3, rescore=6).retrieve([Query(question)])
        chosen = {p.id for p in JPQ(kb, top_k=6).retrieve([Query(question)])[0]}
        (every,) = Dense(kb, top_k=10_000).retrieve([Query(question)])
        assert [p.id for p in some] == [p.id for p in every if p.id in chosen][:3]


@pytest.fixture(scope="module")
def contract_kb(tmp_path_factory, model, tiny_encoder_path):
    kb = tmp_path_factory.mktemp("contract") / "kb"
    build(kb, documents(8), model, tiny_encoder_path)
    return str(kb)


class TestContract(RetrieverContract):
    rescore = 0

    @pytest.fixture(autouse=True)
    def made(self, contract_kb):
        self.kb = contract_kb

    def make(self):
        return JPQ(self.kb, top_k=5, rescore=self.rescore)


class TestRescored(TestContract):
    rescore = 20


def test_the_index_says_which_retriever_it_is_for(tmp_path, model, tiny_encoder_path):
    kb = tmp_path / "kb"
    build(kb, documents(3), None, tiny_encoder_path)
    with pytest.raises(StoreMismatch, match=r"without what jpq needs.*--retriever jpq"):
        for_index(kb, kind="jpq")
    build(kb, documents(3), model, tiny_encoder_path)
    made = for_index(kb)
    assert made == JPQ(str(kb)) == from_config("retriever", to_config(made))
    assert for_index(kb, kind="bm25").retrieve([Query("amber")])
    build(kb, [], None, tiny_encoder_path)
    assert JPQ(str(kb)).retrieve([Query("a"), Query("b")]) == [[], []]
    assert for_index(kb).retrieve([Query("a")]) == [[]]


def test_another_encoder_is_refused_and_named(tmp_path, model, tiny_encoder_path):
    other = str(tiny_encoder(tmp_path / "other", seed=9))
    with pytest.raises(StoreMismatch, match=r"made with.*not with.*other"):
        build(tmp_path / "kb", documents(3), model, other)
    kb, copy = tmp_path / "own", tmp_path / "copy"
    shutil.copytree(model, copy)
    build(kb, documents(3), str(copy), tiny_encoder_path)
    trained(copy, tiny_encoder_path, seed=3)  # trained again in the same place
    with pytest.raises(StoreMismatch, match="jpq: made with"):
        JPQ(str(kb)).retrieve([Query("amber")])
    with pytest.raises(StoreMismatch, match="made with model="):
        build(kb, documents(3), model, tiny_encoder_path)
    with pytest.raises(StoreMismatch):
        make(tmp_path / "bm25", documents(3), retriever="bm25")
        make(tmp_path / "bm25", documents(3), retriever="jpq", settings={"model": model}, encoder=None)


@pytest.mark.parametrize("when", ["reading", "finishing"])
def test_while_documents_are_added_those_of_before_are_found(tmp_path, model, tiny_encoder_path, monkeypatch, when):
    kb = tmp_path / "kb"
    build(kb, documents(9), model, tiny_encoder_path)
    options = {"sync": False, "commit_passages": 1}
    kept = stop(
        kb, when, lambda items: build(kb, items, model, tiny_encoder_path, **options), module.JPQPart, monkeypatch
    )
    assert not info(kb).searchable
    assert verify(kb) == []
    for question in QUESTIONS:
        (found,) = JPQ(str(kb), top_k=10_000).retrieve([Query(question)])
        assert {p.id for p in found} == kept
        (some,) = JPQ(str(kb), top_k=3).retrieve([Query(question)])
        assert some == found[:3]
    (new,) = JPQ(str(kb), filters=("number=40",)).retrieve([Query("amber bridge")])
    assert bool(new) == (when == "finishing")
    build(kb, [], model, tiny_encoder_path, sync=False)
    is_right(kb, model)


def test_a_stopped_run_goes_on(tmp_path, model, tiny_encoder_path, small_steps, monkeypatch):
    kb = tmp_path / "kb"
    real, calls = module.write_shard, []

    def stops(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "write_shard", stops)
    with pytest.raises(KeyboardInterrupt):
        build(kb, documents(9), model, tiny_encoder_path)
    monkeypatch.setattr(module, "write_shard", real)
    with pytest.raises(StoreError, match="stopped before jpq was done"):
        JPQ(str(kb)).retrieve([Query("amber")])
    with Index.open(kb) as index:
        before = {file.name for part in index.manifest.parts for file in part.files if FILE in file.name}
    assert before
    build(kb, documents(9), model, tiny_encoder_path)
    with Index.open(kb) as index:
        assert before <= {file.name for file in index.part("jpq").files}
    is_right(kb, model)


@pytest.mark.parametrize("name", ["codes.npy", FILE, "codes.faiss"])
def test_damaged_files_are_named_and_made_anew(tmp_path, model, tiny_encoder_path, name):
    kb = tmp_path / "kb"
    build(kb, documents(4), model, tiny_encoder_path)
    (path,) = [path for path in kb.glob("part-*/*") if path.name == name]
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)
    with pytest.raises(StoreError, match=f"{path.name}.*repair"):
        JPQ(str(kb)).retrieve([Query("amber")])
    assert repair(kb).made_anew == ("jpq",)
    is_right(kb, model)


@pytest.mark.parametrize("name", ["codes.npy", "codes.faiss"])
def test_codes_are_made_anew_without_the_folder_that_was_trained(tmp_path, model, tiny_encoder_path, name):
    """The index keeps what was learned: only questions need the trained encoder."""
    kb, moved = tmp_path / "kb", tmp_path / "moved"
    shutil.copytree(model, moved)
    build(kb, documents(9), str(moved), tiny_encoder_path)
    expected = [brute(kb, model, question) for question in QUESTIONS]
    moved.rename(tmp_path / "elsewhere")
    (path,) = [path for path in kb.glob("part-*/*") if path.name == name]
    path.write_bytes(path.read_bytes()[:-1])
    assert repair(kb).made_anew == ("jpq",)
    assert verify(kb) == []
    with pytest.raises(ModelError, match=r"kb: jpq needs the folder.*moved.*Put it back.*--rebuild"):
        JPQ(str(kb)).retrieve([Query("amber")])
    (tmp_path / "elsewhere").rename(moved)
    for question, scores in zip(QUESTIONS, expected, strict=True):
        (every,) = JPQ(str(kb), top_k=10_000).retrieve([Query(question)])
        assert {p.id: pytest.approx(p.score, abs=1e-4) for p in every} == scores
    build(kb, documents(12), str(moved), tiny_encoder_path)
    is_right(kb, str(moved))


def test_questions_that_are_no_numbers_are_refused(tmp_path, model, tiny_encoder_path, monkeypatch):
    kb = tmp_path / "kb"
    build(kb, documents(4), model, tiny_encoder_path)
    cls = type(load_encoder(model))
    monkeypatch.setattr(cls, "encode_each", lambda self, texts: np.full((len(texts), WIDTH), np.nan, np.float32))
    with pytest.raises(ModelError, match="not finite"):
        JPQ(str(kb)).retrieve([Query("amber")])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda q: {"scoring": np.full_like(q.scoring, np.nan)},
        lambda q: {"prices": q.prices[:, :200]},
        lambda q: {"centroids": q.centroids[:2]},
        lambda q: {"fingerprint": ""},
    ],
)
def test_what_training_cannot_have_left_is_refused(tmp_path, model, tiny_encoder_path, spoil):
    from dataclasses import replace

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    good = quantizer.load(copy / FILE)
    (copy / FILE).write_bytes(replace(good, **spoil(good)).dump())
    with pytest.raises(ModelError, match=FILE):
        build(tmp_path / "kb", documents(3), str(copy), tiny_encoder_path)
    (copy / FILE).write_bytes(b"{}")
    with pytest.raises(ModelError, match="damaged"):
        quantizer.load(copy / FILE)
    (copy / FILE).unlink()
    with pytest.raises(ModelError, match="not there"):
        quantizer.load(copy / FILE)


@pytest.mark.parametrize("given", [{}, {"model": 3}, {"model": "x", "pieces": 3}])
def test_options_that_cannot_be(given):
    with pytest.raises(ConfigError):
        parts.part("jpq", given)


@pytest.mark.parametrize(("options", "path"), [({"index": ""}, "index"), ({"rescore": -1}, "rescore")])
def test_options_of_the_retriever_that_cannot_be(options, path):
    with pytest.raises(ConfigError) as caught:
        JPQ(**{"index": "kb", **options})
    assert caught.value.path == path


# Learning codes.


def clustered(seed, count=900, width=8):
    """Vectors of which a few centres attract most."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((30, width))
    near = centres[np.minimum(rng.zipf(1.4, count), 30) - 1] + 0.3 * rng.standard_normal((count, width))
    near *= np.linspace(0.2, 1.0, width)
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def quality(vectors, learned):
    rotation, centroids, prices = learned
    codes = quantizer.cheapest(vectors @ rotation, centroids, prices)
    error = ((vectors @ rotation - learning.decoded(codes, centroids)) ** 2).sum(1).mean()
    return codes, float(error)


@example(seed=469)  # where the most frequent of the balanced codes has more vectors than any of the others
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8)
def test_balanced_codes_are_more_evenly_used(seed):
    vectors = clustered(seed)
    plain, _ = quality(vectors, learning.learn(vectors, 2, rotate=False, balanced=False))
    even, _ = quality(vectors, learning.learn(vectors, 2, rotate=False, balanced=True))
    assert (learning.entropy(even) > learning.entropy(plain)).all()
    same = [[(np.bincount(column, minlength=256) ** 2).sum() for column in codes.T] for codes in (even, plain)]
    assert (np.array(same[0]) < 0.95 * np.array(same[1])).all()  # pairs of vectors that share a code


@example(seed=2922)  # where taking turns ends at a worse rotation than none
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8)
def test_a_rotation_is_one_and_never_loses_more(seed):
    rng = np.random.default_rng(seed)
    mixed = clustered(seed) @ np.linalg.qr(rng.standard_normal((8, 8)))[0].astype(np.float32)
    still, turned = (learning.learn(mixed, 2, rotate=rotate, balanced=False) for rotate in (False, True))
    assert np.allclose(turned[0] @ turned[0].T, np.eye(8), atol=1e-4)
    assert quality(mixed, turned)[1] <= quality(mixed, still)[1] * (1 + 1e-5)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 40))
@settings(max_examples=15)
def test_a_code_depends_on_nothing_but_its_vector(seed, count):
    rng = np.random.default_rng(seed)
    centroids = rng.standard_normal((4, 256, 3)).astype(np.float32)
    prices = rng.standard_normal((4, 256)).astype(np.float32)
    turned = rng.standard_normal((count, 12)).astype(np.float32)
    codes = quantizer.cheapest(turned, centroids, prices)
    gaps = turned.reshape(count, 4, 1, 3).astype(float) - centroids[None]
    costs = (gaps**2).sum(-1) + prices
    lost = np.take_along_axis(costs, codes[..., None].astype(int), 2)[..., 0] - costs.min(-1)
    assert lost.max() < 1e-4
    assert learning.decoded(codes, centroids).shape == (count, 12)


def test_entropy_of_even_and_of_single_codes():
    assert learning.entropy(np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 2))) == pytest.approx([8, 8])
    assert learning.entropy(np.zeros((9, 1), np.uint8)) == pytest.approx([0])
