"""``ragzip index tune``: ways to store the vectors of an index, side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from ragzip.cli.console import human_bytes, note, print_json, progress, table
from ragzip.errors import UsageError

if TYPE_CHECKING:
    from ragzip.evaluation.storage import StorageTuning


def tune_storage(
    path: Path,
    storages: list[str],
    questions: int,
    top_k: int,
    least_recall: float,
    by: str,
    seed: int,
    figure: Path | None,
    *,
    apply: bool,
    as_json: bool,
) -> None:
    """Measures storages, says which is the cheapest that finds enough, and writes it if asked to.

    Raises:
        UsageError: ``by`` is no cost, or nothing finds enough.
    """
    from ragzip.evaluation.storage import Cost, tune
    from ragzip.indexes import store_as

    if by not in get_args(Cost):
        raise UsageError(f"--by {by!r} is no cost", hint=f"Choose one of {', '.join(get_args(Cost))}.")
    if figure is not None and not figure.absolute().parent.is_dir():
        raise UsageError(f"--figure {figure}: there is no such folder", hint="Make it first.")
    with progress("measuring", unit="storages") as report:
        found = tune(path, storages=storages, questions=questions, k=top_k, seed=seed, on_progress=report)
    if not as_json:
        rows = [
            [
                one.storage,
                f"{one.recall:.3f}",
                f"{one.mrr:.3f}",
                human_bytes(one.disk),
                human_bytes(one.memory),
                f"{one.milliseconds:.2f}",
                f"{one.seconds:.1f}",
                ", ".join(one.fronts),
            ]
            for one in found.measured
        ]
        title = f"{found.passages:,} passages of {found.dimensions}, {found.questions} questions"
        columns = ["storage", f"recall@{top_k}", f"mrr@{top_k}", "disk", "memory", "ms", "seconds", "on the front of"]
        table(title, columns, rows)
        for line in found.left_out:
            note(f"left out: {line} needs more passages, or other vectors")
    chosen = found.best(least_recall, by)  # type: ignore[arg-type]
    if apply:
        store_as(path, chosen.storage)
    if figure is not None:
        _draw(found, by, chosen.storage, figure)
    if as_json:
        print_json({**dataclasses.asdict(found), "chosen": chosen.storage, "applied": apply})
        return
    typer.echo(f"\n{chosen.storage}: the least {by} with a recall of at least {least_recall:g}")
    note(f"{path}: stored so from now on" if apply else "nothing was changed; --apply stores the index so")


def _draw(found: StorageTuning, by: Any, chosen: str, path: Path) -> None:
    from ragzip.evaluation.report.storages import front

    try:
        path.write_text(front(found, by, chosen), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written: {error.strerror or error}", hint="Choose another place."
        ) from error
    note(f"drawn: {path}")
