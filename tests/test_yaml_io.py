"""YAML with lines, bounded and safe."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ragzip import yaml_io
from ragzip.errors import ConfigError

scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdef_", min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(values)
def test_what_is_dumped_is_parsed(value: object) -> None:
    assert yaml_io.parse(yaml_io.dump(value))[0] == value


def test_each_value_knows_its_line() -> None:
    _, lines = yaml_io.parse("a: 1\nb:\n  - x: 2\n  - y:\n      z: 3\n")
    assert (lines["a"], lines["b.0.x"], lines["b.1.y.z"]) == (1, 3, 5)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("a: 1\na: 2\n", "twice", 2),
        ("a: [1, 2\n", "not valid YAML", 2),
        ("a: &x 1\nb: *x\n", "aliases", 2),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML", 1),
        ("a: 1\n\tb: 2\n", "not valid YAML", 2),
        ("a: 1\n---\nb: 2\n", "not valid YAML", 2),
    ],
)
def test_bad_yaml_names_the_line(text: str, problem: str, line: int) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        yaml_io.parse(text, source="p.yaml")
    assert caught.value.line == line
    assert "p.yaml" in str(caught.value)


def test_depth_and_size_are_bounded() -> None:
    with pytest.raises(ConfigError, match="nested deeper"):
        yaml_io.parse("[" * 60 + "]" * 60)
    with pytest.raises(ConfigError, match="longer than"):
        yaml_io.parse("a" * (yaml_io.MAX_BYTES + 1))


def test_very_deep_input_is_an_error_and_no_crash() -> None:
    with pytest.raises(ConfigError):
        yaml_io.parse("[" * 50_000)


@pytest.mark.parametrize(("text", "value"), [("0.1", 0.1), ("true", True), ("null", None), ("kb/", "kb/"), ("[", "[")])
def test_overrides_are_read_as_yaml_reads_them(text: str, value: object) -> None:
    assert yaml_io.scalar(text) == value


def test_only_safe_yaml_is_written() -> None:
    with pytest.raises(yaml.YAMLError):
        yaml_io.dump(object())


@pytest.mark.parametrize("text", ["\x01\x02", "name: \x00", 'name: "\\ud800"', "name: \ud800"])
def test_what_cannot_be_written_again_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        yaml_io.parse(text)


@pytest.mark.parametrize(
    "said",
    [
        "2024-02-30",
        "2024-13-45",
        "0b_",
        "0x_",
        "!!int abc",
        "!!bool abc",
        "9" * 5000,
        "!!float x",
        "!!timestamp abc",
        "!!int ''",
        "!!int",
    ],
)
def test_what_only_looks_like_a_number_or_a_date_names_its_line(said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        yaml_io.parse(f"a: 1\nb: {said}\n")
    assert (caught.value.path, caught.value.line) == ("b", 2)
    with pytest.raises(ConfigError):
        yaml_io.parse(f"{{{said}: 1}}" if len(said) < 100 else f"? {said}\n: 1")
    assert yaml_io.scalar(said) == said


def test_a_larger_bound_can_be_given() -> None:
    text = "a: " + "x" * yaml_io.MAX_BYTES
    with pytest.raises(ConfigError, match="longer than"):
        yaml_io.parse(text)
    assert yaml_io.parse(text, most=2 * yaml_io.MAX_BYTES)[0] == {"a": "x" * yaml_io.MAX_BYTES}


@given(st.text(max_size=200).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text)))
def test_what_is_quoted_is_read_as_it_was(text: str) -> None:
    assert yaml_io.scalar(yaml_io.quoted(text)) == text
