"""Running a stack: times, token counts, statuses, and the rule that a failing step falls open to its input."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any

from ragzip.errors import ConfigError, ModelError, StoreError, UsageError
from ragzip.protocols._roles import Counter
from ragzip.registry import name_of
from ragzip.types import CompressionResult, Context, Segment, SoftSegment, Status, Step, TextSegment

_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\W{_IDEOGRAPH}]+|[^\w\s]")
_LETTER = re.compile(r"[^\W_]")
_REMEMBERED = 256
_Outcome = tuple[Context[Any], Status, str]


class WordCounter:
    """Counts words, ideographs and punctuation marks: what an unbound stack judges growth by, and no tokens."""

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Words, ideographs and punctuation marks of each text."""
        return [sum(1 for _ in _WORD.finditer(text)) for text in texts]

    def context(self, context: Context[Segment]) -> int:
        """Words of the text segments plus rows of the soft ones."""
        texts = self.texts([s.text for s in context.segments if isinstance(s, TextSegment)])
        return sum(texts) + sum(int(s.embeddings.shape[0]) for s in context.segments if isinstance(s, SoftSegment))


class Remembering:
    """A counter that counts the same context object once: a step has mostly just counted what it gives back.

    Lives as long as one run of a stack and remembers the last contexts only. Of several threads one counts at a time.
    """

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self._known: OrderedDict[int, tuple[Context[Any], int]] = OrderedDict()
        self._lock = threading.RLock()
        self.titles = bool(getattr(counter, "titles", True))

    def texts(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text on its own."""
        with self._lock:
            return self.counter.texts(texts)

    def context(self, context: Context[Segment]) -> int:
        """Tokens of the whole context."""
        with self._lock:
            known = self._known.get(id(context))
            if known is not None and known[0] is context:
                return known[1]
            count = self.counter.context(context)
            self._known[id(context)] = (context, count)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            return count


class _Later(Sequence[int]):
    """Counts that are being made: whoever needs one waits for all of them."""

    def __init__(self, counting: Future[list[int]]) -> None:
        self._counting = counting

    def __len__(self) -> int:
        return len(self._counting.result())

    def __getitem__(self, place: Any) -> Any:
        return self._counting.result()[place]


_notes: ContextVar[list[str] | None] = ContextVar("ragzip_notes", default=None)


def note(text: str) -> None:
    """Said by a compressor while it works: it stands as ``detail`` in the account of the step it works for.

    Outside of a stack nobody listens.
    """
    heard = _notes.get()
    if heard is not None:
        heard.append(text)


class _TookTooLong(Exception):
    pass


def run_stack(
    compressors: Sequence[Any],
    contexts: Sequence[Context[Any]],
    counter: Counter,
    *,
    timeout: float | None,
    min_tokens: int,
) -> list[CompressionResult[Any]]:
    """Runs each compressor over the whole batch; see ``Stack.run``."""
    with ThreadPoolExecutor(1) as beside:  # tokenizers let other threads run: the first step begins meanwhile
        counting: Future[list[int]] = beside.submit(copy_context().run, _counts, counter, contexts)
        return _run_stack(compressors, contexts, counter, _Later(counting), timeout=timeout, min_tokens=min_tokens)


def _counts(counter: Counter, contexts: Sequence[Context[Any]]) -> list[int]:
    return [counter.context(context) for context in contexts]


def _run_stack(
    compressors: Sequence[Any],
    contexts: Sequence[Context[Any]],
    counter: Counter,
    counts: Sequence[int],
    *,
    timeout: float | None,
    min_tokens: int,
) -> list[CompressionResult[Any]]:
    current, first = list(contexts), counts
    steps: list[list[Step]] = [[] for _ in current]
    for compressor in compressors:
        within = getattr(compressor, "run_within", None)
        if within is not None:  # a stack: its steps are steps of this one
            nested = within(current, counter, timeout=timeout, min_tokens=min_tokens)
            current = [one.context for one in nested]
            counts = [counter.context(context) for context in current]  # it may have counted otherwise
            for so_far, one in zip(steps, nested, strict=True):
                so_far.extend(one.steps)
            continue
        done = run_step(compressor, current, counts, counter, timeout=timeout, min_tokens=min_tokens)
        current, counts = [context for context, _ in done], [step.tokens_out for _, step in done]
        for so_far, (_, step) in zip(steps, done, strict=True):
            so_far.append(step)
    return [CompressionResult(current[i], tuple(steps[i]), first[i], counts[i]) for i in range(len(current))]


def run_step(
    compressor: Any,
    contexts: Sequence[Context[Any]],
    counts: Sequence[int],
    counter: Counter,
    *,
    timeout: float | None = None,
    min_tokens: int = 1,
) -> list[tuple[Context[Any], Step]]:
    """Runs one compressor, already bound to the counter, over a batch.

    Args:
        compressor: The step.
        contexts: What it gets.
        counts: Their tokens.
        counter: Counts what it gives.
        timeout: Seconds before its input goes on unchanged; None never.
        min_tokens: Contexts with fewer tokens skip the step.

    Returns:
        For each context what goes on, and the account; ``tokens_out`` is its count.
    """
    name = name_of(compressor)
    plain = [min_tokens <= 1 and _says(context) for context in contexts]
    active = [i for i, c in enumerate(contexts) if c.segments and (plain[i] or counts[i] >= min_tokens)]
    heard: list[str] = []
    token = _notes.set(heard)
    start = time.perf_counter()
    try:
        outcomes = dict(zip(active, _guarded(compressor, [contexts[i] for i in active], timeout), strict=True))
    finally:
        _notes.reset(token)
    share = (time.perf_counter() - start) / max(len(active), 1)
    done: list[tuple[Context[Any], Step]] = []
    for i, before in enumerate(contexts):
        tokens = counts[i]
        if i not in outcomes:
            detail = "nothing to compress" if not before.segments else f"fewer than {min_tokens} tokens"
            done.append((before, Step(name, Status.SKIPPED_SHORT, tokens, tokens, 0.0, detail)))
            continue
        context, status, detail = outcomes[i]
        left = tokens
        if status is Status.OK:
            context, left, status, detail = _judge(before, context, tokens, counter)
            together = f" (of {len(active)} contexts together)" if len(active) > 1 else ""
            detail = "; ".join(dict.fromkeys([*([detail] if detail else []), *(f"{said}{together}" for said in heard)]))
        done.append((context, Step(name, status, tokens, left, share, detail)))
    return done


def _judge(
    before: Context[Any], after: Context[Any], tokens: int, counter: Counter
) -> tuple[Context[Any], int, Status, str]:
    """Keeps an output that is smaller, or of equal size and different; otherwise falls open."""
    if after.segments == before.segments:
        return before, tokens, Status.NO_GAIN, "nothing was removed"
    count = counter.context(after)
    if count > tokens and isinstance(getattr(counter, "counter", counter), WordCounter):
        # rows stand for tokens: that they are more than words says nothing
        texts = [_text_alone(context) for context in (before, after)]
        if len(texts[1].segments) < len(after.segments) and counter.context(texts[1]) <= counter.context(texts[0]):
            return after, count, Status.OK, ""
    if count > tokens:
        return before, tokens, Status.NO_GAIN, f"output of {count} tokens is longer than its input of {tokens}"
    return after, count, Status.OK, ""


def _says(context: Context[Any]) -> bool:
    """Whether it surely has a token, without counting: a letter, a digit or a row."""
    return any(
        _LETTER.search(segment.text) if isinstance(segment, TextSegment) else segment.embeddings.shape[0]
        for segment in context.segments
    )


def _text_alone(context: Context[Any]) -> Context[Any]:
    texts = tuple(segment for segment in context.segments if isinstance(segment, TextSegment))
    return Context(context.query, texts, context.passages)


def _guarded(compressor: Any, batch: list[Context[Any]], timeout: float | None) -> list[_Outcome]:
    """The outcome for each context; a batch that fails is tried again one by one, so that one bad context costs one."""
    if not batch:
        return []
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        return [(context, Status.OK, "") for context in _call(compressor, batch, deadline)]
    except _TookTooLong:
        return [(context, Status.TIMEOUT, f"took longer than {timeout:g} s") for context in batch]
    except (ConfigError, ModelError, StoreError, UsageError):
        raise
    except Exception as error:  # noqa: BLE001 - the rule: any failure of a step falls open, and says so
        if len(batch) == 1:
            return [(batch[0], Status.ERROR, _reason(error))]
    outcomes: list[_Outcome] = []
    for context in batch:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        outcomes += _guarded(compressor, [context], left)
    return outcomes


def _call(compressor: Any, batch: list[Context[Any]], deadline: float | None) -> Sequence[Context[Any]]:
    if deadline is None:
        result: Sequence[Context[Any]] = compressor.compress(batch)
    else:
        result = _call_until(compressor, batch, deadline)
    _check(batch, result)
    return result


def _check(batch: list[Context[Any]], result: Sequence[Context[Any]]) -> None:
    if len(result) != len(batch):
        raise RuntimeError(f"gave {len(result)} contexts for {len(batch)}")
    for before, after in zip(batch, result, strict=True):
        if after.query != before.query or after.passages != before.passages:
            raise RuntimeError("changed the query or the passages of a context")
        if not isinstance(after.segments, tuple) or not all(isinstance(s, Segment) for s in after.segments):
            raise RuntimeError("gave segments that are no tuple of TextSegment and SoftSegment")


def _call_until(compressor: Any, batch: list[Context[Any]], deadline: float) -> Sequence[Context[Any]]:
    """Calls in a daemon thread and gives up waiting at the deadline; the thread's late result is thrown away."""
    box: list[Any] = []

    def work() -> None:
        try:
            box.append((True, compressor.compress(batch)))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            box.append((False, error))

    thread = threading.Thread(
        target=copy_context().run, args=(work,), daemon=True, name=f"ragzip-{name_of(compressor)}"
    )
    thread.start()
    thread.join(min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX))
    if not box:
        raise _TookTooLong
    fine, value = box[0]
    if not fine:
        raise value
    return value  # type: ignore[no-any-return]


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
