"""EXIT: an instruction model says of each sentence, with its own document before it, whether it helps to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, get_args

from ragzip.compressors._extractive import Sentences, SentenceScorer
from ragzip.compressors._judge import Judge, Wording, load_judge
from ragzip.compressors._options import check_count
from ragzip.compressors._surroundings import in_parts, surroundings
from ragzip.errors import ConfigError, ModelError
from ragzip.models import Dtype, check_options
from ragzip.models.prefix import Head
from ragzip.types import Query

MODEL = "exit-smollm2"
_LEAST = 64  # tokens of a window beside the prompt's own words


@dataclass(slots=True)
class _Document:
    """One text, the title that is read before it, and what is judged: ``(group, sentence, start, end)`` in its text."""

    title: str
    text: str
    sentences: list[tuple[int, int, int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class EXIT(SentenceScorer):
    """Keeps the sentences of which a language model says Yes, they help to answer the question.

    EXIT, https://arxiv.org/abs/2412.12559. A sentence's score is p(Yes) / (p(Yes) + p(No)) of the first token of the
    answer. The model reads the question, the passage that the sentence comes from, with its title (the beginning of
    one longer than a quarter of the window), and the sentence. Without threshold, keep and budget, the threshold is
    0.5, as in the paper. An empty question keeps everything.

    The default model is an adapter over the built-in generator (``ragzip train exit``), trained for under three hours
    on a processor: far better than the generator without it, which is no judge at all, somewhat behind small encoders
    that take a twentieth of the time, and behind ``provence``. The published weights are an adapter on Gemma:
    ``EXIT(model="doubleyyh/exit-gemma-2b", prompt="exit")``.

    Unlike in the first version of the code that was published with the paper, every sentence is judged with its own
    passage and never with all of them, and nothing is cut: a passage longer than the window is read in overlapping
    stretches, and each sentence is judged in one that holds it whole (one longer than a quarter of the window in
    parts, of which the best counts, and likewise a question that long). The question is read once for all passages,
    and each passage once for all of its sentences (``ragzip.models.prefix``). In bf16 that moves a probability by
    rounding only: a decision can differ from that of one pass for each sentence where it is a close call.

    Attributes:
        model: A language model: a name that ``ragzip models`` lists, a folder (of an adapter, too), or a hub id.
        prompt: ``chat``, ragzip's own words in the model's chat template; ``exit``, the published prompt, for the
            published weights.
        window: Most tokens that the model reads at once, or its own limit where that is less. More costs memory.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)
    default_threshold: ClassVar[float | None] = 0.5
    shared: ClassVar[bool] = True  # False reads everything again for each sentence: to compare with

    model: str = MODEL
    prompt: Wording = "chat"
    window: int = 4096
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        if self.prompt not in get_args(Wording):
            raise ConfigError("prompt", f"must be chat or exit, not {self.prompt!r}")
        check_count("window", self.window, least=256)
        check_options(self.dtype, self.device)

    def load(self) -> Judge:
        """The model with its prompt, loaded now unless it is already."""
        return load_judge(
            self.model, self.prompt, self.window, dtype=self.dtype, device=self.device, shared=self.shared
        )

    def score(self, query: Query, groups: Sequence[Sentences]) -> Sequence[Sequence[float]]:
        """Probabilities, 0 to 1."""
        if not query.text.strip():
            return [[1.0] * len(group.texts) for group in groups]
        judge = self.load()
        free = judge.window - judge.fixed
        if free < _LEAST:
            raise ModelError(
                f"{self.model!r} with a window of {judge.window} tokens has no room beside the prompt's {judge.fixed}",
                hint="Use a model with a longer window, or raise window.",
            )
        asked = query.text.strip()
        questions = [asked[start:end] for start, end in in_parts(asked, free // 4, judge.count)]
        scores = [[0.0] * len(group.texts) for group in groups]
        documents = _documents(groups)
        for question in questions:
            left = free - judge.count([question])[0]
            head = judge.head(question) if len(documents) > 1 else None
            for document in documents:
                for (group, sentence), probability in _judged(judge, question, document, left, head):
                    scores[group][sentence] = max(scores[group][sentence], probability)
        return scores


def _judged(
    judge: Judge, question: str, document: _Document, room: int, head: Head | None
) -> list[tuple[tuple[int, int], float]]:
    """Group and sentence with a probability, once for each part of a sentence.

    Args:
        judge: The model.
        question: Asked of every sentence.
        document: What is judged.
        room: Tokens for document and sentence together.
        head: Of the question, where there are several documents.
    """
    owners: list[tuple[int, int]] = []
    parts: list[tuple[int, int]] = []
    for group, sentence, start, end in document.sentences:
        for first, last in in_parts(document.text[start:end], room // 4, judge.count):
            owners.append((group, sentence))
            parts.append((start + first, start + last))
    texts = [document.text[start:end].strip() for start, end in parts]
    title = document.title[: in_parts(document.title, room // 4, judge.count)[0][1]]
    lead = f"{title}\n" if title else ""
    room -= judge.count([lead])[0] if lead else 0
    longest = max(judge.count(texts))
    found: list[tuple[tuple[int, int], float]] = []
    for (start, end), numbers in surroundings(document.text, parts, room - longest, longest, judge.count):
        different = list(dict.fromkeys(texts[number] for number in numbers))  # rows of a table may be all alike
        told = judge.yes(question, lead + document.text[start:end], different, head)
        yes = dict(zip(different, told, strict=True))
        found += [(owners[number], yes[texts[number]]) for number in numbers]
    return found


def _documents(groups: Sequence[Sentences]) -> list[_Document]:
    """The passages with the sentences of all segments that come from them.

    Sentences that their passage does not hold, because they were written anew or come from another one, are a document
    of their own.
    """
    found: dict[tuple[str, str], _Document] = {}
    others: list[_Document] = []
    for number, group in enumerate(groups):
        text = group.passage.text if group.passage else ""
        place, lost = 0, _Document(group.title, "")
        for index, sentence in enumerate(group.texts):
            at = text.find(sentence, place)
            at = text.find(sentence) if at < 0 else at
            if at < 0:
                start = len(lost.text) + 1 if lost.text else 0
                lost.text += f" {sentence}" if lost.text else sentence
                lost.sentences.append((number, index, start, len(lost.text)))
                continue
            place = at + len(sentence)
            document = found.setdefault((group.title, text), _Document(group.title, text))
            document.sentences.append((number, index, at, place))
        others += [lost] if lost.sentences else []
    return [*found.values(), *others]
