"""With the real encoder: indexing twice gives the same vectors, and a question finds its passage."""

from __future__ import annotations

import numpy as np
import pytest

from ragzip.indexes import Index, build, verify
from ragzip.ingest import Document
from ragzip.retrievers import for_index
from ragzip.types import Query

FACTS = {
    "paris": "The Eiffel Tower stands in Paris and was finished in 1889. It is 330 metres tall.",
    "python": "The method __del__ is called when an instance is about to be destroyed by the interpreter.",
    "whale": "Blue whales are the largest animals that ever lived. They feed on krill in cold oceans.",
}


@pytest.mark.models
def test_the_main_path_with_the_built_in_encoder(tmp_path):
    items = [Document(f"{name}.md", text, name.title(), root="/f") for name, text in FACTS.items()]
    kb = tmp_path / "kb"
    report = build(items, kb, sync=True, roots=["/f"])
    assert (report.added, report.passages) == (3, 3)
    for question, source in (
        ("Which sea creature is biggest?", "whale.md"),
        ("When was the iron tower in France completed?", "paris.md"),
        ("When is __del__ called?", "python.md"),
    ):
        assert for_index(kb).retrieve([Query(question)])[0][0].metadata["source"] == source
    build(items, tmp_path / "again", sync=True, roots=["/f"])
    with Index.open(kb) as one, Index.open(tmp_path / "again") as other:
        np.testing.assert_array_equal(one.vectors.take(one.rows), other.vectors.take(other.rows))
    assert build(items, kb, sync=True, roots=["/f"]).unchanged == 3
    assert verify(kb) == []
