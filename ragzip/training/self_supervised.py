"""Questions made from a corpus itself, for adapting its encoder without labels.

Four tasks need nothing but the passages (Lee, Chang and Toutanova, ACL 2019; Chang et al., ICLR 2020): ``cloze``, a
sentence for the rest of its passage; ``body``, a title or first sentence for what follows; ``next``, a sentence for a
neighbouring passage of the same document; and ``link``, a sentence from the beginning of a document for a passage that
links to it. With ``written``, a language model writes a question for a passage.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ragzip.indexes.graph.links import key, links
from ragzip.indexes.text import searched_text
from ragzip.text import sentences
from ragzip.types import Message, Passage, TextSegment

if TYPE_CHECKING:
    from ragzip.indexes import Index
    from ragzip.protocols import Generator
    from ragzip.types import Segment

Task = Literal["cloze", "body", "next", "link"]

_LEFT_IN = 0.1  # share of the sentences that stay in their passage, so that words count, too
_WORDS = 4  # of a sentence that says enough to ask with
_TITLE = 0.5  # share of the body tasks that ask with the title, where there is one
_FEW = 5  # documents below which passages are held out, not whole documents
_SHARE = 5  # at most a fifth is held out
_REQUEST = "Write one short question that the passage below answers. Write only the question.\n\nPassage: "
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Item:
    """A question made from a passage.

    Attributes:
        task: How it was made: ``cloze``, ``body``, ``next``, ``link`` or ``written``.
        question: What is asked.
        positive: The text that is to be found, title included, as it is searched.
        passage: Id of the passage that ``positive`` is, or is a part of.
        document: Where that one comes from.
        asker: Where the question comes from: the same document, but for ``link``.
    """

    task: str
    question: str
    positive: str
    passage: str
    document: str
    asker: str


def document_of(passage: Passage) -> str:
    """The document of an index's passage."""
    return str(passage.metadata.get("source", passage.id))


def hold_out_passages(passages: Sequence[Passage], count: int, seed: int) -> tuple[list[Passage], list[Passage]]:
    """Passages to measure with, whole documents drawn with the seed, and the others; both in their order.

    At most a fifth is held out. Of fewer than five documents, and where none is small enough, the last passages are
    held out.
    """
    most = min(count, len(passages) // _SHARE)
    names = list(dict.fromkeys(map(document_of, passages)))
    sizes: dict[str, int] = {}
    for passage in passages:
        name = document_of(passage)
        sizes[name] = sizes.get(name, 0) + 1
    if len(names) < _FEW or min(sizes.values()) > most > 0:
        first = len(passages) - most
        return list(passages[first:]), list(passages[:first])
    random.Random(f"{seed} held out").shuffle(names)  # noqa: S311 - no secret
    chosen: set[str] = set()
    for name in names:
        if sizes[name] <= most:
            chosen.add(name)
            most -= sizes[name]
    held = [passage for passage in passages if document_of(passage) in chosen]
    return held, [passage for passage in passages if document_of(passage) not in chosen]


def make_items(passages: Sequence[Passage], tasks: Sequence[Task], seed: int) -> list[Item]:
    """At most one item of each task for each passage; draws are seeded by its id and the seed.

    Args:
        passages: In the order of their documents.
        tasks: Which.
        seed: For the draws.
    """
    makers: dict[str, Callable[[int, random.Random], Item | None]] = {
        "cloze": lambda place, draw: _cloze(passages[place], draw),
        "body": lambda place, draw: _body(passages[place], draw),
        "next": lambda place, draw: _next(passages, place, draw),
        "link": lambda place, draw: _link(passages[place], firsts, draw),
    }
    firsts: dict[int, Passage] = {}  # of each document
    for passage in passages if "link" in tasks else ():
        firsts.setdefault(key(document_of(passage)), passage)
    found = []
    for place, passage in enumerate(passages):
        for task in tasks:
            item = makers[task](place, random.Random(f"{seed} {task} {passage.id}"))  # noqa: S311 - no secret
            if item is not None:
                found.append(item)
    return found


def write_items(
    passages: Sequence[Passage], generator: Generator[Segment], *, on_progress: Callable[[int, int], None]
) -> list[Item]:
    """An item for each passage for which the generator writes something that can be asked.

    Args:
        passages: What to ask about.
        generator: Writes.
        on_progress: Told passages done and passages in all.
    """
    found = []
    for place, passage in enumerate(passages):
        message: Message[Segment] = Message("user", (_REQUEST, TextSegment(searched_text(passage))))
        text = generator.generate([(message,)])[0].text.strip()
        question = text.splitlines()[0].strip().strip('"') if text else ""
        if len(_WORD.findall(question)) >= _WORDS:
            found.append(_item("written", question, passage, searched_text(passage)))
        on_progress(place + 1, len(passages))
    return found


def near(
    items: Sequence[Item], index: Index, vectors: Callable[[Sequence[str]], object], held: set[str]
) -> list[tuple[str, str]]:
    """For each item a passage that is close to its question, as it is searched, and the other document it is of.

    Both are "" where there is none.

    The closest is left out: it often helps, too.
    """
    import numpy as np

    found = []
    hits = index.search_vectors(np.asarray(vectors([item.question for item in items])), 12)
    for item, hit in zip(items, hits, strict=True):
        own = (item.document, item.asker)
        others = [p for p in index.passages(hit.rows) if document_of(p) not in own and p.id not in held]
        draw = random.Random(f"near {item.task} {item.passage}")  # noqa: S311 - no secret
        chosen = draw.choice(others[1:]) if len(others) > 1 else None
        found.append(("", "") if chosen is None else (searched_text(chosen), document_of(chosen)))
    return found


def _item(task: str, question: str, passage: Passage, positive: str, asker: str = "") -> Item:
    document = document_of(passage)
    return Item(task, question, positive, passage.id, document, asker or document)


def _asking(text: str) -> list[tuple[int, int]]:
    """The sentences of a text that say enough to ask with."""
    return [(a, b) for a, b in sentences(text) if len(_WORD.findall(text[a:b])) >= _WORDS]


def _cloze(passage: Passage, draw: random.Random) -> Item | None:
    chosen = _asking(passage.text)
    if not chosen:
        return None
    start, end = draw.choice(chosen)
    rest = f"{passage.text[:start].rstrip()} {passage.text[end:].lstrip()}".strip()
    if not _WORD.search(rest):
        return None
    kept = passage.text if draw.random() < _LEFT_IN else rest
    return _item("cloze", passage.text[start:end], passage, searched_text(Passage("", kept, passage.title)))


def _body(passage: Passage, draw: random.Random) -> Item | None:
    if _WORD.search(passage.title) and _WORD.search(passage.text) and draw.random() < _TITLE:
        return _item("body", passage.title, passage, passage.text)
    places = sentences(passage.text)
    first = next(iter(_asking(passage.text)), None)
    if first is None or len(places) < 2 or first != places[0]:
        return None
    rest = passage.text[places[1][0] :]
    if not _WORD.search(rest):
        return None
    return _item("body", passage.text[slice(*first)], passage, searched_text(Passage("", rest, passage.title)))


def _next(passages: Sequence[Passage], place: int, draw: random.Random) -> Item | None:
    passage = passages[place]
    beside = [passages[i] for i in (place - 1, place + 1) if 0 <= i < len(passages)]
    beside = [p for p in beside if document_of(p) == document_of(passage) and _WORD.search(p.text)]
    if not beside:
        return None
    other = draw.choice(beside)
    texts = [passage.text[a:b] for a, b in _asking(passage.text)]
    texts = [text for text in texts if text not in other.text]  # neighbours may overlap
    return _item("next", draw.choice(texts), other, searched_text(other)) if texts else None


def _link(passage: Passage, firsts: Mapping[int, Passage], draw: random.Random) -> Item | None:
    """A sentence of the first passage of a document that the passage links to (wiki link prediction)."""
    targets = [firsts[number] for number in links(passage.text, document_of(passage)) if number in firsts]
    asked = [(first, [first.text[a:b] for a, b in _asking(first.text)]) for first in targets]
    asked = [(first, texts) for first, texts in asked if texts]
    if not asked:
        return None
    first, texts = draw.choice(asked)
    return _item("link", draw.choice(texts), passage, searched_text(passage), document_of(first))
