"""Components to plain values and back."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip import config, registry, yaml_io
from ragzip.compressors.budget import Budget
from ragzip.compressors.reorder import Reorder
from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.compressors.top_k import TopK
from ragzip.errors import ConfigError
from ragzip.pipelines import Pipeline
from ragzip.protocols import Stack
from ragzip.retrievers.bm25 import BM25
from ragzip.retrievers.dense import Dense
from ragzip.retrievers.fusion import Fusion

budgets = st.builds(Budget, tokens=st.integers(1, 10_000))
filters = st.builds(
    SentenceFilter,
    threshold=st.none() | st.floats(0, 1),
    keep=st.none() | st.floats(0.01, 1),
    budget=st.none() | st.integers(1, 5000),
)
compressors = st.one_of(budgets, filters, st.builds(TopK, k=st.integers(1, 50)), st.just(Reorder()))


@given(compressors)
def test_a_component_survives_the_round_trip(component: object) -> None:
    written = config.to_config(component)
    assert config.from_config("compressor", written) == component
    assert config.to_config(config.from_config("compressor", written)) == written


@given(st.lists(compressors, max_size=4), st.none() | st.floats(0.1, 100))
def test_a_stack_survives_the_round_trip(parts: list[object], timeout: float | None) -> None:
    stack = Stack(tuple(parts), timeout=timeout)  # type: ignore[arg-type]
    assert config.from_config("compressor", config.to_config(stack)) == stack


def test_nested_components_survive() -> None:
    fusion = Fusion((Dense("kb/", top_k=5), BM25("kb/")), top_k=7)
    written = config.to_config(fusion)
    assert written["retrievers"][0]["type"] == "dense"
    assert config.from_config("retriever", written) == fusion


def test_every_default_is_spelled_out() -> None:
    written = config.to_config(SentenceFilter())
    assert set(written) == {"type", *(f.name for f in config.options(SentenceFilter))}


def test_runtime_fields_are_no_options() -> None:
    assert "counter" not in config.to_config(SentenceFilter())
    with pytest.raises(ConfigError, match="no option 'counter'"):
        config.from_config("compressor", {"type": "sentence_filter", "counter": None})


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_registered_component_says_which_option_is_unknown(kind: registry.Kind) -> None:
    for name in registry.names(kind):
        with pytest.raises(ConfigError) as caught:
            config.from_config(kind, {"type": name, "no_such_option": 1})
        assert caught.value.path == f"{kind}.no_such_option"


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        ({"type": "budgte"}, "compressor.type", "unknown compressor 'budgte'"),
        ({"type": "budget", "tokens": "400"}, "compressor.tokens", "should be a whole number"),
        ({"type": "budget", "tokens": True}, "compressor.tokens", "should be a whole number"),
        ({"type": "budget", "tokens": 4.5}, "compressor.tokens", "should be a whole number"),
        ({"type": "budget", "tokns": 4}, "compressor.tokns", "no option 'tokns'"),
        ({"tokens": 4}, "compressor", "has no 'type'"),
        ({"type": 3}, "compressor.type", "should be a name"),
        (3, "compressor", "should be a mapping"),
        ([{"type": "top_k", "k": 1}, {"type": "nope"}], "compressor.1.type", "unknown compressor 'nope'"),
        ({"type": "sentence_filter", "keep": "much"}, "compressor.keep", "should be a number or null"),
        ({"type": "reorder", "order": "ende"}, "compressor.order", "should be one of"),
    ],
)
def test_errors_start_with_the_path(value: object, path: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_config("compressor", value)
    assert caught.value.path == path
    assert problem in caught.value.problem
    assert str(caught.value).startswith(path)


def test_a_wrong_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sentence_filter'"):
        config.from_config("compressor", {"type": "sentence_fliter"})


def test_a_value_refused_by_the_component_keeps_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_config("compressor", [{"type": "sentence_filter", "keep": 2.0}])
    assert caught.value.path == "compressor.0.keep"


def test_a_name_alone_is_a_component() -> None:
    assert config.from_config("compressor", "reorder") == Reorder()


def test_whole_numbers_serve_as_numbers() -> None:
    made = config.from_config("compressor", {"type": "sentence_filter", "threshold": 0})
    assert made.threshold == 0.0
    assert isinstance(made.threshold, float)


def test_a_number_beyond_all_numbers_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="larger than any number") as caught:
        config.from_config("compressor", {"type": "sentence_filter", "threshold": 10**400})
    assert caught.value.path == "compressor.threshold"


def test_hints_say_how_it_is_written() -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_config("compressor", {"type": "sentence_filter", "force_keep": "numbers"})
    assert "[numbers]" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        Pipeline.from_yaml("ragzip: 1\ntype: provence\nsteps: 3\n")
    assert "ragzip train provence" in caught.value.hint


def test_numbers_of_numpy_and_members_of_enums_are_plain_values() -> None:
    class Names(StrEnum):
        ENDS = "ends"

    filtered = SentenceFilter(threshold=np.float64(0.5), keep=np.float32(0.25), budget=np.int64(7))
    written = config.to_config(filtered)
    assert [type(written[name]) for name in ("threshold", "keep", "budget")] == [float, float, int]
    assert type(config.to_config(Reorder(order=Names.ENDS))["order"]) is str
    assert config.from_config("compressor", written) == filtered
    assert yaml_io.dump(written)


def test_a_number_in_the_usual_spelling_is_one() -> None:
    """YAML 1.1 reads 1e-4 as a text."""
    for written, value in (("1e-3", 0.001), ("5E-1", 0.5), ("+2e-1", 0.2), ("0.05e1", 0.5), (".5e0", 0.5)):
        found = config.from_config("compressor", yaml_io.parse(f"{{type: sentence_filter, threshold: {written}}}")[0])
        assert found.threshold == value
    for written in ("e-3", "1e", "1e-", "0x1e-3", "1e-3s"):
        with pytest.raises(ConfigError, match="should be a number"):
            config.from_config("compressor", {"type": "sentence_filter", "threshold": written})
