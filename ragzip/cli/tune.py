"""``ragzip sweep`` and ``ragzip recommend``: which setting is worth its cost, on your own data."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ragzip.cli import runs
from ragzip.cli.console import note, table
from ragzip.cli.evaluate import _kind
from ragzip.errors import ConfigError, UsageError


def sweep(
    pipeline: Annotated[Path, typer.Argument(help="A pipeline's YAML file.")],
    data: Annotated[str, typer.Argument(help="As --data of 'ragzip eval'.")],
    set_: Annotated[
        list[str], typer.Option("--set", help="A path with its values: compressors.0.threshold=0.05,0.1,0.3")
    ],
    out: runs.Out = None,
    limit: runs.Limit = None,
    seed: runs.Seed = 0,
    split: runs.Split = None,
    data_dir: runs.DataDir = None,
    metrics: runs.Metrics = None,
    baselines: runs.Baselines = "all",
    batch: runs.Batch = 1,
    price_in: runs.PriceIn = None,
    price_out: runs.PriceOut = None,
    json_: runs.Json = False,
) -> None:
    """Measure a pipeline at many values and show the Pareto front of quality against tokens and first-token time.

    \b
    Example:
        ragzip sweep pipeline.yaml hotpotqa --set compressors.0.budget=100,200,400 --limit 100 --out runs/sweep
    """  # noqa: D301 - a backspace, by which the help keeps lines apart
    from ragzip.evaluation.rows import plan
    from ragzip.evaluation.sweep import expand

    rows = plan(expand(pipeline, set_), baselines=_kind(baselines), seed=seed)
    run = runs.run_rows(
        rows,
        runs.open_data(data, split, data_dir),
        kind="sweep",
        out=out,
        limit=limit,
        seed=seed,
        metrics=metrics,
        batch=batch,
        price_in=price_in,
        price_out=price_out,
    )
    fronts: dict[str, list[str]] = run.summary["fronts"]
    runs.print_run(run, json_, metrics, fronts=fronts)
    if json_:
        return
    main = _main_metric(run)
    if not main:
        note("this set has no quality that these pipelines can differ in, so there is no front")
        return
    for pair, names in fronts.items():
        quality, _, cost = pair.partition("/")
        if quality == main:
            rows_ = [[f"  {name}", _mean(run, name, quality), _mean(run, name, cost)] for name in names]
            typer.echo()
            table(f"Pareto front: {quality} against {cost}, cheapest first", ["  pipeline", quality, cost], rows_)
    note("the fronts of the other metrics are in the report")


def _mean(run: Any, name: str, metric: str) -> str:
    value = run.metrics[name].get(metric, {}).get("mean")
    if value is None:
        return "-"
    return f"{1000 * value:,.1f} ms" if metric == "ttft" else f"{value:,.3f}" if value < 10 else f"{value:,.0f}"


def recommend(
    data: Annotated[str, typer.Argument(help="As --data of 'ragzip eval'.")],
    max_loss: Annotated[
        str, typer.Option("--max-loss", help="Most loss of quality: 1% of the uncompressed score, or 0.01 absolute.")
    ],
    out: runs.Out = None,
    write: Annotated[Path, typer.Option("--write", "-w", help="Where the recommended pipeline goes.")] = Path(
        "recommended.yaml"
    ),
    pipelines: Annotated[
        list[Path] | None,
        typer.Option(
            "--pipeline", "-p", help="Candidates; default: sentence_filter and bm25_sentences at four budgets."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Values to try in the one --pipeline, as in 'ragzip sweep'.")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="The quality that may not be lost.")] = "",
    cost: Annotated[str, typer.Option("--cost", help="tokens_out or ttft.")] = "tokens_out",
    confidence: Annotated[float, typer.Option("--confidence", min=0.5, max=0.999)] = 0.95,
    limit: runs.Limit = None,
    seed: runs.Seed = 0,
    split: runs.Split = None,
    data_dir: runs.DataDir = None,
    batch: runs.Batch = 1,
    json_: runs.Json = False,
) -> None:
    """Name the cheapest pipeline whose loss is within the limit, with its confidence, and write it as YAML.

    \b
    Example:
        ragzip recommend mine.jsonl --max-loss 1% --out runs/choice
    """  # noqa: D301 - a backspace, by which the help keeps lines apart
    from ragzip.evaluation import sweep as sweeps
    from ragzip.evaluation.recommend import Loss, check_limit, choose, one_generator
    from ragzip.evaluation.rows import load_pipelines, plan

    wanted = Loss.parse(max_loss)
    _check_target(write)
    found = runs.open_data(data, split, data_dir)
    if set_:
        if not pipelines or len(pipelines) != 1:
            raise UsageError("--set needs exactly one --pipeline", hint="Or give several pipelines and no --set.")
        named = sweeps.expand(pipelines[0], set_)
    else:
        named = load_pipelines(pipelines) if pipelines else sweeps.candidates(found.task)
    rows = plan(named, baselines="reference", seed=seed)
    quality = _check_metrics(metric, cost, found.sample(limit, seed), rows, batch)
    check_limit(quality, wanted)
    one_generator({name: _generator(pipeline) for name, pipeline in named})
    run = runs.run_rows(rows, found, kind="recommend", out=out, limit=limit, seed=seed, batch=batch)
    test = functools.partial(choose, run, metric=quality, max_loss=wanted, cost=cost, confidence=confidence, seed=seed)
    chosen = test(candidates=[name for name, _ in named])
    pipeline = next(row.pipeline for row in rows if row.name == chosen.name)
    replaced = write.exists()
    dataclasses.replace(pipeline, name=_own_name(chosen.name, pipeline, seed)).to_yaml(write)
    bare = [row.name for row in rows if row.closed_book]
    if bare and test(candidates=bare).qualified:
        note(f"{bare[0]} surely loses as little: these questions need no context")
    runs.print_run(run, json_, recommendation={**chosen.as_dict(), "written": str(write)})
    if not json_:
        typer.echo()
        typer.echo(chosen.message)
        note(f"written: {write}{' (in place of the file that was there)' if replaced else ''}")
        if pipeline.retriever is None:
            note("it has no retriever: it answers over passages that are given, or with --index")


def _generator(pipeline: Any) -> str:
    from ragzip import config

    return json.dumps(config.to_config(pipeline.generator), sort_keys=True, default=str)


def _own_name(name: str, pipeline: Any, seed: int) -> str:
    """The row's name, unless it is a baseline's: a file of that name could not be evaluated beside these."""
    from ragzip.evaluation.rows import plan

    try:
        plan([(name, pipeline)], baselines="all", seed=seed)
    except ConfigError:
        return "recommended"
    return name


def _check_target(write: Path) -> None:
    """Before anything is measured: can the recommendation be written at all?"""
    if write.exists() and not write.is_file():
        raise UsageError(f"{write} is no file", hint="Give --write the name of a YAML file.")
    if not write.absolute().parent.is_dir():
        raise UsageError(f"{write.parent} is no folder", hint="Make it, or give --write another place.")
    if not os.access(write if write.exists() else write.absolute().parent, os.W_OK):
        raise UsageError(f"{write} cannot be written", hint="Give --write another place.")


def _check_metrics(metric: str, cost: str, data: Any, rows: Any, batch: int) -> str:
    """The quality metric to decide by, known to the set; refuses what could only fail after the run."""
    from ragzip.evaluation.choose import select
    from ragzip.evaluation.metrics import parse

    if cost not in ("tokens_out", "ttft"):
        raise UsageError(f"--cost {cost!r} is neither tokens_out nor ttft")
    generate = any(record.answers for record in data.records)
    retrieves = any(row.pipeline.retriever is not None for row in rows)
    select((cost,), data, generate=generate, retrieves=retrieves, timed=batch == 1)
    names = [m.name for m in select((), data, generate=generate, retrieves=retrieves)]
    if not metric:
        found = _main(data.task, names)
        if not found:
            raise UsageError("this set has no quality metric", hint="Choose a set with answers or labels.")
        return found
    if not parse(metric).quality:
        raise UsageError(f"--metric {metric!r} is a cost, not a quality", hint="f1, em, match, rouge_l, ...")
    select((metric,), data, generate=generate, retrieves=retrieves)
    if metric not in names:
        raise UsageError(f"--metric {metric!r} is not measured on this set", hint=f"It has: {', '.join(names)}.")
    return metric


def _main_metric(run: Any) -> str:
    found = _main(run.config["data"]["task"], run.config["metrics"])
    judged = [pair.partition("/")[0] for pair in run.summary["fronts"] if pair.startswith("ndcg@10/")]
    return found or next(iter(judged), "")


def _main(task: str, names: Any) -> str:
    """F1 where answers are short, ROUGE-L where they are long, else what the set can tell, else "".

    Judgements of documents say nothing here: they are of what was retrieved, before compression.
    """
    order = ("rouge_l", "f1") if task == "long" else ("f1", "em")
    return next((name for name in (*order, "sentence_recall", "answer_in_context") if name in names), "")
