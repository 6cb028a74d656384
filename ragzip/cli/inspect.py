"""``ragzip check``, ``list`` and ``show``: what there is, and whether it fits, without loading any weight."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from ragzip.cli.console import print_json, shown, table
from ragzip.errors import ConfigError, UsageError


def check(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline's YAML file.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value: compressors.0.threshold=0.1")] = None,
) -> None:
    """Check a pipeline file: names, types, whether the parts fit, and whether its index and models are here."""
    from ragzip.pipelines import Pipeline
    from ragzip.pipelines.check import flatten
    from ragzip.pipelines.check import table as stack_table

    made = Pipeline.load(pipeline, overrides=set_ or ())
    problems = _missing(made)
    parts = flatten(made.stack)
    typer.echo(f"{pipeline}: the parts fit")
    if parts:
        typer.echo(stack_table(parts, -1))
    for problem in problems:
        typer.secho(f"missing: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


def _missing(pipeline: Any) -> list[str]:
    """Indexes that do not open, and models and files that are not here, without loading any."""
    from ragzip import indexes, models
    from ragzip.errors import RagzipError
    from ragzip.pipelines.fitting import components

    problems = []
    for path, part in components(pipeline):
        index, model = getattr(part, "index", None), getattr(part, "model", None)
        if isinstance(index, str):
            try:
                indexes.info(index)
                if hasattr(part, "structures"):
                    problems += [f"{path}.index: {what}" for what in indexes.lacking(part)]
            except RagzipError as error:
                problems.append(f"{path}.index: {error}")
        names = {"model": "" if hasattr(part, "base_url") else model}
        names |= {option: getattr(part, option, None) for option in ("encoder", "tokenizer")}
        problems += [
            f"{path}.{option}: {name!r} is not here. Get it: ragzip models fetch {name}"
            for option, name in names.items()
            if isinstance(name, str) and name and not models.status(name)
        ]
        if hasattr(part, "lacking"):
            problems += [f"{path}.{what}" for what in part.lacking()]
        file = getattr(part, "path", None)
        if isinstance(file, str) and file and not Path(file).is_file():
            problems.append(f"{path}.path: no file {file!r}")
    return problems


def list_(
    kind: Annotated[
        str | None, typer.Argument(help="retriever, compressor, generator, kv, prompt or training.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """List the components by role."""
    from ragzip import registry

    wanted = (kind or "").rstrip("s")
    if wanted and wanted not in registry.KINDS:
        raise UsageError(f"no role {kind!r}", hint=registry.suggest(wanted, list(registry.KINDS)))
    kinds: list[registry.Kind] = [k for k in registry.KINDS if not wanted or k == wanted]
    found = {k: {name: _idea(k, name) for name in registry.names(k)} for k in kinds}
    if json_:
        print_json(found)
        return
    for role, members in found.items():
        table(role, ["name", "idea"], [[f"  {name}", idea] for name, idea in members.items()])
        typer.echo()


def _idea(kind: Any, name: str) -> str:
    from ragzip import registry

    try:
        return (inspect.getdoc(registry.get(kind, name)) or "").split("\n")[0]
    except ConfigError as error:  # a plugin that is broken hides no other component
        return f"({error.message})"


def show(
    name: Annotated[str, typer.Argument(help="A component, a pipeline's YAML file, or a passage id with --index.")],
    index: Annotated[str | None, typer.Option("--index", "-i", help="Show the passage with this id.")] = None,
) -> None:
    """Show a component's options, a pipeline with every default spelled out, or the original text of a passage."""
    from ragzip import registry

    if index is not None:
        _show_passage(name, index)
        return
    kinds = [kind for kind in registry.KINDS if name in registry.names(kind)]
    if kinds:
        for kind in kinds:
            _show_component(kind, name)
        return
    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file():
        from ragzip.pipelines import Pipeline

        typer.echo(Pipeline.load(name).to_yaml(), nl=False)
        return
    everything = [n for kind in registry.KINDS for n in registry.names(kind)]
    raise UsageError(f"no component and no file {name!r}", hint=registry.suggest(name, everything))


def _show_component(kind: Any, name: str) -> None:
    from ragzip import config, registry

    cls = registry.get(kind, name)
    typer.echo(f"{name} ({kind})\n")
    typer.echo(inspect.getdoc(cls) or "")
    fields = config.options(cls)
    if fields:
        typer.echo("\noptions:")
        rows = [[f"  {f.name}", str(f.type).replace("typing.", ""), _default(f)] for f in fields]
        table("", ["  name", "type", "default"], rows)


def _default(field: Any) -> str:
    from ragzip import config

    if field.default is not dataclasses.MISSING:
        return str(config.to_config(field.default)) if field.default != "" else '""'
    return "(required)" if field.default_factory is dataclasses.MISSING else str(field.default_factory())


def _show_passage(passage_id: str, index: str) -> None:
    from ragzip import indexes

    try:
        passage = indexes.Index.open(index).passage(passage_id)
    except KeyError as error:
        hint = f"Ids are SOURCE#NUMBER; sources: ragzip index info --sources --index {index}"
        raise UsageError(f"{index} has no passage {passage_id!r}", hint=hint) from error
    if passage.title:
        typer.secho(shown(passage.title), bold=True)
    typer.echo(shown(passage.text))
