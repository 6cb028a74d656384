"""Attention of decoders that compute in bf16 on a processor's vector units: block by block, by plain products.

There, ``scaled_dot_product_attention`` multiplies no faster in bf16 than in fp32, so that with a few thousand tokens
most of the time to the first token is attention. Here a block of queries meets the keys before it in one product, whose
scores fit the cache; what nobody may look at is not computed, but for the corner of each block. Two to three times as
fast. Matrix units (AMX) have kernels of their own, and GPUs, too: these stay as they are. Training keeps the scores for
the way back, and so reads texts of moderate length alone like this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ragzip.models.runtime import has_matrix_units

if TYPE_CHECKING:
    from torch import Tensor

NAME = "ragzip_in_blocks"
KINDS = frozenset(
    {
        "cohere",
        "gemma",
        "gemma3_text",
        "glm",
        "granite",
        "llama",
        "mistral",
        "olmo2",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
    }
)
"""Decoders whose attention is all this knows of: the model types this was tried with."""
BLOCK = 128
_FEW = 96  # tokens, below which the usual attention is as fast
_LARGE = 1024  # keys, above which the scores of all heads at once are too many for the cache
_KEPT = 2048  # tokens, above which a training would keep too many scores
_OTHER = ("dropout", "softcap", "s_aux", "sinks", "position_bias", "cache", "output_attentions")


def by_products(model: Any) -> bool:
    """Whether plain products are the faster attention for a loaded model: bf16 on a processor without matrix units."""
    import torch

    return bool(model.dtype == torch.bfloat16 and model.device.type == "cpu" and not has_matrix_units())


def settle(model: Any) -> Any:
    """The model, with this attention where it is the faster one."""
    config = model.config
    if config.model_type in KINDS and config._attn_implementation == "sdpa" and by_products(model):
        _register()
        model.set_attn_implementation(NAME)
    return model


def in_blocks(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention as ``transformers`` calls it, ``[n, tokens, heads, width]``.

    Args:
        module: The layer that asks.
        query: ``[n, heads, tokens, width]``.
        key: ``[n, key heads, keys, width]``.
        value: As ``key``, of a width of its own.
        attention_mask: ``[n or 1, 1, tokens, keys]``, True where a token may look; None is at all before it. Others,
            and few tokens, are left to ``scaled_dot_product_attention``.
        scaling: Of the products, 1/sqrt(width) unless told.
        options: Those of other implementations; with one that changes the result the usual attention is asked.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    texts, _, tokens, width = query.shape
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    plain = attention_mask is None and key.shape[2] == tokens and causal
    shape = (1, tokens, key.shape[2])
    masked = attention_mask is not None and attention_mask.dtype == torch.bool and attention_mask.shape[1:] == shape
    long = tokens > _KEPT and _learns(query, key, value)
    if tokens < _FEW or long or not (plain or masked) or any(options.get(name) for name in _OTHER):
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return found
    query = query * (width**-0.5 if scaling is None else scaling)
    found_of = []
    for text in range(texts):
        rows, keys, values = query[text], key[text].contiguous(), value[text].contiguous()
        sees = None if attention_mask is None else attention_mask[text if len(attention_mask) > 1 else 0, 0]
        blocks = []
        for start in range(0, tokens, BLOCK):
            end = min(start + BLOCK, tokens)
            first, last, hidden = (0, end, _later(end - start)) if sees is None else _reach(sees[start:end])
            blocks.append(mix(rows[:, start:end], keys[:, first:last], values[:, first:last], hidden))
        found_of.append(torch.cat(blocks, dim=1))
    return torch.stack(found_of).transpose(1, 2).contiguous(), None


def mix(rows: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
    """What queries make of the keys: ``[heads, n, value width]``.

    Args:
        rows: ``[heads, n, width]``, scaled.
        keys: ``[key heads, m, width]``.
        values: ``[key heads, m, value width]``.
        hidden: ``[n, k]``, which of the last ``k`` keys a query must not see; one that sees none sees the mean of all.
    """
    import torch

    shared, count = len(keys), rows.shape[1]
    # the query heads that share a key head are one longer row of queries
    rows = rows.reshape(shared, -1, rows.shape[-1])
    if _learns(rows, keys, values):
        every = torch.nn.functional.pad(hidden, (keys.shape[1] - hidden.shape[1], 0))
        seen = torch.bmm(rows, keys.transpose(1, 2)).view(shared, -1, *every.shape)
        seen = seen.masked_fill(every, torch.finfo(rows.dtype).min).view(shared, -1, keys.shape[1])
        return torch.bmm(torch.softmax(seen, -1), values).view(-1, count, values.shape[-1])
    out = rows.new_empty(*rows.shape[:2], values.shape[-1])
    step = 1 if keys.shape[1] > _LARGE else shared
    for head in range(0, shared, step):
        some = slice(head, head + step)
        scores = torch.bmm(rows[some], keys[some].transpose(1, 2))
        corner = scores.view(len(scores), -1, count, scores.shape[-1])[..., scores.shape[-1] - hidden.shape[1] :]
        corner.masked_fill_(hidden, torch.finfo(scores.dtype).min)
        torch.bmm(torch.softmax(scores, -1), values[some], out=out[some])
    return out.view(-1, count, values.shape[-1])


def _learns(*tensors: Tensor) -> bool:
    import torch

    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _later(count: int) -> Tensor:
    """``[count, count]``: what comes after each one."""
    import torch

    return torch.ones(count, count, dtype=torch.bool).triu(1)


def _reach(sees: Tensor) -> tuple[int, int, Tensor]:
    """The stretch of keys that some of a block's queries see, ``[n, keys]``, and what of it is hidden from which."""
    seen = sees.any(0).nonzero()[:, 0]
    first, last = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, sees.shape[1])
    return first, last, ~sees[:, first:last]


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    AttentionInterface.register(NAME, in_blocks)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
