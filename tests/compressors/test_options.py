"""What compressors refuse of options that are numbers, in Python as in YAML: by name, whatever is given."""

from __future__ import annotations

import dataclasses
import math

import pytest

from ragzip import registry
from ragzip.compressors._options import check_number, check_share
from ragzip.errors import ConfigError

NUMBERS = ("threshold", "keep", "expand", "silence")
CASES = [
    (method, option)
    for method in (registry.get("compressor", name) for name in registry.names("compressor"))
    for option in NUMBERS
    if option in {field.name for field in dataclasses.fields(method)}
]


@pytest.mark.parametrize("value", [True, False, "0.5", math.nan, math.inf, -(10**400), [0.5], 1j])
@pytest.mark.parametrize(("method", "option"), CASES)
def test_what_is_no_number_is_refused_by_name(method, option, value):
    with pytest.raises(ConfigError) as caught:
        method(**{option: value})
    assert caught.value.path == option


@pytest.mark.parametrize("check", [check_share, check_number])
def test_numbers_of_other_kinds_are_numbers(check):
    import numpy as np

    for value in (1, 0.5, np.float32(0.5), np.int64(1), None):
        check("keep", value)
