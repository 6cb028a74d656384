"""What late-interaction models do with an encoder's hidden states: linear layers over them, and who is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.late_recipe import Dense

if TYPE_CHECKING:
    from torch import Tensor

_LOOKING = ("bert", "roberta", "xlm-roberta", "camembert", "electra")  # whose attention is computed as below
_HINT = "The weights and the settings do not belong together; get the model again."


@dataclass(frozen=True, slots=True)
class Layers:
    """Linear layers, one after the other, in float32.

    Attributes:
        parts: A linear layer, the name of the function after it, and what is added to that: None for nothing, a
            linear layer over what went in, or "same" for what went in.
    """

    parts: tuple[tuple[Any, str, Any], ...] = ()

    @property
    def width(self) -> int:
        """Of what comes out; 0 where there is no layer."""
        return int(self.parts[-1][0].weight.shape[0]) if self.parts else 0

    def __call__(self, hidden: Tensor) -> Tensor:
        """``[..., d]`` to ``[..., width]``."""
        import torch

        for linear, activation, residual in self.parts:
            out = linear(hidden)
            if activation != "identity":
                function: Any = getattr(torch.nn.functional, activation, None) or getattr(torch, activation)
                out = function(out)
            if residual is not None:
                out = out + (hidden if residual == "same" else residual(hidden))
            hidden = out
        return hidden


def open_layers(dense: Sequence[Dense], width: int, device: str) -> Layers:
    """Reads the linear layers of a model.

    Args:
        dense: Where they are.
        width: Of the encoder's hidden states.
        device: Where to.

    Raises:
        ModelError: A tensor is missing, or does not fit what comes before it.
    """
    parts = []
    for layer in dense:
        tensors = _tensors(layer)
        linear = _linear(layer, tensors, "linear", width, device)
        residual: Any = None
        if layer.residual:
            same = int(linear.weight.shape[0]) == width
            residual = "same" if same else _linear(layer, tensors, "residual", width, device)
        parts.append((linear, layer.activation, residual))
        width = int(linear.weight.shape[0])
    return Layers(tuple(parts))


def attention_received(model: Any, hidden: Tensor, mask: Tensor) -> Tensor | None:
    """What attention each token receives in the last layer, as the mean over heads; None where that is not known how.

    It is computed from what goes into that layer: the kernels that models run with do not tell their attention.

    Args:
        model: The encoder.
        hidden: ``[b, n, d]``: what its last layer reads.
        mask: ``[b, n]``, 1 for tokens that are there.

    Returns:
        ``[b, n]``, float32: the sum of what each token that is there gives, which is 1 in all.
    """
    if getattr(model.config, "model_type", "") not in _LOOKING:
        return None
    attention = model.encoder.layer[-1].attention.self
    batch, count, _ = hidden.shape
    heads = int(attention.num_attention_heads)
    asking = attention.query(hidden).view(batch, count, heads, -1).transpose(1, 2).float()
    asked = attention.key(hidden).view(batch, count, heads, -1).transpose(1, 2).float()
    scores = asking @ asked.transpose(-1, -2) * asking.shape[-1] ** -0.5
    shares: Tensor = scores.masked_fill(mask[:, None, None] == 0, float("-inf")).softmax(-1).mean(1)
    return (shares * mask[:, :, None]).sum(1)


def _linear(layer: Dense, tensors: dict[str, Tensor], name: str, width: int, device: str) -> Any:
    import torch

    weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
    where = layer.files[0].parent
    if weight is None:
        raise ModelError(f"the weights in {where} lack {name}.weight", hint=_HINT)
    if weight.dim() != 2 or weight.shape[1] != width or (bias is not None and bias.shape != weight.shape[:1]):
        raise ModelError(f"{name}.weight in {where} has shape {list(weight.shape)}, for vectors of {width}", hint=_HINT)
    with torch.device("meta"):  # not drawn at random first: that would move the process's generator
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear = linear.to_empty(device="cpu")
    linear.load_state_dict({"weight": weight.float()} | ({} if bias is None else {"bias": bias.float()}))
    return linear.to(device).train(False).requires_grad_(False)


def _tensors(layer: Dense) -> dict[str, Tensor]:
    """The tensors of a layer, and none of the encoder's beside them."""
    from safetensors import SafetensorError, safe_open

    found = {}
    for file in layer.files:
        try:
            with safe_open(str(file), framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - no mapping
                    if key.startswith(("linear.", "residual.")):
                        found[key] = opened.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} cannot be read: {error}", hint="Get the model's files again.") from error
    return found
