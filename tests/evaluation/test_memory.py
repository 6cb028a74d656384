from __future__ import annotations

import mmap
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from ragzip.evaluation import memory
from ragzip.evaluation.memory import PeakMemory

_MB = 2**20
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


def _block(megabytes: int) -> mmap.mmap:
    """So much, touched. Mapped apart from the heap, which may have as much to spare after other tests."""
    block = mmap.mmap(-1, megabytes * _MB)
    for place in range(0, len(block), 4096):
        block[place] = 1
    return block


def _hold(megabytes: int) -> None:
    """Holds so much, and lets go of it."""
    _block(megabytes).close()


@needs_proc
def test_sees_an_allocation_and_forgets_it():
    with PeakMemory() as before:
        pass
    with PeakMemory() as during:
        _hold(200)
    with PeakMemory() as after:
        pass
    assert during.bytes - before.bytes == pytest.approx(200 * _MB, rel=0.1)
    assert after.bytes < during.bytes - 150 * _MB
    assert before.bytes > 10 * _MB


@needs_proc
def test_nested_blocks_see_their_own_time():
    with PeakMemory() as outer:
        _hold(200)
        with PeakMemory() as inner:
            _hold(50)
        early = outer.bytes
    assert outer.bytes >= early >= inner.bytes + 100 * _MB
    with PeakMemory() as first, PeakMemory() as second:
        _hold(100)
    assert abs(first.bytes - second.bytes) < 20 * _MB


@needs_proc
def test_blocks_in_threads_do_not_make_each_other_forget():
    begun, held = threading.Event(), threading.Event()
    found = {}

    def other():
        begun.wait(10)
        for _ in range(5):
            with PeakMemory() as peak:
                pass
        held.wait(10)
        with PeakMemory() as peak:
            pass
        found["after"] = peak.bytes

    thread = threading.Thread(target=other)
    thread.start()
    with PeakMemory() as mine:
        _hold(150)
        begun.set()
        held.set()
        thread.join()
    assert mine.bytes > found["after"] + 100 * _MB


@needs_proc
def test_is_cheap():
    start = time.perf_counter()
    for _ in range(50):
        with PeakMemory():
            pass
    assert (time.perf_counter() - start) / 50 < 0.02  # 0.3 ms on an idle machine


@needs_proc
def test_samples_where_the_mark_cannot_be_set_back(monkeypatch):
    monkeypatch.setattr(memory, "_set_back", lambda: False)
    with PeakMemory() as before:
        pass
    threads = threading.active_count()
    with PeakMemory() as peak:
        block = _block(150)
        time.sleep(0.1)
        block.close()
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert peak.bytes > before.bytes + 120 * _MB


def test_none_where_nothing_can_be_known(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_SELF", tmp_path)
    with PeakMemory() as peak:
        assert peak.bytes is None
    assert peak.bytes is None


def test_is_closed_by_an_error_and_can_be_used_again():
    peak = PeakMemory()
    with pytest.raises(KeyError), peak:
        raise KeyError
    assert memory._open == []
    with peak, pytest.raises(RuntimeError, match="already"), peak:
        pass
    assert memory._open == []


@needs_proc
def test_adds_what_is_held_on_all_devices(monkeypatch):
    marks = [5 * _MB, 7 * _MB]
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 2,
        reset_peak_memory_stats=lambda number: marks.__setitem__(number, 0),
        max_memory_allocated=lambda number: marks[number],
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(memory, "_high_water", lambda: 1000 * _MB)
    monkeypatch.setattr(memory, "_resident", lambda: 1000 * _MB)
    with PeakMemory() as outer:
        marks[:] = [300 * _MB, 0]
        with PeakMemory() as inner:
            marks[:] = [10 * _MB, 20 * _MB]
    assert inner.bytes == 1030 * _MB
    assert outer.bytes == 1300 * _MB
