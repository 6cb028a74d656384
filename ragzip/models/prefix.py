"""What comes next after one beginning and many endings, with the beginning read once.

A model that judges the n sentences of a document reads the same question and document n times over. Here these are
read once; their keys and values are kept, and the endings are read behind them, packed one after the other into long
rows. Each ending sees the beginning and itself and stands at the positions it would have alone, so that nothing is
computed but the beginning once and every ending once, and nothing is padded or copied for it.

In fp32 the results are those of one pass for each ending to about 1e-5. In bf16 they depend on what is computed
together, in the third decimal; what is packed together is decided by the endings of one call alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ragzip.models.causal_lm import CausalLM, reach
from ragzip.models.prefill import by_products, mix
from ragzip.models.runtime import kept

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Floats = npt.NDArray[np.float32]

_NAME = "ragzip_prefix"
_PACKED = {"cpu": 1024}  # tokens of endings in one pass: enough to be fast, little enough to fit everywhere
_PACKED_ELSEWHERE = 4096
_TOGETHER = 128  # tokens of endings that attend in one call; each also computes, in vain, what the others must not see


@dataclass(eq=False)
class Head:
    """What the beginnings of several calls begin with, read by the first of them.

    It holds for one model, whose weights may not change in between.

    Attributes:
        ids: Its token ids.
        layers: Keys and values of each layer, once they were read.
    """

    ids: Sequence[int]
    layers: list[tuple[Tensor, Tensor]] | None = field(default=None, repr=False)


def next_logits(
    lm: CausalLM,
    beginning: Sequence[int],
    endings: Sequence[Sequence[int]],
    tokens: Sequence[int],
    *,
    shared: bool = True,
    head: Head | None = None,
) -> Floats:
    """Logits of some tokens as the next one after ``beginning + ending``, for each ending.

    Models that cannot share a beginning (recurrent ones, those with attention other than the usual, and any beyond a
    sliding window) get one pass for each ending: slower, and the same.

    Args:
        lm: The model.
        beginning: Token ids, those that begin a text included.
        endings: Token ids each, none empty; with the beginning they must fit the model's window.
        tokens: Whose logits are wanted.
        shared: False reads the beginning again for each ending.
        head: Read once for all calls that are given it, where the beginning begins with it and more comes.

    Returns:
        ``[n_endings, n_tokens]``, computed in fp32 from the model's last hidden states.
    """
    import numpy as np
    import torch

    if not endings:
        return np.zeros((0, len(tokens)), dtype=np.float32)
    wanted = tuple(tokens)
    with lm.lock, torch.inference_mode():  # nobody else may change the model while its twin is made
        reader: _Reader = kept(("prefix", id(lm), wanted), lambda: _Reader(lm, twin(lm, wanted)))
        longest = len(beginning) + max(map(len, endings))
        several = len(endings) > 1 or head is not None
        if shared and beginning and several and reader.shares(longest):
            found = reader.packed(beginning, endings, head)
        else:
            found = torch.cat([reader.whole([*beginning, *ending]) for ending in endings])
        logits: Floats = found.cpu().numpy()
    return logits


@dataclass(eq=False)
class _Reader:
    """A model with an output layer for the wanted tokens alone, and a choice of two kinds of attention.

    Attributes:
        lm: The model; held here, so that no other one gets its ``id`` while this is kept.
        model: Its twin: modules and config of its own over the same weights.
    """

    lm: CausalLM
    model: Any = field(repr=False)
    _can: bool | None = None

    def __post_init__(self) -> None:
        self._usual = self.model.config._attn_implementation

    def whole(self, ids: Sequence[int], cache: Any = None) -> Tensor:
        """``[1, n_tokens]`` after the last of the ids, read in one pass; a cache takes their keys and values."""
        import torch

        row = torch.tensor([list(ids)], device=self.lm.device)
        options: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
        logits: Tensor = self.model(input_ids=row, use_cache=cache is not None, **options).logits
        return logits[:, -1].float()

    def packed(self, beginning: Sequence[int], endings: Sequence[Sequence[int]], head: Head | None = None) -> Tensor:
        """``[n_endings, n_tokens]``, with the beginning read once."""
        import torch

        cache = self._begun(beginning, head)
        found = []
        most = _PACKED.get(self.lm.device.partition(":")[0], _PACKED_ELSEWHERE)
        self._attend_by(_NAME)
        try:
            for pack in _packs(endings, most):
                ids = torch.tensor([[token for ending in pack for token in ending]], device=self.lm.device)
                places = [len(beginning) + place for ending in pack for place in range(len(ending))]
                logits = self.model(
                    input_ids=ids,
                    position_ids=torch.tensor([places], device=self.lm.device),
                    past_key_values=cache,
                    use_cache=True,
                    ragzip_groups=_groups(pack, len(beginning), self.lm),
                ).logits
                ends = torch.tensor([len(ending) for ending in pack]).cumsum(0) - 1
                found.append(logits[0, ends.to(logits.device)].float())
                cache.crop(-ids.shape[1])
        finally:
            self._attend_by(self._usual)
        return torch.cat(found)

    def _begun(self, beginning: Sequence[int], head: Head | None) -> Any:
        """A cache of the beginning, whose head is read unless it was before."""
        from transformers import DynamicCache

        cache: Any = DynamicCache()
        size = len(head.ids) if head else 0
        if head is None or not 0 < size < len(beginning) or list(beginning[:size]) != list(head.ids):
            self.whole(beginning, cache)
            return cache
        if head.layers is None:
            self.whole(head.ids, cache)
            head.layers = [(layer.keys, layer.values) for layer in cache.layers]
        else:
            for number, (keys, values) in enumerate(head.layers):
                cache.update(keys, values, number)
        self.whole(beginning[size:], cache)  # new tensors: those of the head stay as they are
        return cache

    def shares(self, length: int) -> bool:
        """Whether packing gives what one pass each gives, for texts of this length: tried once, on a few tokens."""
        import torch

        limit = reach(self.model)
        if limit is not None and length > limit:
            return False
        if self._can is None:
            beginning, endings = [3, 5, 7, 11, 13], [[17, 19], [2, 23, 29, 31], [37]]
            try:
                one_by_one = torch.cat([self.whole([*beginning, *ending]) for ending in endings])
                together = self.packed(beginning, endings, Head(beginning[:2]))
                far = (one_by_one - together).abs().max() / (one_by_one.std() + one_by_one.abs().max() / 10 + 1e-6)
                self._can = bool(far < (1e-3 if self.lm.dtype == "float32" else 0.1))
            except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError, IndexError, KeyError):
                self._can = False  # whatever else an architecture does with its inputs
        return self._can

    def _attend_by(self, name: str) -> None:
        self.model.config._attn_implementation = name
        text = self.model.config.get_text_config(decoder=True)
        text._attn_implementation = name


def twin(lm: CausalLM, tokens: Sequence[int]) -> Any:
    """The model with modules, config and output layer of its own, over the same weights.

    Its logits are those of the tokens alone, ``[..., n_tokens]``, in fp32 whatever the model computes in.
    """
    import torch
    import transformers

    transformers.AttentionInterface.register(_NAME, _attend)
    tensors = [*lm.model.parameters(), *lm.model.buffers()]
    same_model = copy.deepcopy(lm.model, {id(tensor): tensor for tensor in tensors})
    head = same_model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    with torch.device("meta"):  # not drawn at random first: that would move the process's generator
        rows = torch.nn.Linear(head.weight.shape[1], len(tokens), bias=bias is not None)
    rows = rows.to_empty(device=lm.device)
    chosen = torch.tensor(list(tokens), device=lm.device)
    with torch.no_grad():
        rows.weight.copy_(head.weight[chosen])
        if bias is not None:
            rows.bias.copy_(bias[chosen])
    # the logits of a bf16 model are bf16, too: steps of 1/8 at 20, which is 0.03 of a probability around one half
    rows.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    same_model.set_output_embeddings(rows)
    return same_model.train(False).requires_grad_(False)


def _packs(endings: Sequence[Sequence[int]], most: int) -> Iterator[list[Sequence[int]]]:
    """Neighbours together, up to so many tokens; a longer one by itself."""
    pack: list[Sequence[int]] = []
    size = 0
    for ending in endings:
        if pack and size + len(ending) > most:
            yield pack
            pack, size = [], 0
        pack.append(ending)
        size += len(ending)
    yield pack


def _groups(pack: Sequence[Sequence[int]], behind: int, lm: CausalLM) -> tuple[int, list[tuple[int, int, Tensor]]]:
    """Where the endings begin, and stretches of them that attend together, with masks.

    A mask of bools, ``[length, length]``, says what of the stretch itself is hidden from a token, where plain products
    are the faster attention. Elsewhere one of numbers, ``[length, behind + length]``, is added to the scores: 0 where
    a token may look, minus infinity where not.
    """
    import torch

    found = []
    products = by_products(lm.model)
    start = 0
    for group in _packs(pack, _TOGETHER):
        lengths = torch.tensor([len(ending) for ending in group])
        owner = torch.repeat_interleave(torch.arange(len(group)), lengths)
        size = len(owner)
        hidden = ~(owner[:, None] == owner[None, :]).tril()
        mask = hidden
        if not products:
            mask = torch.zeros(size, behind + size, dtype=lm.model.dtype)
            mask[:, behind:].masked_fill_(hidden, float("-inf"))
        found.append((start, start + size, mask.to(device=lm.device)))
        start += size
    return behind, found


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    ragzip_groups: tuple[int, list[tuple[int, int, Tensor]]] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of packed endings: every one to the beginning and to itself.

    Args:
        module: The layer.
        query: ``[1, heads, n, width]`` of the endings.
        key: ``[1, key heads, behind + n, width]``, those of the beginning first.
        value: As ``key``.
        attention_mask: None: the groups say who sees what.
        scaling: Of the scores.
        ragzip_groups: Made by ``_groups``.
        options: What the architecture asks for; anything that would change the result is refused.

    Returns:
        ``[1, n, heads, width]``, and no weights.

    Raises:
        NotImplementedError: Attention of another kind; found when a model is tried, before it is used.
    """
    import torch

    others = [name for name in ("softcap", "s_aux", "sinks", "position_bias") if options.get(name) is not None]
    if ragzip_groups is None or attention_mask is not None or others:
        raise NotImplementedError(f"packed attention with {others or 'a mask'}")
    behind, groups = ragzip_groups
    heads, shared = query.shape[1], key.shape[1]
    found = []
    for start, end, mask in groups:
        keys, values = (
            torch.cat([each[:, :, :behind], each[:, :, behind + start : behind + end]], dim=2) for each in (key, value)
        )
        if mask.dtype == torch.bool:
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            found.append(mix(query[0, :, start:end] * scale, keys[0], values[0], mask)[None])
            continue
        # the query heads that share a key head are read as one longer row of queries
        rows = query[:, :, start:end].reshape(1, shared, -1, query.shape[-1])
        mixed = torch.nn.functional.scaled_dot_product_attention(
            rows, keys, values, attn_mask=mask.repeat(heads // shared, 1), scale=scaling
        )
        found.append(mixed.reshape(1, heads, end - start, value.shape[-1]))
    return torch.cat(found, dim=2).transpose(1, 2).contiguous(), None
