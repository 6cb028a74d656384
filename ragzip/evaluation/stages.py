"""The stages of many pipelines over a few records: what several of them share is run once and counts in each.

A stage is known by its fingerprint: the config of everything up to it. The same retrieval, the same first compressors
and the same prompt before the same generator are the same work, and give the same bits as doing it again would.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ragzip import config
from ragzip.errors import PromptTooLong, UsageError
from ragzip.evaluation.baselines import ClosedBook, OracleSentences
from ragzip.evaluation.flops import Shape, shape_of
from ragzip.evaluation.memory import PeakMemory
from ragzip.evaluation.outcome import Costs, Outcome
from ragzip.evaluation.record import Record
from ragzip.pipelines import Pipeline
from ragzip.pipelines.check import flatten
from ragzip.protocols import Counter, Remembering, Stack, run_step
from ragzip.types import CompressionResult, Context, Generation, Message, Query, SoftSegment, Step, context_of

# Options of a generator that do not change how it counts tokens.
_NOT_COUNTING = ("max_new_tokens", "temperature", "top_p", "seed", "stop", "batch_size", "dtype", "device", "kv")


@dataclass(frozen=True)
class Timed:
    """What a stage gave, what it took, and the most memory meanwhile.

    Attributes:
        value: Its result.
        seconds: Wall time a record.
        peak: Bytes, or None where unknown.
    """

    value: Any
    seconds: float
    peak: int | None


@dataclass(frozen=True)
class Answered:
    """One record's way through one pipeline; ``error`` says why there is no answer."""

    outcome: Outcome
    error: str = ""


@dataclass
class Stages:
    """Runs pipelines over one batch of records and remembers each stage for the next pipeline.

    Attributes:
        records: The batch. Batches of one give the times of every question by itself.
        generate: False stops after compression.
        share: False runs every stage anew each time; results are the same.
    """

    records: Sequence[Record]
    generate: bool = True
    share: bool = True
    _known: dict[str, Timed] = field(default_factory=dict)
    _counters: dict[str, Remembering] = field(default_factory=dict)

    def run(self, pipeline: Pipeline[Any], *, shape: Shape | None = None) -> list[Answered]:
        """What the pipeline makes of each record.

        Raises:
            GenerationError: A generator or its server fails; a prompt that is too long is no failure but a result.
        """
        ready = pipeline._seeded()
        key, found = self._passages(ready)
        results, compress, peaks = self._compress(ready, key, found)
        outcomes = [
            Outcome(record, passages, result, None, Costs(found.seconds, compress, peak_memory=_most(peaks)))
            for record, passages, result in zip(self.records, found.value, results, strict=True)
        ]
        if not self.generate:
            return [Answered(outcome) for outcome in outcomes]
        return self._generate(ready, outcomes, shape)

    def _passages(self, pipeline: Pipeline[Any]) -> tuple[str, Timed]:
        if any(isinstance(part, ClosedBook) for part in flatten(pipeline.stack)):
            return "none", Timed([() for _ in self.records], 0.0, None)
        if pipeline.retriever is None:
            return "given", Timed([record.passages for record in self.records], 0.0, None)
        key = _digest("retrieve", config.to_config(pipeline.retriever))
        queries = [Query(record.question, record.id) for record in self.records]
        return key, self._once(key, lambda: pipeline.retrieve(queries))

    def _compress(
        self, pipeline: Pipeline[Any], key: str, found: Timed
    ) -> tuple[list[CompressionResult[Any]], float, list[int | None]]:
        counting = counting_key(pipeline)
        counter = self._counter(counting, pipeline)
        key = _digest(key, counting)
        first = self._once(key, lambda: self._contexts(found.value, counter))
        current, started = first.value
        counts, seconds, peaks = list(started), first.seconds, [found.peak, first.peak]
        steps: list[list[Step]] = [[] for _ in current]
        stack = pipeline.stack
        for part in stack.compressors:
            key = _digest(key, config.to_config(part), stack.timeout, stack.min_tokens)
            bound = self._labelled(part).bind(counter)
            before, sizes = current, counts
            if isinstance(bound, Stack):  # its steps are steps of this one, as when it answers
                timed = self._once(key, lambda b=bound, c=before: self._within(b, c, counter, stack))  # type: ignore[misc]
                results, counts = timed.value
                current = [result.context for result in results]
                for so_far, result in zip(steps, results, strict=True):
                    so_far.extend(result.steps)
                seconds += timed.seconds
                peaks.append(timed.peak)
                continue
            timed = self._once(key, lambda b=bound, c=before, n=sizes: self._step(b, c, n, counter, stack))  # type: ignore[misc]
            current, counts = [context for context, _ in timed.value], [step.tokens_out for _, step in timed.value]
            for so_far, (_, step) in zip(steps, timed.value, strict=True):
                so_far.append(step)
            seconds += timed.seconds
            peaks.append(timed.peak)
        results = [
            CompressionResult(context, tuple(taken), start, count)
            for context, taken, start, count in zip(current, steps, started, counts, strict=True)
        ]
        return results, seconds, peaks

    def _contexts(self, found: Sequence[Any], counter: Counter) -> tuple[list[Context[Any]], list[int]]:
        """The uncompressed contexts with their counts.

        All pipelines get the same objects: a counter knows them again, and none of them pays for another count.
        """
        pairs = zip(self.records, found, strict=True)
        contexts = [context_of(Query(record.question, record.id), passages) for record, passages in pairs]
        return contexts, [counter.context(context) for context in contexts]

    def _step(
        self, part: Any, contexts: Sequence[Context[Any]], counts: Sequence[int], counter: Counter, stack: Any
    ) -> list[tuple[Context[Any], Step]]:
        return run_step(part, contexts, counts, counter, timeout=stack.timeout, min_tokens=stack.min_tokens)

    def _within(
        self, part: Stack[Any, Any], contexts: Sequence[Context[Any]], counter: Counter, stack: Any
    ) -> tuple[list[CompressionResult[Any]], list[int]]:
        """What a stack within a stack makes of the contexts, and their tokens as the outer one counts."""
        found = part.run_within(contexts, counter, timeout=stack.timeout, min_tokens=stack.min_tokens)
        return found, [counter.context(result.context) for result in found]

    def _counter(self, key: str, pipeline: Pipeline[Any]) -> Remembering:
        if key not in self._counters:
            self._counters[key] = Remembering(pipeline.counter())
        return self._counters[key]

    def _labelled(self, part: Any) -> Any:
        if isinstance(part, Stack):
            return replace(part, compressors=tuple(map(self._labelled, part.compressors)))
        if isinstance(part, OracleSentences):
            return replace(part, records={record.id: record for record in self.records})
        return part

    def _generate(self, pipeline: Pipeline[Any], outcomes: list[Outcome], shape: Shape | None) -> list[Answered]:
        """Answers; prompts that were answered before are not answered again."""
        reader = _digest("generate", config.to_config(pipeline.generator))
        start = time.perf_counter()
        prompts = [pipeline.prompt.render(outcome.compression.context) for outcome in outcomes]
        rendered = (time.perf_counter() - start) / len(prompts)
        keys = [f"{reader}/{i}/{_prompt_key(prompt)}" for i, prompt in enumerate(prompts)]
        missing = [i for i, key in enumerate(keys) if not self.share or key not in self._known]
        fresh: dict[int, Timed] = {}
        if missing:
            with PeakMemory() as peak:
                made = _answers(pipeline, [prompts[i] for i in missing])
            fresh = {i: Timed(one, rendered, peak.bytes) for i, one in zip(missing, made, strict=True)}
            self._known.update({keys[i]: timed for i, timed in fresh.items()})
        answered: list[Answered] = []
        for i, outcome in enumerate(outcomes):
            timed = fresh.get(i) or self._known[keys[i]]
            if isinstance(timed.value, PromptTooLong):
                answered.append(Answered(outcome, str(timed.value)))
                continue
            answered.append(Answered(_with_answer(outcome, timed, shape)))
        return answered

    def _once(self, key: str, work: Callable[[], Any]) -> Timed:
        known = self._known.get(key) if self.share else None
        if known is not None:
            return known
        with PeakMemory() as peak:
            start = time.perf_counter()
            value = work()
            seconds = time.perf_counter() - start
        timed = Timed(value, seconds / max(len(self.records), 1), peak.bytes)
        self._known[key] = timed
        return timed


def counting_key(pipeline: Pipeline[Any]) -> str:
    """The same for pipelines whose generators count tokens alike."""
    values = {k: v for k, v in config.to_config(pipeline.generator).items() if k not in _NOT_COUNTING}
    return _digest("count", values, bool(pipeline.prompt.titles))


def shapes(pipelines: Sequence[Pipeline[Any]]) -> dict[str, Shape | None]:
    """The shape of every generator, by its fingerprint; loads the models."""
    found: dict[str, Shape | None] = {}
    for pipeline in pipelines:
        key = generator_key(pipeline)
        if key not in found:
            found[key] = shape_of(pipeline.generator)
    return found


def generator_key(pipeline: Pipeline[Any]) -> str:
    """The fingerprint of a pipeline's generator."""
    return _digest("shape", config.to_config(pipeline.generator))


def require_passages(records: Sequence[Record], pipelines: Sequence[Pipeline[Any]]) -> str:
    """Refuses records of which none has passages where no retriever finds any.

    Returns:
        A remark where some have none, as where a search found nothing; their contexts are empty.

    Raises:
        UsageError: Says what to do.
    """
    without = [record.id for record in records if not record.passages]
    if not without or all(pipeline.retriever is not None for pipeline in pipelines):
        return ""
    said = f"{len(without)} of {len(records)} records have no passages ({without[0]!r} is the first)"
    if len(without) == len(records):
        raise UsageError(
            f"{said}, and a pipeline has no retriever",
            hint="Add passages to the records, or a retriever over an index of the set's corpus to the pipeline.",
        )
    return f"{said}: their contexts are empty where a pipeline has no retriever"


def _answers(pipeline: Pipeline[Any], prompts: Sequence[Sequence[Message[Any]]]) -> list[Generation | PromptTooLong]:
    """An answer or why there can be none, each prompt by itself where the batch cannot be answered as a whole.

    A prompt that is too long is a result; any other failure (a server that is down) ends the run, which goes on when
    it is started again.
    """
    try:
        return list(pipeline.generator.generate(prompts))
    except PromptTooLong as error:
        if len(prompts) == 1:
            return [error]
    return [answer for prompt in prompts for answer in _answers(pipeline, [prompt])]


def _with_answer(outcome: Outcome, timed: Timed, shape: Shape | None) -> Outcome:
    made: Generation = timed.value
    costs = replace(
        outcome.costs,
        prefill=timed.seconds + made.first_token_seconds,
        decode=made.seconds - made.first_token_seconds,
        prompt_tokens=made.prompt_tokens,
        new_tokens=made.new_tokens,
        peak_memory=_most([outcome.costs.peak_memory, timed.peak]),
        prefill_flops=shape.prefill(made.prompt_tokens, made.cached_tokens) if shape else None,
        decode_flops=shape.decode(round(made.kv_positions) or made.prompt_tokens, made.passes or made.new_tokens)
        if shape
        else None,
        kv_memory=made.kv_bytes or None,
    )
    return replace(outcome, answer=made.text, costs=costs)


def _most(values: Sequence[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _prompt_key(messages: Sequence[Message[Any]]) -> str:
    """A hash of everything the generator reads."""
    digest = hashlib.sha256()
    for message in messages:
        digest.update(f"\0{message.role}\0".encode())
        for piece in message.pieces:
            if isinstance(piece, SoftSegment):
                rows = piece.embeddings.detach().float().cpu().contiguous()
                digest.update(f"\0soft {piece.space} {tuple(rows.shape)}\0".encode())
                digest.update(rows.numpy().tobytes())
            else:
                digest.update((piece if isinstance(piece, str) else piece.text).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
