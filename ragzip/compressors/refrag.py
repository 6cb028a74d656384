"""REFRAG: chunks become one row each, and a policy says which of them stay text."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from ragzip.compressors._expansion import BY_VECTORS, SCALES, load_policy, most_as_text, scores
from ragzip.compressors._groups import owner
from ragzip.compressors._layout import Layout, take
from ragzip.compressors._options import check_count, check_number, counter_of, most
from ragzip.compressors._soft import check_rows, check_soft, lacks_encoder, setting_of
from ragzip.compressors._stored import encode_each
from ragzip.errors import ConfigError, ModelError, StoreError
from ragzip.indexes import looks
from ragzip.indexes.soft_store import Setting, Unit, find_store
from ragzip.models import Dtype, resolve
from ragzip.models.chunks import ARCHITECTURE, ChunkEncoder, load_chunks, vector_width
from ragzip.models.locate import status
from ragzip.models.shipped import PROVENCE
from ragzip.models.shipped import REFRAG as SHIPPED_REFRAG
from ragzip.models.soft_folder import read_soft_config, space_of
from ragzip.protocols import Compressor, Counter, runtime_field
from ragzip.types import Context, Segment, SoftSegment, TextSegment

if TYPE_CHECKING:
    from torch import Tensor

Policy = Literal["similarity", "provence", "perplexity", "trained"]


@dataclass(frozen=True)
class REFRAG(Compressor[TextSegment, Segment]):
    """Compress, sense, expand: chunks of 16 tokens become rows, but for those that are worth their tokens as text.

    After REFRAG (https://arxiv.org/abs/2509.01092), with a generator that never changes: a light encoder reads each
    chunk, and a linear layer makes its vector a row. Where the weights were trained so, that is added to the embedding
    of a word of the chunk, one that is rare and often asked for. What a policy picks stays text, at its place between
    the rows, and passages of which nothing reaches a threshold go. Between rows and text of one passage nothing is put.
    ``similarity`` is the cosine of the encoder's vectors to the question's; ``provence`` the score of the best sentence
    that the chunk has a part of; ``perplexity`` how much less the question surprises the generator behind the chunk;
    ``trained`` asks the policy that was trained with the weights. Beside ``text_then_soft``, which keeps whole passages
    as text, it chooses within passages.

    Attributes:
        model: Weights made by ``ragzip train refrag``: a name of shipped ones, a folder, or a hub id.
        expand: Most of a context's chunks that stay text, as a share, 0 to 1, rounded down: of fewer than four chunks a
            quarter is none. 1 leaves everything as it is where neither a threshold nor a budget is given.
        policy: What picks them; ``similarity`` costs next to nothing, ``provence`` a pass over the context, and another
            one over ten of its passages.
        threshold: Chunks that score less do not stay text, on the policy's own scale: 0 to 1 for ``provence``, cosines
            for ``similarity``, negative nats a token for ``perplexity``, logits for ``trained``. None is 0.1 for
            ``provence`` where ``expand`` is above 0 and not everything can be text, unless no chunk of the context
            reaches it, and no bound otherwise. (``text_then_soft`` gives every passage as a context of its own: name
            the threshold there.)
        drop: Whether a passage of which no chunk reaches the threshold is left out; else all of it becomes rows.
        budget: Most tokens of the context, or None; chunks expand while it is met, and where even the rows are too
            many, the ones that the policy likes least are dropped.
        store: A folder that ``ragzip index compress`` filled, or the index it was filled for: vectors of chunks that
            are in it are not computed again. "" computes all.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    architecture: ClassVar[str] = ARCHITECTURE

    model: str = SHIPPED_REFRAG
    expand: float = 0.25
    policy: Policy = "provence"
    threshold: float | None = None
    drop: bool = True
    budget: int | None = None
    store: str = ""
    dtype: Dtype = "auto"
    device: str = "auto"
    counter: Counter | None = runtime_field()

    def __post_init__(self) -> None:
        check_soft(self.model, self.dtype, self.device, ARCHITECTURE)
        if self.expand is None:
            raise ConfigError("expand", "must be a number, not None")
        check_number("expand", self.expand, low=0, high=1)
        if self.policy not in get_args(Policy):
            raise ConfigError("policy", f"must be one of {', '.join(get_args(Policy))}, not {self.policy!r}")
        low, high = SCALES.get(self.policy, (-math.inf, math.inf))
        check_number("threshold", self.threshold, low=low, high=high)
        if not isinstance(self.drop, bool):
            raise ConfigError("drop", f"must be true or false, not {self.drop!r}")
        check_count("budget", self.budget)

    @property
    def space(self) -> str:
        """Whose input embeddings the rows are, or "" where the weights are not here."""
        return space_of(self.model, ARCHITECTURE)

    def reads(self) -> list[str]:
        """The models that it reads with beside its weights and what these name."""
        return [PROVENCE] if self.policy == "provence" else []

    def lacking(self) -> list[str]:
        """What weights, policy or store lack for these options, by option; nothing is loaded."""
        try:
            config = read_soft_config(resolve(self.model), ARCHITECTURE) if self.space or status(self.model) else {}
            if problem := lacks_encoder(config):
                return [problem]
            if config and self.policy == "trained" and "policy.0.bias" not in config["tensors"]:
                return [f"policy: {self.model!r} has no trained policy"]
            if config and self.store and status(self.space):
                find_store(self.store, setting_of(self.model, ARCHITECTURE, columns=vector_width(self.model)))
        except StoreError as error:
            return [f"store: {error}"]
        except ModelError as error:
            return [f"model: {error}"]
        return []

    def load(self) -> ChunkEncoder:
        """The encoder and what else it takes to compress, loaded now unless it is already.

        Raises:
            ModelError: Something of that is not here, or the policy is ``trained`` and the weights have none.
        """
        encoder = self._encoder()
        encoder.load_words()
        if self._picks:
            load_policy(self, encoder)
        return encoder

    @property
    def _picks(self) -> bool:
        """Whether there is something to pick: chunks that may be text, rows that may be too many, or passages."""
        return self.expand > 0 or self.budget is not None or (self.drop and self._bound)

    @property
    def _bound(self) -> bool:
        """Whether a threshold is named that something can miss."""
        return self.threshold not in (None, SCALES.get(self.policy, (None,))[0])

    def _encoder(self) -> ChunkEncoder:
        return load_chunks(self.model, dtype=self.dtype, device=self.device)

    def setting(self) -> Setting:
        """What stored vectors must have been made with."""
        return setting_of(self.model, ARCHITECTURE, columns=self._encoder().width)

    def units(self, texts: Sequence[str], titles: Sequence[str]) -> list[list[Unit]]:
        """The chunks of each text that are not blank; titles are not read."""
        encoder = self._encoder()
        return [[text[a:b] for a, b in encoder.cut(text) if text[a:b].strip()] for text in texts]

    def compute(self, units: Sequence[Unit]) -> Sequence[Tensor]:
        """The vector of each chunk, from which its row and its likeness to a question are made: ``[1, width]``."""
        return [row[None] for row in self._encoder().vectors([str(unit) for unit in units])]

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[Segment]]:
        """Each context as rows and text."""
        stays = [self._stays(context) for context in contexts]
        if all(stays):
            return [_same(context) for context in contexts]
        encoder = self._encoder()
        parts = [_cut(context, encoder) for context, same in zip(contexts, stays, strict=True) if not same]
        # policies that read the text choose first: what they leave out needs no vectors
        first = self._picks and self.policy not in BY_VECTORS
        picked = [self._pick(encoder, layout, units, None) if first else (units, 0) for layout, units in parts]
        left = zip(parts, picked, strict=True)
        texts = [[layout.text(unit) for unit in sorted(ranked)] for (layout, _), (ranked, _) in left]
        read = self._vectors(encoder, texts)
        made = iter(map(partial(self._build, encoder), parts, picked, read))
        return [_same(context) if same else next(made) for context, same in zip(contexts, stays, strict=True)]

    def _vectors(self, encoder: ChunkEncoder, texts: Sequence[Sequence[str]]) -> list[Tensor]:
        """The vectors of each context's chunks, ``[n, width]``; those that are stored are not computed."""
        import torch

        if not self.store:
            return [encoder.vectors(some) for some in texts]
        # each context's by themselves: which chunks stay text must not hang on what else is in the batch
        known = encode_each(texts, self.compute, self.store, self.setting())
        pairs = zip(texts, known, strict=True)
        return [torch.cat([torch.zeros(0, encoder.width), *(rows[text] for text in some)]) for some, rows in pairs]

    def _pick(
        self, encoder: ChunkEncoder, layout: Layout, units: list[int], vectors: Tensor | None
    ) -> tuple[list[int], int]:
        """The chunks that are not left out, best first, and how many of them may be text."""
        if not units or not self._picks:
            return units, 0
        return self._ranked(layout, units, scores(self, encoder, layout, units, vectors))

    def _build(
        self, encoder: ChunkEncoder, part: tuple[Layout, list[int]], picked: tuple[list[int], int], read: Tensor
    ) -> Context[Segment]:
        """A context of the chunks that were picked, whose vectors these are; or of all, and they are picked by them."""
        layout, units = part
        ranked, expanded = picked
        if self.policy in BY_VECTORS:
            ranked, expanded = self._pick(encoder, layout, units, read)
            read = read[[bisect_left(units, unit) for unit in sorted(ranked)]]
        chunks = Chunks.of(layout, sorted(ranked), encoder, read)
        check_rows([chunks.projected], self.model)

        def small(kept: Sequence[int], text: Sequence[int]) -> bool:
            return self.budget is None or self._met(chunks.build(kept, set(text)))

        kept = ranked[: most(len(ranked), lambda n: small(ranked[:n], ()))]
        if len(kept) < len(ranked):
            return chunks.build(kept, set())
        return chunks.build(kept, set(ranked[: most(expanded, lambda n: small(kept, ranked[:n]))]))

    def _ranked(
        self, layout: Layout, units: Sequence[int], found: Sequence[tuple[float, float]]
    ) -> tuple[list[int], int]:
        """The chunks that are not left out, best first, and how many of them may be text."""
        order = sorted(range(len(found)), key=lambda i: (-found[i][0], -found[i][1], i))
        ranked = [units[i] for i in order]
        expanded = most_as_text(self.expand, len(units))
        least = self._least([score for score, _ in found]) if layout.context.query.text.strip() else None
        if least is None:
            return ranked, expanded
        worth = [unit for unit, (score, _) in zip(units, found, strict=True) if score >= least]
        return _beside(layout, worth, ranked) if self.drop else ranked, min(expanded, len(worth))

    def _stays(self, context: Context[TextSegment]) -> bool:
        """Whether a context stays as it is, and nothing is to be read."""
        return self.expand == 1 and not self._bound and self._met(context)

    def _met(self, context: Context[Segment]) -> bool:
        """Whether a context is within the budget."""
        return self.budget is None or counter_of(self.counter).context(context) <= self.budget

    def _least(self, found: Sequence[float]) -> float | None:
        """What a chunk must score to stay text, or None where any may."""
        if self.threshold is None and self.policy == "provence" and self.expand > 0 and max(found) >= looks.WORTH:
            return looks.WORTH
        return self.threshold


def _same(context: Context[TextSegment]) -> Context[Segment]:
    return Context(context.query, context.segments, context.passages)


def mixed(context: Context[TextSegment], encoder: ChunkEncoder) -> Chunks:
    """A context in chunks, each of which can be text or a row."""
    layout, units = _cut(context, encoder)
    return Chunks.of(layout, units, encoder, encoder.vectors([layout.text(unit) for unit in units]))


def _cut(context: Context[TextSegment], encoder: ChunkEncoder) -> tuple[Layout, list[int]]:
    """A context in chunks, and those of them that are not blank."""
    layout = Layout(context, cut=encoder.cut)
    return layout, [unit for unit in range(len(layout.units)) if layout.text(unit).strip()]


def _beside(layout: Layout, units: Sequence[int], others: Sequence[int]) -> list[int]:
    """Those of ``others`` that are of a passage with one of ``units``, in their order."""

    def name(unit: int) -> str:
        index = layout.units[unit].segment
        return owner(layout.context.segments[index], index)

    names = {name(unit) for unit in units}
    return [unit for unit in others if name(unit) in names]


@dataclass(frozen=True, eq=False)
class Chunks:
    """A context whose chunks are text or rows, as one says.

    Attributes:
        layout: The context in chunks.
        units: Some of them, none of which is blank.
        vectors: Theirs, ``[n, encoder dimensions]``.
        projected: Their rows, ``[n, d_model]``.
        space: Whose input embeddings the rows are.
    """

    layout: Layout
    units: list[int]
    vectors: Tensor
    projected: Tensor
    space: str

    @classmethod
    def of(cls, layout: Layout, units: Sequence[int], encoder: ChunkEncoder, vectors: Tensor) -> Chunks:
        """Some chunks of a context, whose vectors are known."""
        texts = [layout.text(unit) for unit in units]
        return cls(layout, list(units), vectors, encoder.project(texts, vectors), encoder.space)

    def build(self, kept: Sequence[int], text: set[int]) -> Context[Segment]:
        """The context with these chunks, those of ``text`` as text, the others as rows; neighbours are joined."""
        import torch

        context = self.layout.context
        row = {unit: place for place, unit in enumerate(self.units)}
        segments: list[Segment] = []
        for run in _runs(sorted(kept), self.layout, text):
            place = self.layout.units[run[0]]
            whole = (place.start, self.layout.units[run[-1]].end)
            source = context.segments[place.segment]
            piece = take(source, [whole], self.layout.passages, True) if isinstance(source, TextSegment) else None
            if piece is None:
                continue
            if run[0] in text:
                segments.append(piece)
            else:
                rows = torch.stack([self.projected[row[unit]] for unit in run])
                segments.append(SoftSegment(rows, self.space, piece.sources))
        return Context(context.query, tuple(segments), context.passages)


def _runs(kept: Sequence[int], layout: Layout, text: set[int]) -> list[list[int]]:
    """Neighbouring chunks of one segment that are of one kind; blank ones stand between none."""
    found: list[list[int]] = []
    for unit in kept:
        before = found[-1][-1] if found else -2
        next_one = before >= 0 and not any(layout.text(one).strip() for one in range(before + 1, unit))
        same = next_one and layout.units[before].segment == layout.units[unit].segment
        if same and (before in text) == (unit in text):
            found[-1].append(unit)
        else:
            found.append([unit])
    return found
