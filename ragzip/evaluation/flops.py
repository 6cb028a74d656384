"""Floating point operations of a language model, from the shapes of its weights.

Counted as ``torch.utils.flop_counter`` counts: matrix products only, two operations for each multiply and add; all
positions of an attention matrix, masked ones too. Norms, activations, rotary positions, softmax and sampling are left
out: they are a few per cent of the time and less of the operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ragzip.models import CausalLM

_QUADRATIC = {"full_attention", "sliding_attention", "attention"}


@dataclass(frozen=True)
class Shape:
    """What a forward pass costs, by kind of work.

    Attributes:
        linear: Operations for one token in all weight matrices of the layers.
        head: Operations for one token in the output layer.
        attention: Operations of one layer for one query position and one key position.
        windows: For each layer with attention, how many positions its cache keeps at most, 0 for all.
    """

    linear: float
    head: float
    attention: float
    windows: tuple[int, ...]

    def prefill(self, prompt_tokens: int, cached: int = 0) -> float:
        """Operations from the prompt to the first new token.

        The output layer works on the last position only, as in ``generate`` of ``transformers``. Layers with a
        sliding window compute their whole attention matrix and mask it.

        Args:
            prompt_tokens: Of the whole prompt, template included; 0 costs nothing.
            cached: Of these, how many were read before.

        Raises:
            ValueError: Fewer than 0, or more than there are.
        """
        if not 0 <= cached <= prompt_tokens:
            raise ValueError("prompt_tokens must be at least 0, and cached no more")
        read = prompt_tokens - cached
        matrices = len(self.windows) * self.attention * read * prompt_tokens
        return self.linear * read + self.head + matrices if read else 0.0

    def decode(self, prompt_tokens: int, new_tokens: int) -> float:
        """Operations of the steps that read one new token each and write the next.

        The first new token comes out of the prefill and the last is not read again, so that there are
        ``new_tokens - 1`` steps. The token that ends an answer is a new token, too: whoever counts without it adds 1
        where the answer ended by itself.

        Args:
            prompt_tokens: Of the whole prompt.
            new_tokens: Written in all.

        Raises:
            ValueError: One of them is less than 0.
        """
        if prompt_tokens < 0 or new_tokens < 0:
            raise ValueError("prompt_tokens and new_tokens must be at least 0")
        steps = max(new_tokens - 1, 0)
        read = sum(_keys(prompt_tokens, steps, window) for window in self.windows)
        return steps * (self.linear + self.head) + self.attention * read


def shape_of(generator: Any) -> Shape | None:
    """The shape of a generator's own model, loaded now unless it is already; None where it has none here, or another.

    None, too, for architectures whose cost is no sum of matrices and attention: recurrent and state-space layers.

    Args:
        generator: Any generator. One that gives its ``CausalLM`` by a method ``load`` has a model.
    """
    load = getattr(generator, "load", None)
    loaded = load() if callable(load) else None
    return model_shape(loaded.model) if isinstance(loaded, CausalLM) else None


def model_shape(model: Any) -> Shape | None:
    """The shape of a causal language model of ``transformers``; None as in ``shape_of``.

    Of a mixture of experts, the matrices of as many experts count as a token is sent to, and the router.
    """
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", None)
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(heads, int) or not isinstance(layers, int):
        return None
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    if not set(kinds) <= _QUADRATIC:
        return None
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    # DeepSeek's latent attention has keys and values of different widths
    key = (getattr(config, "qk_nope_head_dim", None) or 0) + (getattr(config, "qk_rope_head_dim", None) or 0) or width
    value = getattr(config, "v_head_dim", None) or width
    head = model.get_output_embeddings()
    return Shape(
        linear=float(sum(2 * size for size in _matrices(model, head, config))),
        head=0.0 if head is None else 2.0 * head.weight.shape[0] * head.weight.shape[1],
        attention=2.0 * heads * (key + value),
        windows=tuple(_windows(config, kinds)),
    )


def _keys(prompt_tokens: int, steps: int, window: int) -> int:
    """Key positions that the steps see in all: ``prompt_tokens + 1`` in the first, one more in each, up to a window."""
    growing = steps if not window else min(steps, max(window - prompt_tokens, 0))
    return growing * prompt_tokens + growing * (growing + 1) // 2 + (steps - growing) * window


def _windows(config: Any, kinds: list[str]) -> Iterator[int]:
    explicit = getattr(config, "layer_types", None) is not None
    window = getattr(config, "sliding_window", None) or 0
    if getattr(config, "use_sliding_window", True) is False:
        window = 0
    for kind in kinds:
        yield window if kind == "sliding_attention" or not explicit else 0


def _matrices(model: Any, head: Any, config: Any) -> Iterator[float]:
    """Entries of the weight matrices that one token is multiplied with, the output layer apart."""
    import torch
    from transformers.pytorch_utils import Conv1D

    shared = _share_of_experts(config)
    for name, module in model.named_modules():
        if module is head:
            continue
        expert = ".experts." in f".{name}." and shared < 1
        if isinstance(module, torch.nn.Linear):  # quantised ones keep packed weights, and their sizes here
            yield module.in_features * module.out_features * (shared if expert else 1)
        elif isinstance(module, Conv1D):
            yield module.nf * module.weight.shape[0] * (shared if expert else 1)
        elif (shared < 1 and not list(module.children())) or expert:
            yield from _bare(module, shared)


def _bare(module: Any, shared: float) -> Iterator[float]:
    """Matrices that a module holds as plain parameters: stacked experts ``[experts, a, b]`` and routers."""
    import torch

    if isinstance(module, torch.nn.Embedding):
        return
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() == 3:
            yield parameter.numel() * shared
        elif parameter.dim() == 2 and name == "weight":
            yield parameter.numel()


def _share_of_experts(config: Any) -> float:
    """Which share of the experts works on one token; 1 where there are none."""
    used = getattr(config, "num_experts_per_tok", None) or 0
    for key in ("num_local_experts", "num_experts", "n_routed_experts"):
        total = getattr(config, key, None)
        if isinstance(total, int) and total > 0 and used:
            return min(used / total, 1.0)
    return 1.0
