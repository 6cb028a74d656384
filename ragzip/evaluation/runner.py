"""Runs pipelines side by side over a set, question by question, into a run folder."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ragzip
from ragzip.errors import PromptTooLong, UsageError
from ragzip.evaluation import folder as folders
from ragzip.evaluation.baselines import budgeted
from ragzip.evaluation.choose import measured, select
from ragzip.evaluation.environment import environment
from ragzip.evaluation.identity import identities, window_of
from ragzip.evaluation.metrics import Metric
from ragzip.evaluation.outcome import Outcome
from ragzip.evaluation.record import DataSet, Record
from ragzip.evaluation.rows import Row
from ragzip.evaluation.stages import Answered, Stages, generator_key, require_passages, shapes
from ragzip.evaluation.summary import Prices, summarise
from ragzip.indexes.weight import Weight, weight
from ragzip.models.runtime import forget
from ragzip.protocols import Stack
from ragzip.tokens import text_of
from ragzip.types import Passage, SoftSegment, TextSegment

OnProgress = Callable[[int, int], None]

_HIGHEST_PRICE = 1_000_000
_SLACK = 1e-6


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is made.

    Attributes:
        limit: Most questions, drawn with the seed; None takes all.
        seed: Of the draw, of the random sentences, and of the bootstrap.
        metrics: Names; empty takes every metric the set has labels for.
        generate: False measures retrieval and compression only; None generates where the set has answers.
        batch: Questions that go through each stage together: faster, and without times.
        prices: USD per million tokens, for what compression saves on an API.
        baseline: A row to compare all others with; "" compares each with its generator without compression.
    """

    limit: int | None = None
    seed: int = 0
    metrics: tuple[str, ...] = ()
    generate: bool | None = None
    batch: int = 1
    prices: Prices | None = None
    baseline: str = ""

    def __post_init__(self) -> None:
        for name in ("limit", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.seed < 0:
            raise UsageError(f"seed must be at least 0, not {self.seed}")
        for option, price in zip(("--price-in", "--price-out"), self.prices or (), strict=False):
            if not 0 <= price <= _HIGHEST_PRICE:
                raise UsageError(
                    f"{option}: {price!r} is no price", hint=f"USD per million tokens, 0 to {_HIGHEST_PRICE:,}."
                )


def evaluate(
    rows: Sequence[Row],
    data: DataSet,
    out: str | Path,
    settings: Settings = Settings(),
    *,
    on_progress: OnProgress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> folders.Run:
    """Runs every row over the set, or goes on with a run that was interrupted, and sums it up.

    Rows are run side by side, question by question, in another order each time, so that a machine that gets slower
    meanwhile is slower for all.

    Args:
        rows: From ``plan``.
        data: The whole set; ``settings.limit`` draws from it.
        out: The run folder.
        settings: How.
        on_progress: Told how many questions are done, and of how many.
        on_note: Told remarks: models being loaded, questions that were there already.

    Returns:
        The finished run.

    Raises:
        UsageError: A metric needs labels that the set lacks; records without passages and no retriever.
        StoreMismatch: The folder holds another run.
        GenerationError: A generator or its server fails: the same call goes on from there. Prompts that are too long
            are recorded as failures of their row instead, unless no row at all can answer the first question.
    """
    drawn = data.sample(settings.limit, settings.seed)
    generate = any(record.answers for record in drawn.records) if settings.generate is None else settings.generate
    retrieves = any(row.pipeline.retriever is not None for row in rows)
    if not any(record.answers or record.relevant for record in drawn.records):
        rows = [row for row in rows if not row.reads_labels]  # it would have nothing to read
    if on_note:
        _note_labels(drawn, generate, on_note)
    timed = settings.batch == 1
    metrics = select(settings.metrics, drawn, generate=generate, retrieves=retrieves, timed=timed)
    for row in rows:
        row.pipeline.check()
    lacking = require_passages(drawn.records, [row.pipeline for row in rows if not row.closed_book])
    if lacking and on_note:
        on_note(lacking)
    config = run_config(rows, data, drawn, settings, generate, metrics)
    with folders.opened(Path(out), config, environment()) as writer:
        done = set(writer.done)
        left = [record for record in drawn.records if record.id not in done]
        if done and on_note:
            on_note(f"{len(done)} of {len(drawn.records)} questions were there already")
        if left:
            recorded = measured(metrics, generate=generate, timed=timed)
            _run(
                rows, left, recorded, writer, settings, generate, (on_progress, len(done), len(drawn.records)), on_note
            )
        run = folders.Run.load(out)
        means, summary = summarise(run, seed=settings.seed, prices=settings.prices, window=window_of(rows))
        writer.finish(folders.METRICS, means)
        writer.finish(folders.SUMMARY, summary)
    return folders.Run.load(out)


def _note_labels(data: DataSet, generate: bool, on_note: Callable[[str], None]) -> None:
    """Says which records cannot be scored, before anything is run."""
    answered = sum(bool(record.answers) for record in data.records)
    if answered < len(data.records):
        rest = "" if generate else ", and nothing is generated"
        on_note(
            f"{answered} of {len(data.records)} records of {data.name} have answers: em, f1, ... see no others{rest}"
        )


def run_config(
    rows: Sequence[Row], data: DataSet, drawn: DataSet, settings: Settings, generate: bool, metrics: Sequence[Metric]
) -> dict[str, Any]:
    """What ``config.yaml`` holds: everything that a repetition needs."""
    names = {row.name for row in rows}
    if settings.baseline and settings.baseline not in names:
        raise UsageError(
            f"--baseline {settings.baseline!r} is no row", hint=f"Rows: {', '.join(row.name for row in rows)}."
        )
    return {
        "ragzip_run": folders.FORMAT,
        "ragzip": ragzip.__version__,
        "data": {
            "name": data.name,
            "source": data.source,
            "split": data.split,
            "version": data.version,
            "sha256": data.sha256,
            "task": data.task,
            "labels": data.labels,
            "of": len(data.records),
            "records": len(drawn.records),
            "limit": settings.limit,
            "seed": settings.seed,
        },
        "seed": settings.seed,
        "generate": generate,
        "batch": settings.batch,
        "metrics": [metric.name for metric in metrics],
        "identities": identities(rows),
        "baseline": settings.baseline or rows[0].baseline,
        "rows": {
            row.name: {**row.to_config(), **({"baseline": settings.baseline} if settings.baseline else {})}
            for row in rows
        },
    }


def _run(
    rows: Sequence[Row],
    records: Sequence[Record],
    metrics: Sequence[Metric],
    writer: folders.Writer,
    settings: Settings,
    generate: bool,
    progress: tuple[OnProgress | None, int, int],
    on_note: Callable[[str], None] | None,
) -> None:
    report, before, total = progress
    start = time.perf_counter()
    for row in rows:
        row.pipeline.warm_up()
    weights = {row.name: None if row.closed_book else weight(row.pipeline.retriever) for row in rows}
    known = shapes([row.pipeline for row in rows]) if generate else {}
    _require_shapes(known, settings.metrics)
    _rehearse(rows, records[: settings.batch], generate)
    if on_note:
        on_note(f"models loaded and warmed up in {time.perf_counter() - start:.1f} s")
    for first in range(0, len(records), settings.batch):
        batch = records[first : first + settings.batch]
        stages = Stages(batch, generate)
        made: dict[str, list[Answered]] = {}
        for row in _order(rows, f"{settings.seed} {batch[0].id}"):
            made[row.name] = _answer(row, stages, made, known.get(generator_key(row.pipeline)), settings.seed)
        if generate and not before and not first:
            _require_an_answer(made)
        for i, record in enumerate(batch):
            answers = {row.name: _weighed(made[row.name][i], weights[row.name]) for row in rows}
            passages, names = _versions(answers)
            question = dataclasses.replace(record, passages=passages).to_json()
            writer.add(question, [_line(row, answers[row.name], metrics, names[row.name]) for row in rows])
            if report:
                report(before + first + i + 1, total)


def _weighed(answered: Answered, found: Weight | None) -> Answered:
    """With what the index of its pipeline weighs and took to make."""
    if found is None:
        return answered
    costs = dataclasses.replace(answered.outcome.costs, index_bytes=found.bytes, build_seconds=found.seconds)
    return dataclasses.replace(answered, outcome=dataclasses.replace(answered.outcome, costs=costs))


def _require_shapes(known: Mapping[str, Any], asked: Sequence[str]) -> None:
    """Refuses metrics that count operations where no generator's shapes are known."""
    wanted = [name for name in asked if name.endswith("_flops")]
    if wanted and not any(known.values()):
        raise UsageError(
            f"the metric {wanted[0]} needs a local model, and no generator here is one", hint="Leave it out."
        )


def _rehearse(rows: Sequence[Row], records: Sequence[Record], generate: bool) -> None:
    """Answers the first question once for nothing: first calls pay for allocation and lazy imports."""
    stages = Stages(records, generate)
    for row in rows:
        if not row.like:
            stages.run(row.pipeline)


def _order(rows: Sequence[Row], turn: str) -> list[Row]:
    """In another order each turn; rows that follow another one come after it."""
    free = [row for row in rows if not row.like]
    bound = [row for row in rows if row.like]
    for part in (free, bound):
        random.Random(turn).shuffle(part)  # noqa: S311 - no secret
    return free + bound


def _answer(row: Row, stages: Stages, made: Mapping[str, list[Answered]], shape: Any, seed: int) -> list[Answered]:
    forget()  # what another row, or another question, has read is read again: every row pays for its own work
    if not row.like:
        return stages.run(row.pipeline, shape=shape)
    kind = row.name.partition("=")[0]
    found: list[Answered] = []
    for i, leader in enumerate(made[row.like]):
        part = budgeted(kind, leader.outcome.compression.tokens_out, seed)
        pipeline = dataclasses.replace(row.pipeline, compressors=Stack((part,)))
        alone = stages if len(stages.records) == 1 else Stages([stages.records[i]], stages.generate)
        found += alone.run(pipeline, shape=shape)
    return found


def _require_an_answer(made: Mapping[str, list[Answered]]) -> None:
    """Stops a run at its first question where nothing works at all."""
    errors = [one.error for answers in made.values() for one in answers]
    if errors and all(errors):
        raise PromptTooLong(f"no pipeline could answer the first question: {errors[0]}")


def _versions(answers: Mapping[str, Answered]) -> tuple[tuple[Passage, ...], dict[str, dict[str, str]]]:
    """Every passage that any row retrieved, and for each row under which id its own stand.

    Two indexes may have different passages of one id, cut otherwise from one document: the later one gets a number.
    """
    found: dict[str, Passage] = {}
    names: dict[str, dict[str, str]] = {}
    for row, one in answers.items():
        own: dict[str, str] = {}
        for passage in one.outcome.passages:
            if passage.id in own:
                continue  # where ids repeat within a row, the first one counts
            name, number = passage.id, 1
            while name in found and (found[name].text, found[name].title) != (passage.text, passage.title):
                number += 1
                name = f"{passage.id} ({number})"
            own[passage.id] = name
            found.setdefault(name, dataclasses.replace(passage, id=name))
        names[row] = own
    return tuple(found.values()), names


def _line(row: Row, answered: Answered, metrics: Sequence[Metric], names: Mapping[str, str]) -> dict[str, Any]:
    outcome = answered.outcome
    compression = outcome.compression
    segments = compression.context.segments
    soft = sum(int(s.embeddings.shape[0]) for s in segments if isinstance(s, SoftSegment))
    texts = [s for s in segments if isinstance(s, TextSegment)]
    line: dict[str, Any] = {
        "pipeline": row.name,
        "id": outcome.record.id,
        "answer": outcome.answer,
        "passages": [names[passage.id] for passage in outcome.passages],
        "kept": [
            [names.get(span.passage_id, span.passage_id), span.start, span.end]
            for segment in segments
            for span in segment.sources
        ],
        "soft": soft,
        "steps": [dataclasses.asdict(step) for step in compression.steps],
        "prompt_tokens": outcome.costs.prompt_tokens,
        "metrics": {m.name: None if _untold(m, row, answered) else _score(m, outcome) for m in metrics},
    }
    if any(not _extractive(segment, compression.context) for segment in texts):
        line["context"] = text_of(compression.context)
    if answered.error:
        line["error"] = answered.error
    return line


def _score(metric: Metric, outcome: Outcome) -> float | None:
    """The metric's value, which is what it says it is: one that is not would be found out after all questions."""
    value = metric.score(outcome)
    low, high = metric.bounds or (-math.inf, math.inf)
    if value is None:
        return None
    if not (math.isfinite(value) and low - _SLACK <= value <= high + _SLACK):
        raise UsageError(
            f"the metric {metric.name!r} is {value!r} for {outcome.record.id!r}"
            + (f", not from {low:g} to {high:g}" if metric.bounds else ""),
            hint="A metric gives a finite number within its bounds, or None where it says nothing.",
        )
    return min(max(value, low), high)  # sums may be off by rounding


def _untold(metric: Metric, row: Row, answered: Answered) -> bool:
    """A failed answer has no answer's metrics; a closed book retrieved nothing, which is no failure to find it."""
    if answered.error and "answer" in metric.needs:
        return True
    return row.closed_book and bool(metric.needs & {"qrels", "sentences"})


def _extractive(segment: TextSegment, context: Any) -> bool:
    """Whether the segment's text is what its spans say."""
    try:
        return segment.text == segment.joiner.join(context.expand(span) for span in segment.sources)
    except KeyError:
        return False
