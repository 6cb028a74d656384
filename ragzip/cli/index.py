"""``ragzip index``: make, bring up to date, inspect and mend an index."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from ragzip.cli.console import human_bytes, note, pairs, print_json, progress, table, waiting
from ragzip.cli.settings import read_settings
from ragzip.errors import StoreError, UsageError

_DEFAULT = "build"


class _DefaultGroup(typer.core.TyperGroup):
    """``ragzip index docs/`` is ``ragzip index build docs/``: anything that is no subcommand is a path."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage("ragzip index", "PATH... --index DIR [OPTIONS]")
        formatter.write_usage("ragzip index", "add | remove | info | verify | repair ... --index DIR", prefix="       ")
        formatter.write_usage("ragzip index", "compress DIR --with METHOD --model MODEL", prefix="       ")
        formatter.write_usage("ragzip index", "tune DIR [--apply]", prefix="       ")
        formatter.write_usage(
            "ragzip index", "triples DIR --model MODEL [--base-url URL] | --pipeline FILE", prefix="       "
        )


app = typer.Typer(
    cls=_DefaultGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Index files and folders; run it again to bring the index up to date.",
    epilog="Options of indexing PATHs (--tokens, --storage, --rebuild, ...): ragzip index build --help",
)

Paths = Annotated[list[str], typer.Argument(help="Files, folders, quoted globs, - for standard input, python:topics.")]
IndexOption = Annotated[Path, typer.Option("--index", "-i", help="The index's folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Encoding of text files that are not UTF-8.")]


@app.command(_DEFAULT, hidden=True)
def build(
    paths: Paths,
    index: IndexOption,
    retriever: Annotated[
        str | None,
        typer.Option(
            "--retriever", help="dense, bm25, fusion, multi_vector, graph or jpq; default: the index's, else fusion."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Embedding model; default all-minilm-l6-v2.")] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=16, help="Most tokens of a passage; default 180.")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option("--overlap", min=0, help="Tokens shared by neighbours; default 30.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option of multi_vector, graph or jpq, as repetitions=10.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", help="How vectors are kept, as pca192,float8 or pq48+float16.")
    ] = None,
    encoding: Encoding = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Start afresh; the old index stays until the end.")
    ] = False,
    json_: Json = False,
) -> None:
    """Index PATHS; run again, only what changed is indexed, and what is gone from PATHS is removed."""
    from ragzip.pipelines.fitting import misfit

    wrong = misfit("dense", model) if model else ""
    if wrong:
        raise UsageError(f"--model: {wrong}", hint="Give a model that makes embeddings: ragzip models")
    settings = {
        "tokens": tokens,
        "overlap": overlap,
        "rebuild": rebuild,
        "storage": storage,
        "settings": read_settings(set_ or [], example="repetitions=10"),
    }
    _run(paths, index, retriever, model, encoding, json_, sync=True, **settings)


@app.command()
def add(paths: Paths, index: IndexOption, encoding: Encoding = None, json_: Json = False) -> None:
    """Add or update PATHS with the index's own settings; nothing is removed."""
    from ragzip.indexes import manifest

    if not manifest.exists(index):
        raise StoreError(f"no index at {index}", hint=f"Make one: ragzip index PATH... --index {index}")
    _run(paths, index, None, None, encoding, json_, sync=False)


def _run(
    paths: list[str],
    index: Path,
    retriever: str | None,
    model: str | None,
    encoding: str | None,
    as_json: bool,
    *,
    sync: bool,
    **settings: Any,
) -> None:
    from ragzip.indexes import build_index

    stdin = sys.stdin.buffer if "-" in paths else None
    with progress("indexing", unit="passages") as report, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        result = build_index(
            paths,
            index,
            sync=sync,
            retriever=_checked(retriever),
            model=model,
            encoding=encoding,
            stdin=stdin,
            on_progress=report,
            **settings,
        )
    if as_json:
        print_json(_report(result))
    else:
        _tell(result, index)
    _tell_skipped(result.skipped)
    for warning in warned:
        note(str(warning.message))


def _checked(retriever: str | None) -> Any:
    from typing import get_args

    from ragzip.indexes.manifest import Retrieval

    known = get_args(Retrieval)
    if retriever is not None and retriever not in known:
        raise UsageError(f"no retriever {retriever!r} for an index", hint=f"Choose one of {', '.join(known)}.")
    return retriever


def _report(result: Any) -> dict[str, Any]:
    values = dataclasses.asdict(result)
    values["skipped"] = [{"source": s.source, "reason": s.reason} for s in result.skipped]
    return values


def _tell(result: Any, index: Path) -> None:
    changes = [f"{n} {word}" for n, word in _changes(result) if n]
    typer.echo(
        f"{index}: {result.documents:,} documents, {result.passages:,} passages ({', '.join(changes) or 'empty'})"
    )


def _changes(result: Any) -> list[tuple[int, str]]:
    return [(getattr(result, word), word) for word in ("added", "updated", "unchanged", "removed")]


def _tell_skipped(skipped: Any, *, most: int = 20) -> None:
    if not skipped:
        return
    note(f"skipped {len(skipped):,}:")
    for item in skipped[:most]:
        note(f"  {item.source}: {item.reason}")
    if len(skipped) > most:
        note(f"  and {len(skipped) - most:,} more (--json lists all)")


@app.command()
def remove(
    sources: Annotated[list[str], typer.Argument(help="Sources as `info --sources` lists them; globs work.")],
    index: IndexOption,
    json_: Json = False,
) -> None:
    """Remove documents by their source."""
    from ragzip import indexes

    result = indexes.remove(index, sources)
    if json_:
        print_json(_report(result))
        return
    if not result.removed:
        raise UsageError(f"nothing in {index} matches {', '.join(sources)}", hint="See: ragzip index info --sources")
    _tell(result, index)


@app.command()
def info(
    index: IndexOption,
    sources: Annotated[bool, typer.Option("--sources", help="List the documents.")] = False,
    json_: Json = False,
) -> None:
    """Show what an index holds."""
    from ragzip import indexes

    found = indexes.info(index)
    values: dict[str, Any] = dataclasses.asdict(found)
    documents = [d.source for d in indexes.Index.open(index).documents()] if sources else None
    if json_:
        print_json({**values, **({"sources": documents} if documents is not None else {})})
        return
    shown = {key: human_bytes(value) if key == "bytes" else value for key, value in values.items()}
    shown["parts"] = ", ".join(found.parts) or "-"
    shown["structures"] = ", ".join(f"{name} {human_bytes(size)}" for name, size in found.structures.items()) or "-"
    del shown["part_settings"]
    for kind, settings in found.part_settings.items():
        shown[kind] = ", ".join(f"{key} {value}" for key, value in settings.items()) or "-"
    pairs({key.replace("_", " "): "-" if value is None else value for key, value in shown.items()})
    for source in documents or ():
        typer.echo(source)


@app.command("compress")
def compress_(
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
    with_: Annotated[str, typer.Option("--with", help="Soft compressor: xrag, comp_llm, icae or refrag.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Its weights; default: those of ragzip, if it has any.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="An option of it, as rate=4.")] = None,
    precision: Annotated[str, typer.Option("--precision", help="float16 or int8.")] = "float16",
    most_bytes: Annotated[
        int | None, typer.Option("--most-bytes", min=1, help="Stop before the store is larger.")
    ] = None,
    json_: Json = False,
) -> None:
    """Compress the passages of an index into a store beside it; run again, it goes on, and takes what is new."""
    from ragzip.cli.soft import fill_store

    fill_store(index, with_, model, set_ or [], precision, most_bytes, as_json=json_)


@app.command()
def tune(
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
    storage: Annotated[
        list[str] | None, typer.Option("--storage", help="One to try, as pq48+float16; default: some fifteen.")
    ] = None,
    questions: Annotated[int, typer.Option("--questions", min=1, help="Made from sentences of passages.")] = 200,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Passages that each question finds.")] = 10,
    least_recall: Annotated[
        float,
        typer.Option("--least-recall", min=0, max=1, help="Of what exact search finds; the cheapest that has it."),
    ] = 0.95,
    by: Annotated[str, typer.Option("--by", help="What is to be cheap: disk, memory or milliseconds.")] = "disk",
    figure: Annotated[Path | None, typer.Option("--figure", help="Draw recall against that cost here, as SVG.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Store the index so from now on.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the sentences that are drawn.")] = 0,
    json_: Json = False,
) -> None:
    """Measure ways to store the vectors on the index's own passages, and name the cheapest that finds enough."""
    from ragzip.cli.storage import tune_storage

    tune_storage(index, storage or [], questions, top_k, least_recall, by, seed, figure, apply=apply, as_json=json_)


@app.command()
def triples(
    index: Annotated[Path, typer.Argument(help="The folder of an index with a graph.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="An instruct model: folder, hub id or name.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="A server that speaks as OpenAI's does; its key: OPENAI_API_KEY.")
    ] = None,
    pipeline: Annotated[
        Path | None, typer.Option("--pipeline", "-p", help="A pipeline's YAML file, whose generator reads instead.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of it: generator.max_new_tokens=512")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Passages that are read together, and then safe.")] = 32,
    again: Annotated[bool, typer.Option("--again", help="Read passages again of which no fact is known.")] = False,
    json_: Json = False,
) -> None:
    """Have a language model add facts to the graph, from the passages that none has read yet."""
    from ragzip.cli.triples import add

    add(index, model, base_url, pipeline, set_ or [], batch, again=again, as_json=json_)


@app.command()
def repair(index: IndexOption, json_: Json = False) -> None:
    """Check every file, and make those again that are damaged and follow from passages and vectors."""
    from ragzip import indexes

    with waiting("repairing"):
        found = indexes.repair(index)
    if json_:
        print_json(dataclasses.asdict(found))
    elif found.damaged:
        typer.echo(f"{index}: made {', '.join(found.made_anew)} anew, because of {', '.join(found.damaged)}")
    else:
        typer.echo(f"{index}: no damaged file")
    if not json_:
        for what in found.lost:
            note(f"lost: {what}")


@app.command()
def verify(index: IndexOption, json_: Json = False) -> None:
    """Check every file of an index, and of the stores beside it, against its checksums."""
    from ragzip import indexes
    from ragzip.indexes.soft_store import verify_stores

    if not index.exists():
        raise StoreError(f"no index at {index}", hint=f"Make one: ragzip index PATH... --index {index}")
    with waiting("verifying"):
        problems = [*(str(problem) for problem in indexes.verify(index)), *verify_stores(index)]
    if json_:
        print_json({"index": str(index), "problems": problems})
    elif problems:
        table("", ["problem"], [[problem] for problem in problems])
    else:
        typer.echo(f"{index}: no problems")
    if problems:
        raise typer.Exit(1)
