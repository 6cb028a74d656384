"""``ragzip eval``, ``ragzip compare`` and ``ragzip sets``: what compression costs and saves, on your own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragzip.cli import runs
from ragzip.cli.console import note, print_json, table
from ragzip.errors import UsageError

if TYPE_CHECKING:
    from ragzip.evaluation.record import DataSet

_SHOWN = ("tokens_out", "ttft")  # of the costs, where none are asked for


def evaluate(
    pipelines: Annotated[list[Path], typer.Argument(help="Pipelines' YAML files.")],
    data: runs.Data,
    out: runs.Out = None,
    limit: runs.Limit = None,
    seed: runs.Seed = 0,
    split: runs.Split = None,
    data_dir: runs.DataDir = None,
    metrics: runs.Metrics = None,
    baselines: runs.Baselines = "all",
    baseline: Annotated[str, typer.Option("--baseline", help="The row all others are compared with.")] = "",
    generate: Annotated[
        bool | None,
        typer.Option("--generate/--no-generate", help="Answer, or stop after compression.", show_default=False),
    ] = None,
    batch: runs.Batch = 1,
    price_in: runs.PriceIn = None,
    price_out: runs.PriceOut = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value in every pipeline: generator.max_new_tokens=16")
    ] = None,
    json_: runs.Json = False,
) -> None:
    """Measure pipelines on a set, beside the baselines, with intervals and tests.

    The rows closed_book, no_compression and, at each pipeline's budget, oracle_sentences, truncate, random_sentences
    and bm25_sentences are always there. The run folder holds config, environment, every record, metrics and an HTML
    report. A run that was interrupted goes on with the same command.

    \b
    Examples:
        ragzip eval pipeline.yaml --data mine.jsonl --out runs/mine
        ragzip eval a.yaml b.yaml --data hotpotqa --limit 100 --out runs/hotpot --price-in 0.5 --price-out 1.5
    """  # noqa: D301 - a backspace, by which the help keeps lines apart
    from ragzip.evaluation.rows import load_pipelines, plan

    named = load_pipelines(pipelines, set_ or ())
    rows = plan(named, baselines=_kind(baselines), seed=seed)
    run = runs.run_rows(
        rows,
        runs.open_data(data, split, data_dir),
        kind="eval",
        out=out,
        limit=limit,
        seed=seed,
        metrics=metrics,
        batch=batch,
        price_in=price_in,
        price_out=price_out,
        generate=generate,
        baseline=baseline,
    )
    runs.print_run(run, json_, metrics)


def _kind(baselines: str) -> Any:
    if baselines not in ("all", "reference"):
        raise UsageError(f"--baselines {baselines!r} is neither all nor reference")
    return baselines


def compare(
    first: Annotated[Path, typer.Argument(help="A run folder.")],
    second: Annotated[Path, typer.Argument(help="Another run folder, over the same set.")],
    metrics: Annotated[str | None, typer.Option("--metrics", help="Names with commas; default all in both.")] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option("--pair", help="Rows of other names: NAME_IN_FIRST=NAME_IN_SECOND"),
    ] = None,
    seed: runs.Seed = 0,
    json_: runs.Json = False,
) -> None:
    """Show what differs between two runs over the same set, and whether a difference is significant."""
    from ragzip.evaluation import compare as comparing
    from ragzip.evaluation.folder import Run

    one, other = Run.load(first), Run.load(second)
    pairs = [_pair(text, one.names, other.names) for text in pair or ()]
    names = [name.strip() for name in metrics.split(",") if name.strip()] if metrics else None
    found = comparing.compare(one, other, metrics=names, pairs=pairs, seed=seed)
    if json_:
        print_json(found.as_dict())
        return
    from ragzip.evaluation.metrics import parse

    shown = [list(line) for line in found.table() if names or line[1] in _SHOWN or parse(line[1]).quality]
    columns = ["row", "metric", "first", "second", "difference", "95 % interval", "p, corrected", ""]
    table(f"{first} -> {second}, {found.records} questions in both", columns, shown)
    if not names:
        note("more metrics: --metrics or --json")
    for remark in found.notes:
        note(remark)


def _pair(text: str, first: list[str], second: list[str]) -> tuple[str, str]:
    """Both names; they may hold an equals sign themselves."""
    for i, character in enumerate(text):
        if character == "=" and text[:i] in first and text[i + 1 :] in second:
            return text[:i], text[i + 1 :]
    raise UsageError(
        f"--pair {text!r} is not NAME_IN_FIRST=NAME_IN_SECOND",
        hint=f"Rows of the first: {', '.join(first)}; of the second: {', '.join(second)}.",
    )


def sets(
    name: Annotated[str | None, typer.Argument(help="A set, as --data of 'ragzip eval'; without one, all.")] = None,
    split: runs.Split = None,
    data_dir: runs.DataDir = None,
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="Write the set's corpus here, to be indexed: corpus.jsonl")
    ] = None,
    json_: runs.Json = False,
) -> None:
    """List the named evaluation sets, or show one: how many records, what labels, its hash.

    \b
    Example: retrieval over a set's own corpus
        ragzip sets cranfield --corpus cranfield.jsonl
        ragzip index cranfield.jsonl --index kb/
        ragzip eval pipeline.yaml --data cranfield --out runs/cranfield     # its retriever names kb/
    """  # noqa: D301 - a backspace, by which the help keeps lines apart
    from ragzip.evaluation.data import data_dir as where
    from ragzip.evaluation.data import open_set, sources

    if name is not None:
        _show_set(open_set(name, data=data_dir, split=split), corpus, json_)
        return
    if corpus is not None:
        raise UsageError("--corpus needs the name of a set", hint="ragzip sets cranfield --corpus cranfield.jsonl")
    folder = where(data_dir)
    found = sources()
    if json_:
        rows = [{"name": s.name, "splits": list(s.splits), "task": s.task, "about": s.description} for s in found]
        print_json({"folder": str(folder) if folder else None, "sets": rows})
        return
    lines = [[s.name, ", ".join(s.splits), s.task, s.description] for s in found]
    table("sets", ["name", "splits", "answers", "about"], lines)
    note(f"read from {folder}" if folder else "the folder of the sets is not here: set RAGZIP_DATA or --data-dir")


def _show_set(found: DataSet, corpus: Path | None, as_json: bool) -> None:
    about: dict[str, str | int] = {
        "name": found.name,
        "source": found.source,
        "split": found.split,
        "version": found.version,
        "sha256": found.sha256,
        "records": len(found.records),
        "answers": found.task,
        "labels": found.labels or ("judgements" if any(r.qrels for r in found.records) else ""),
        "corpus": len(found.corpus),
    }
    if corpus is not None:
        if not found.corpus:
            raise UsageError(f"{found.name} has no corpus", hint="Its records bring their passages.")
        from ragzip.indexes.files import new_file

        direct = corpus.is_relative_to("/dev") or (corpus.exists() and not corpus.is_file())  # a pipe, say
        with corpus.open("wb") if direct else new_file(corpus.resolve()) as file:
            for passage in found.corpus:
                line = {"_id": passage.id, "title": passage.title, "text": passage.text}
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
    if as_json:
        print_json(about)
        return
    table("", ["", ""], [[key, f"{value:,}" if isinstance(value, int) else value] for key, value in about.items()])
