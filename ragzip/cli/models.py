"""``ragzip models``: which models there are, where they are, and getting one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ragzip.cli.console import human_bytes, note, print_json, progress, table

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, help="List models, or fetch one.")


@app.callback()
def models(ctx: typer.Context, json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """List the built-in models and the trained weights that come with ragzip, and where each is."""
    if ctx.invoked_subcommand is not None:
        return
    from ragzip.models import all_models, all_shipped, status

    found: list[dict[str, Any]] = [
        {
            "name": spec.name,
            "kind": spec.kind,
            "dimensions": spec.dimensions,
            "window": spec.window,
            "bytes": spec.download_bytes,
            "licence": spec.licence,
            "source": spec.requirement,
            "hub": spec.hub,
            "here": status(spec.name),
        }
        for spec in all_models()
    ]
    weights: list[dict[str, Any]] = [
        {
            "name": spec.name,
            "method": spec.method,
            "base": spec.base,
            "bytes": spec.bytes,
            "licence": spec.licence,
            "sha256": spec.sha256,
            "here": status(spec.name),
        }
        for spec in all_shipped()
    ]
    if json_:
        print_json({"models": found, "weights": weights})
        return
    rows = [
        [
            m["name"],
            m["kind"],
            str(m["dimensions"]),
            human_bytes(m["bytes"]),
            m["licence"],
            m["source"],
            m["here"] or "no: ragzip models fetch " + m["name"],
        ]
        for m in found
    ]
    table("", ["name", "kind", "dim", "size", "licence", "package", "here"], rows)
    typer.echo()
    columns = ["name", "method", "trained from", "size", "licence", "here"]
    lines = [
        [
            w["name"],
            w["method"],
            w["base"],
            human_bytes(w["bytes"]) if w["here"] else "–",
            w["licence"],
            w["here"] or "no",
        ]
        for w in weights
    ]
    table("", columns, lines)


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="A name from the list, or a Hugging Face id.")]) -> None:
    """Get a model and make it ready; does nothing where it is ready already."""
    from ragzip.models import fetch as get

    with progress(f"fetching {name}", unit="bytes") as report:
        path = get(name, on_progress=report, on_status=note)
    typer.echo(f"{name}: {path}")
