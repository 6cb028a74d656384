"""Which rows a run has."""

from __future__ import annotations

import pytest

from ragzip import BM25Sentences, Pipeline, TopK
from ragzip.compressors.structured import Structured
from ragzip.errors import ConfigError
from ragzip.evaluation.rows import budget_of, load_pipelines, plan
from ragzip.generators.echo import Echo
from tests.evaluation.parts import Reader, reading

BUDGETED = ("oracle_sentences", "truncate", "random_sentences", "bm25_sentences")


def names(rows) -> list[str]:
    return [row.name for row in rows]


def test_the_rows_that_are_always_there() -> None:
    rows = plan([("mine", reading(BM25Sentences(budget=40)))])
    expected = ["closed_book", "no_compression", "mine", *(f"{kind}@40" for kind in BUDGETED)]
    assert names(rows) == expected
    assert {row.baseline for row in rows} == {"no_compression"}


def test_a_pipeline_without_a_budget_faces_rows_that_spend_as_much() -> None:
    rows = plan([("mine", reading(BM25Sentences(threshold=1.0)))])
    assert names(rows)[3:] == [f"{kind}=mine" for kind in BUDGETED]
    assert all(row.like == "mine" for row in rows[3:])


def test_pipelines_with_one_budget_share_their_baselines() -> None:
    rows = plan([("a", reading(BM25Sentences(budget=40))), ("b", reading(TopK(2), BM25Sentences(budget=40)))])
    assert len(rows) == 2 + 2 + 4


def test_another_generator_has_its_own_reference() -> None:
    other = Pipeline(Echo(), compressors=(BM25Sentences(budget=40),))
    rows = plan([("a", reading(BM25Sentences(budget=40))), ("b", other)])
    by_name = {row.name: row for row in rows}
    assert by_name["a"].baseline == "no_compression"
    assert by_name["b"].baseline == "no_compression [b]"
    assert by_name["no_compression [b]"].pipeline.generator == Echo()
    assert isinstance(by_name["no_compression"].pipeline.generator, Reader)


def test_reference_rows_alone() -> None:
    rows = plan([("a", reading(BM25Sentences(budget=40)))], baselines="reference")
    assert names(rows) == ["closed_book", "no_compression", "a"]


def test_names_are_unique(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no_compression"):
        plan([("no_compression", reading())])
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.yaml").write_text("ragzip: 1\ngenerator: echo\n")
    with pytest.raises(ConfigError, match="both called 'p'"):
        load_pipelines([tmp_path / "x" / "p.yaml", tmp_path / "y" / "p.yaml"])


def test_a_pipelines_name_is_its_own_or_its_files(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("ragzip: 1\ngenerator: echo\n")
    (tmp_path / "b.yaml").write_text("ragzip: 1\nname: better\ngenerator: echo\n")
    assert [name for name, _ in load_pipelines([tmp_path / "a.yaml", tmp_path / "b.yaml"])] == ["a", "better"]


def test_a_budget_counts_where_nothing_else_sets_the_size() -> None:
    from ragzip import Budget, Dedupe, Reorder, Truncate

    assert budget_of(reading()) is None
    assert budget_of(reading(BM25Sentences(keep=0.5))) is None
    assert budget_of(reading(BM25Sentences(budget=70), Budget(50))) == 50
    assert budget_of(reading(Budget(60), BM25Sentences(keep=0.3))) is None
    assert budget_of(reading(Structured(BM25Sentences(), budget=60))) == 60
    assert budget_of(reading(Structured(BM25Sentences(threshold=0.3), budget=60))) is None
    assert budget_of(reading(Structured(Dedupe() >> BM25Sentences(), budget=60))) == 60
    assert budget_of(reading(BM25Sentences(budget=60, threshold=1.0))) is None
    assert budget_of(reading(Dedupe(), BM25Sentences(budget=60), Reorder())) == 60
    assert budget_of(reading(Truncate(tokens=30))) == 30


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201, "\x1b[31m"])
def test_names_can_be_read(name: str) -> None:
    with pytest.raises(ConfigError, match="no name for a row"):
        plan([(name, reading())])
