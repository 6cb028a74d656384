"""What the commands that run evaluations share: options to settings, progress, and what they print."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragzip.cli.console import note, print_json, progress

if TYPE_CHECKING:
    from ragzip.evaluation.folder import Run
    from ragzip.evaluation.record import DataSet
    from ragzip.evaluation.rows import Row
    from ragzip.evaluation.runner import Settings

Data = Annotated[
    str, typer.Option("--data", "-d", help="A named set, a JSONL of records, a BEIR folder, or a hub name.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="The run folder; the same command goes on where it stopped. Default: one in runs/.",
        show_default=False,
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Most questions, drawn with the seed.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the draw, the random baseline and the bootstrap.")]
Split = Annotated[str | None, typer.Option("--split", help="Of the set: dev, train, test.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the named sets; else RAGZIP_DATA.", show_default=False)
]
Metrics = Annotated[str | None, typer.Option("--metrics", help="Names with commas; default all that apply.")]
Baselines = Annotated[
    str,
    typer.Option(
        "--baselines", help="all, or reference: closed book and no compression alone, without the same-budget rows."
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Questions together; 1 times each by itself.")]
PriceIn = Annotated[float | None, typer.Option("--price-in", min=0, help="USD per million input tokens.")]
PriceOut = Annotated[float | None, typer.Option("--price-out", min=0, help="USD per million output tokens.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object, nothing else.")]

_RANKING = re.compile(r"recall@|ndcg@|mrr(@|$)")
_EVERY = 60.0  # seconds between lines of progress where there is no terminal


def run_rows(
    rows: Sequence[Row],
    found: DataSet,
    *,
    kind: str,
    out: Path | None,
    limit: int | None,
    seed: int,
    metrics: str | None = None,
    batch: int = 1,
    price_in: float | None = None,
    price_out: float | None = None,
    generate: bool | None = None,
    baseline: str = "",
) -> Run:
    """Runs them into the folder and writes the report."""
    from ragzip.evaluation.report.html import write
    from ragzip.evaluation.runner import Settings, evaluate
    from ragzip.evaluation.sweep import prompt_for

    prices = None if price_in is None and price_out is None else (price_in or 0.0, price_out or 0.0)
    settings = Settings(limit, seed, _names(metrics), generate, batch, prices, baseline)
    wanted = type(prompt_for(found.task))
    other = sorted({type(row.pipeline.prompt).__name__ for row in rows} - {wanted.__name__, "Plain"})
    if found.task in ("long", "yes_no") and other:
        note(f"{found.name} wants {found.task} answers, but a prompt is {', '.join(other)}: see docs/pipelines.md")
    out = out or _folder(kind, rows, found, settings)
    with reporting(f"{found.name}: {len(rows)} rows") as report:
        run = evaluate(rows, found, out, settings, on_progress=report, on_note=note)
    write(run, run.path / "report.html")
    _note_strangers(run, found)
    return run


def _note_strangers(run: Run, found: DataSet) -> None:
    """An index of other documents scores 0, which looks like a bad retriever."""
    from ragzip.evaluation.data import sources

    for name in run.names:
        means = {metric: values for metric, values in run.metrics.get(name, {}).items() if _RANKING.match(metric)}
        if means and all(values.get("n") and values.get("mean") == 0 for values in means.values()):
            known = {one.name for one in sources()}
            how = f" ragzip sets {found.name} --corpus corpus.jsonl writes it." if found.name in known else ""
            note(f"{name}: not one passage that {found.name} names was found; is its index of that set's corpus?{how}")


def _names(metrics: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in metrics.split(",") if name.strip()) if metrics else ()


def _folder(kind: str, rows: Sequence[Row], data: DataSet, settings: Settings) -> Path:
    """A folder below ``runs/``: the same for the same command over the same models and indexes, else another."""
    from ragzip.evaluation.identity import identities

    asked = dataclasses.asdict(dataclasses.replace(settings, prices=None))
    parts = [{row.name: row.to_config() for row in rows}, data.sha256, asked, identities(rows)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.-]+", "-", data.name)[:60]
    return Path("runs") / f"{kind}-{name}-{digest}"


def open_data(data: str, split: str | None, data_dir: Path | None) -> DataSet:
    """The set that the options name."""
    from ragzip.evaluation.data import open_set

    return open_set(data, data=data_dir, split=split)


@contextmanager
def reporting(label: str) -> Iterator[Callable[[int, int], None]]:
    """Progress with time left: a bar in a terminal, a line a minute elsewhere."""
    if sys.stderr.isatty():
        with progress(label, unit="questions") as report:
            yield report
        return
    start = time.monotonic()
    last, first = start, -1

    def report_line(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = done - 1 if first < 0 else first
        if now - last >= _EVERY and done < total:
            last = now
            left = (now - start) / max(done - first, 1) * (total - done)
            note(f"{label}: {done} of {total} questions, about {left / 60:.0f} min left")

    yield report_line


_ABOUT = ("comparisons", "failed", "failed_steps", "savings", "break_even", "fronts")


def print_run(run: Run, as_json: bool, metrics: str | None = None, **extra: Any) -> None:
    """The table, with the metrics that were asked for by name, or one JSON object, on standard output."""
    if as_json:
        about = {key: run.summary.get(key) for key in _ABOUT}
        print_json({"run": str(run.path), "data": run.config["data"], "metrics": run.metrics, **about, **extra})
        return
    from ragzip.evaluation.report.terminal import show

    show(run, also=_names(metrics))
    note(f"run: {run.path}")
    note(f"report: {run.path / 'report.html'}")
