"""What runs where: device, number format, threads; and the one place where loaded weights are kept."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from ragzip.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

Dtype = Literal["auto", "fp32", "bf16", "fp16"]
"""``auto`` is bf16 on a GPU and on processors that are at least twice as fast with it, else fp32."""

_lock = threading.RLock()
_loaded: dict[tuple[Any, ...], Any] = {}
_memories: list[Callable[[], None]] = []
_threads_settled = False
_WORTH = 2.0
_ROUNDS = 25


def kept(key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
    """The object loaded under a key, loaded now if it is the first time. One load at a time in a process.

    Whoever needs a model's own lock besides takes that one first: no ``load`` may wait for it.
    """
    found = _loaded.get(key)
    if found is None:
        with _lock:
            found = _loaded.get(key)
            if found is None:
                found = _loaded[key] = load()
                _drop_replaced(key)
    return found


def _drop_replaced(key: tuple[Any, ...]) -> None:
    """Forgets what was loaded from the same files before they changed, and what was made of it."""
    same = [other for other in _loaded if other != key and _places(other) == _places(key)]
    gone = {id(_loaded.pop(other)) for other in same}
    for other in [other for other in _loaded if other[:1] == ("prefix",) and other[1] in gone]:
        del _loaded[other]


def _places(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A key without the sizes and times of its files."""
    return tuple(part[0] if isinstance(part, tuple) and _is_state(part) else part for part in key)


def _is_state(part: tuple[Any, ...]) -> bool:
    return len(part) == 3 and isinstance(part[0], str) and all(type(number) is int for number in part[1:])


def loaded(kind: type[T]) -> list[T]:
    """What is loaded of a kind."""
    with _lock:
        return [found for found in _loaded.values() if isinstance(found, kind)]


def unload() -> None:
    """Forgets all loaded weights and tokenizers; memory is freed once nobody holds them any more."""
    with _lock:
        _loaded.clear()


def remembers(forget: Callable[[], None]) -> Callable[[], None]:
    """Marks what empties a memory of results that hang on texts alone."""
    _memories.append(forget)
    return forget


def forget() -> None:
    """Empties all memories of results: what is measured next pays for all of its work. Weights stay loaded."""
    for memory in _memories:
        memory()


def state(*paths: Path) -> tuple[tuple[str, int, int], ...]:
    """Paths with size and time of change: part of a key, so that files that changed are loaded anew."""
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise ModelError(
                f"{path} cannot be read: {error.strerror or error}", hint="Get the model's files again."
            ) from error
        found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def check_options(dtype: str, device: str) -> None:
    """Refuses a dtype or device that cannot be, without importing anything.

    Raises:
        ConfigError: With the option's name.
    """
    if dtype not in get_args(Dtype):
        raise ConfigError("dtype", f"must be one of {', '.join(get_args(Dtype))}, not {dtype!r}")
    if not isinstance(device, str) or device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps", "xpu"):
        raise ConfigError("device", f"must be auto, cpu, cuda, cuda:N, mps or xpu, not {device!r}")


def choose_device(device: str) -> str:
    """``auto`` is the GPU where CUDA has one, else the processor; anything else is taken as it stands.

    Raises:
        ModelError: The device asked for is not there.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    present = device == "cpu"
    if kind in ("cuda", "xpu", "mps") and (number.isdecimal() or not number):
        backend: Any = getattr(torch.backends if kind == "mps" else torch, kind, None)
        count = 1 if kind == "mps" else backend.device_count() if backend is not None else 0
        present = backend is not None and bool(backend.is_available()) and int(number or 0) < count
    if not present:
        raise ModelError(f"device {device!r} is not on this machine", hint="Use device: auto or cpu.")
    return device


_auto: ContextVar[str] = ContextVar("auto", default="")


@contextlib.contextmanager
def auto_is(number: Literal["", "float32", "bfloat16"]) -> Iterator[None]:
    """Within it ``auto`` is this number format, whatever the device is good at; "" changes nothing."""
    before = _auto.set(number)
    try:
        yield
    finally:
        _auto.reset(before)


def choose_dtype(dtype: str, device: str) -> torch.dtype:
    """The number format for a device; ``auto`` as ``Dtype`` says."""
    import torch

    if dtype == "auto":
        if settled := _auto.get():
            found: torch.dtype = getattr(torch, settled)
            return found
        fast = device.startswith("cuda") or (device == "cpu" and _cpu_has_bf16())
        return torch.bfloat16 if fast else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]


@functools.cache
def _cpu_has_bf16() -> bool:
    """Whether the processor is good at bf16: it has matrix units for it (AMX), or multiplies at least twice as fast.

    What a processor says of its instructions does not tell: of two with vector instructions for bf16, one encoded and
    read 1.2 to 1.7 times as long in it as in fp32, and the other, which multiplies over four times as fast, two to
    three times as fast. So it is tried, once a machine, which takes well under a second: where the gain is close to
    what decides, a second trial could say otherwise, and a run could not be gone on with.
    """
    from ragzip.models.tried import tried

    settle_threads()
    return has_matrix_units() or tried("gain of bf16", _gain_of_bf16) >= _WORTH


def has_matrix_units() -> bool:
    """Whether the processor has matrix units (AMX), as far as torch can tell."""
    import torch

    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe is not None and probe())


def _gain_of_bf16() -> float:
    """How many times as fast a product of a small encoder's size is in bf16 as in fp32; the best of some rounds."""
    import torch

    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    operands = {number: (torch.ones(128, 384, dtype=number), torch.ones(1536, 384, dtype=number)) for number in best}
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            for number, (rows, weight) in operands.items():
                start = time.perf_counter()
                torch.nn.functional.linear(rows, weight)
                best[number] = min(best[number], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1


def set_threads(n: int) -> None:
    """Sets how many threads the models compute with, for the whole process.

    Raises:
        ConfigError: ``n`` is less than 1.
    """
    global _threads_settled  # torch's own setting is global, too
    if n < 1:
        raise ConfigError("threads", f"must be at least 1, not {n}")
    import torch

    torch.set_num_threads(n)
    _threads_settled = True


def settle_threads() -> None:
    """Before the first load: ``RAGZIP_THREADS``, else torch's own number, but no more than there are cores.

    Raises:
        ConfigError: ``RAGZIP_THREADS`` is no number from 1.
    """
    if _threads_settled:
        return
    import torch

    wanted = os.environ.get("RAGZIP_THREADS", "").strip()
    if wanted:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise ConfigError("RAGZIP_THREADS", f"must be a number from 1, not {wanted!r}")
        set_threads(int(wanted))
    elif torch.get_num_threads() > cores():
        set_threads(cores())
    else:
        set_threads(torch.get_num_threads())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Loads without bars and log lines on standard error; puts every setting back.

    Holds the lock of ``kept``, so that two loads never see each other's settings. What the log lines would say is
    checked by the loaders themselves and raised as errors.
    """
    logging: Any = importlib.import_module("transformers.utils.logging")

    hub: Any = importlib.import_module("huggingface_hub.utils")
    with _lock:
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        hub_bars_off = hub.are_progress_bars_disabled()
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
            if not hub_bars_off:
                hub.enable_progress_bars()
            elif bars:
                hub.disable_progress_bars()
