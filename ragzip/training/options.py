"""What all trainers share: what they tell on the way, what they give back, and how a config becomes one.

A trainer is a frozen dataclass of plain values in ``ragzip/training/<method>.py``, registered under the kind
``training``; its fields are its options. Its config is YAML with ``ragzip: 1`` and the options at the top level::

    ragzip: 1
    type: provence
    steps: 2000
    seed: 0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from ragzip import config, registry, yaml_io
from ragzip.errors import ConfigError, UsageError
from ragzip.pipelines.overrides import apply_overrides

FORMAT = 1
CHECKPOINTS = "checkpoint*"
"""Files and folders of such names, in the folder that is trained into, hold all that a trainer needs to go on; they are
no part of what it makes."""

_KIND: registry.Kind = "training"


@dataclass(frozen=True, slots=True)
class TrainingEvent:
    """What a trainer tells while it works.

    Attributes:
        kind: "data" while examples are made, "step" after updates, "eval" with held-out metrics, "checkpoint" when
            one is safely on the disk, "done" at the end.
        step: Updates so far, those before an interruption included.
        steps: Updates in all, as far as is known.
        loss: Of this step, or None.
        metrics: By name; what they mean is the trainer's to say.
        message: A remark for people, or "".
    """

    kind: Literal["data", "step", "eval", "checkpoint", "done"]
    step: int
    steps: int
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


OnEvent = Callable[[TrainingEvent], None]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came out.

    Attributes:
        folder: The weights with their model card.
        steps: Updates that were made, those before an interruption included.
        seconds: Spent on them.
        metrics: On held-out data.
        stopped: Why it ended: "all steps done", or what stopped it early.
    """

    folder: Path
    steps: int
    seconds: float
    metrics: Mapping[str, float]
    stopped: str


@runtime_checkable
class Trainer(Protocol):
    """Trains one part; a frozen dataclass whose fields are its options."""

    def run(
        self,
        out: Path,
        *,
        data: Path | None = None,
        resume: bool = True,
        on_event: OnEvent | None = None,
    ) -> TrainingReport:
        """Trains into a folder and leaves weights (safetensors) and their model card there.

        Args:
            out: A folder of this training alone; what is needed to go on lies in it under names as ``CHECKPOINTS``.
            data: Folder of the named sets; None looks where evaluation looks.
            resume: Go on from a checkpoint where there is one; False passes over it.
            on_event: Told what is going on, in this thread.

        Returns:
            What came out.

        Raises:
            UsageError: The data are not there.
            ModelError: A model is not there, or a checkpoint is damaged.
            KeyboardInterrupt: Passed on, after a checkpoint was written and told.
        """
        ...


def read_trainer(method: str, path: str | Path | None = None, overrides: Sequence[str] = ()) -> Trainer:
    """The trainer that a YAML file describes, with every value checked.

    Args:
        method: A name of the registry's kind ``training``.
        path: The file, or a folder with a model card, whose config is taken: it trains the same again. None is a file
            that says nothing.
        overrides: ``option=value`` strings.

    Raises:
        UsageError: No such method or file.
        ConfigError: With file, line and path of the value.
        ModelError: A folder without a model card that can be read.
    """
    names = registry.names(_KIND)
    if method not in names:
        raise UsageError(f"no trainer {method!r}", hint=registry.suggest(method, names))
    if path is None:
        return make_trainer(method, apply_overrides({}, overrides))
    file = Path(path)
    if file.is_dir():
        from ragzip.training.card import CARD, read_card

        return make_trainer(method, apply_overrides(dict(read_card(file).config), overrides), source=str(file / CARD))
    values, lines = yaml_io.parse(_text(file), source=str(path))
    changed = apply_overrides({} if values is None else values, overrides)
    return make_trainer(method, changed, lines=lines, source=str(path))


def make_trainer(method: str, values: Any, *, lines: config.Lines | None = None, source: str = "") -> Trainer:
    """The trainer that plain values describe: ``ragzip``, ``type`` and its options.

    Raises:
        ConfigError: Unknown options, wrong values, another format or another method.
    """
    place = config.Place("", lines, source)
    if not isinstance(values, dict):
        raise place.error("a training config is a mapping of options", f"See them: ragzip show {method}")
    version = values.get("ragzip", FORMAT)
    if version != FORMAT or isinstance(version, bool):
        raise place.at("ragzip").error(f"format {version!r} is not {FORMAT}", "Use a matching ragzip version.")
    if values.get("type", method) != method:
        raise place.at("type").error(f"is {values['type']!r}, but {method!r} is to be trained", "Name the other one.")
    given = {key: value for key, value in values.items() if key not in ("ragzip", "type")}
    made: Trainer = config.build(registry.get(_KIND, method), given, place, what=f"training {method!r}")
    return made


def trainer_config(trainer: Trainer) -> dict[str, Any]:
    """The config of a trainer with every default spelled out; ``make_trainer`` reads it back."""
    values: dict[str, Any] = config.to_config(trainer)
    return {"ragzip": FORMAT, **values}


def _text(path: Path) -> str:
    """A small UTF-8 file, or a clear error."""
    try:
        if path.stat().st_size > yaml_io.MAX_BYTES:
            raise ConfigError("", "too large for a config", source=str(path), hint="Is it the right file?")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {path}", hint="Give a YAML file, as those in examples/training/.") from error
    except UnicodeDecodeError as error:
        raise ConfigError("", "not UTF-8 text", source=str(path)) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="Give a readable YAML file.") from error
