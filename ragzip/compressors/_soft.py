"""What soft compressors share: each text segment becomes rows of the generator's input embeddings, span by span."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ragzip.compressors._groups import shown
from ragzip.compressors._relevance import titles_of
from ragzip.compressors._stored import encode, stored
from ragzip.errors import ConfigError, ModelError, StoreError
from ragzip.indexes.soft_store import Setting, Unit, find_store
from ragzip.models import Dtype, canonical, check_options, resolve
from ragzip.models.identity import folder_fingerprint
from ragzip.models.locate import status
from ragzip.models.runtime import kept
from ragzip.models.soft_folder import check_same, deciding_state, read_soft_config, space_of
from ragzip.protocols import Compressor
from ragzip.types import Context, Passage, Query, SoftSegment, TextSegment, context_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PassageEncoder(Compressor[TextSegment, SoftSegment]):
    """A soft compressor to whom the question does not matter: rows hang on pieces of text, and can be stored.

    Attributes:
        model: Trained weights: a name, a folder made by ``ragzip train``, or a hub id.
        store: A folder that ``ragzip index compress`` filled, or the index it was filled for: what is in it is not
            computed again. "" computes everything.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    architecture: ClassVar[str] = ""

    model: str = ""
    store: str = ""
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_soft(self.model, self.dtype, self.device, self.architecture)

    @property
    def space(self) -> str:
        """Whose input embeddings the rows are, or "" where the weights are not here."""
        return space_of(self.model, self.architecture)

    def lacking(self) -> list[str]:
        """What the weights or the store lack for these options, by option; nothing is loaded."""
        rate = getattr(self, "rate", None)
        try:
            here = self.space or status(self.model)
            rates = read_soft_config(resolve(self.model), self.architecture).get("rates", ()) if here else ()
            if rate is not None and rates and rate not in rates:
                return [f"rate: {rate} was not trained for {self.model!r}, which has {', '.join(map(str, rates))}"]
            if self.store and self.space and status(self.space):
                find_store(self.store, self.setting())
            elif self.space and (problem := lacks_encoder(read_soft_config(resolve(self.model), self.architecture))):
                return [problem]
        except StoreError as error:
            return [f"store: {error}"]
        except ModelError as error:
            return [f"model: {error}"]
        return []

    @abstractmethod
    def units(self, texts: Sequence[str], titles: Sequence[str]) -> list[list[Unit]]:
        """The pieces that each text is compressed in, none of which is blank."""

    @abstractmethod
    def compute(self, units: Sequence[Unit]) -> Sequence[Tensor]:
        """``[n, d_model]`` of each piece; none hangs on another one."""

    def setting(self) -> Setting:
        """What stored rows must have been made with. Reads the weights' files and does not load them."""
        return setting_of(self.model, self.architecture, rate=int(getattr(self, "rate", 0)))

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[SoftSegment]]:
        """Each context as rows, a soft segment for every text segment that shows anything."""
        import torch

        wanted: dict[tuple[str, str], None] = {}
        keys = [list(zip((s.text for s in c.segments), titles_of(c), strict=True)) for c in contexts]
        for context, of_context in zip(contexts, keys, strict=True):
            wanted.update(dict.fromkeys(k for s, k in zip(context.segments, of_context, strict=True) if shown(s)))
        if not wanted:
            return [Context(context.query, (), context.passages) for context in contexts]
        setting = self.setting()
        pieces, asked = self._pieces(list(wanted), setting)
        made = encode([unit for some in pieces for unit in some], self.compute, self.store, setting, asked)
        check_rows(list(made.values()), self.model)
        found = {
            key: torch.cat([made[unit] for unit in some]) for key, some in zip(wanted, pieces, strict=True) if some
        }
        return [
            Context(
                context.query,
                tuple(
                    SoftSegment(found[key], setting.space, segment.sources)
                    for segment, key in zip(context.segments, of_context, strict=True)
                    if key in found
                ),
                context.passages,
            )
            for context, of_context in zip(contexts, keys, strict=True)
        ]

    def _pieces(
        self, wanted: Sequence[tuple[str, str]], setting: Setting
    ) -> tuple[list[list[Unit]], dict[Unit, Tensor | None]]:
        """The pieces of each text with its title, those that are stored whole uncut, and what the store said so far."""
        whole = [self.whole(text, title) for text, title in wanted] if self.store else [None] * len(wanted)
        here = [unit for unit in whole if unit is not None]
        asked = stored(here, self.store, setting) if here else {}
        left = [number for number, unit in enumerate(whole) if unit is None or asked[unit] is None]
        cut = iter(self.units([wanted[i][0] for i in left], [wanted[i][1] for i in left]) if left else [])
        found: list[list[Unit]] = []
        for unit in whole:
            found.append([unit] if unit is not None and asked[unit] is not None else next(cut))
        return found, asked

    def whole(self, text: str, title: str) -> Unit | None:
        """What a text would be stored under, were it one piece; None where that takes as long to say as its pieces."""
        return None

    def compress_passages(self, passages: Sequence[Passage]) -> Sequence[SoftSegment]:
        """One segment a passage, as for any question; without rows where it has no text."""
        import torch

        whole = [context_of(Query(""), (passage,)) for passage in passages]
        found = []
        for before, after in zip(whole, self.compress(whole), strict=True):
            rows = [segment.embeddings for segment in after.segments]
            one = torch.cat(rows) if rows else torch.zeros(0, self.setting().columns)
            found.append(SoftSegment(one, self.space, before.segments[0].sources))
        return found


def lacks_encoder(config: Mapping[str, Any]) -> str:
    """What is wrong with the encoder that weights name, or "" where it is here or there is none."""
    name = str(config.get("encoder", ""))
    if not name or status(name):
        return ""
    return f"model: its encoder {name!r} is not here. Get it: ragzip models fetch {name}"


def setting_of(model: str, architecture: str, *, rate: int = 0, columns: int = 0) -> Setting:
    """What rows of a folder of weights are made with; as wide as the generator's embeddings, unless told otherwise."""
    folder = resolve(model)
    files = deciding_state(folder, ("base",))  # with a full store nothing else is needed

    def read() -> Setting:
        config = read_soft_config(folder, architecture)
        check_same(folder, str(config["base"]), str(config.get("base_sha256", "")))
        return Setting(
            method=architecture,
            model=model,
            fingerprint=folder_fingerprint(folder),
            space=canonical(str(config["base"])),
            rate=rate,
            columns=columns or int(config["dimensions"]),
        )

    setting: Setting = kept(("soft setting", model, architecture, rate, columns, *files), read)
    return setting


def check_rows(rows: Sequence[Tensor], model: str) -> Sequence[Tensor]:
    """Rows that are fit to be read.

    Raises:
        ModelError: A value is not finite: the weights are broken.
    """
    import torch

    if rows and not bool(torch.cat(list(rows)).isfinite().all()):
        raise ModelError(
            f"{model!r} wrote rows with values that are not finite",
            hint="Its weights are broken, or dtype is too narrow for them: try dtype: fp32.",
        )
    return rows


def check_soft(model: str, dtype: str, device: str, architecture: str) -> None:
    """Checks the options that soft compressors have in common.

    Raises:
        ConfigError: With the option's name.
    """
    if not isinstance(model, str) or not model.strip():
        raise ConfigError(
            "model", "is missing", hint=f"Give the folder of trained weights: ragzip train {architecture} --help"
        )
    check_options(dtype, device)
