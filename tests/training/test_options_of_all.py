"""What every trainer refuses before it reads anything."""

import dataclasses

import pytest

from ragzip import registry
from ragzip.errors import ConfigError

TRAINERS = [registry.get("training", name) for name in registry.names("training")]
BAD = {
    "sets": ((), ("nothing",)),
    "most": (("squad",), ("nothing=3",)),
    "steps": (0, -1),
    "batch": (0,),
    "layers": (0, -1),
    "rank": (0,),
    "lr": (0.0, float("nan"), float("inf")),
    "keep": (0.0, 1.5),
    "empty": (-0.1, 1.1),
    "held_out": (0,),
    "eval_every": (0,),
    "patience": (-1,),
    "dtype": ("int3", "fp16"),
    "device": ("toaster",),
}
FINE = {("REFRAGTraining", "layers", 0)}  # the projection alone
CASES = [
    (trainer, option, value)
    for trainer in TRAINERS
    for option, values in BAD.items()
    if option in {field.name for field in dataclasses.fields(trainer)}
    for value in values
    if (trainer.__name__, option, value) not in FINE
]


@pytest.mark.parametrize(("trainer", "option", "value"), CASES)
def test_bad_options_are_refused_by_name(trainer, option, value):
    with pytest.raises(ConfigError) as caught:
        trainer(**{option: value})
    assert caught.value.path == option


def test_what_one_trainer_takes_though_others_do_not():
    by_name = {trainer.__name__: trainer for trainer in TRAINERS}
    for trainer, option, value in FINE:
        assert getattr(by_name[trainer](**{option: value}), option) == value


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_defaults_are_fine(trainer):
    assert trainer() == trainer()
