"""What makes two runs of a training the same, so that one can go on where the other stopped."""

from __future__ import annotations

from typing import Any

from ragzip.models.identity import fingerprint
from ragzip.models.runtime import choose_device, choose_dtype
from ragzip.training.options import trainer_config


def identity(trainer: Any, data: object, *models: str | None, **more: object) -> dict[str, Any]:
    """Its config, and what the config only names: data, models and the number format that ``auto`` is here.

    Args:
        trainer: With ``dtype`` and ``device``.
        data: What tells the examples from others.
        models: Names of what is read; None and "" are none.
        more: Whatever else a run is only the same with.

    Raises:
        ModelError: A model is not here or damaged.
    """
    number = str(choose_dtype(trainer.dtype, choose_device(trainer.device))).removeprefix("torch.")
    named = [fingerprint(name) for name in models if name]
    return {**trainer_config(trainer), "data": data, "models": named, "computes": number, **more}
