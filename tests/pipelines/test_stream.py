"""Streams that are left before their end."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import pytest

from ragzip.pipelines.stream import AnswerStream, _stop_all


class Endless:
    """Tells pieces for as long as anyone lets it."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def __call__(self, tell):
        try:
            while True:
                tell(0, "word ")
                time.sleep(0.001)
        finally:
            self.ended.set()


def left_by_break(stream):
    for _ in stream:
        break


def closed(stream):
    next(iter(stream))
    stream.close()


def left_by_with(stream):
    with stream as pieces:
        next(iter(pieces))


def at_the_end_of_the_program(stream):
    next(iter(stream))
    _stop_all()


@pytest.mark.parametrize("leave", [closed, left_by_with, at_the_end_of_the_program])
def test_whoever_has_read_enough_stops_the_generator(leave):
    endless = Endless()
    stream = AnswerStream(endless)
    leave(stream)
    assert endless.ended.wait(10)
    assert set(stream) <= {"word "}  # what was told before, and then it ends
    with pytest.raises(RuntimeError, match="closed before"):
        _ = stream.answer


def test_a_stream_that_nobody_holds_stops():
    endless = Endless()
    left_by_break(AnswerStream(endless))
    gc.collect()
    assert endless.ended.wait(10)


def test_a_break_alone_stops_nothing_as_the_answer_can_still_be_asked_for():
    goes_on = threading.Event()

    def run(tell):
        tell(0, "one ")
        goes_on.wait(10)
        tell(0, "two")
        return "one two"

    stream = AnswerStream(run)
    left_by_break(stream)
    gc.collect()
    goes_on.set()
    assert stream.answer == "one two"
    stream.close()
    assert stream.answer == "one two"


def test_one_that_was_never_read_can_be_closed():
    stream = AnswerStream(Endless())
    stream.close()
    assert list(stream) == []
    with pytest.raises(RuntimeError, match="closed before"):
        _ = stream.answer


def test_the_end_of_the_program_waits_for_no_silent_server():
    silent = threading.Event()
    stream = AnswerStream(lambda tell: silent.wait(20) and None, served=True)
    reader = threading.Thread(target=lambda: list(stream), daemon=True)
    reader.start()
    time.sleep(0.1)
    start = time.monotonic()
    _stop_all()
    assert time.monotonic() - start < 3
    silent.set()
    reader.join(10)


def test_a_program_that_ends_in_the_middle_of_an_answer_ends_well(tiny_lm_path):
    program = f"""
from ragzip import HuggingFace, Passage, Pipeline
pipeline = Pipeline(HuggingFace({str(tiny_lm_path)!r}, max_new_tokens=1500, device="cpu"))
stream = pipeline.stream("Why?", passages=[Passage("a", "Because.")])
for piece in stream:
    print("read", flush=True)
    break
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "read\n"), ended.stderr
