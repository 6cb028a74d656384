"""A pipeline: retriever, stack of compressors, prompt and frozen generator, as one declarative object."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Generic

from ragzip import config, yaml_io
from ragzip.errors import ConfigError, UsageError
from ragzip.pipelines.check import check_stack
from ragzip.pipelines.fitting import check_models
from ragzip.pipelines.prompt import QA
from ragzip.pipelines.provenance import cite
from ragzip.pipelines.stream import AnswerStream
from ragzip.protocols import (
    Compressor,
    Generator,
    OnText,
    Prompt,
    Retriever,
    Stack,
    SupportsCounting,
    SupportsFuse,
    walk,
)
from ragzip.registry import names, suggest
from ragzip.tokens import TokenCounter
from ragzip.types import Answer, CompressionResult, Generation, Passage, Query, S, TextSegment, Timings, context_of

MAX_QUESTION = 20_000
"""Longest question in characters: beyond it, something was pasted into the wrong place."""

_BATCH = 32
_FORMAT = 1


@dataclass(frozen=True)
class Pipeline(Generic[S]):
    """Finds passages, compresses them, and has a frozen generator answer from what is left.

    Building one loads nothing; two pipelines are equal when their configs are.

    Attributes:
        generator: Answers.
        retriever: Finds passages; None where the caller gives them to ``answer``.
        compressors: A compressor, a stack made with ``>>``, or a tuple of compressors.
        prompt: Puts context and question into chat turns.
        seed: From 0; the generator's, where it has one and leaves it at 0.
        name: For reports, or "".
    """

    generator: Generator[S]
    retriever: Retriever | None = None
    compressors: Compressor[TextSegment, S] | tuple[Compressor[Any, Any], ...] = Stack()
    prompt: Prompt = QA()
    seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        given = self.compressors
        if isinstance(given, tuple | list):
            object.__setattr__(self, "compressors", Stack(tuple(given)))
        elif not isinstance(given, Stack):
            object.__setattr__(self, "compressors", Stack((given,)))
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral) or self.seed < 0:
            raise ConfigError("seed", f"must be a whole number from 0, not {self.seed!r}")
        if self.seed >= 2**63:
            raise ConfigError("seed", f"must be less than 2 to the 63rd, not {self.seed}")

    @property
    def stack(self) -> Stack[TextSegment, S]:
        """The compressors, always as a stack."""
        return self.compressors  # type: ignore[return-value]

    def check(self) -> None:
        """Refuses parts that do not fit together; loads no weights.

        Raises:
            StackError: Says which parts, shows the stack, and what to do.
            ConfigError: A part that is none, or a model of another kind than its part reads.
        """
        for role, kind in (("generator", "generate"), ("retriever", "retrieve"), ("prompt", "render")):
            part = getattr(self, role)
            if part is None and role == "retriever":
                continue
            if isinstance(part, type) or not callable(getattr(part, kind, None)):
                raise ConfigError(role, f"{part!r} is not a {role}", hint=f"It needs the method {kind!r}.")
        for i, part in enumerate(self.stack.compressors):
            if isinstance(part, type) or not isinstance(part, Compressor):
                raise ConfigError(f"compressors.{i}", f"{part!r} is not a compressor", hint="Call the class.")
        check_stack(self.stack, self.generator)
        check_models(self)

    def counter(self) -> TokenCounter:
        """Counts as this pipeline's generator reads: its tokenizer, with titles if the prompt renders them."""
        generator = self.generator
        count = generator.counting() if isinstance(generator, SupportsCounting) else generator.count_tokens
        return TokenCounter(count, titles=self.prompt.titles)

    def warm_up(self) -> float:
        """Loads the models and opens the index now rather than in the first question; gives the seconds it took.

        The times of an answer then hold no loading.
        """
        self.check()
        start = time.perf_counter()
        for part in (self.generator, self.retriever, *walk(self.stack)):
            load = getattr(part, "load", None)
            if callable(load):
                load()
        return time.perf_counter() - start

    def retrieve(self, questions: Sequence[str | Query], *, top_k: int | None = None) -> list[tuple[Passage, ...]]:
        """The passages for each question, best first, before any compression."""
        queries = _queries(questions)
        if self.retriever is None:
            raise UsageError(
                "this pipeline has no retriever",
                hint="Give the passages: answer(question, passages=[...]), or set a retriever.",
            )
        found = [_passages(passages) for passages in self.retriever.retrieve(queries, top_k=top_k)]
        if len(found) != len(queries):
            raise UsageError(
                f"the retriever gave {len(found)} lists of passages for {len(queries)} questions",
                hint="It has to give one for each question, in their order.",
            )
        return found

    def compress(self, question: str | Query, passages: Sequence[Passage] | None = None) -> CompressionResult[S]:
        """What the generator would read for a question, with the account of each step; generates nothing."""
        self.check()
        query = _queries([question])[0]
        ready = self._seeded() if passages is not None else self._seeded()._fused()
        found = _passages(passages) if passages is not None else ready.retrieve([query])[0]
        return ready.stack.run([context_of(query, found)], counter=self.counter())[0]

    def answer(self, question: str | Query, *, passages: Sequence[Passage] | None = None) -> Answer:
        """Answers one question; see ``answer_many``."""
        return self.answer_many([question], passages=None if passages is None else [passages])[0]

    def answer_many(
        self,
        questions: Sequence[str | Query],
        *,
        passages: Sequence[Sequence[Passage]] | None = None,
        on_text: OnText | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Answer]:
        """Answers questions, each as if it were alone.

        Args:
            questions: Texts or queries.
            passages: The retrieval result for each question; None asks the retriever.
            on_text: Called with a question's index and the next piece of its answer.
            on_progress: Called with how many are answered, and of how many.

        Returns:
            One answer per question, in order.

        Raises:
            UsageError: An empty or oversized question; no passages and no retriever.
            ConfigError, ModelError, StoreError, GenerationError: Where a part cannot work at all. A compressor
                that fails on a context falls open instead: its step says so.
        """
        self.check()
        queries = _queries(questions)
        if passages is not None and len(passages) != len(queries):
            raise UsageError(f"{len(queries)} questions, but passages for {len(passages)}", hint="Give one list each.")
        ready = self._seeded()
        answers: list[Answer] = []
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            given = None if passages is None else passages[start : start + _BATCH]
            part = ready._fused() if given is None else ready
            answers += part._answer_batch(batch, given, _shifted(on_text, start))
            if on_progress:
                on_progress(len(answers), len(queries))
        return answers

    def stream(self, question: str | Query, *, passages: Sequence[Passage] | None = None) -> AnswerStream:
        """Answers one question piece by piece: iterate for the text, then read ``.answer``."""
        given = None if passages is None else [passages]
        served = hasattr(self.generator, "base_url")
        return AnswerStream(
            lambda on_text: self.answer_many([question], passages=given, on_text=on_text)[0], served=served
        )

    def _seeded(self) -> Pipeline[S]:
        if not self.seed or getattr(self.generator, "seed", None) != 0:
            return self
        seeded: Any = dataclasses.replace(self.generator, seed=self.seed)  # type: ignore[type-var]
        return dataclasses.replace(self, generator=seeded)

    def _fused(self) -> Pipeline[S]:
        """This pipeline for one run, the retriever sharing its work with the first compressor that it fuses with."""
        if not isinstance(self.retriever, SupportsFuse):
            return self
        parts = list(self.stack.compressors)
        for place, part in enumerate(parts):
            both = self.retriever.fuse(part)
            if both is not None:
                retriever, parts[place] = both
                stack = dataclasses.replace(self.stack, compressors=tuple(parts))
                return dataclasses.replace(self, retriever=retriever, compressors=stack)
        return self

    def _answer_batch(
        self, queries: Sequence[Query], given: Sequence[Sequence[Passage]] | None, on_text: OnText | None
    ) -> list[Answer]:
        start = time.perf_counter()
        found = [_passages(p) for p in given] if given is not None else self.retrieve(queries)
        retrieved = time.perf_counter()
        contexts = [context_of(query, passages) for query, passages in zip(queries, found, strict=True)]
        results = self.stack.run(contexts, counter=self.counter())
        compressed = time.perf_counter()
        prompts = [self.prompt.render(result.context) for result in results]
        rendered = (time.perf_counter() - compressed) / len(queries)
        generations = self.generator.generate(prompts, on_text=on_text)
        n = len(queries)
        before = _Before((retrieved - start) / n, (compressed - retrieved) / n, rendered)
        return [_answer(result, made, before) for result, made in zip(results, generations, strict=True)]

    def to_config(self) -> dict[str, Any]:
        """Plain values with every default spelled out; ``from_config`` gives an equal pipeline back."""
        values: dict[str, Any] = {"ragzip": _FORMAT, "name": self.name}
        for field in ("retriever", "compressors", "generator", "prompt"):
            part = getattr(self, field)
            values[field] = None if part is None else config.to_config(part)
        return {**values, "seed": self.seed}

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The pipeline as YAML; written to ``path`` where one is given."""
        text = yaml_io.dump(self.to_config())
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @staticmethod
    def from_config(values: Any, *, lines: config.Lines | None = None, source: str = "") -> Pipeline[Any]:
        """The pipeline that plain values describe, checked.

        Raises:
            ConfigError: With the path to the value, and the line where it came from a file.
        """
        place = config.Place("", lines, source)
        if not isinstance(values, dict):
            raise place.error("a pipeline is a mapping with 'generator', 'retriever' and 'compressors'")
        version = values.get("ragzip", _FORMAT)
        if version != _FORMAT or isinstance(version, bool):
            raise place.at("ragzip").error(f"format {version!r} is not {_FORMAT}", "Use a matching ragzip version.")
        known = ["ragzip", *(f.name for f in dataclasses.fields(Pipeline))]
        for key in values:
            if key not in known:
                hint = suggest(str(key), known)
                if key == "type" and values[key] in names("training"):
                    hint = f"This is a training's config: ragzip train {values[key]} FILE --out FOLDER"
                raise place.at(str(key)).error(f"a pipeline has no {key!r}", hint)
        parts = {key: value for key, value in values.items() if key != "ragzip"}
        if parts.get("compressors", ()) is None:
            parts["compressors"] = []
        pipeline: Pipeline[Any] = config.build(Pipeline, parts, place, what="a pipeline")
        try:
            pipeline.check()
        except ConfigError as error:
            path = error.path.replace("[", ".").replace("]", "")
            line = place.at(path).error("").line if path else 0
            raise type(error)(error.path, error.problem, hint=error.hint, source=source, line=line) from error
        return pipeline

    @staticmethod
    def from_yaml(text: str, *, overrides: Sequence[str] = (), source: str = "") -> Pipeline[Any]:
        """The pipeline in a YAML text.

        Args:
            text: The YAML.
            overrides: ``path=value`` strings, as ``compressors.0.threshold=0.1``.
            source: The file's name, for errors.
        """
        from ragzip.pipelines.overrides import apply_overrides

        values, lines = yaml_io.parse(text, source=source)
        return Pipeline.from_config(apply_overrides(values, overrides), lines=lines, source=source)

    @staticmethod
    def load(path: str | Path, *, overrides: Sequence[str] = ()) -> Pipeline[Any]:
        """The pipeline in a YAML file."""
        return Pipeline.from_yaml(read_text(path), overrides=overrides, source=str(path))


def read_text(path: str | Path) -> str:
    """A small UTF-8 file, or a clear error."""
    try:
        if Path(path).stat().st_size > yaml_io.MAX_BYTES:
            raise ConfigError("", "too large for a pipeline", source=str(path), hint="Is it the right file?")
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {path}", hint="Give the path of a pipeline's YAML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError("", "not UTF-8 text", source=str(path)) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="Give a readable YAML file.") from error


@dataclass(frozen=True)
class _Before:
    """Seconds of the stages before generation, per question."""

    retrieve: float
    compress: float
    render: float


def _answer(result: CompressionResult[Any], made: Generation, before: _Before) -> Answer:
    prefill = before.render + made.first_token_seconds
    first = before.retrieve + before.compress + prefill
    decode = made.seconds - made.first_token_seconds
    timings = Timings(before.retrieve, before.compress, prefill, decode, first, first + decode)
    return Answer(made.text, result, made, timings, cite(made.text, result.context))


def _queries(questions: Sequence[str | Query]) -> list[Query]:
    if isinstance(questions, str):
        raise UsageError("questions is one string", hint="Give a list of questions, or call answer().")
    queries = [Query(q) if isinstance(q, str) else q for q in questions]
    for query in queries:
        if not isinstance(query, Query):
            raise UsageError(f"a question is a string or a Query, not {query!r:.60}")
    for query in queries:
        check_question(query.text)
    return queries


def _passages(given: Sequence[Passage]) -> tuple[Passage, ...]:
    known: dict[str, str] = {}
    given = tuple(given)
    for passage in given:
        if not isinstance(passage, Passage):
            raise UsageError(f"not a passage: {passage!r:.60}", hint="Wrap texts: ragzip.Passage(id, text)")
        if known.setdefault(passage.id, passage.text) != passage.text:
            raise UsageError(
                f"two passages have the id {passage.id!r:.60}, and different texts",
                hint="Give each one of its own: spans and citations name passages by it.",
            )
    return given


def check_question(text: str) -> None:
    """Refuses a question that is empty or far too long, with UsageError."""
    if not text.strip():
        raise UsageError("the question is empty", hint="Ask something.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError("the question is not valid Unicode", hint="Give it in UTF-8.")
    if len(text) > MAX_QUESTION:
        raise UsageError(
            f"the question has {len(text):,} characters, more than {MAX_QUESTION:,}",
            hint="Put long text into the index or the passages, and ask about it.",
        )


def _shifted(on_text: OnText | None, by: int) -> OnText | None:
    return None if on_text is None else lambda index, piece: on_text(index + by, piece)
