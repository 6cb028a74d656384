"""Opening weights with ``transformers``: safetensors only, no remote code, nothing random, one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragzip.errors import ModelError
from ragzip.models import attention
from ragzip.models.runtime import quiet, settle_threads
from ragzip.models.weights import weight_files


def open_model(auto_class: str, folder: Path, *, dtype: Any, device: str, may_lack: str = "\0") -> Any:
    """A model in evaluation mode with frozen parameters.

    Args:
        auto_class: Which class of ``transformers`` opens it, ``"AutoModel"`` say.
        folder: A model folder.
        dtype: A torch dtype; weights stored in another one are converted.
        device: Where to.
        may_lack: Parameters whose names contain this may be missing from the weights, as they are not used.

    Raises:
        ModelError: Damaged or pickled weights, missing parameters, an unknown architecture, no memory.
    """
    weight_files(folder)
    import torch
    import transformers

    settle_threads()
    try:
        with quiet(), torch.random.fork_rng(devices=[]):  # parameters that are missing are drawn at random first
            model, info = getattr(transformers, auto_class).from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are reported below, by name
                output_loading_info=True,
            )
        model = model.to(device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelError(
            f"not enough memory on {device} for {folder}", hint="Use a smaller model, or device: cpu."
        ) from error
    except Exception as error:  # damaged weights and unknown architectures raise errors of many kinds
        first = (str(error).strip().splitlines() or [""])[0][:300]
        raise ModelError(
            f"{folder} cannot be loaded: {type(error).__name__}: {first}",
            hint="Check that its config and weights belong together, and that transformers knows the architecture.",
        ) from error
    _complete(folder, info, may_lack)
    return attention.settle(model.eval().requires_grad_(False))


def _complete(folder: Path, info: dict[str, Any], may_lack: str) -> None:
    """Missing parameters would be filled with random numbers; that must never pass for the model."""
    missing = sorted(key for key in info.get("missing_keys", ()) if may_lack not in key)
    wrong = sorted(_mismatch(key) for key in info.get("mismatched_keys", ()))
    if missing or wrong:
        names = ", ".join([*missing, *wrong][:3])
        raise ModelError(
            f"the weights in {folder} lack {len(missing) + len(wrong)} parameters of the model ({names}, ...)",
            hint="The config and the weights do not belong together; get the model again.",
        )


def open_tokenizer(folder: Path) -> Any:
    """The ``transformers`` tokenizer of a model folder.

    Raises:
        ModelError: It is damaged, missing, or of a kind that needs other software.
    """
    import transformers

    try:
        with quiet():
            return transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, use_fast=True
            )
    except Exception as error:  # as for weights: errors of many kinds
        first = (str(error).strip().splitlines() or [""])[0][:300]
        raise ModelError(
            f"the tokenizer in {folder} cannot be loaded: {type(error).__name__}: {first}",
            hint="Get the model's files again.",
        ) from error


def _mismatch(key: Any) -> str:
    """A parameter of another shape than the config says: ``name [9, 384] for [2, 384]``."""
    if isinstance(key, tuple) and len(key) == 3:
        return f"{key[0]} {list(key[1])} for {list(key[2])}"
    return str(key)
