"""Metadata filters, one at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import ConfigError
from ragzip.indexes.filters import parse


def holds(text: str, metadata: dict, **own: str) -> bool:
    (condition,) = parse([text])
    return condition.holds(metadata, own)


@pytest.mark.parametrize(
    ("text", "metadata", "expected"),
    [
        ("a=b", {"a": "b"}, True),
        (" a = b ", {"a": "b"}, True),
        ("a=B", {"a": "b"}, False),
        ("a=b=c", {"a": "b=c"}, True),
        ("a==b", {"a": "b"}, True),
        ("a b=c", {"a b": "c"}, True),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("a!=", {}, True),
        ("n=3", {"n": 3}, True),
        ("n=3", {"n": 3.0}, True),
        ("n=3.0", {"n": "3"}, True),
        ("n=3", {"n": True}, False),
        ("n=1", {"n": True}, False),
        ("n=true", {"n": True}, True),
        ("n=false", {"n": False}, True),
        ("n=null", {"n": None}, True),
        ("n>2", {"n": 3}, True),
        ("n>2", {"n": "3"}, True),
        ("n>2", {"n": "many"}, True),
        ("n>=3", {"n": 3}, True),
        ("n<3", {"n": 3}, False),
        ("n<=3", {"n": 3}, True),
        ("n<10", {"n": 9}, True),
        ("n<10", {"n": None}, False),
        ("n<10", {"n": False}, False),
        ("n<10", {}, False),
        ("d>=2024-01-01", {"d": "2024-05-01"}, True),
        ("d>=2024-01-01", {"d": "2023-05-01"}, False),
        ("d>=2024-01-01", {"d": 2025}, False),
        ("s=docs/*", {"s": "docs/a/b.md"}, True),
        ("s=docs/?.md", {"s": "docs/a.md"}, True),
        ("s=docs/[ab].md", {"s": "docs/c.md"}, False),
        ("s!=docs/*", {"s": "docs/a"}, False),
        ("s==docs/*", {"s": "docs/a"}, False),
        ("s==docs/*", {"s": "docs/*"}, True),
        ("n=1?", {"n": 15}, True),
        ("t=red", {"t": ["red", "blue"]}, True),
        ("t!=red", {"t": ["red", "blue"]}, False),
        ("t=green", {"t": ["red", "blue"]}, False),
        ("t=red", {"t": []}, False),
        ("n=1e999", {"n": "1e999"}, True),
        ("n<inf", {"n": 3}, False),
        ("n=nan", {"n": "nan"}, True),
        ("年=2024", {"年": 2024}, True),
    ],
)
def test_conditions(text, metadata, expected):
    assert holds(text, metadata) is expected


def test_id_and_title_are_a_passages_own_unless_the_metadata_has_them():
    assert holds("title=A*", {}, title="Apples")
    assert not holds("title=A*", {"title": "Pears"}, title="Apples")
    assert holds("id=x#1", {}, id="x#1")


def test_long_identifiers_are_told_apart():
    for one in (1234567890123456781, "1234567890123456781"):
        assert holds("tweet=1234567890123456781", {"tweet": one})
        assert not holds("tweet=1234567890123456780", {"tweet": one})
        assert holds("tweet>1234567890123456780", {"tweet": one})
    assert holds("n=2", {"n": 2.0})
    assert holds("n>1e3", {"n": 5000})
    assert holds("n<0.01", {"n": "1e-05"})
    assert not holds("n>1e3", {"n": "5"})
    assert holds("n=0.5", {"n": 0.5})
    for wanted, value in (("1_2", "12"), ("1e5", "100000"), ("nan", "NaN"), ("١", "1")):
        assert not holds(f"sha={wanted}", {"sha": value})


@pytest.mark.parametrize("text", ["", "a", "=b", "a!b", "!=3", ">3", "a>", "a<= ", "  =x", 5, None])
def test_what_is_no_filter(text):
    with pytest.raises(ConfigError, match=r"pipeline\.filters\.1") as error:
        parse(["a=b", text], "pipeline.filters")
    assert error.value.hint


VALUES = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["", "a", "b", "3", "-1.5"])
)


@given(VALUES, st.sampled_from(["a", "b", "3", "-1.5", "true", "null", "a*", "?", ""]), st.booleans())
def test_not_equal_is_where_equal_is_not(value, wanted, there):
    metadata = {"k": value} if there else {}
    assert holds(f"k={wanted}", metadata) != holds(f"k!={wanted}", metadata)


@given(st.integers(-50, 50) | st.floats(-50, 50), st.integers(-50, 50))
def test_order_of_numbers(value, wanted):
    found = {sign: holds(f"k{sign}{wanted}", {"k": value}) for sign in ("<", "<=", "=", ">=", ">")}
    expected = {
        "<": value < wanted, "<=": value <= wanted, "=": value == wanted, ">=": value >= wanted, ">": value > wanted,
    }  # fmt: skip
    assert found == expected
