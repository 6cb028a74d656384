"""Several processes that train one model together, each on its share of every step's examples.

``torchrun`` and ``accelerate launch`` start them and say so in the environment (``RANK``, ``WORLD_SIZE``,
``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``); gradients are added up by ``torch.distributed``. A step's loss is the
sum over its examples whoever reads them, so that the number of processes changes nothing but the rounding. They share
a file system: the first one writes, and all of them take up its checkpoint.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ragzip.errors import UsageError

T = TypeVar("T")
_PATIENCE = datetime.timedelta(hours=2)  # the others wait while the first one evaluates


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where this process stands among those that train together.

    Attributes:
        number: From 0.
        world: How many there are.
    """

    number: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that evaluates, writes and tells."""
        return self.number == 0

    def share(self, count: int) -> list[int]:
        """Which of so many examples are this process's."""
        return list(range(self.number, count, self.world))

    def same(self, value: T | None) -> T:
        """What the first process has, for all of them."""
        if self.world == 1:
            return value  # type: ignore[return-value]
        import torch.distributed as dist

        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]  # type: ignore[return-value]

    def copy(self, tensors: Sequence[Any]) -> None:
        """Gives all processes the first one's tensors."""
        if self.world > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor.data, src=0)

    def add(self, parameters: Sequence[Any], value: float) -> float:
        """Adds up gradients in place, and a number, over all processes.

        Args:
            parameters: Those that are trained; where one has a gradient in any process, it has the sum in all.
            value: Of this process.

        Returns:
            The sum of the numbers.
        """
        if self.world == 1:
            return value
        import torch
        import torch.distributed as dist

        device = parameters[0].device
        there = torch.tensor([float(p.grad is not None) for p in parameters] + [value], device=device)
        dist.all_reduce(there)
        used = [p for p, any_ in zip(parameters, there[:-1].tolist(), strict=True) if any_]
        if used:
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
            flat = torch.cat([part.float().reshape(-1) for part in parts])
            dist.all_reduce(flat)
            for p, piece in zip(used, torch.split(flat, [p.numel() for p in used]), strict=True):
                p.grad = piece.view_as(p).to(p.dtype)
        return float(there[-1])


def ranks() -> Ranks:
    """Of this process; alone where nobody has ``joined``."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


def launched() -> int:
    """How many processes the environment says were started to train together."""
    return _number("WORLD_SIZE", 1)


def leads() -> bool:
    """Whether this process is the one that speaks, joined or not."""
    return launched() <= 1 or _number("RANK", 0) == 0


def leave() -> None:
    """Ends a process that has trained with others, at once: threads of theirs can abort it on an ordinary way out."""
    if launched() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Meets the other processes, where there are any, and leaves them at the end.

    Args:
        device: Where each is to train, as a trainer's option says it.

    Raises:
        UsageError: The environment names others, and not how to find them; or all would train on one GPU.
    """
    if launched() <= 1 or ranks().world > 1:
        yield ranks()
        return
    import torch
    import torch.distributed as dist

    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {launched()}, but {missing[0]} is not set",
            hint="Start it with accelerate launch or torchrun, or unset WORLD_SIZE.",
        )
    if device.startswith("cuda:"):
        raise UsageError(f"{launched()} processes cannot all train on {device}", hint="Say device: cuda, or auto.")
    cuda = torch.cuda.is_available() and device in ("auto", "cuda")
    if cuda:
        torch.cuda.set_device(_number("LOCAL_RANK", 0) % torch.cuda.device_count())
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield ranks()
        dist.barrier()  # whoever leaves first would take the connections from under the others
    finally:
        dist.destroy_process_group()


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else otherwise
