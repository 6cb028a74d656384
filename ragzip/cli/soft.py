"""``ragzip index compress``: what soft compressors make of an index's passages, kept beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from ragzip.cli.console import human_bytes, note, print_json, progress
from ragzip.cli.settings import read_settings
from ragzip.errors import UsageError


def fill_store(
    index: Path,
    method: str,
    model: str | None,
    options: list[str],
    precision: str,
    most_bytes: int | None,
    *,
    as_json: bool,
) -> None:
    """Fills the store of an index, or goes on with it, and says what came of it.

    Raises:
        UsageError: The method keeps no store.
        ConfigError: An option that is not there, or a precision that cannot be.
    """
    import dataclasses

    from ragzip import config
    from ragzip.compressors._stored import Storable, fill
    from ragzip.errors import ConfigError
    from ragzip.indexes import Index

    values: dict[str, Any] = {"type": method, **({"model": model} if model else {})}
    given = read_settings(options, example="rate=4")
    if "store" in given:
        raise ConfigError("store", "is filled here, beside the index", hint="Give it to the compressor that reads it.")
    values |= given
    made = config.from_config("compressor", values)
    if not isinstance(made, Storable):
        raise UsageError(
            f"{method!r} keeps no store: what it makes of a passage hangs on the question, or is text",
            hint="Choose xrag, comp_llm, icae or refrag.",
        )
    if precision not in ("float16", "int8"):
        raise ConfigError("precision", f"must be float16 or int8, not {precision!r}")
    with Index.open(index) as opened, progress("compressing", unit="passages") as report:
        total = len(opened)
        found = fill(
            made,
            opened,
            index,
            precision=precision,  # type: ignore[arg-type]
            most_bytes=most_bytes,
            on_progress=lambda done: report(done, total),
        )
    if as_json:
        print_json({**dataclasses.asdict(found), "folder": str(found.folder)})
        return
    typer.echo(
        f"{found.folder}: {found.pieces:,} pieces ({found.added:,} added, {found.rows:,} rows), "
        f"{human_bytes(found.bytes)}"
    )
    if found.full:
        note("stopped before the store would have been larger than it may; what is not in it is computed when asked")
