"""An index whose encoder lies elsewhere than it did."""

from __future__ import annotations

import pytest

from ragzip.errors import StoreMismatch
from ragzip.indexes import Index, verify
from tests.indexes.tools import WordEncoder, content, documents, make


def test_an_encoder_that_was_moved_is_found_where_it_is_now(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(6), model="words")
    moved = WordEncoder(name="elsewhere")
    moved.fingerprint = WordEncoder().fingerprint
    before = content(kb)
    report = make(kb, documents(6), model="elsewhere", encoder=moved)
    assert (report.unchanged, report.written) == (6, 0)
    assert Index.open(kb).model_name() == "elsewhere"
    assert content(kb) == before
    assert verify(kb) == []
    with pytest.raises(StoreMismatch):
        make(kb, documents(6), model="other", encoder=WordEncoder(name="other"))
    assert Index.open(kb).model_name() == "elsewhere"
