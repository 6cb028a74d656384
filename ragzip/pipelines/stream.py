"""An answer as it is written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from ragzip.protocols import OnText
from ragzip.types import Answer


class AnswerStream:
    """Iterate for the pieces of the text; ``answer`` waits for the end and gives the whole.

    Work starts with the first piece asked for and runs in a thread of its own, so a slow reader does not slow the
    generator down. Errors are raised where the reader is.

    Args:
        run: Makes the answer, calling its argument with each piece.
    """

    def __init__(self, run: Callable[[OnText], Answer]) -> None:
        self._run = run
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._answer: Answer | None = None
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[str]:
        self._start()
        while (piece := self._queue.get()) is not None:
            yield piece
        self._queue.put(None)  # a second reader ends, too
        if self._error is not None:
            raise self._error

    @property
    def answer(self) -> Answer:
        """The finished answer; waits for it."""
        self._start()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        if self._answer is None:
            raise RuntimeError("the answer's thread ended without a result")
        return self._answer

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="ragzip-answer")
            self._thread.start()

    def _work(self) -> None:
        try:
            self._answer = self._run(lambda _, piece: self._queue.put(piece))
        except BaseException as error:  # noqa: BLE001 - raised again in the reader's thread
            self._error = error
        finally:
            self._queue.put(None)
