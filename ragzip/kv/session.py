"""A generator's work with a smaller cache: one prompt, read as usual, after which its cache shrinks, layer by layer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.kv._eviction import Eviction
from ragzip.kv._seen import Seen
from ragzip.kv.quantized import QuantizedKV, packed_layer
from ragzip.kv.rotary import angles, check_rotary, taken_back
from ragzip.models.causal_lm import check_keys, reach
from ragzip.models.decode import takes_places
from ragzip.models.picking import spelt
from ragzip.protocols import KVCompression
from ragzip.registry import name_of
from ragzip.text import sentences

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM
    from ragzip.models.chat import EncodedPrompt

_NAME = "ragzip_kv_"
_active: dict[int, KVSession] = {}  # by the config of the model, whose lock is held


class KVSession:
    """The cache of one prompt.

    Args:
        lm: The model; its lock is held while the session is open.
        prompt: What is read.
        methods: One eviction and one packing at most.

    Attributes:
        cache: What the model is given.
        bytes: That the prompt's cache took once it was read: the memory of every tensor that is held for it.
        full_bytes: That it would have taken.
        positions: That it holds, of each key head on average.
    """

    def __init__(self, lm: CausalLM, prompt: EncodedPrompt, methods: Sequence[KVCompression]) -> None:
        from transformers.cache_utils import Cache, DynamicCache

        self._lm, self._length = lm, prompt.length
        self._prompt = prompt
        self._eviction = eviction_of(methods)
        bits = [method.bits for method in methods if isinstance(method, QuantizedKV)]
        count = int(lm.model.config.get_text_config(decoder=True).num_hidden_layers)
        self.cache: Any = Cache(layers=[packed_layer(bits[0]) for _ in range(count)]) if bits else DynamicCache()
        self._quantized = bool(bits)
        self._layers = count
        self._seen: set[int] = set()
        self.bytes = self.full_bytes = 0
        self.positions = 0.0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Within it the model attends as usual, and shows the session what it reads.

        Raises:
            ModelError: Layers that do not see the whole prompt, or that attend in a way that shows nothing: their
                caches cannot be made smaller; or a rotary embedding of another kind than the method can take back.
        """
        check_kv(self._lm, self._length, self._eviction)
        config = self._lm.model.config
        text = config.get_text_config(decoder=True)
        usual = (config._attn_implementation, text._attn_implementation)
        name = _register(usual[1])
        keys = {id(config), id(text)}
        _active.update(dict.fromkeys(keys, self))
        hook = self._lm.model.register_forward_hook(self._check)
        try:
            config._attn_implementation = text._attn_implementation = name
            yield
        finally:
            hook.remove()
            config._attn_implementation, text._attn_implementation = usual
            for key in keys:
                _active.pop(key, None)
        self._check()

    def _check(self, *_: Any) -> None:
        """Once the prompt was read, and before anything is written: whether all layers showed what they read."""
        if len(self._seen) < self._layers:
            raise ModelError(
                f"{self._lm.name!r} shows {len(self._seen)} of its {self._layers} layers: "
                f"its attention is of another kind",
                hint="Use it without kv.",
            )

    def saw(self, layer: int) -> bool:
        """Whether a layer has read the prompt."""
        return layer in self._seen

    def see(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> None:
        """Called by a layer that read the prompt: evicts, then packs.

        Raises:
            ModelError: The layer keeps something else than the keys that it attends to.
        """
        held = self.cache.layers[layer]
        if self._eviction is not None and (held.keys.shape, held.values.shape) != (key.shape, value.shape):
            raise ModelError(
                f"{self._lm.name!r} keeps {list(held.keys.shape)} of keys of {list(key.shape)}: nothing can be evicted",
                hint="Use it without kv, or with quantized_kv alone.",
            )
        self._seen.add(layer)
        self.full_bytes += sum(t.numel() * t.element_size() for t in (held.keys, held.values))
        queries, keys, values = query[0], key[0], value[0]
        seen = Seen(layer, queries, keys, values, scaling, lambda: self._sentences.to(keys.device), self._unrotated)
        places = None if self._eviction is None else self._eviction.kept(seen)
        if places is not None:
            at = places[..., None]
            keys, values = (all_.gather(1, at.expand(-1, -1, all_.shape[-1])) for all_ in (keys, values))
            held.keys, held.values = keys[None].contiguous(), values[None].contiguous()
        self.positions += keys.shape[1] / self._layers
        if self._quantized:
            held.seal()
        self.bytes += bytes_of(held)

    @cached_property
    def _sentences(self) -> Tensor:
        """Found once for all layers, and only where a method asks."""
        return sentence_numbers(self._lm, self._prompt)

    def _unrotated(self, queries: Tensor, future: int) -> tuple[Tensor, Tensor, Tensor]:
        import torch

        # asked one by one: some embeddings turn all places otherwise once there are many
        plain = taken_back(queries, *angles(self._lm, queries, torch.arange(self._length)))
        return plain, *angles(self._lm, queries, torch.arange(self._length, self._length + future))


def eviction_of(methods: Sequence[KVCompression]) -> Eviction | None:
    """What of some methods makes a cache hold fewer positions."""
    return next((method for method in methods if isinstance(method, Eviction)), None)


def check_kv(lm: CausalLM, length: int, eviction: Eviction | None, answer: int = 0) -> None:
    """Refuses what is seen to go wrong before a prompt is read; the model's lock is held.

    Args:
        lm: The model.
        length: Positions of the prompt.
        eviction: What makes the cache smaller, if anything does. Behind it a window would be one of what is left.
        answer: Most tokens that are written behind it.

    Raises:
        ModelError: It says what the model does otherwise.
    """
    check_keys(lm)
    if eviction is not None and not takes_places(lm):
        raise ModelError(
            f"{lm.name!r} counts the places of tokens by what its cache holds, so that {name_of(eviction)} would shift "
            "those of the answer",
            hint="Use it without kv, or with a quantized cache alone.",
        )
    limit = reach(lm.model)
    if limit is not None and length > limit:
        raise ModelError(
            f"{lm.name!r} attends to {limit} positions only; the prompt has {length}",
            hint="Use it without kv, or with a shorter context.",
        )
    if limit is not None and eviction is not None and length + answer > limit:
        raise ModelError(
            f"{lm.name!r} attends to {limit} positions only; the prompt has {length} and its answer up to {answer}",
            hint="Use it without kv, with a shorter context, or with fewer max_new_tokens.",
        )
    if eviction is not None and eviction.rotates:
        check_rotary(lm, name_of(eviction))


def bytes_of(layer: Any) -> int:
    """The memory that a layer of a cache holds, that of shared storages as a whole."""
    sealed = getattr(layer, "sealed", None)
    packed = sum(part.bytes for part in sealed) if sealed else 0
    return packed + sum(int(t.untyped_storage().nbytes()) for t in (layer.keys, layer.values))


def sentence_numbers(lm: CausalLM, prompt: EncodedPrompt) -> Tensor:
    """For each position of a prompt the number of its sentence; a soft row is one by itself."""
    import torch

    numbers: list[int] = []
    for piece in prompt.pieces:
        start = numbers[-1] + 1 if numbers else 0
        if not isinstance(piece, list):
            numbers += range(start, start + len(piece))
            continue
        texts = spelt(lm.text, piece)
        ends = torch.tensor([len(text) for text in texts]).cumsum(0)
        firsts = torch.tensor([first for first, _ in sentences("".join(texts))] or [0])
        owner = (torch.searchsorted(firsts, (ends - 1).clamp_min(0), right=True) - 1).clamp_min(0)
        numbers += (owner + start).tolist()
    return torch.tensor(numbers)


def _register(usual: str) -> str:
    """An attention that is the usual one and shows what was read; its name."""
    import transformers
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    name = f"{_NAME}{usual}"
    transformers.AttentionInterface.register(name, partial(_attend, usual))
    if usual in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[usual])
    return name


def _attend(
    usual: str, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> Any:
    """Attention as usual; the layer's cache is looked at when it has read the prompt, which comes first."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    out = ALL_ATTENTION_FUNCTIONS.get_interface(usual, eager)(module, query, key, value, attention_mask, **options)
    session = _active.get(id(module.config))
    if session is not None and not session.saw(int(module.layer_idx)):
        scaling = options.get("scaling")
        scale = float(query.shape[-1] ** -0.5 if scaling is None else scaling)
        session.see(int(module.layer_idx), query, key, value, scale)
    return out
