"""A language model that is asked of each sentence whether it is useful, and answers Yes or No with one token."""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models import CausalLM, Dtype
from ragzip.models.chat import apply_template
from ragzip.models.prefix import Head, next_logits
from ragzip.models.tokenizer import encode_batch

Wording = Literal["chat", "exit"]


@dataclass(frozen=True, slots=True)
class Words:
    """The fixed words of a prompt; only ``head`` and ``tail`` may hold control tokens.

    Attributes:
        head: What the template puts before everything.
        query: Before the query.
        document: Before the document.
        sentence: Before the sentence; ends with a line of its own.
        question: After the sentence.
        tail: What the template puts after everything.
        answer: What the template puts before an answer: "" or a space.
    """

    head: str
    query: str
    document: str
    sentence: str
    question: str
    tail: str
    answer: str = ""


_ASKED = 'Is this sentence useful in answering the query? Answer only "Yes" or "No".'
# The published prompt, to the letter: arXiv 2412.12559, table 6.
_EXIT = Words(
    "<start_of_turn>user\n",
    "Query:\n",
    "\nFull context:\n",
    "\nSentence:\n",
    f"\n{_ASKED}",
    "<end_of_turn>\n<start_of_turn>model\n",
)
# Asks before the sentence, so that what is read for each one is the sentence and the template's few tokens.
_CHAT = (
    "You read a document and then judge one of its sentences. A sentence is useful if it states something that helps "
    "to answer the query, by itself or together with other sentences of the document.\n\nQuery:\n",
    "\n\nDocument:\n",
    '\n\nIs the following sentence of the document useful in answering the query? Answer only "Yes" or "No".\n'
    "Sentence:\n",
    "",
)


@dataclass(frozen=True, eq=False)
class Judge:
    """A loaded model, and the words that it is asked with.

    Attributes:
        lm: The model.
        words: The prompt.
        most: Most tokens of a prompt.
        shared: Whether query and document are read once for all sentences; False is for comparison.
    """

    lm: CausalLM
    words: Words
    most: int
    shared: bool = True

    @property
    def window(self) -> int:
        """Most tokens of a prompt, as the model allows, too."""
        return min(self.most, self.lm.window)

    @cached_property
    def fixed(self) -> int:
        """Tokens of a prompt without query, document and sentence, and some for what joining may cost."""
        return len(self._beginning("", "")) + len(self._ending("")) + 16

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as data."""
        return self.lm.text.count(texts)

    @cached_property
    def answers(self) -> tuple[int, int]:
        """The first tokens of Yes and No, as they follow the template.

        Raises:
            ModelError: They are one and the same.
        """
        found: list[tuple[int, int]] = []
        for space in dict.fromkeys((self.words.answer, "", " ")):
            yes, no = (self._behind(self.words.tail, f"{space}{word}", "", "")[:1] for word in ("Yes", "No"))
            found += [(yes[0], no[0])] if yes and no else []
        for pair in found:
            if pair[0] != pair[1]:
                return pair
        raise ModelError(
            f"the tokenizer of {self.lm.name!r} begins Yes and No with the same token",
            hint="Use a model whose tokenizer tells them apart by the first token.",
        )

    def head(self, query: str) -> Head:
        """What the prompts for all documents begin with; to be given to ``yes`` where there are several."""
        some, other = self._beginning(query, ""), self._beginning(query, "x")
        same = (one == two for one, two in zip(some, other, strict=False))
        return Head(some[: sum(itertools.takewhile(bool, same))])

    def yes(self, query: str, document: str, sentences: Sequence[str], head: Head | None = None) -> list[float]:
        """The probability of Yes against No for each sentence, which must fit the window with query and document.

        Args:
            query: The question.
            document: What the sentences stand in.
            sentences: Which to judge.
            head: Of the query, see ``head``; read once for all documents then.
        """
        beginning, endings = self.prompts(query, document, sentences)
        logits = next_logits(self.lm, beginning, endings, self.answers, shared=self.shared, head=head)
        # of two outcomes, the softmax is the logistic function of the difference; tanh does not overflow
        return [0.5 + 0.5 * math.tanh((float(yes) - float(no)) / 2) for yes, no in logits]

    def prompts(self, query: str, document: str, sentences: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Token ids of the prompts: what they all begin with, and how each one ends."""
        return self._beginning(query, document), [self._ending(sentence) for sentence in sentences]

    def _beginning(self, query: str, document: str) -> list[int]:
        words = self.words
        return self._encode(words.head, f"{words.query}{query}{words.document}{document}{words.sentence}", "")

    def _ending(self, sentence: str) -> list[int]:
        line = self.words.sentence.rstrip("\n").rpartition("\n")[2] + "\n"
        return self._behind(line, sentence + self.words.question, self.words.tail, line)

    def _behind(self, before: str, text: str, tail: str, data: str) -> list[int]:
        """Tokens of a text as they come after another one: some tokenizers put a space before every first word.

        Args:
            before: What comes before; it is encoded, too, and its tokens are taken away.
            text: Data.
            tail: Of the template.
            data: ``before`` where that is data, "" where it is the template's.
        """
        lead = self._encode("" if data else before, data, "")
        whole = self._encode("" if data else before, data + text, tail)
        return whole[len(lead) :] if whole[: len(lead)] == lead else self._encode("", text, tail)

    def _encode(self, head: str, data: str, tail: str) -> list[int]:
        """Tokens of the template's words around data, of which no control token can come."""
        parts = self.lm.text.split(data)
        parts[0] = head + parts[0]
        parts[-1] += tail
        return [token for found in encode_batch(self.lm.text.tokenizer, parts, special=False) for token in found.ids]


def load_judge(
    name: str, wording: Wording, most: int, *, dtype: Dtype = "auto", device: str = "auto", shared: bool = True
) -> Judge:
    """A model, loaded now unless it is already, with its prompt.

    Args:
        name: A built-in model, a folder, or a hub id.
        wording: ``chat``, by the model's own chat template, or ``exit``, the published prompt, which is Gemma's.
        most: Most tokens of a prompt.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".
        shared: Whether query and document are read once for all sentences.

    Raises:
        ModelError: The model is not here, does not know the control tokens of ``exit``, or has a template that does
            not print the content of a turn.
    """
    lm = models.load_causal_lm(name, dtype=dtype, device=device)
    if wording == "exit":
        lacking = [name for name in ("<start_of_turn>", "<end_of_turn>") if not _known(lm, name)]
        if lacking:
            raise ModelError(
                f"{lm.name!r} has no {' and '.join(lacking)}, which the prompt of EXIT is made of",
                hint="Use prompt: chat, or a model of the Gemma family.",
            )
        words = Words(f"{lm.tokenizer.bos_token or ''}{_EXIT.head}", *_fields(_EXIT)[1:])
    else:
        words = _chat(lm)
    return Judge(lm, words, most, shared)


def _known(lm: CausalLM, name: str) -> bool:
    return lm.text.tokenizer.token_to_id(name) in lm.text.control


def _fields(words: Words) -> tuple[str, ...]:
    return words.head, words.query, words.document, words.sentence, words.question, words.tail, words.answer


def _chat(lm: CausalLM) -> Words:
    """The words in the model's chat template; one without is asked as a text that goes on with the answer."""
    if not lm.tokenizer.chat_template:
        starts = encode_batch(lm.text.tokenizer, ["a"], special=True)[0].ids[:1] == [lm.tokenizer.bos_token_id]
        return Words(lm.tokenizer.bos_token if starts else "", *_CHAT, "\nAnswer:", " ")
    mark, said = (f"@@ragzip-{secrets.token_hex(8)}@@" for _ in range(2))
    asked = _rendered(lm, [{"role": "user", "content": mark}], go_on=True)
    head, _, tail = asked.partition(mark)
    if mark not in asked or mark in tail:
        raise ModelError(
            f"the chat template of {lm.name!r} does not print a turn's content once, as it is",
            hint="Use another model, or one without a chat template.",
        )
    try:
        turns = [{"role": "user", "content": mark}, {"role": "assistant", "content": said}]
        answered = _rendered(lm, turns, go_on=False).partition(said)[0]
    except ModelError:
        answered = asked
    between = answered[len(asked) :] if answered.startswith(asked) else ""
    if between.strip():  # thoughts that are left out, say: they stand before an answer, too
        return Words(head, *_CHAT, tail + between, "")
    return Words(head, *_CHAT, tail, between)


def _rendered(lm: CausalLM, turns: list[dict[str, str]], *, go_on: bool) -> str:
    try:
        return apply_template(lm, turns, goes_on=False, answered=not go_on, dated=False)
    except Exception as error:  # templates are programs, and may refuse with anything
        raise ModelError(
            f"the chat template of {lm.name!r} refuses a question: {str(error).strip()[:200]}",
            hint="Use another model, or one without a chat template.",
        ) from error
