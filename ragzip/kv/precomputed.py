"""Caches of passages that were read before: put together, only what stands behind them is read."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from ragzip.errors import ConfigError, GenerationError, ModelError, StoreDamaged
from ragzip.indexes.files import guarded, new_file
from ragzip.kv.rotary import angles, check_rotary, half_turned
from ragzip.models.causal_lm import check_keys
from ragzip.models.chat import EncodedPrompt, encode_prompt
from ragzip.models.identity import folder_fingerprint
from ragzip.models.runtime import remembers
from ragzip.protocols import KVCompression
from ragzip.tokens import SEPARATOR
from ragzip.types import Message, Segment, SoftSegment, TextSegment

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM

_ABANDONED = 3600.0  # seconds after which nobody writes a file any more
_MEMORY = 512_000_000  # bytes of caches that are held in memory
_held: OrderedDict[str, Tensor] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class PrecomputedKV(KVCompression):
    """Each passage is read once, behind the beginning of the prompt and without the other passages; then never again.

    Block attention, as in TurboRAG (https://arxiv.org/abs/2410.07590) and Block-Attention
    (https://arxiv.org/abs/2409.15355), here with a model that was not trained for it: the keys and values of passages
    that were read alone are turned to the places where they stand in this prompt, and the question is read behind them.
    The first token comes as soon as the question is read. Passages do not see each other, which costs quality, and the
    caches are large: two vectors a layer for every token. The bytes in use are those of the whole prompt. It stands
    alone: what is evicted here could not be used again. Templates that tell the date tell the same day always.

    Attributes:
        store: A folder for the caches of passages, or "": they are then kept in memory alone, 512 MB at most. The
            folder has no bound: behind compressors that look at the question it grows with every question.
    """

    text_only: ClassVar[bool] = True  # soft segments are no passages that could be read before

    store: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.store, str):
            raise ConfigError("store", f"must be a folder's name, not {self.store!r}")
        if "\0" in self.store:
            raise ConfigError("store", "must be a folder's name, without a zero byte")

    def prepare(
        self, lm: CausalLM, messages: Sequence[Message[Segment]], number: int
    ) -> tuple[EncodedPrompt, Any, int]:
        """The prompt, a cache of all of it but what stands behind the last passage, and how many tokens that is.

        Args:
            lm: The model; its lock is held.
            messages: Chat turns.
            number: Which prompt of its batch, for error messages.

        Raises:
            GenerationError: The prompt has soft segments.
            ModelError: The model has no rotary embedding of the usual kind.
        """
        import torch
        from transformers.cache_utils import DynamicCache

        parts = self.check(lm, messages, number)
        ids = [token for part in parts for token in part]
        first, *passages, _ = parts
        cache: Any = DynamicCache()
        if not passages:
            return EncodedPrompt((ids,)), cache, 0
        with torch.inference_mode():
            model = f"{folder_fingerprint(lm.folder)} {lm.dtype}"
            pieces: list[Tensor] = []
            place = 0
            for part in [first, *passages] if first else passages:
                found = self._read(lm, model, first if place else [], part, pieces[0] if first and place else None)
                pieces.append(turned(lm, found, place - len(first)) if place else found)
                place += len(part)
            whole = torch.cat(pieces, dim=-2).to(device=lm.device, dtype=lm.model.dtype)
        for layer in range(len(whole)):
            cache.update(whole[layer, 0][None], whole[layer, 1][None], layer)
        return EncodedPrompt((ids,)), cache, place

    def check(self, lm: CausalLM, messages: Sequence[Message[Segment]], number: int) -> list[list[int]]:
        """Refuses what ``prepare`` would refuse, before anything is computed; gives what ``blocks_of`` does."""
        import torch

        check_keys(lm)
        check_rotary(lm, "precomputed_kv")
        if any(isinstance(piece, SoftSegment) for message in messages for piece in message.pieces):
            raise GenerationError(
                f"prompt {number} has soft segments, which precomputed_kv cannot put between its caches",
                hint="Use it without soft compressors.",
            )
        parts = blocks_of(lm, messages, number)
        if len(parts) > 3:  # the second passage and those behind it are turned
            _check_scale(lm, *angles(lm, torch.zeros(1), torch.tensor([1])))
        return parts

    def _read(self, lm: CausalLM, model: str, before: list[int], ids: list[int], known: Tensor | None) -> Tensor:
        """Keys and values of tokens behind others, whose own are known: ``[layers, 2, key heads, n, width]``.

        From where they are kept, or computed now.
        """
        key = hashlib.sha256(f"{model} {before} {ids}".encode()).hexdigest()
        with _lock:
            found = _held.get(key)
            if found is not None:
                _held.move_to_end(key)
        if found is None and self.store:
            found = self._load(key, len(ids))
        if found is None:
            found = _compute(lm, known, ids)
        if self.store and not self._path(key).is_file():
            self._save(key, found)
        with _lock:
            _held[key] = found
            while sum(t.numel() * t.element_size() for t in _held.values()) > _MEMORY and len(_held) > 1:
                _held.popitem(last=False)
        return found

    def _load(self, key: str, count: int) -> Tensor | None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(key)
        if not path.is_file():
            return None
        try:
            found = load_file(str(path))["kv"]
        except (OSError, SafetensorError, KeyError) as error:
            raise StoreDamaged(f"{path} cannot be read: {error}", hint="Remove it; it is computed again.") from error
        if found.dim() != 5 or found.shape[1] != 2 or found.shape[3] != count or not bool(found.isfinite().all()):
            what = f"{list(found.shape)}, for {count} tokens, or numbers that are none"
            raise StoreDamaged(f"{path} holds {what}", hint="Remove it; it is computed again.")
        return found

    def _save(self, key: str, found: Tensor) -> None:
        from safetensors.torch import save

        path = self._path(key)
        # by a name of its own: whoever reads the same passage meanwhile writes the same file
        own = path.with_name(f"{path.name}.{uuid4().hex}")
        with guarded(Path(self.store)):
            for left in path.parent.glob(f"*{path.suffix}.*"):  # by whoever was killed while it wrote
                with suppress(FileNotFoundError):
                    if time.time() - left.stat().st_mtime > _ABANDONED:
                        left.unlink()
            try:
                with new_file(own) as file:
                    file.write(save({"kv": found.contiguous()}))
                own.replace(path)
            finally:
                own.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return Path(self.store) / key[:2] / f"{key}.safetensors"


@remembers
def forget_caches() -> None:
    """Makes the process forget the caches that are held in memory: for tests and measurements."""
    with _lock:
        _held.clear()


def blocks_of(lm: CausalLM, messages: Sequence[Message[Segment]], number: int) -> list[list[int]]:
    """A prompt's token ids in parts: what stands before the first passage, passages, what stands behind the last.

    A passage is a text segment with its title. The separator between two is a part as they are, so that a passage is
    the same part wherever it stands. The parts are tokenised one by one; a passage of no tokens is none. A template
    that tells the date tells the same one always: with that of today nothing could be used tomorrow.
    """
    import torch

    texts: list[str] = []
    turns: list[Message[Segment]] = []
    for message in messages:
        pieces: list[str | Segment] = []
        for piece in message.pieces:
            if not isinstance(piece, TextSegment):
                pieces.append(piece)
                continue
            # the first piece of a turn is the template's, also where it is empty; the others are the layout's
            lead = pieces.pop() if len(pieces) > 1 and isinstance(pieces[-1], str) else ""
            if isinstance(lead, str) and lead.startswith(SEPARATOR):
                texts.append(SEPARATOR)
                pieces.append(TextSegment(f"\0{len(texts) - 1}"))
                lead = lead.removeprefix(SEPARATOR)
            texts.append(f"{lead}{piece.text}")
            pieces.append(TextSegment(f"\0{len(texts) - 1}"))
        turns.append(replace(message, pieces=tuple(pieces)))
    encoded = lm.text.encode(texts)
    marked = [
        replace(
            turn,
            pieces=tuple(
                SoftSegment(torch.zeros(max(len(encoded[int(p.text[1:])]), 1), lm.dimensions), lm.space)
                if isinstance(p, TextSegment)
                else p
                for p in turn.pieces
            ),
        )
        for turn in turns
    ]
    parts: list[list[int]] = [[]]
    order = iter([encoded[int(p.text[1:])] for turn in turns for p in turn.pieces if isinstance(p, TextSegment)])
    between: list[int] = []
    for part in encode_prompt(lm, marked, number=number, dated=False).pieces:
        if isinstance(part, list):
            between += part
            continue
        if len(parts) == 1:
            parts[0] = between
            parts.append(next(order))
        else:
            parts.append([*between, *next(order)])
        between = []
    parts = [parts[0], *filter(None, parts[1:])]
    if not between and len(parts) > 1:
        between = parts.pop()  # something has to be read
    return [*parts, between]


def turned(lm: CausalLM, kv: Tensor, by: int) -> Tensor:
    """Keys turned so many places further; values as they are."""
    import torch

    if by == 0:
        return kv
    keys = kv[:, 0].float()
    cosines, sines = angles(lm, keys[0], torch.tensor([by]))
    _check_scale(lm, cosines, sines)
    return torch.stack([keys * cosines + half_turned(keys) * sines, kv[:, 1].float()], dim=1).to(kv.dtype)


def _check_scale(lm: CausalLM, cosines: Tensor, sines: Tensor) -> None:
    if abs(float((cosines**2 + sines**2).mean()) - 1) > 1e-3:
        raise ModelError(f"the rotary embedding of {lm.name!r} is scaled", hint="Leave precomputed_kv out.")


def _compute(lm: CausalLM, known: Tensor | None, ids: list[int]) -> Tensor:
    import torch
    from transformers.cache_utils import DynamicCache

    cache: Any = DynamicCache()
    start = 0 if known is None else known.shape[-2]
    if known is not None:
        known = known.to(device=lm.device, dtype=lm.model.dtype)
        for layer in range(len(known)):
            cache.update(known[layer, 0][None], known[layer, 1][None], layer)
    with torch.inference_mode():
        tokens = torch.tensor([ids], device=lm.device)
        lm.model.base_model(input_ids=tokens, past_key_values=cache, use_cache=True)
    layers = [torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]
    return torch.stack(layers)[..., start:, :].cpu().clone()
