"""One training loop for everything: bf16 with fp32 masters, warm-up and decay, checkpoints, resume, early stop."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ragzip.errors import ModelError, StoreError, UsageError
from ragzip.indexes.files import sync_file, sync_folder
from ragzip.training.options import OnEvent, TrainingEvent
from ragzip.training.ranks import Ranks, ranks

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class LoopSettings:
    """How to step.

    Attributes:
        steps: Optimiser steps in all.
        lr: Highest learning rate.
        warmup: Share of the steps in which it rises; then it falls linearly to a tenth of its height.
        weight_decay: Of matrices; vectors have none.
        clip: Largest norm of the gradient.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better ``best`` metric before training stops; 0 never stops early.
        checkpoint_every: Steps between checkpoints.
        patient_until: The step up to which evaluations do not count towards ``patience``.
    """

    steps: int
    lr: float
    warmup: float = 0.06
    weight_decay: float = 0.01
    clip: float = 1.0
    eval_every: int = 500
    patience: int = 0
    checkpoint_every: int = 250
    patient_until: int = 0

    @classmethod
    def of(cls, trainer: Any, steps: int, **more: Any) -> LoopSettings:
        """Those of a trainer, from its options ``lr``, ``eval_every`` and ``patience``.

        Args:
            trainer: Whose options count.
            steps: As many as its data give.
            more: Others than the defaults here.

        Raises:
            UsageError: They give none.
        """
        if steps < 1:
            raise UsageError(
                "no example is left to train on", hint="Give more sets, a smaller held_out, or a larger max_tokens."
            )
        return cls(steps=steps, lr=trainer.lr, eval_every=trainer.eval_every, patience=trainer.patience, **more)


@dataclass(frozen=True)
class LoopResult:
    """How training ended: steps taken, seconds of all calls, the best evaluation, and why it stopped."""

    steps: int
    seconds: float
    metrics: Mapping[str, float]
    stopped: str


class Masters:
    """Full-precision copies of the parameters that are trained, and AdamW over them.

    The model computes in its own format (bf16); updates far smaller than a weight would be lost in it.
    """

    def __init__(self, named: Sequence[tuple[str, Any]], settings: LoopSettings) -> None:
        import torch

        self.settings = settings
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        for parameter in self.parameters:
            parameter.grad = None  # what an interrupted run may have left
        self.masters = [parameter.detach().float().clone().requires_grad_(True) for parameter in self.parameters]
        matrices = [master for master in self.masters if master.dim() > 1]
        vectors = [master for master in self.masters if master.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), eps=1e-6)

    def step(self, number: int) -> float:
        """One update from the parameters' gradients, at the rate of this step; the gradient's norm."""
        import torch

        for group in self.adam.param_groups:
            group["lr"] = rate(number, self.settings)
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, self.settings.clip))
        if math.isfinite(norm):  # one bad batch must not poison everything
            self.adam.step()
        self.written()
        return norm

    def written(self) -> None:
        """Puts the copies into the model."""
        import torch

        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                parameter.copy_(master)

    def tensors(self) -> dict[str, Tensor]:
        """The trained parameters in full precision."""
        return {name: master.detach() for name, master in zip(self.names, self.masters, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """Everything that a continued run needs, as flat tensors."""
        out = {f"master.{name}": master.detach() for name, master in zip(self.names, self.masters, strict=True)}
        for name, master in zip(self.names, self.masters, strict=True):
            for key, value in self.adam.state.get(master, {}).items():
                out[f"adam.{key}.{name}"] = value
        return {key: value.contiguous() for key, value in out.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes up ``state`` again."""
        import torch

        with torch.no_grad():
            for name, parameter, master in zip(self.names, self.parameters, self.masters, strict=True):
                master.copy_(state[f"master.{name}"])
                parameter.copy_(master)
                found = {key: state.get(f"adam.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
                self.adam.state[master] = {
                    key: value.to("cpu" if key == "step" else master.device)
                    for key, value in found.items()
                    if value is not None
                }


def rate(step: int, settings: LoopSettings) -> float:
    """The learning rate of a step, counted from 0."""
    rising = max(int(settings.steps * settings.warmup), 1)
    if step < rising:
        return settings.lr * (step + 1) / rising
    left = (settings.steps - step) / max(settings.steps - rising, 1)
    return settings.lr * (0.1 + 0.9 * max(left, 0.0))


def train(
    named: Sequence[tuple[str, Any]],
    loss_of: Callable[[int], Tensor | Iterable[Tensor]],
    evaluate: Callable[[], Mapping[str, float]],
    settings: LoopSettings,
    out: Path,
    *,
    config: Mapping[str, Any],
    best: str,
    save: Callable[[Mapping[str, Tensor]], None],
    resume: bool = True,
    on_event: OnEvent | None = None,
) -> LoopResult:
    """Trains parameters, and leaves the best of them saved.

    With several processes (``ragzip.training.ranks``) each one's losses are its share of a step's; the first one
    evaluates and saves.

    Args:
        named: Parameters with their names; their values are changed in place.
        loss_of: The loss of a step's batch, or the parts that add up to it, one after the other, each of which is
            propagated back before the next one is asked for; the batch must depend on nothing but the step, so that a
            resumed run is the same run.
        evaluate: Metrics on data that is held out.
        settings: How to step.
        out: Where checkpoints go.
        config: What identifies the run; a checkpoint of another one is refused.
        best: The metric by which parameters are chosen, greater is better.
        save: Writes the parameters, in full precision, as the result.
        resume: Take up the checkpoint in ``out``, if there is one.
        on_event: Told steps and evaluations.

    Raises:
        UsageError: The checkpoint belongs to another configuration.
        ModelError: The loss is not finite for twenty steps in a row.
    """
    masters, group = Masters(named, settings), ranks()
    group.copy(masters.masters)
    masters.written()
    run = _Run(out / CHECKPOINT, masters, _identity(config), settings, on_event, group)
    run.computes = str(config.get("computes", ""))
    if resume:
        run.restore()
    odd = 0
    try:
        while True:
            if run.due(settings.eval_every) and run.evaluated < run.step:
                metrics = group.same(evaluate() if group.first else None)
                run.report("eval", metrics=metrics)
                better = run.better(metrics, best)
                if better and group.first:
                    save(masters.tensors())
                run.note(metrics, better)
            patient = not settings.patience or run.waited < settings.patience
            if run.saved < run.step and (not patient or run.due(settings.checkpoint_every)):
                run.checkpoint()
            if not patient or run.step >= settings.steps:
                break
            value = group.add(masters.parameters, _backward(loss_of(run.step)))
            norm = run.update()
            odd = 0 if math.isfinite(value) and math.isfinite(norm) else odd + 1
            if odd >= 20:
                raise ModelError("the loss is not finite", hint="Lower the learning rate.")
            run.report("step", loss=value)
    except KeyboardInterrupt:
        if run.whole and run.saved < run.step:
            run.checkpoint()
        raise
    stopped = "all steps done" if run.step >= settings.steps else "no better for a while"
    return LoopResult(run.step, run.seconds, run.best, stopped)


def _backward(losses: Any) -> float:
    """Propagates a loss, or its parts, back to the parameters; its value."""
    total = 0.0
    for loss in [losses] if hasattr(losses, "backward") else losses:
        loss.backward()
        total += float(loss.detach())
    return total


class _Run:
    """The state of a run beside its parameters.

    Attributes:
        step: Updates made.
        evaluated: The step of the last evaluation that was taken note of.
        saved: The step of the checkpoint.
        best: The best evaluation.
        waited: Evaluations since that one.
        whole: False while an update is being made, when parameters are of no step.
        computes: The number format.
    """

    def __init__(
        self,
        path: Path,
        masters: Masters,
        identity: str,
        settings: LoopSettings,
        on_event: OnEvent | None,
        group: Ranks,
    ) -> None:
        self.path, self.masters, self.identity, self.group = path, masters, identity, group
        self.settings, self.on_event = settings, on_event
        self.step = self.evaluated = self.saved = self.waited = 0
        self.best: dict[str, float] = {}
        self.whole, self.computes = True, ""
        self._before, self._began = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Spent on training so far, those before an interruption included."""
        return self._before + time.perf_counter() - self._began

    def due(self, every: int) -> bool:
        """Whether something that is done every so many steps, and at the end, is to be done after this one."""
        return self.step > 0 and (self.step % every == 0 or self.step >= self.settings.steps)

    def update(self) -> float:
        """One optimiser step; the gradient's norm."""
        self.whole = False
        norm = self.masters.step(self.step)
        self.step += 1
        self.whole = True
        return norm

    def report(self, kind: Any, loss: float | None = None, metrics: Mapping[str, float] | None = None) -> None:
        if self.on_event:
            self.on_event(TrainingEvent(kind, self.step, self.settings.steps, loss, metrics or {}))

    def better(self, metrics: Mapping[str, float], key: str) -> bool:
        """Whether these are the best so far; a number is better than none."""
        return not self.best or metrics[key] > self.best[key] or math.isnan(self.best[key])

    def note(self, metrics: Mapping[str, float], better: bool) -> None:
        """Takes note of an evaluation, once its parameters are saved where they are the best."""
        if better:
            self.best, self.waited = dict(metrics), 0
        elif self.step > self.settings.patient_until:
            self.waited += 1
        self.evaluated = self.step

    def checkpoint(self) -> None:
        """Writes everything that is needed to go on: whole, or the one before stays."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if not self.group.first:
            self.saved = self.step
            return
        note = {"step": self.step, "evaluated": self.evaluated, "best": self.best, "waited": self.waited}
        note |= {"identity": self.identity, "seconds": self.seconds, "computes": self.computes}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        try:
            save_file(self.masters.state(), str(part), metadata={"run": json.dumps(note)})
            sync_file(part)
            part.replace(self.path)
            sync_folder(self.path.parent)
        except (SafetensorError, OSError) as error:
            part.unlink(missing_ok=True)
            raise StoreError(
                f"{self.path} cannot be written: {error}", hint="Free some space; the checkpoint before is still there."
            ) from error
        self.saved = self.step
        self.report("checkpoint")

    def restore(self) -> None:
        """Takes up the checkpoint, if there is one."""
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return
        try:
            with safe_open(str(self.path), framework="pt") as file:
                note = json.loads((file.metadata() or {})["run"])
                if note["identity"] != self.identity:
                    raise UsageError(
                        f"{self.path.parent} holds a run with another configuration or other data",
                        hint="Choose another folder, or start over with --restart.",
                    )
                self.masters.restore({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - no mapping
            self.step = self.saved = int(note["step"])
            self.evaluated = int(note.get("evaluated", self.step))
            self.best, self.waited = dict(note["best"]), int(note["waited"])
            self._before = float(note.get("seconds", 0.0))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise ModelError(f"{self.path} cannot be read: {error}", hint="Start over with --restart.") from error


def computed_in(out: Path) -> Literal["", "float32", "bfloat16"]:
    """The number format of the run whose checkpoint lies in a folder; "" where there is none, or it does not say."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(out / CHECKPOINT), framework="pt") as file:
            found = json.loads((file.metadata() or {})["run"]).get("computes")
    except (OSError, SafetensorError, KeyError, ValueError, AttributeError):
        return ""  # whoever takes it up says what is wrong
    return found if found in ("float32", "bfloat16") else ""


def _identity(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
