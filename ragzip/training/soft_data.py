"""What soft compressors learn from: texts to be told again, and questions on passages with their answers."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragzip.errors import IngestError, UsageError
from ragzip.evaluation.data import data_dir
from ragzip.text import sentences
from ragzip.training.encoders import hold_out, numbers
from ragzip.training.examples import Example, Marked, read_examples

ANSWERED = ("squad", "squadshifts", "policyqa", "hotpotqa", "2wikimultihopqa", "musique", "nq_multidoc", "qed")
"""Sets with short answers."""

PLAIN = ("lm_corpus", "medquad")
"""Sets of plain text; ``lm_corpus`` is a folder of several files."""

_SHORTEST, _LONGEST = 200, 700  # characters of a text that is to be told again
_MOST_ANSWER = 120  # characters


@dataclass(frozen=True, slots=True)
class Telling:
    """A text, of some whole sentences, that is to be told again.

    Attributes:
        text: The text.
        source: The set it comes from.
    """

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Asking:
    """A question with passages, of which the first ones help, and its answer.

    Attributes:
        question: What is asked.
        answer: In a few words.
        positives: Title and text of passages that help.
        negatives: Of passages that do not.
        source: The set it comes from.
    """

    question: str
    answer: str
    positives: tuple[tuple[str, str], ...]
    negatives: tuple[tuple[str, str], ...]
    source: str


@dataclass(frozen=True)
class SoftData:
    """What is trained on, and what is held out from it.

    Questions whose passages help a held-out one are left out, see ``hold_out``; held-out texts are other pieces of the
    same documents, and one of a document that stands in two sets may be seen.

    Attributes:
        tellings: To train on.
        askings: To train on.
        held_tellings: Kept out.
        held_askings: Kept out.
    """

    tellings: tuple[Telling, ...]
    askings: tuple[Asking, ...]
    held_tellings: tuple[Telling, ...]
    held_askings: tuple[Asking, ...]

    @property
    def fingerprint(self) -> str:
        """The same for the same data."""
        digest = hashlib.sha256()
        for part in (self.tellings, self.askings, self.held_tellings, self.held_askings):
            digest.update(repr(part).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def read_soft(
    sets: Sequence[str], texts: Sequence[str], *, most: Sequence[str], held_out: int, data: Path | None, seed: int
) -> SoftData:
    """Texts and questions of training sets, with some of each held out.

    Args:
        sets: Out of ``ANSWERED``.
        texts: Out of ``PLAIN``; the passages of ``sets`` are told again, too.
        most: ``set=number``: at most so many questions, or documents, of a set.
        held_out: So many questions and so many texts; where no plain texts are read, their passages.
        data: The data folder; else where evaluation looks.
        seed: For every draw.

    Raises:
        UsageError: The data are not here.
        IngestError: A file that is not in its form.
    """
    limits = numbers("most", most)
    draw = random.Random(f"{seed} soft")  # noqa: S311 - no secret
    found = read_examples(sets, data=data, seed=seed, most={k: v for k, v in limits.items() if k in sets})
    held, kept = hold_out(found, held_out, seed)
    askings = [asking for example in kept for asking in _asking(example)]
    tellings = [t for e in kept for m in (*e.positives, *e.negatives) for t in _pieces(m.text, e.set_name, draw)]
    tellings = list(dict.fromkeys(tellings))
    plain: list[Telling] = []
    for name in texts:
        documents = list(_documents(name, data))
        limit = limits.get(name, len(documents))
        if limit < len(documents):
            documents = [documents[i] for i in sorted(draw.sample(range(len(documents)), limit))]
        plain += [telling for text in documents for telling in _pieces(text, name, draw)]
    plain = list(dict.fromkeys(plain))
    draw.shuffle(plain)
    draw.shuffle(askings)
    count = min(held_out, len(plain) // 2)
    told = [*tellings, *plain[count:]]
    draw.shuffle(told)
    held_askings = [asking for example in held for asking in _asking(example)]
    held_tellings = plain[:count] or [
        telling for example in held for m in example.positives for telling in _pieces(m.text, example.set_name, draw)
    ]
    return SoftData(tuple(told), tuple(askings), tuple(held_tellings[:held_out]), tuple(held_askings))


def _asking(example: Example) -> Iterator[Asking]:
    answer = next((a.strip() for a in example.answers if a.strip()), "")
    if answer and len(answer) <= _MOST_ANSWER and '"' not in answer:
        yield Asking(
            example.question,
            answer,
            tuple(map(_pair, example.positives)),
            tuple(map(_pair, example.negatives)),
            example.set_name,
        )


def _pair(marked: Marked) -> tuple[str, str]:
    return marked.title, marked.text


def _pieces(text: str, source: str, draw: random.Random) -> Iterator[Telling]:
    """A text as stretches of whole sentences."""
    first, size = 0, draw.randint(_SHORTEST, _LONGEST)
    places = sentences(text)
    for number, (_, end) in enumerate(places):
        start = places[first][0]
        last = number + 1 == len(places)
        if end - start >= size or last:
            piece = text[start:end].strip()
            if _SHORTEST // 4 <= len(piece) <= 2 * _LONGEST:
                yield Telling(piece, source)
            first, size = number + 1, draw.randint(_SHORTEST, _LONGEST)


def _documents(name: str, data: Path | None) -> Iterator[str]:
    folder = data_dir(data)
    if folder is None:
        raise UsageError("the data folder is not here", hint="Name it with --data-dir or RAGZIP_DATA.")
    if name not in PLAIN:
        raise UsageError(f"unknown set of texts {name!r}", hint=f"Known: {', '.join(PLAIN)}.")
    files = sorted((folder / name).glob("*.jsonl.gz"))
    if not files:
        raise IngestError(f"{folder / name} holds no *.jsonl.gz", hint="See the README of the data folder.")
    for path in files:
        if name == "medquad" and not path.name.startswith("train"):
            continue
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                for line in file:
                    row = json.loads(line)
                    text = row.get("text") or row.get("answer")
                    if isinstance(text, str) and text.strip():
                        yield text
        except (OSError, ValueError, EOFError, AttributeError, zlib.error) as error:
            raise IngestError(f"{path} cannot be read: {error}") from error
