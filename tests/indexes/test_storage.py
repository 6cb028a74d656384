"""The line that says how vectors are stored: what it means, and what it must not say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import ConfigError
from ragzip.indexes.storage import Rows, Storage, Structure, parse

NUMBERS = st.integers(1, 512)
ROWS = st.builds(
    lambda dims, pca, code: Rows(dims, pca, *code),
    st.none() | NUMBERS,
    st.none() | NUMBERS,
    st.sampled_from([("float32", 0), ("float16", 0), ("float8", 0), ("int8", 0)])
    | st.tuples(st.just("pq"), st.integers(1, 96)),
)
CODES = st.sampled_from(["", "float32", "float16", "int8", "rabitq", "pq48", "pq96x4"])
LISTS = st.integers(2, 65_536)
IVF = LISTS.flatmap(lambda size: st.builds(Structure, st.just("ivf"), st.just(size), CODES, st.integers(0, size)))
STRUCTURES = IVF | st.builds(Structure, st.just(""), st.just(0), CODES.filter(lambda code: code not in ("", "float32")))


@given(st.builds(Storage, ROWS, st.none() | STRUCTURES))
def test_a_storage_is_what_its_line_says(storage):
    assert parse(str(storage)) == storage
    assert parse(f" {str(storage).upper().replace(',', ', ')} ") == storage


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("auto", "auto"),
        ("pq48", "pq48"),
        ("rabitq", "rabitq+float32"),
        ("pq96x4", "pq96x4+float32"),
        ("hnsw32", "hnsw32+float32"),
        ("ivf256,pq48", "ivf256,pq48+float32"),
        ("ivf256:40", "ivf256:40+float32"),
    ],
)
def test_what_is_left_out(line, whole):
    assert str(parse(line)) == whole
    assert str(parse(whole)) == whole


NONE = ["", "+", ",", "float64", "pq", "pq0", "pca0,float8", "pca8", "dims=8", "pq48+", "+float32", "float8+float32"]
NONE += ["ivf1", "ivf70000", "ivf256,", "ivf,pq8", "hnsw32,pq48", "hnsw32,hnsw8", "float32+int8", "rabitq+rabitq"]
NONE += [
    "ivf16:0",
    "ivf16:17",
    "hnsw32:4",
    "pq48:8+float16",
    "ivf16:",
    "pq8x2",
    "pca8,dims=4,float8",
    "pq48+float16+float16",
    "auto+float32",
    "ivf٣",
    "pq0x4",
]


@pytest.mark.parametrize("line", NONE)
def test_what_is_no_storage(line):
    with pytest.raises(ConfigError, match=r"storage: .+") as found:
        parse(line)
    assert repr(line) in str(found.value)


@pytest.mark.parametrize("line", ["pca384,float8", "dims=385,float8", "dims=8,pca8,float8", "pq5", "pq5+float32"])
def test_what_does_not_go_with_a_width(line):
    with pytest.raises(ConfigError, match="storage"):
        parse(line).check(384)


@pytest.mark.parametrize(
    ("line", "size"),
    [("float32", 1536), ("float16", 768), ("pca192,float8", 192), ("dims=64,pca32,float16", 64), ("pq48", 48)],
)
def test_bytes_of_a_passage(line, size):
    storage = parse(line)
    storage.check(384)
    assert storage.rows.bytes(384) == size


def test_a_structure_is_made_where_there_is_enough_to_learn_from():
    assert not parse("pca8,float8").indexed(10**9)
    assert [parse("ivf100").indexed(n) for n in (1, 3899, 3900)] == [False, False, True]
    assert [parse("pq48+float16").indexed(n) for n in (1, 999, 1000)] == [False, False, True]
    assert parse("auto").indexed(1)
