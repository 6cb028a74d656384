"""Opening weights with ``transformers``: safetensors only, no remote code, nothing random, one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragzip.errors import ModelError
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
        with quiet():
            model, info = getattr(transformers, auto_class).from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
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
    return model.eval().requires_grad_(False)


def _complete(folder: Path, info: dict[str, Any], may_lack: str) -> None:
    """Missing parameters would be filled with random numbers; that must never pass for the model."""
    missing = sorted(key for key in info.get("missing_keys", ()) if may_lack not in key)
    wrong = sorted(str(key) for key in info.get("mismatched_keys", ()))
    if missing or wrong:
        names = ", ".join([*missing, *wrong][:3])
        raise ModelError(
            f"the weights in {folder} lack {len(missing) + len(wrong)} parameters of the model ({names}, ...)",
            hint="The config and the weights do not belong together; get the model again.",
        )
