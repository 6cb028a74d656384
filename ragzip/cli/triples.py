"""``ragzip index triples``: facts from a language model, as further edges of a graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ragzip.cli.console import note, print_json, progress
from ragzip.errors import UsageError
from ragzip.pipelines import Pipeline

MOST_NEW_TOKENS = 512


def add(
    index: Path,
    model: str | None,
    base_url: str | None,
    pipeline: Path | None,
    overrides: Sequence[str],
    batch: int,
    *,
    again: bool,
    as_json: bool,
) -> None:
    """Has a generator read the passages that none has read yet, and says what it gave.

    Raises:
        UsageError: It is said twice which generator, or not at all.
    """
    from ragzip.indexes.graph.triples import add_triples

    if (model is None) == (pipeline is None) or (pipeline and base_url) or (overrides and not pipeline):
        raise UsageError(
            "--model, with --base-url for a server, or --pipeline, with --set, says who reads",
            hint="Give one of the two.",
        )
    generator = (
        _named(str(model), base_url) if pipeline is None else Pipeline.load(pipeline, overrides=overrides).generator
    )
    with progress("reading", unit="passages") as report:
        found = add_triples(index, generator, batch=batch, again=again, on_progress=report)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    typer.echo(
        f"{index}: {found.passages:,} passages read, {found.triples:,} facts; left out {found.unfounded:,} that do not"
        f" stand in their passage; {found.unreadable:,} answers held none"
    )
    if found.passages and not found.triples:
        note("No answer held a fact of its passage: see to the model and its length of answers, then use --again.")


def _named(model: str, base_url: str | None) -> Any:
    if base_url is not None:
        from ragzip.generators.openai import OpenAI

        return OpenAI(base_url=base_url, model=model, max_new_tokens=MOST_NEW_TOKENS)
    from ragzip.generators.huggingface import HuggingFace

    return HuggingFace(model=model, max_new_tokens=MOST_NEW_TOKENS)
