"""Attention of encoders that compute in bf16 on a processor's vector units: text by text, by plain products.

There, ``scaled_dot_product_attention`` multiplies no faster in bf16 than in fp32, and the attention of ``transformers``
that is called eager writes the scores of a whole batch to memory. The scores of one text stay in the cache, and what is
padding is left out: an encoder takes a fifth to a third less time over texts of 256 to 512 tokens. Matrix units (AMX)
have kernels of their own, and GPUs, too: these stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ragzip.models.runtime import has_matrix_units

if TYPE_CHECKING:
    from torch import Tensor

NAME = "ragzip_by_text"
_FEW = 96  # tokens, below which the batch at once is the faster
KINDS = frozenset({"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"})
"""Encoders that look both ways at all of a text: the model types this was tried with."""


def settle(model: Any) -> Any:
    """The model, with this attention where it is the faster one."""
    import torch

    config = model.config
    if model.dtype != torch.bfloat16 or model.device.type != "cpu" or has_matrix_units():
        return model
    if (
        config.model_type in KINDS
        and not getattr(config, "is_decoder", False)
        and config._attn_implementation == "sdpa"
    ):
        _register()
        model.set_attn_implementation(NAME)
    return model


def by_text(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, **unused: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention as ``transformers`` calls it, ``[n, tokens, heads, w]``.

    Args:
        module: The layer that asks, not looked at.
        query: ``[n, heads, tokens, w]``.
        key: The same shape.
        value: The same shape.
        attention_mask: ``[n, tokens]``, which keys are tokens of the text; None is all. Masks of other shapes, which a
            caller made, are as ``scaled_dot_product_attention`` takes them.
        scaling: Of the products, 1/sqrt(w) unless told.
        unused: Options of other implementations: there is no dropout where nothing is trained.
    """
    import torch

    texts, _, tokens, width = query.shape
    own = attention_mask is not None and attention_mask.dim() != 2
    trained = torch.is_grad_enabled() and query.requires_grad
    if tokens < _FEW or own or trained:
        mask = attention_mask if own or attention_mask is None else attention_mask[:, None, None]
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=scaling)
        return found.transpose(1, 2).contiguous(), None
    query = (query * (width**-0.5 if scaling is None else scaling)).contiguous()
    key, value = key.contiguous(), value.contiguous()
    out = torch.empty_like(query)
    for number in range(texts):
        held, said = key[number], value[number]
        if attention_mask is not None:
            kept = attention_mask[number].nonzero()[:, 0]
            if 0 < len(kept) < tokens:  # a row of nothing but padding may look anywhere
                held, said = held[:, kept], said[:, kept]
        torch.bmm(torch.softmax(torch.bmm(query[number], held.transpose(1, 2)), -1), said, out=out[number])
    return out.transpose(1, 2).contiguous(), None


def _padding(*, attention_mask: Tensor | None = None, **unused: Any) -> Tensor | None:
    """The mask that ``by_text`` takes: all tokens look at the same ones."""
    return None if attention_mask is None or bool(attention_mask.all()) else attention_mask.bool()


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, by_text)
    AttentionMaskInterface.register(NAME, _padding)
