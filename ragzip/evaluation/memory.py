"""The most memory this process held while a block ran: resident bytes, and its allocations on CUDA devices."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_SELF = Path("/proc/self")
_EVERY = 0.002

_lock = threading.Lock()
_open: list[PeakMemory] = []  # high-water marks belong to the process: whoever sets them back tells all others first


class PeakMemory:
    """Measures a block, for well below a millisecond.

    ::

        with PeakMemory() as peak:
            work()
        peak.bytes

    What counts is all this process holds, weights that were loaded before included. On Linux the kernel's own
    high-water mark is set back and read, so that no moment is missed; where it cannot be set back, a thread looks
    every two milliseconds, and short peaks may be missed; on other systems there is nothing, and ``bytes`` is None.
    To the resident bytes come the most bytes that torch had allocated on all CUDA devices of this process, if torch
    with CUDA is in use when the block begins; the two peaks need not fall together, so that the sum is an upper bound.
    ``torch.cuda``'s own peak statistics are set back by it.

    Blocks may nest and may run in many threads: each sees everything that the process held from its own beginning to
    its own end, whoever held it. A block does not see child processes. An instance is good for one block at a time.
    """

    def __init__(self) -> None:
        self._host = self._device = 0
        self._known = False
        self._sampler: _Sampler | None = None
        self._done: int | None = None

    @property
    def bytes(self) -> int | None:
        """The peak, so far while the block runs; None where it cannot be known."""
        with _lock:
            if self in _open:
                _look()
                return self._total()
            return self._done

    def __enter__(self) -> Self:
        with _lock:
            if self in _open:
                raise RuntimeError("this PeakMemory is measuring already")
            _look()
            self._host = self._device = 0
            exact = _set_back()
            resident = _resident()
            self._known = resident is not None
            self._sampler = _Sampler(self) if self._known and not exact else None
            if self._sampler is not None:
                self._sampler.start()
            _open.append(self)
            _look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _lock:
            _look()
            _open.remove(self)
            self._done = self._total()
            sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.stop()

    def _total(self) -> int | None:
        return self._host + self._device if self._known else None

    def _take(self, host: int, device: int) -> None:
        self._host, self._device = max(self._host, host), max(self._device, device)


class _Sampler:
    """Looks again and again, where the kernel does not."""

    def __init__(self, peak: PeakMemory) -> None:
        self._peak = peak
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ragzip-peak-memory", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            with _lock:
                self._peak._take(_resident() or 0, 0)


def _look() -> None:
    """Tells all open blocks the marks as they stand. The lock is held."""
    if not _open:
        return
    device = _cuda_peak()
    for peak in _open:
        peak._take((_resident() if peak._sampler else _high_water()) or 0, device)


def _set_back() -> bool:
    """Sets the marks to what is held now; whether the kernel's could be."""
    cuda = _cuda()
    if cuda is not None:
        for number in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(number)
    try:
        with (_SELF / "clear_refs").open("w") as file:
            file.write("5")
    except OSError:
        return False
    high, now = _high_water(), _resident()
    # some kernels take the word and do nothing
    return high is not None and now is not None and high <= now + max(now // 50, 8 << 20)


def _high_water() -> int | None:
    return _status(b"VmHWM:")


def _resident() -> int | None:
    return _status(b"VmRSS:")


def _status(key: bytes) -> int | None:
    """A line of ``/proc/self/status``, in bytes."""
    try:
        text = (_SELF / "status").read_bytes()
    except OSError:
        return None
    _, found, rest = text.partition(b"\n" + key)
    words = rest.split(None, 1)
    return int(words[0]) * 1024 if found and words and words[0].isdigit() else None


def _cuda() -> Any | None:
    """``torch.cuda``, if it is in use; torch is neither imported nor started for this."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_available() or not cuda.is_initialized():
        return None
    return cuda


def _cuda_peak() -> int:
    cuda = _cuda()
    if cuda is None:
        return 0
    return sum(int(cuda.max_memory_allocated(number)) for number in range(cuda.device_count()))
