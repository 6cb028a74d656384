"""``ragzip train``: makes the weights of a method, and goes on where it was stopped."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragzip import yaml_io
from ragzip.cli import runs
from ragzip.cli.console import note, pairs, print_json
from ragzip.errors import UsageError

if TYPE_CHECKING:
    from ragzip.training.options import TrainingEvent, TrainingReport

_EVERY = 60.0  # seconds between lines of progress where there is no terminal


def train(
    method: Annotated[
        str, typer.Argument(help="As 'ragzip list training' names them; 'ragzip show METHOD' has the options.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to; the same command goes on there where it stopped.")
    ],
    config: Annotated[
        Path | None, typer.Argument(help="A YAML file of options, or the folder of a model card.")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="The index folder that 'retriever' and 'jpq' are trained on.")
    ] = None,
    data_dir: runs.DataDir = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start afresh, whatever --out holds.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change an option: steps=100")] = None,
    json_: runs.Json = False,
) -> None:
    """Train the weights of a method, with checkpoints, a model card and checksums.

    \b
    Examples:
        ragzip train provence examples/training/provence.yaml --out runs/provence
        ragzip train provence examples/training/provence.yaml --out runs/try --set steps=20
        ragzip train retriever --corpus kb/ --out runs/retriever
        ragzip train jpq --corpus kb/ --out runs/jpq
    """  # noqa: D301 - a backspace, by which the help keeps lines apart
    from ragzip.training.folder import read_report, report_values, train_into
    from ragzip.training.options import read_trainer
    from ragzip.training.ranks import leads, leave

    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data-dir {data_dir} is no folder", hint="Give the folder of the named sets.")
    if config is None and corpus is None:
        raise UsageError(
            "no config was given",
            hint="Give a YAML file, as those in examples/training/, or --corpus kb/ to train on an index.",
        )
    if corpus is not None:
        set_ = [*(set_ or ()), f"corpus={yaml_io.quoted(str(corpus))}"]
    trainer = read_trainer(method, config, set_ or ())
    finished = not restart and out.is_dir() and read_report(out) is not None
    with _watching(method) as watch:
        try:
            report = train_into(out, trainer, data=data_dir, restart=restart, on_event=watch)
        except KeyboardInterrupt:
            watch.close()
            note(watch.interrupted(out))
            raise
    if not leads():
        leave()
    if finished:
        note(f"{out}: was finished before, nothing was trained; --restart trains it anew")
    if json_:
        print_json({"method": method, "out": str(out), **report_values(report, out)})
    else:
        _print(method, report)
    leave()


def _print(method: str, report: TrainingReport) -> None:
    minutes = report.seconds / 60
    about: dict[str, object] = {
        "trained": method,
        "steps": f"{report.steps:,}",
        "time": f"{minutes:,.1f} min" if minutes >= 1 else f"{report.seconds:.1f} s",
        "ended by": report.stopped,
    }
    pairs({**about, **{key: _number(value) for key, value in report.metrics.items()}, "weights": report.folder})


class _Watch:
    """Shows a training's events: a bar in a terminal, a line a minute elsewhere; metrics and other remarks always."""

    def __init__(self, label: str, bar: Any = None) -> None:
        self.label, self.bar = label, bar
        self.task = bar.add_task(label, total=None, facts="") if bar is not None else None
        self.step = self.steps = 0
        self.checkpoint = -1
        self._start = self._last = time.monotonic()
        self._first = -1
        self._told = ""

    def __call__(self, event: TrainingEvent) -> None:
        """One event of the trainer."""
        self.step, self.steps = event.step, event.steps
        if event.kind == "checkpoint":
            self.checkpoint = event.step
        if event.kind == "step":
            self._progress(event)
        if event.kind == "data":
            self._data(event)
        elif event.message or event.kind == "eval":
            facts = _facts(event.loss, event.metrics)
            parts = [f"step {event.step:,}" if event.kind == "eval" else "", event.message, facts]
            self._say(f"{self.label}: {', '.join(part for part in parts if part)}")

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.stop()

    def interrupted(self, out: Path) -> str:
        """What to say to somebody who pressed Ctrl-C."""
        from ragzip.training.options import CHECKPOINTS

        if self.checkpoint < 0 and not any(out.glob(CHECKPOINTS)):
            return f"stopped before the first checkpoint; the same command starts from the beginning in {out}"
        at = f" of step {self.checkpoint:,}" if self.checkpoint >= 0 else ""
        return f"stopped at step {self.step:,} of {self.steps:,}; the same command goes on from the checkpoint{at}"

    def _data(self, event: TrainingEvent) -> None:
        """Examples may be told of one by one: a new message at once, the same with other numbers now and then."""
        if self.bar is not None:
            self.bar.update(self.task, completed=event.step, total=event.steps or None, facts=event.message)
            return
        now, told = time.monotonic(), re.sub(r"\d[\d,.]*", "", event.message)
        if event.message and (told != self._told or now - self._last >= _EVERY):
            self._told, self._last = told, now
            self._say(f"{self.label}: {event.message}")

    def _progress(self, event: TrainingEvent) -> None:
        facts = _facts(event.loss, event.metrics)
        if self.bar is not None:
            self.bar.update(self.task, completed=event.step, total=event.steps or None, facts=facts)
            return
        now = time.monotonic()
        if self._first < 0:  # what was done before an interruption took no time of this call
            self._first, self._start = event.step, now
        if now - self._last >= _EVERY and event.step < event.steps:
            self._last = now
            told = f", {facts}" if facts else ""
            seen = event.step - self._first
            if seen:  # of the first step it is not known what it took
                left = (now - self._start) / seen * (event.steps - event.step)
                told += f", about {left / 60:.0f} min left"
            self._say(f"{self.label}: step {event.step:,} of {event.steps:,}{told}")

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            note(text)


@contextmanager
def _watching(label: str) -> Iterator[_Watch]:
    from ragzip.training.ranks import leads

    if not (sys.stderr.isatty() and leads()):
        yield _Watch(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Left

    text = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("steps"))
    facts = TextColumn("{task.fields[facts]}", markup=False)
    console = Console(stderr=True)
    with Progress(*text, facts, TimeElapsedColumn(), Left(), console=console, transient=True) as bar:
        yield _Watch(label, bar)


def _facts(loss: float | None, metrics: Mapping[str, float]) -> str:
    found = [f"loss {_number(loss)}"] if loss is not None else []
    return "  ".join([*found, *(f"{name} {_number(value)}" for name, value in metrics.items())])


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)
