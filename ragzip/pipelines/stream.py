"""An answer as it is written."""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from ragzip.protocols import OnText
from ragzip.types import Answer

_LONGEST, _SHORT = 10.0, 0.5  # seconds that the end of the program waits for answers to stop


class _StreamClosed(Exception):
    """Raised where the next piece of text would be told, so that nothing more is computed."""


class AnswerStream:
    """Iterate for the pieces of the text; ``answer`` waits for the end and gives the whole.

    Work starts with the first piece asked for and runs in a thread of its own, so a slow reader does not slow the
    generator down. Errors are raised where the reader is. Whoever has read enough calls ``close``, or leaves a ``with``
    block, or drops the stream: the generator stops with its next piece of text.

    Args:
        run: Makes the answer, calling its argument with each piece.
        served: Whether a server writes it, which the end of the program need not wait for.
    """

    def __init__(self, run: Callable[[OnText], Answer], *, served: bool = False) -> None:
        self._work = _Work(run, _SHORT if served else _LONGEST)
        weakref.finalize(self, self._work.close).atexit = False

    def __iter__(self) -> Iterator[str]:
        work = self._work
        work.start()
        while (piece := work.pieces.get()) is not None:
            yield piece
        work.pieces.put(None)  # a second reader ends, too
        if work.error is not None:
            raise work.error

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The finished answer; waits for it.

        Raises:
            RuntimeError: The stream was closed before.
        """
        self._work.start()
        return self._work.wait()

    def close(self) -> None:
        """No more is written; an answer that is finished stays."""
        self._work.close()


class _Work:
    """What goes on behind a stream; it does not know the stream, so that this can be dropped."""

    def __init__(self, run: Callable[[OnText], Answer], patience: float) -> None:
        self._run = run
        self.patience = patience
        self.pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.error: BaseException | None = None
        self._answer: Answer | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        if self._thread is None and not self._closed.is_set():
            self._thread = threading.Thread(target=self._write, daemon=True, name="ragzip-answer")
            _going.add(self)
            self._thread.start()

    def wait(self) -> Answer:
        self.join(None)
        if self.error is not None:
            raise self.error
        if self._answer is None:
            raise RuntimeError("the stream was closed before its answer was finished")
        return self._answer

    def join(self, seconds: float | None) -> None:
        if self._thread is not None:
            self._thread.join(seconds)

    def close(self) -> None:
        self._closed.set()
        self.pieces.put(None)

    def _write(self) -> None:
        try:
            self._answer = self._run(self._told)
        except _StreamClosed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the reader's thread
            self.error = error
        finally:
            self.pieces.put(None)

    def _told(self, _: int, piece: str) -> None:
        if self._closed.is_set():
            raise _StreamClosed
        self.pieces.put(piece)


_going: weakref.WeakSet[_Work] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """A thread inside torch that outlives the interpreter would abort the process."""
    left, start = list(_going), time.monotonic()
    for work in left:
        work.close()
    for work in left:
        work.join(max(start + work.patience - time.monotonic(), 0.0))
