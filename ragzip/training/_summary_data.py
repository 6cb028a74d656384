"""What a summariser for questions learns from: passages that help among others, and the sentences to write.

The target of an example is its supporting sentences, word for word, in the order in which the prompt shows them. In a
share of the examples no passage helps, and the target is empty: selective augmentation. In another share some of the
passages that help are not shown, as it is where a long context is read in parts. In a third share, passages are shown
as what a filter of sentences left of them, and the target is what helps of that. Only training splits are read.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ragzip.compressors._writer import Block, Request
from ragzip.compressors.recomp_abstractive import NOTHING, ask
from ragzip.errors import ConfigError
from ragzip.models import default_counter
from ragzip.training._summary_filter import Filter, bm25_filter, left_of
from ragzip.training.examples import Example, Marked, read_examples
from ragzip.training.negatives import helping_texts, holds

SETS = ("hotpotqa", "2wikimultihopqa", "musique", "qed", "selqa", "squad", "nq_multidoc", "squadshifts")
"""With labelled sentences, or with answers that can be found in a labelled passage."""

CountTexts = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and what is to be written for it.

    Attributes:
        id: Of the example it is made from.
        question: What is asked.
        passages: In the order of the prompt.
        target: The sentences that help, or "" where none does.
    """

    id: str
    question: str
    passages: tuple[Block, ...]
    target: str

    @property
    def request(self) -> Request:
        """The prompt, as the compressor asks it."""
        return ask(self.question, self.passages)

    @property
    def completion(self) -> str:
        """What a causal model is to write: the target, or the word for nothing, which the compressor reads as such."""
        return self.target or NOTHING


def read_pairs(
    names: Sequence[str] = SETS,
    *,
    data: Path | None = None,
    seed: int = 0,
    most: Mapping[str, int] | None = None,
    passages: int = 4,
    empty: float = 0.2,
    partial: float = 0.0,
    tokens: int = 80,
) -> list[Pair]:
    """The pairs of training sets; see ``make_pairs``.

    Args:
        names: Sets, out of those of ``ragzip.training.examples``.
        data: The data folder; else it is looked for.
        seed: For every draw.
        most: At most so many questions of a set.
        passages: Most passages of a prompt.
        empty: Share of the examples without a passage that helps.
        partial: Share of those with several passages that help in which only some of these are shown.
        tokens: Most tokens of a target.

    Raises:
        UsageError: No such set, or no data folder.
        IngestError: A file that is not in its form.
    """
    examples = read_examples(names, data=data, seed=seed, most=most or {})
    return make_pairs(examples, seed=seed, passages=passages, empty=empty, partial=partial, tokens=tokens)


def make_pairs(
    examples: Sequence[Example],
    *,
    seed: int,
    passages: int = 4,
    empty: float = 0.2,
    partial: float = 0.0,
    tokens: int = 80,
    count: CountTexts | None = None,
    filtered: float = 0.0,
    wide: int = 10,
    filters: Filter = bm25_filter,
) -> list[Pair]:
    """Pairs from examples, at most one each, in their order; what is drawn for one does not hang on other draws.

    The passages are the positives and some distractors, shuffled: those that came with the question, else passages of
    other questions of the same set, of the same article where there are. None holds one of the answers. Left out are
    questions of which it is not known which sentences help, unless they are drawn to be empty, those with more
    positives than ``passages``, and those whose target is too long.

    Args:
        examples: Of any sets.
        seed: For the draws.
        passages: Most passages of a prompt.
        empty: Share of the examples without a passage that helps, 0 to 1.
        partial: Share of those with several passages that help in which only some of these are shown, 0 to 1.
        tokens: Most tokens of a target.
        count: Counts tokens; the built-in generator's where it is None.
        filtered: Share of the examples whose passages are shown as what ``filters`` leaves of them, 0 to 1.
        wide: Most passages of these.
        filters: Leaves so many tokens of a context.

    Raises:
        ConfigError: A number out of its range.
    """
    for option, least in (("passages", passages), ("wide", wide)):
        if least < 1:
            raise ConfigError(option, f"must be at least 1, not {least}")
    for name, share in (("empty", empty), ("partial", partial), ("filtered", filtered)):
        if not 0 <= share <= 1:
            raise ConfigError(name, f"must be from 0 to 1, not {share!r}")
    if tokens < 1:
        raise ConfigError("tokens", f"must be at least 1, not {tokens}")
    pools = _pools(examples)
    cut = [random.Random(f"{seed} filtered {e.id}").random() < filtered for e in examples]  # noqa: S311 - no secret
    made = [
        _shown(example, pools[example.set_name], seed, wide if short else passages, empty, partial)
        for example, short in zip(examples, cut, strict=True)
    ]
    pairs = [
        _filtered(*one, filters, seed) if short else _whole(*one)
        for one, short in zip(made, cut, strict=True)
        if one is not None
    ]
    pairs = [pair for pair in pairs if pair.passages]
    lengths = (count or default_counter().texts)([pair.target for pair in pairs])
    return [pair for pair, length in zip(pairs, lengths, strict=True) if length <= tokens]


@dataclass(frozen=True, slots=True)
class _Pool:
    """Every passage of a set, once, in order; and the same by title."""

    passages: list[Marked]
    titled: Mapping[str, list[Marked]]


def _pools(examples: Sequence[Example]) -> dict[str, _Pool]:
    sets: dict[str, dict[str, Marked]] = defaultdict(dict)
    for example in examples:
        for marked in (*example.positives, *example.negatives):
            sets[example.set_name].setdefault(marked.text, marked)
    pools: dict[str, _Pool] = {}
    for name, found in sets.items():
        titled: dict[str, list[Marked]] = defaultdict(list)
        for marked in found.values():
            titled[marked.title].append(marked)
        pools[name] = _Pool(list(found.values()), titled)
    return pools


def _shown(
    example: Example, pool: _Pool, seed: int, passages: int, empty: float, partial: float
) -> tuple[Example, list[Marked], set[str]] | None:
    """An example with the passages of its prompt, and the texts of those that help; None where it teaches nothing."""
    draw = random.Random(f"{seed} summary {example.id}")  # noqa: S311 - no secret
    without = draw.random() < empty
    helping = () if without else example.positives
    apart = random.Random(f"{seed} partial {example.id}")  # noqa: S311 - no secret
    if len(helping) > 1 and apart.random() < partial:
        helping = tuple(apart.sample(helping, apart.randint(1, min(len(helping) - 1, passages))))
    size = draw.randint(1 if without else min(len(helping) + 1, passages), passages)
    positives = helping
    if len(positives) > passages or not all(marked.known and marked.support for marked in positives):
        return None
    shown = [*positives, *_distractors(example, pool, size - len(positives), draw)]
    if not shown:
        return None
    draw.shuffle(shown)
    return example, shown, {marked.text for marked in positives}


def _whole(example: Example, shown: Sequence[Marked], wanted: set[str]) -> Pair:
    target = " ".join(_told(marked) for marked in shown if marked.text in wanted)
    return Pair(example.id, example.question, tuple(Block(m.text, m.title) for m in shown), target)


def _filtered(example: Example, shown: Sequence[Marked], wanted: set[str], filters: Filter, seed: int) -> Pair:
    given = [marked if marked.text in wanted else replace(marked, support=()) for marked in shown]
    blocks, left = left_of(example, given, filters, seed)
    return Pair(example.id, example.question, blocks, " ".join(_told(marked) for marked in left if marked.support))


def _distractors(example: Example, pool: _Pool, wanted: int, draw: random.Random) -> list[Marked]:
    """Passages that do not help: the example's own first, then those of one title with it, then any."""
    if wanted < 1:
        return []
    own = {marked.text for marked in example.positives}
    helping = helping_texts(example)

    def fits(marked: Marked) -> bool:
        low = marked.text.lower()
        if not low.strip() or marked.text in own or holds(low, example.answers):
            return False
        return not any(text in low for text in helping)

    found = [marked for marked in example.negatives if fits(marked)]
    draw.shuffle(found)
    titles = dict.fromkeys(marked.title for marked in example.positives if marked.title)
    near = [marked for title in titles for marked in pool.titled.get(title, ())]
    half = len(found) + (wanted - len(found) + 1) // 2
    for some, most in ((near, half), (pool.passages, wanted)):
        for _ in range(10 * wanted):  # draws, not a pass over the pool: there are thousands of examples
            if len(found) >= most or not some:
                break
            marked = draw.choice(some)
            if marked not in found and fits(marked):
                found.append(marked)
    return found[:wanted]


def _told(marked: Marked) -> str:
    """What a passage says that helps; its title first where the sentences do not name it and could mean anyone."""
    text = " ".join(" ".join(marked.text[start:end].split()) for start, end in marked.support)
    name = marked.title.partition(" (")[0].strip()
    if not name or any(word.casefold() in text.casefold() for word in name.split() if len(word) > 3):
        return text
    return f"{name}: {text}"
