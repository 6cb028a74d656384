"""One pipeline, many values: the pipelines of a sweep, each under a name that says what is different."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragzip import config
from ragzip.errors import ConfigError
from ragzip.evaluation.record import Task
from ragzip.generators.huggingface import HuggingFace
from ragzip.pipelines import Pipeline
from ragzip.pipelines.prompt import QA, LongForm, YesNo
from ragzip.protocols import Prompt

MAX_PIPELINES = 200
BUDGETS = (100, 200, 400, 800)
# Scorers that need nothing trained for the user's data; each is tried at every budget.
_CANDIDATES = ("sentence_filter", "bm25_sentences")

Named = tuple[str, Pipeline[Any]]


def expand(path: Path, sets: Sequence[str]) -> list[Named]:
    """A pipeline's file with every combination of the values given.

    Args:
        path: The pipeline's YAML.
        sets: ``path=value,value,...`` each; commas within brackets or quotes do not separate.

    Raises:
        ConfigError: A value that the pipeline cannot have, the same one twice, or far too many combinations.
    """
    base = Pipeline.load(path)
    name = base.name or path.stem
    choices: list[list[tuple[str, str]]] = []
    for given in sets:
        place, equals, values = given.partition("=")
        if not equals or not place.strip() or not values.strip():
            raise ConfigError("--set", f"{given!r} is not path=value,value", hint="compressors.0.threshold=0.05,0.1")
        choices.append([(place.strip(), value) for value in split_values(values)])
    if len({options[0][0] for options in choices}) < len(choices):
        raise ConfigError("--set", "the same path twice", hint="Give all its values in one --set, with commas.")
    total = 1
    for options in choices:
        total *= len(options)
    if total > MAX_PIPELINES:
        raise ConfigError("--set", f"{total:,} combinations, more than {MAX_PIPELINES}", hint="Sweep in several runs.")
    labels = _labels([options[0][0] for options in choices])
    made: list[Named] = []
    for chosen in itertools.product(*choices):
        pipeline = Pipeline.load(path, overrides=[f"{place}={value}" for place, value in chosen])
        said = ",".join(f"{labels[place]}={value}" for place, value in chosen)
        made.append((f"{name}[{said}]" if said else name, dataclasses.replace(pipeline, name="")))
    names = [own for own, _ in made]
    twice = next((own for own in names if names.count(own) > 1), "")
    if twice:
        raise ConfigError("--set", f"{twice!r} comes twice", hint="Give each value once.")
    return made


def split_values(text: str) -> list[str]:
    """``0.1,0.2`` -> both; commas within brackets, braces or quotes stay."""
    values, depth, quote, start = [], 0, "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == "," and depth == 0:
            values.append(text[start:i].strip())
            start = i + 1
    values.append(text[start:].strip())
    if any(not value for value in values):
        raise ConfigError("--set", f"an empty value in {text!r}", hint="Write null for no value.")
    return values


def candidates(task: Task = "short", budgets: Sequence[int] = BUDGETS) -> list[Named]:
    """What ``ragzip recommend`` tries by itself: scorers at several budgets, before the built-in generator.

    Args:
        task: What kind of answer is wanted: each has its own prompt, and its own longest answer.
        budgets: In generator tokens.
    """
    tokens = {"long": 256, "yes_no": 8}.get(task, 32)
    stop = () if task == "long" else ("\n",)
    reader = Pipeline(HuggingFace(max_new_tokens=tokens, stop=stop), prompt=prompt_for(task))
    return [
        (f"{name}@{budget}", dataclasses.replace(reader, compressors=(_scorer(name, budget),), name=""))
        for name in _CANDIDATES
        for budget in budgets
    ]


def prompt_for(task: Task) -> Prompt:
    """The prompt for a kind of answer."""
    return {"long": LongForm(), "yes_no": YesNo()}.get(task, QA())


def _scorer(name: str, budget: int) -> Any:
    return config.from_config("compressor", {"type": name, "budget": budget})


def _labels(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or more of it where two would be the same."""
    short = [path.rpartition(".")[2] for path in paths]
    return {path: (last if short.count(last) == 1 else path) for path, last in zip(paths, short, strict=True)}
