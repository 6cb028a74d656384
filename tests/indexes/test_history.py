"""Any history of an index ends where a fresh build does."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.indexes import Index, build, verify
from tests.indexes.tools import WordEncoder, content, document, documents, found, make


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.dictionaries(st.integers(0, 6), st.integers(0, 2), max_size=6), min_size=1, max_size=5),
    st.sampled_from(["fusion", "bm25"]),
    st.integers(1, 12),
)
def test_any_history_ends_where_a_fresh_build_does(states, retriever, size):
    """Each state is which documents there are, and in which version."""
    with TemporaryDirectory() as folder:
        kb, fresh = Path(folder, "kb"), Path(folder, "fresh")
        for state in states:
            docs = [document(number, sentences=3, version=version) for number, version in state.items()]
            report = make(kb, docs, retriever=retriever, commit_passages=size)
            assert report.documents == len(state)
        make(fresh, docs, retriever=retriever, commit_passages=size)
        if not kb.exists():
            assert not fresh.exists()
            return
        assert verify(kb) == []
        if not docs:
            assert content(kb) == {}
            return
        assert content(kb) == content(fresh)
        assert found(kb) == found(fresh)
        for passage in Index.open(kb):
            assert Index.open(kb).passage(passage.id) == passage


def test_sync_and_add_are_the_same_call_but_for_removal(tmp_path):
    make(tmp_path / "kb", documents(3))
    build([document(9)], tmp_path / "kb", sync=False, encoder=WordEncoder())
    assert len(content(tmp_path / "kb")) == 4
