"""``ragzip index triples``: facts from a language model, as further edges of a graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import typer

from ragzip.cli.console import print_json, progress

MOST_NEW_TOKENS = 512


def add(index: Path, model: str, base_url: str | None, batch: int, *, as_json: bool) -> None:
    """Has a model read the passages that none has read yet, and says what it gave."""
    from ragzip.indexes.graph.triples import add_triples

    with progress("reading", unit="passages") as report:
        found = add_triples(index, _generator(model, base_url), batch=batch, on_progress=report)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    typer.echo(
        f"{index}: {found.passages:,} passages read, {found.triples:,} facts; left out {found.unfounded:,} that do not"
        f" stand in their passage; {found.unreadable:,} answers held none"
    )


def _generator(model: str, base_url: str | None) -> Any:
    if base_url is not None:
        from ragzip.generators.openai import OpenAI

        return OpenAI(base_url=base_url, model=model, max_new_tokens=MOST_NEW_TOKENS)
    from ragzip.generators.huggingface import HuggingFace

    return HuggingFace(model=model, max_new_tokens=MOST_NEW_TOKENS)
