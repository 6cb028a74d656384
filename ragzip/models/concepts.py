"""Tokens -> fewer rows of the same model's input embeddings: the encoders of CompLLM and ICAE.

A segment of tokens is read by the generator's own architecture with a low-rank adapter. What it knows of the segment
is read out behind it, from appended rows ("tokens"), or as means of its last hidden states over groups of tokens
("mean"). That is added to what a row begins as: nothing, the mean embedding of its group, or the
embedding of one of the words that say most ("picked"), see ``ragzip.models.picking``. Segments are read alone, so the
cost is linear in the context, and what comes out of one hangs on its tokens only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ragzip.errors import ConfigError, ModelError
from ragzip.models.causal_lm import CausalLM, load_causal_lm
from ragzip.models.layers import first_layers, keep
from ragzip.models.locate import canonical, resolve
from ragzip.models.lora import Adapter, merge_tensors
from ragzip.models.picking import WordTable, group, pick, read_words
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, loaded, remembers
from ragzip.models.soft_folder import deciding_state, open_soft, option, read_soft_config
from ragzip.models.token_windows import batches
from ragzip.models.tokenizer import TextTokenizer, text_tokenizer
from ragzip.text import sentences

if TYPE_CHECKING:
    from torch import Tensor

Readout = Literal["tokens", "mean"]
Residual = Literal["none", "mean", "picked"]
_REMEMBERED = 64_000_000  # bytes of rows that are kept


@dataclass(frozen=True)
class Recipe:
    """How segments are read, and rows read out.

    Attributes:
        segment: Most tokens of a segment.
        rates: Text tokens for one row: those that were trained.
        readout: From appended rows, or as means of hidden states.
        slots: Rows of the table that is appended; 1 appends the same one every time, as CompLLM does.
        residual: What is read out is added to this: nothing, the mean embedding of the tokens that the row stands for,
            or the embedding of a picked one, to which the appended row is added, too.
        by_sentence: Whether segments end where sentences do, so that a sentence has the same ones wherever it stands.
        layers: So many of the generator's layers read segments, the first ones; 0 for all.
    """

    segment: int
    rates: tuple[int, ...]
    readout: Readout
    slots: int
    residual: Residual
    by_sentence: bool
    layers: int = 0


@dataclass(frozen=True, eq=False)
class Parts:
    """What is trained beside the adapter.

    Attributes:
        appended: ``[slots, d]``: rows that stand behind a segment; of no use where means are read out.
        weight: ``[d, d]`` of the linear layer behind the last hidden states.
        bias: ``[d]``.
        scale: What hidden states are multiplied by before that layer, so that it and the adapter learn at one rate.
        words: What picks tokens, where rows begin as picked ones.
    """

    appended: Any
    weight: Any
    bias: Any
    scale: float = 1.0
    words: WordTable | None = None


def read_out(model: Any, parts: Parts, recipe: Recipe, segments: Sequence[Sequence[int]], rate: int) -> list[Tensor]:
    """The rows of segments, differentiable: for training as well as for use.

    Args:
        model: The ``transformers`` model with its adapter.
        parts: See there.
        recipe: See there.
        segments: Token ids each, none empty.
        rate: Text tokens for one row.

    Returns:
        ``[ceil(n_tokens / rate), d]`` of each segment.
    """
    import torch
    from torch.nn.functional import linear

    embedding = model.get_input_embeddings()
    device = embedding.weight.device
    lengths = torch.tensor([len(segment) for segment in segments])
    counts = torch.div(lengths + rate - 1, rate, rounding_mode="floor")
    extra = counts if recipe.readout == "tokens" else torch.zeros_like(counts)
    width = int((lengths + extra).max())
    places = torch.arange(width)
    ids = torch.zeros(len(segments), width, dtype=torch.long)
    own = places < lengths[:, None]
    ids[own] = torch.tensor([token for segment in segments for token in segment])
    behind = (places >= lengths[:, None]) & (places < (lengths + extra)[:, None])
    # the row that each of a segment's tokens stands in, and the token that each row begins as
    groups, picked = places // rate + torch.zeros_like(ids), None
    if recipe.residual == "picked":
        chosen = pick(_table(parts), ids, own, counts)
        groups, picked = group(chosen, counts), ids[chosen]
    groups = (groups + (torch.cumsum(counts, 0) - counts)[:, None])[own].to(device)
    begins = None if picked is None else embedding(picked.to(device))
    tokens = embedding(ids.to(device))
    inputs = tokens
    if recipe.readout == "tokens":
        order = torch.cat([torch.arange(count) for count in counts.tolist()]) % len(parts.appended)
        slots = parts.appended[order.to(parts.appended.device)].to(tokens.dtype)
        slots = slots if begins is None else slots + begins
        inputs = tokens.index_put(behind.to(device).nonzero(as_tuple=True), slots)
    # padding stands behind, where causal attention does not look
    with first_layers(model.base_model, recipe.layers):
        hidden = model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    own = own.to(device)
    read = hidden[behind.to(device)] if recipe.readout == "tokens" else _means(hidden[own], groups)
    out = linear(read * parts.scale, parts.weight.to(read.dtype), parts.bias.to(read.dtype))
    if recipe.residual == "mean":
        begins = _means(tokens[own], groups)
    return list(torch.split(out if begins is None else out + begins, counts.tolist()))


def _table(parts: Parts) -> WordTable:
    if parts.words is None:
        raise ModelError("rows begin as picked words, but there is no table to pick them by", hint="Train it again.")
    return parts.words


def cut(tokenizer: TextTokenizer, texts: Sequence[str], recipe: Recipe) -> list[list[tuple[int, ...]]]:
    """Token ids of the segments of each text, in order."""
    parts = [[text[a:b] for a, b in sentences(text)] if recipe.by_sentence else [text] for text in texts]
    encoded = iter(tokenizer.encode([part for some in parts for part in some]))
    size, found = recipe.segment, []
    for some in parts:
        rows = [next(encoded) for _ in some]
        found.append([tuple(ids[start : start + size]) for ids in rows for start in range(0, len(ids), size)])
    return found


def rows_of(tokens: int, rate: int) -> int:
    """How many rows stand for so many tokens."""
    return -(-tokens // rate)


def _means(rows: Tensor, groups: Tensor) -> Tensor:
    """Means of the rows of each group, numbered from 0: ``[n, d]``, ``[n]`` -> ``[groups, d]``."""
    import torch

    size = int(groups.max()) + 1
    sums = torch.zeros(size, rows.shape[1], dtype=rows.dtype, device=rows.device).index_add(0, groups, rows)
    return sums / torch.bincount(groups, minlength=size)[:, None].to(rows.dtype)


@dataclass(frozen=True, eq=False)
class ConceptEncoder:
    """A loaded encoder of segments.

    Attributes:
        name: As it was asked for.
        space: Whose input embeddings the rows are.
        dimensions: Width of a row.
        recipe: How it reads.
        device: Where it runs.
        folder: Its files.
    """

    name: str
    space: str
    dimensions: int
    recipe: Recipe
    device: str
    folder: Path
    _lm: CausalLM = field(repr=False)
    _text: TextTokenizer = field(repr=False)
    _parts: Parts = field(repr=False)
    _known: OrderedDict[tuple[int, tuple[int, ...]], Tensor] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def segments(self, texts: Sequence[str]) -> list[list[tuple[int, ...]]]:
        """Token ids of the segments of each text, in order."""
        return cut(self._text, texts, self.recipe)

    def rows(self, segments: Sequence[tuple[int, ...]], rate: int) -> list[Tensor]:
        """``[n, dimensions]`` of each segment, float32, on the processor; what was read before is not read again.

        Raises:
            ConfigError: A rate that was not trained.
        """
        if rate not in self.recipe.rates:
            known = ", ".join(map(str, self.recipe.rates))
            raise ConfigError("rate", f"{rate} was not trained for {self.name!r}", hint=f"It has: {known}.")
        found = self._encode(list(dict.fromkeys(segments)), rate)
        return [found[segment] for segment in segments]

    def _encode(self, segments: Sequence[tuple[int, ...]], rate: int) -> dict[tuple[int, ...], Tensor]:
        import torch

        with self._lock:
            found = {s: self._known[rate, s] for s in segments if (rate, s) in self._known}
        todo = [segment for segment in segments if segment not in found]
        with self._lm.lock, torch.inference_mode():
            for batch in batches([len(segment) for segment in todo], self.device.partition(":")[0]):
                rows = read_out(self._lm.model, self._parts, self.recipe, [todo[i] for i in batch], rate)
                found.update({todo[i]: made.float().cpu().clone() for i, made in zip(batch, rows, strict=True)})
        with self._lock:
            for segment in segments:
                self._known[rate, segment] = found[segment]
                self._known.move_to_end((rate, segment))
            size = sum(4 * rows.numel() for rows in self._known.values())
            while size > _REMEMBERED and len(self._known) > 1:
                size -= 4 * self._known.popitem(last=False)[1].numel()
        return found


@remembers
def forget_segments() -> None:
    """Makes all loaded encoders forget what they read: for tests and measurements."""
    for encoder in loaded(ConceptEncoder):
        with encoder._lock:
            encoder._known.clear()


def load_concepts(name: str, architecture: str, *, dtype: str = "auto", device: str = "auto") -> ConceptEncoder:
    """An encoder of segments, loaded once for each process, dtype and device.

    The generator is loaded a second time, with the adapter merged into it.

    Args:
        name: A name of shipped weights, a folder, or a hub id.
        architecture: ``comp_llm`` or ``icae``.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, or was trained for another generator.
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    device = choose_device(device)
    files = deciding_state(folder)

    def load() -> ConceptEncoder:
        found = open_soft(name, architecture)
        base = str(found.config["base"])
        recipe = read_recipe(found.config, folder)
        lm = load_causal_lm(base, dtype=dtype, device=device, own=True)
        if lm.dimensions != found.dimensions:
            raise ModelError(
                f"{folder} writes rows of {found.dimensions} columns, but {base!r} reads {lm.dimensions}",
                hint="Train for this generator.",
            )
        d = lm.dimensions
        rank = option(found.config, "rank", int, folder, least=1)
        names = option(found.config, "targets", tuple, folder)
        scale = option(found.config, "alpha", int, folder) / rank
        adapter = Adapter(base, rank, scale, tuple(str(name) for name in names))
        low_rank = {key: value for key, value in found.tensors.items() if ".lora_" in key}
        check_segment(recipe, lm)
        if recipe.layers:
            keep(lm.model, recipe.layers, base)
        merge_tensors(lm.model, adapter, low_rank, str(folder))
        to = {"device": device, "dtype": lm.model.dtype}
        vocabulary = len(lm.model.get_input_embeddings().weight)
        return ConceptEncoder(
            name=name,
            space=found.space,
            dimensions=d,
            recipe=recipe,
            device=device,
            folder=folder,
            _lm=lm,
            _text=text_tokenizer(base),
            _parts=Parts(
                found.take("appended", recipe.slots, d).to(**to) if recipe.readout == "tokens" else None,
                found.take("head.weight", d, d).to(**to),
                found.take("head.bias", d).to(**to),
                float(found.take("scale", 1)) if "scale" in found.tensors else 1.0,
                read_words(found, vocabulary) if recipe.residual == "picked" else None,
            ),
        )

    key = ("concepts", architecture, canonical(name), *files, str(choose_dtype(dtype, device)), device)
    encoder: ConceptEncoder = kept(key, load)
    return encoder


def segments_of(name: str, architecture: str, texts: Sequence[str]) -> list[list[tuple[int, ...]]]:
    """The segments of texts as an encoder cuts them, by its config and its generator's tokenizer alone.

    Args:
        name: A name of shipped weights, a folder, or a hub id.
        architecture: ``comp_llm`` or ``icae``.
        texts: Any.

    Raises:
        ModelError: Weights or tokenizer are not here, or the config is broken.
    """
    folder = resolve(name)
    config = read_soft_config(folder, architecture)
    return cut(text_tokenizer(str(config["base"])), texts, read_recipe(config, folder))


def check_segment(recipe: Recipe, lm: CausalLM) -> None:
    """Refuses segments that the generator cannot read at once with the slots behind them.

    Raises:
        ModelError: They are too long.
    """
    most = recipe.segment + -(-recipe.segment // min(recipe.rates))
    if most > lm.window:
        raise ModelError(
            f"a segment of {recipe.segment:,} tokens with its slots takes {most:,}, and {lm.name!r} reads "
            f"{lm.window:,} at once",
            hint="Use shorter segments.",
        )


def read_recipe(config: Any, folder: Path) -> Recipe:
    """The recipe in a folder's config.

    Raises:
        ModelError: A value that cannot be.
    """
    # as they were before rows could begin as picked words
    config = {"layers": 0, **config}
    if isinstance(config.get("residual"), bool):
        config["residual"] = "mean" if config["residual"] else "none"
    recipe = Recipe(
        segment=option(config, "segment", int, folder),
        rates=option(config, "rates", tuple, folder),
        readout=option(config, "readout", str, folder),
        slots=option(config, "slots", int, folder),
        residual=option(config, "residual", str, folder),
        by_sentence=option(config, "by_sentence", bool, folder),
        layers=option(config, "layers", int, folder, least=0),
    )
    sound = recipe.segment >= 1 and recipe.slots >= 1 and recipe.rates and recipe.readout in get_args(Readout)
    sound = sound and recipe.residual in get_args(Residual)
    if not sound or not all(type(rate) is int and rate >= 1 for rate in recipe.rates):
        raise ModelError(f"{folder / 'config.json'} holds a recipe that cannot be: {recipe}", hint="Train it again.")
    return recipe
