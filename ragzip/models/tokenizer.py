"""Tokenizers without their models: counting, and encoding text that is data and never control.

A passage may contain ``<|im_end|>``. Tokenised naively, it would end the user's turn in the middle of the prompt, and
whoever writes documents could put words into the system's mouth. ``TextTokenizer`` encodes such strings as the
characters they are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

from ragzip.errors import ModelError
from ragzip.models.catalogue import GENERATOR
from ragzip.models.locate import resolve
from ragzip.models.lora import tokenizer_folder
from ragzip.models.runtime import kept, state
from ragzip.tokens import TokenCounter

_MARKUP = re.compile(r"[<\[{|].*[>\]}|]", re.DOTALL)


def load_tokenizer(name: str) -> Tokenizer:
    """A model's tokenizer with padding and truncation off, shared by the whole process: do not change it.

    Loads neither torch nor transformers.

    Raises:
        ModelError: The model is not here, or has no readable ``tokenizer.json``.
    """
    return text_tokenizer(name).tokenizer


def text_tokenizer(name: str) -> TextTokenizer:
    """A model's ``TextTokenizer``, shared by the whole process."""
    path = tokenizer_file(tokenizer_folder(resolve(name)))
    made: TextTokenizer = kept(("tokenizer", *state(path)), lambda: TextTokenizer(read_tokenizer(path)))
    return made


def tokenizer_file(folder: Path) -> Path:
    """The ``tokenizer.json`` of a model folder; raises ModelError where there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} has no tokenizer.json",
            hint="Save it once: transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).",
        )
    return path


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer of the caller's own, with padding and truncation off."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for what it cannot parse
        raise ModelError(f"{path} cannot be read: {error}", hint="Get the model's files again.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


_SMALL = 8_000  # characters below which waking the tokenizer's threads costs more than they save,
_FEW = 256  # unless they are so many texts


def encode_batch(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool, offsets: bool = False) -> list[Encoding]:
    """Encodes any strings, lone surrogates included, which become question marks.

    Args:
        tokenizer: Any.
        texts: Any strings.
        special: Whether special tokens are put around each.
        offsets: Whether the places of tokens in characters are needed; they take a while.
    """
    batch = list(texts)
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    try:
        if len(batch) < _FEW and sum(map(len, batch)) < _SMALL:
            return [tokenizer.encode(text, add_special_tokens=special) for text in batch]
        return encode(batch, add_special_tokens=special)
    except TypeError:
        return encode([well_formed(t) for t in batch], add_special_tokens=special)


def well_formed(text: str) -> str:
    """The text with lone surrogates, which no encoding can carry, replaced by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, eq=False)
class TextTokenizer:
    """Encodes text such that no control token comes out, whatever the text says.

    Control tokens are the added tokens that are marked special or look like markup (``<tool_call>``).
    """

    tokenizer: Tokenizer
    control: frozenset[int] = field(init=False)
    _unknown: int | None = field(init=False, repr=False)
    _names: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        added = self.tokenizer.get_added_tokens_decoder()
        control = {i: t.content for i, t in added.items() if t.special or _MARKUP.fullmatch(t.content.strip())}
        names = {n for content in control.values() for n in (content.strip(), self._normal(content).strip()) if n}
        object.__setattr__(self, "control", frozenset(control))
        object.__setattr__(self, "_unknown", _unknown(self.tokenizer))
        object.__setattr__(self, "_names", re.compile("|".join(map(re.escape, sorted(names))) or r"(?!)"))

    @property
    def words(self) -> int:
        """One more than the greatest token id that a text can have."""
        return max((i for i in self.tokenizer.get_vocab().values() if i not in self.control), default=-1) + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text on its own, without special tokens."""
        ids = [encoding.ids for encoding in encode_batch(self.tokenizer, texts, special=False)]
        for i, found in enumerate(ids):
            if not self.control.isdisjoint(found):
                encoded = encode_batch(self.tokenizer, self.split(texts[i]), special=False)
                ids[i] = [token for part in encoded for token in part.ids]
        return ids

    def encode_places(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """As ``encode``, each with the first character of every token and one past its last."""
        found = []
        encodings = encode_batch(self.tokenizer, texts, special=False, offsets=True)
        for text, encoding in zip(texts, encodings, strict=True):
            pieces, shifts = [encoding], [0]
            if not self.control.isdisjoint(encoding.ids):
                parts = self.split(text)
                pieces = encode_batch(self.tokenizer, parts, special=False, offsets=True)
                shifts = list(itertools.accumulate(map(len, parts[:-1]), initial=0))
            ids = [token for piece in pieces for token in piece.ids]
            both = zip(pieces, shifts, strict=True)
            found.append((ids, [(a + shift, b + shift) for piece, shift in both for a, b in piece.offsets]))
        return found

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text on its own."""
        return [len(ids) for ids in self.encode(texts)]

    def split(self, text: str) -> list[str]:
        """Cuts a text inside every string that would become a control token; joined, the parts are the text.

        Encoded one by one, the parts give no control token. Mostly there is one part, the text itself.
        """
        text = well_formed(text)
        if not self._names.search(text) and not self._names.search(self._normal(text)):
            return [text]
        parts: list[str] = []
        todo = [text]
        while todo:
            part = todo.pop()
            cuts = self._cuts(part)
            if not cuts:
                parts.append(part)
                continue
            edges = [0, *cuts, len(part)]
            todo += reversed([part[a:b] for a, b in itertools.pairwise(edges)])
        return parts

    def _normal(self, text: str) -> str:
        """The text as the tokenizer looks at it: lower case, wide characters made narrow, and so on."""
        normalizer = self.tokenizer.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def _cuts(self, text: str) -> list[int]:
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        cuts = []
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token not in self.control or end - start < 2:
                continue
            if token == self._unknown and (self.tokenizer.id_to_token(token) or "") not in text[start:end]:
                continue  # a word the model does not know, not its name for one
            cuts.append(start + (end - start) // 2)
        return cuts


def _unknown(tokenizer: Tokenizer) -> int | None:
    token: Any = getattr(tokenizer.model, "unk_token", None)
    if isinstance(token, str):
        return tokenizer.token_to_id(token)
    number: Any = getattr(tokenizer.model, "unk_id", None)
    return number if isinstance(number, int) else None


@dataclass(frozen=True)
class CountTokens:
    """Counts with a model's tokenizer, which is loaded when first needed. Plain values only, so it can be pickled."""

    model: str

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens."""
        return self.ready()(texts)

    def ready(self) -> Callable[[Sequence[str]], list[int]]:
        """The same with the tokenizer found once, not at every call."""
        return text_tokenizer(self.model).count


def default_counter() -> TokenCounter:
    """Counts as the built-in generator does: for compressors that are used without a pipeline."""
    return TokenCounter(CountTokens(GENERATOR))
