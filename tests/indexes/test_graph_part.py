"""The graph of an index: its edges follow from the text, whatever came and went, and however often it was stopped."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ragzip.errors import ConfigError, StoreDamaged, StoreError
from ragzip.indexes import Index, info, remove, repair, verify
from ragzip.indexes.graph import part, tensors
from ragzip.indexes.graph.edges import FACT, KINDS, LINK, MENTION, NAME, NEAR, NEXT, TERM, TITLE
from ragzip.indexes.graph.network import Network, open_network
from ragzip.indexes.graph.words import phrase, words
from ragzip.ingest import Document
from tests.indexes.tools import ROOT, document, documents, make


def page(name: str, text: str, **metadata: object) -> Document:
    return Document(f"docs/{name}.md", text, name, metadata, root=ROOT)


PAGES = [
    page("Anna Berg", "She was born in Lake Town and wrote Night Trains. See [her town](Lake%20Town.md)."),
    page("Lake Town", "A town by the water with a zyxt quarry."),
    page("Night Trains", "A novel of travel. It tells of a zyxt and of Old Marta."),
    page("Her", "A film about Old Marta."),
    page("Plain", "nothing of note stands here, only her and her"),
]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(part, "ROWS", 7)


def made(kb, items=None, **options) -> str:
    make(kb, documents(9) if items is None else items, retriever="graph", **options)
    return str(kb)


def opened(kb) -> tuple[Index, Network, dict[str, np.ndarray]]:
    index = Index.open(kb)
    network = index.opened("graph", open_network)
    return index, network, tensors.read(index.path, index.part("graph").whole[0])


def edges(kb) -> dict[tuple[str, str, str], float]:
    """The edges by what they join: passages by their ids, entities by their numbers, documents by their passages."""
    index, network, arrays = opened(kb)
    names = [passage.id for passage in index] + [f"entity {key}" for key in arrays["keys"].tolist()]
    owners = np.repeat(np.arange(network.nodes), np.diff(arrays["indptr"]))
    members: dict[int, list[str]] = {}
    for node, target, kind in zip(owners, arrays["indices"], arrays["kinds"], strict=True):
        if KINDS[kind] == "document" and node >= len(names):
            members.setdefault(int(node), []).append(names[target])
    names += [f"document {sorted(members.get(node, ['?']))}" for node in range(len(names), network.nodes)]
    return {
        (names[source], KINDS[kind], names[target]): round(float(weight), 4)
        for source, target, kind, weight in zip(
            owners, arrays["indices"], arrays["kinds"], arrays["weights"], strict=True
        )
    }


def without_near(found):
    return {edge: weight for edge, weight in found.items() if edge[1] != "near"}


def entity(text: str) -> str:
    return f"entity {phrase(words(text).hashes)}"


def passage(name: str) -> str:
    return f"docs/{name}.md#0"


def test_the_edges_are_those_the_text_says(tmp_path):
    kb = made(tmp_path / "kb", PAGES, tokens=60)
    found = {(a, kind, b) for a, kind, b in edges(kb) if kind not in ("near", "term")}
    both = {
        (passage("Anna Berg"), "title", entity("anna berg")),
        (passage("Lake Town"), "title", entity("lake town")),
        (passage("Night Trains"), "title", entity("night trains")),
        (passage("Her"), "title", entity("her")),
        (passage("Plain"), "title", entity("plain")),
        (passage("Anna Berg"), "mention", entity("lake town")),
        (passage("Anna Berg"), "mention", entity("night trains")),
        (passage("Anna Berg"), "mention", entity("her")),
        (passage("Plain"), "mention", entity("her")),
        (passage("Night Trains"), "name", entity("old marta")),
        (passage("Her"), "name", entity("old marta")),
        (passage("Lake Town"), "document", f"document {[passage('Lake Town')]}"),
        (passage("Anna Berg"), "link", f"document {[passage('Lake Town')]}"),
    }
    assert found == both | {(b, kind, a) for a, kind, b in both}
    terms = {(a, b) for a, kind, b in edges(kb) if kind == "term"}
    assert {(passage("Lake Town"), entity("zyxt")), (passage("Night Trains"), entity("zyxt"))} <= terms
    assert all(len({a for a, b in terms if b == one}) >= 2 for _, one in terms if one.startswith("entity"))


def test_a_title_that_is_a_common_word_counts_only_as_a_name(tmp_path):
    many = [page(f"Page {number}", f"words about her and number {number}") for number in range(6)]
    kb = made(tmp_path / "kb", [*PAGES, *many, page("Review", "I saw Her twice")], settings={"most_passages": 5})
    mentions = {a for a, kind, b in edges(kb) if kind == "mention" and b == entity("her")}
    assert mentions == {passage("Review")}


def test_every_graph_is_sound(tmp_path):
    kb = made(tmp_path / "kb", [*documents(12), *PAGES])
    index, network, arrays = opened(kb)
    owners = np.repeat(np.arange(network.nodes), np.diff(arrays["indptr"]))
    kinds, weights = arrays["kinds"].astype(np.int64), arrays["weights"]
    assert network.passages == len(index)
    assert set(np.unique(kinds)) <= set(range(len(KINDS)))
    groups = np.bincount(owners * len(KINDS) + kinds, weights)
    np.testing.assert_allclose(groups[groups > 0], 1.0, atol=1e-5)
    there = set(zip(owners.tolist(), kinds.tolist(), arrays["indices"].tolist(), strict=True))
    assert there == {(b, kind, a) for a, kind, b in there}
    assert len(there) == len(owners)
    assert (owners != arrays["indices"]).all()
    for kind in (NEAR, NEXT):
        assert (arrays["indices"][kinds == kind] < network.passages).all()
    # An entity in m passages has m edges, its own kinds together, and that is its spread.
    about = np.isin(kinds, [TITLE, MENTION, NAME, TERM])
    entities = (owners >= network.passages) & (owners < network.passages + network.entities) & about
    counts = np.bincount(owners[entities] - network.passages, minlength=network.entities)
    assert counts.tolist() == network.spread.tolist()
    assert network.counts()["fact"] == 0 == (kinds == FACT).sum()
    shares = [float(kind + 1) for kind in range(len(KINDS))]
    sums = np.bincount(owners, network.steps(shares), minlength=network.nodes)
    np.testing.assert_allclose(sums[np.diff(arrays["indptr"]) > 0], 1.0, atol=1e-5)
    only = network.steps([1.0 if kind == LINK else 0.0 for kind in range(len(KINDS))])
    assert (only[kinds != LINK] == 0).all()


def test_whatever_came_and_went_the_edges_are_those_of_a_fresh_index(tmp_path):
    rng = random.Random(3)
    kb = tmp_path / "kb"
    made(kb, [document(0)])
    compacted = False
    for step in range(7):
        held = {number: rng.randrange(2) for number in rng.sample(range(9), rng.randint(1, 8))}
        items = [*(document(number, version=version) for number, version in held.items()), *PAGES[: step % 6]]
        make(kb, items)
        made(tmp_path / f"fresh{step}", items)
        assert without_near(edges(kb)) == without_near(edges(tmp_path / f"fresh{step}"))
        near = {edge for edge in edges(kb) if edge[1] == "near"}
        assert near <= {(a, "near", b) for a in ids(kb) for b in ids(kb)}
        assert verify(kb) == []
        compacted = compacted or info(kb).dead == 0
    assert compacted
    assert info(kb).searchable


def ids(kb) -> set[str]:
    return {passage.id for passage in Index.open(kb)}


def test_a_graph_built_at_once_has_the_exact_neighbours(tmp_path):
    kb = made(tmp_path / "kb", documents(8), settings={"neighbours": 3})
    index = Index.open(kb)
    matrix, names = index.vectors.take(index.rows), [passage.id for passage in index]
    scores = matrix @ matrix.T
    np.fill_diagonal(scores, -np.inf)
    want = set()
    for number, row in enumerate(scores):
        for other in np.lexsort((np.arange(len(row)), -row))[:3]:
            if row[other] > 0:
                want |= {(names[number], names[other]), (names[other], names[number])}
    assert {(a, b) for a, kind, b in edges(kb) if kind == "near"} == want


def test_many_small_files_are_joined_and_old_ones_go(tmp_path, monkeypatch):
    monkeypatch.setattr(part, "MOST_SMALL", 3)
    kb = tmp_path / "kb"
    made(kb, [document(0)])
    for number in range(1, 9):
        make(kb, [document(number)], sync=False)
    made(tmp_path / "fresh")
    assert without_near(edges(kb)) == without_near(edges(tmp_path / "fresh"))
    entry = Index.open(kb).part("graph")
    assert len(entry.files) <= 4
    listed = {file.name for file in (*entry.files, *entry.whole)}
    assert {path.relative_to(kb).as_posix() for path in kb.glob("part-*/*")} == listed
    remove(kb, [f"docs/{number}.md" for number in range(5)])
    made(tmp_path / "rest", documents(9)[5:])
    assert without_near(edges(kb)) == without_near(edges(tmp_path / "rest"))
    entry = Index.open(kb).part("graph")
    assert len(entry.files) == 1


@pytest.mark.parametrize("fail_at", [1, 2, 3, 5])
def test_a_stopped_run_goes_on(tmp_path, monkeypatch, fail_at):
    kb = tmp_path / "kb"
    calls = []
    write = tensors.write

    def failing(*args):
        calls.append(args)
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        return write(*args)

    monkeypatch.setattr(tensors, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        made(kb)
    with Index.open(kb) as index, pytest.raises(StoreError, match="retriever graph"):
        index.part("graph")
    calls.clear()
    monkeypatch.setattr(tensors, "write", write)
    make(kb, documents(9)) if fail_at > 1 else made(kb)
    made(tmp_path / "fresh")
    assert edges(kb) == edges(tmp_path / "fresh")
    assert verify(kb) == []


@pytest.mark.parametrize("which", ["rows", "graph"])
def test_a_damaged_file_is_named_and_made_anew(tmp_path, which):
    kb = made(tmp_path / "kb")
    before = edges(kb)
    entry = Index.open(kb).part("graph")
    file = entry.files[0] if which == "rows" else entry.whole[0]
    path = tmp_path / "kb" / file.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    (problem,) = verify(kb)
    assert file.name in str(problem)
    assert repair(kb).damaged == (file.name,)
    assert verify(kb) == []
    assert edges(kb) == before


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: b"\xff" * len(data)])
def test_a_file_that_is_no_graph_is_named(tmp_path, damage):
    kb = made(tmp_path / "kb")
    index = Index.open(kb)
    path = index.path / index.part("graph").whole[0].name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreDamaged, match=path.name):
        index.opened("graph", open_network)
    with pytest.raises(StoreDamaged, match=path.name):
        Index.open(kb).opened("graph", open_network)


@pytest.mark.parametrize(
    ("name", "value"),
    [("indices", 2**31 - 1), ("indices", -1), ("indptr", 10**12), ("kinds", 255), ("weights", np.nan), ("shape", 3)],
)
def test_numbers_that_cannot_be_are_refused_when_it_is_opened(tmp_path, name, value):
    kb = made(tmp_path / "kb")
    index, _, arrays = opened(kb)
    arrays[name] = arrays[name].copy()
    arrays[name][len(arrays[name]) // 2] = value
    file = index.part("graph").whole[0]
    (index.path / file.name).unlink()
    tensors.write(index.path, file.name, arrays)
    index.close()
    with pytest.raises(StoreDamaged, match=file.name):
        index.opened("graph", open_network)


def test_another_indexs_graph_is_refused(tmp_path):
    made(tmp_path / "a")
    made(tmp_path / "b", documents(4))
    a, b = Index.open(tmp_path / "a"), Index.open(tmp_path / "b")
    path = a.path / a.part("graph").whole[0].name
    path.write_bytes((b.path / b.part("graph").whole[0].name).read_bytes())
    with pytest.raises(StoreDamaged, match="not this index's graph"):
        a.opened("graph", open_network)


@pytest.mark.parametrize(
    "items",
    [
        [document(1, sentences=1)],
        [page(f"Same {number}", "The same words about Anna Berg.") for number in range(5)],
        [page("...", "... !!! ---"), page("🙂", "🙂 🙂")],
        [page("Kyoto 京都", "京都は日本の都市です。"), page("日本", "東京と京都。")],
        [page("x", "word " * 3000)],
    ],
)
def test_odd_corpora(tmp_path, items):
    kb = made(tmp_path / "kb", items)
    index, network, _ = opened(kb)
    assert network.passages == len(index) >= 1
    assert np.isfinite(network.steps([1.0] * len(KINDS))).all()


def test_titles_are_found_in_scripts_without_spaces_and_capitals(tmp_path):
    kb = made(tmp_path / "kb", [page("京都", "古い都市です。"), page("旅", "明日は京都へ行きます。")])
    assert (passage("旅"), "mention", entity("京都")) in edges(kb)


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"neighbours": -1}, "neighbours"), ({"most_passages": 1}, "most_passages"), ({"rare_in": True}, "rare_in")],
)
def test_options_that_cannot_be(tmp_path, settings, name):
    with pytest.raises(ConfigError) as error:
        made(tmp_path / "kb", settings=settings)
    assert error.value.path == name


def test_parts_of_a_graph_can_be_left_out(tmp_path):
    kb = made(tmp_path / "kb", settings={"neighbours": 0, "rare_in": 0})
    assert {kind for _, kind, _ in edges(kb)}.isdisjoint({"near", "term"})
