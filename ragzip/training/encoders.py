"""What the trainers of encoders share: a base made ready to be trained, held-out examples, options as numbers."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragzip.compressors._options import check_number, check_share
from ragzip.errors import ConfigError, UsageError
from ragzip.models.locate import resolve
from ragzip.models.pooling import positions, read_recipe
from ragzip.models.runtime import check_options, choose_device, choose_dtype, settle_threads
from ragzip.models.tuned import open_base
from ragzip.registry import suggest
from ragzip.text import intersect, sentences
from ragzip.training.examples import EXTRA, LABELLED, RANKED, Example, Marked, plain, read_examples

_TELLING = 20  # characters of a sentence, from which on it is the same one wherever it stands
_ALIKE = 80  # characters by which the beginning of a passage is known
_LEAST = {"negatives": 1, "max_tokens": 32, "window": 32, "batch": 1, "steps": 1, "eval_every": 1, "patience": 0}
_LEAST |= {"held_out": 1, "layers": 1, "passages": 1, "paragraphs": 1, "rank": 1, "written": 1, "sentences": 1}
_LEAST |= {"composed": 0, "wide": 1}
_BY_SET = ("most", "repeat", "further")
_FROZEN = ("embeddings.word_embeddings", "embeddings.position_embeddings", "pooler")


def trainable(base: str, *, dtype: str, device: str, layers: int | None = None) -> tuple[Any, str]:
    """An encoder of which some parameters are to be trained, and the device it is on.

    Word and position embeddings stay as they are. There is no dropout: on small encoders and few passes over the
    data it costs more time than it is worth.

    Args:
        base: Its name.
        dtype: Number format of forward and backward passes.
        device: Where to.
        layers: Train only so many of the last layers, and nothing below them; None trains all, 0 nothing.
    """
    settle_threads()
    device = choose_device(device)
    backbone = open_base(base, choose_dtype(dtype, device), device)
    narrow = device == "cpu" and backbone.dtype.itemsize < 4
    backbone.set_attn_implementation("eager" if narrow else "sdpa")  # eager is the faster one backwards in bf16
    backbone.requires_grad_(False).train(False)
    count = int(backbone.config.num_hidden_layers)
    if layers is not None and not 0 <= layers <= count:
        raise ConfigError("layers", f"must be between 0 and {count}, not {layers}")
    lowest = 0 if layers is None else count - layers
    for name, parameter in backbone.named_parameters():
        number = _layer(name)
        lower = number < lowest if number is not None else lowest > 0
        parameter.requires_grad_(not name.startswith(_FROZEN) and not lower and layers != 0)
    return backbone, device


def longest(base: str, wanted: int) -> int:
    """So many tokens, or as many as the base can read."""
    return min(wanted, positions(read_recipe(resolve(base)).folder))


def _layer(name: str) -> int | None:
    """The number of the layer a parameter belongs to, or None."""
    parts = name.split(".")
    for before, number in itertools.pairwise(parts):
        if before in ("layer", "layers") and number.isdecimal():
            return int(number)
    return None


def named(backbone: Any, **heads: Any) -> list[tuple[str, Any]]:
    """The parameters that are trained, as ``save_tuned`` names them."""
    found = [(f"backbone.{name}", p) for name, p in backbone.named_parameters() if p.requires_grad]
    for head, module in heads.items():
        found += [(f"heads.{head}.{name}", p) for name, p in module.named_parameters()]
    return found


def new_head(width: int, *, seed: int, like: Any, device: str) -> Any:
    """A linear layer to one logit with small random weights, in the number format of ``like``."""
    import torch

    head = torch.nn.Linear(width, 1)
    with torch.no_grad():
        head.weight.copy_(torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) * 0.02)
        head.bias.zero_()
    return head.to(device=device, dtype=like)


def check_trainer(trainer: Any) -> None:
    """Checks the options that trainers have in common, as far as this one has them.

    Raises:
        ConfigError: With the option's name.
    """
    if hasattr(trainer, "sets"):
        _check_sets(trainer)
    for option, least in _LEAST.items():
        value = getattr(trainer, option, least)
        if value is not None and value < least:
            raise ConfigError(option, f"must be at least {least}, not {value!r}")
    for option in ("lr", "rank_weight", "scale", "alpha", "positive"):
        value = getattr(trainer, option, 1.0)
        if not 0 < value < math.inf:
            raise ConfigError(option, f"must be a number above 0, not {value!r}")
    check_share("keep", getattr(trainer, "keep", None))
    for option in ("empty", "partial", "filtered"):
        check_number(option, getattr(trainer, option, None), low=0.0, high=1.0)
    check_format(trainer.dtype, trainer.device)


def check_format(dtype: str, device: str) -> None:
    """Checks number format and device of a training.

    Raises:
        ConfigError: With the option's name; fp16 is one, too: its gradients vanish where the loss is not scaled.
    """
    check_options(dtype, device)
    if dtype == "fp16":
        raise ConfigError("dtype", "fp16 is too narrow for gradients", hint="Train in bf16 or fp32.")


def _check_sets(trainer: Any) -> None:
    """Checks the names of training sets."""
    known = [*LABELLED, *RANKED, *EXTRA]
    if not trainer.sets:
        raise ConfigError("sets", "must name at least one training set", hint=f"Known: {', '.join(known)}.")
    given = {"sets": trainer.sets, **{n: tuple(numbers(n, getattr(trainer, n, ()))) for n in _BY_SET}}
    for option, names in given.items():
        strange = [name for name in names if name not in known]
        if strange:
            raise ConfigError(option, f"unknown training set {strange[0]!r}", hint=suggest(strange[0], known))


def numbers(name: str, options: Sequence[str]) -> dict[str, int]:
    """``("squad=7000",)`` as a mapping; ``name`` is the option's, for errors."""
    found = {}
    for option in options:
        key, _, value = option.partition("=")
        if not key or not value.isdecimal():
            raise ConfigError(name, f"must be set=number, not {option!r}")
        found[key] = int(value)
    return found


def hold_out(found: Sequence[Example], count: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples drawn with the seed from all sets alike, and of the others what is ``apart`` from them."""
    order = list(range(len(found)))
    random.Random(f"{seed} held out").shuffle(order)  # noqa: S311 - no secret
    chosen = set(order[:count])
    held = [found[i] for i in sorted(chosen)]
    return held, apart([example for i, example in enumerate(found) if i not in chosen], held)


def divide(found: Sequence[Example], count: int, seed: int) -> tuple[list[Example], list[Example]]:
    """``hold_out``, where something must be left to train on.

    Raises:
        UsageError: Nothing is.
    """
    held, kept = hold_out(found, count, seed)
    if not kept:
        raise UsageError(
            f"all {len(found):,} examples are held out, and none is left to train on",
            hint="Give more sets, or a smaller held_out.",
        )
    return held, kept


def read_further(
    limits: Mapping[str, int], found: Sequence[Example], held: Sequence[Example], *, data: Path | None, seed: int
) -> list[Example]:
    """Examples of sets beyond those that were read first, ``apart`` from what is held out.

    Args:
        limits: At most so many of each set, drawn with the seed.
        found: Those that were read first, with what is held out.
        held: What is held out.
        data: The data folder; else see ``data_dir``.
        seed: For every draw.

    Raises:
        UsageError, IngestError: As ``read_examples``.
    """
    known, more = {example.id for example in found}, []
    for name, limit in limits.items():
        some = [one for one in read_examples([name], data=data, seed=seed, most={}) if one.id not in known]
        draw = random.Random(f"{seed} further {name}")  # noqa: S311 - no secret
        more += [some[i] for i in sorted(draw.sample(range(len(some)), min(limit, len(some))))]
    return apart(more, held)


def apart(found: Sequence[Example], held: Sequence[Example]) -> list[Example]:
    """Examples without any passage that helps one of those that are held out.

    Another cut of the same passage counts as the same. Examples that such a passage helps are left out; where it was
    to be one that does not help, only it is. Left out, too, are examples that ask the same or that the same sentence
    helps: sets repeat each other's questions, some with other ids and without the passage.
    """
    asked = {plain(example.question) for example in held}
    told = {text for example in held for text in helping(example)}
    texts: set[str] = set()
    near: dict[tuple[str, str], list[str]] = {}
    for example in held:
        for marked in example.positives:
            texts.add(marked.text)
            near.setdefault((example.set_name, marked.title), []).append(marked.text)

    def seen(name: str, marked: Marked) -> bool:
        others = near.get((name, marked.title), ())
        return marked.text in texts or any(overlap(marked.text, other) for other in others)

    kept = []
    for example in found:
        name = example.set_name
        same = plain(example.question) in asked or not told.isdisjoint(helping(example))
        if not same and not any(seen(name, marked) for marked in example.positives):
            kept.append(replace(example, negatives=tuple(m for m in example.negatives if not seen(name, m))))
    return kept


def helping(example: Example) -> set[str]:
    """The sentences that help, as far as they are known and say enough to be told from others."""
    found = set()
    for marked in example.positives:
        for place in sentences(marked.text) if marked.known else ():
            text = plain(marked.text[place[0] : place[1]])
            if len(text) >= _TELLING and intersect(marked.support, [place]):
                found.add(text)
    return found


def overlap(first: str, second: str) -> bool:
    """Whether two stretches of whole sentences can be cuts of one passage that have text in common."""
    return first[:_ALIKE] in second or second[:_ALIKE] in first
