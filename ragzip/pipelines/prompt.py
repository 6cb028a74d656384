"""Prompts: a context and its question as chat turns. Part of the pipeline, of its YAML and of its fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragzip.errors import ConfigError
from ragzip.text import opens_quotation
from ragzip.tokens import lay_out
from ragzip.types import Context, Message, S_co

Examples = tuple[tuple[str, str], ...]
"""Worked examples: question and answer each."""

SHORT: Examples = (
    ("Where does the Danube end?", "the Black Sea"),
    ("When did the first tea reach Amsterdam?", "1610"),
    ("Who built a zip that stayed shut?", "Gideon Sundback"),
    ("Why does honey keep for years?", "it holds little water and is acidic"),
    ("Are Oslo and Bergen in the same country?", "yes"),
)
"""The default examples of ``qa``: a place, a year, a name, a reason, a yes. What they bring: docs/pipelines.md."""

LEAD = 'The answer is "'
"""The default lead: within quotation marks small models quote, where they would have told a story."""

YES_OR_NO: Examples = (
    ("Do the Danube and the Volga end in the same sea?", "no"),
    ("Are Oslo and Bergen both in Norway?", "yes"),
    ("Did tea reach Amsterdam after 1900?", "no"),
    ("Was the zip invented before the telephone?", "no"),
)

_MOST_EXAMPLES = 64


@dataclass(frozen=True)
class _Chat:
    """Examples as earlier turns, then the context, the question, and the beginning of the answer.

    The examples are questions and answers without contexts: they show what an answer looks like, cost few tokens, and
    are the same for questions with and without a context.
    """

    instruction: str = "Question:"
    system: str = ""
    examples: Examples = ()
    lead: str = ""
    titles: bool = True

    def __post_init__(self) -> None:
        if len(self.examples) > _MOST_EXAMPLES:
            raise ConfigError(
                "examples",
                f"has {len(self.examples)} examples, more than {_MOST_EXAMPLES}",
                hint="Three do much of it.",
            )
        for i, pair in enumerate(self.examples):
            if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(t, str) and t.strip() for t in pair):
                raise ConfigError(
                    f"examples.{i}", "is not a question and its answer", hint="Example: ['Where is Oslo?', 'Norway']."
                )

    def render(self, context: Context[S_co]) -> tuple[Message[S_co], ...]:
        """A system turn, two turns an example, the user's turn, and the assistant's, begun, where there is a lead."""
        question = context.query.text.strip()
        pieces = lay_out(context, titles=self.titles)
        turn: tuple[str | S_co, ...]
        if pieces:
            turn = ("Context:\n", *pieces, "\n\n" + f"{self.instruction} {question}".strip())
        else:
            turn = (_asked(question) if self.examples else question,)
        # an example that asks the very question would answer it
        others = [pair for pair in self.examples if pair[0].strip().casefold() != question.casefold()]
        shown = [m for pair in others for m in self._example(*pair)]
        begun: tuple[Message[Any], ...] = (Message("assistant", (self.lead,)),) if self.lead else ()
        return (*_system(self.system), *shown, Message("user", turn), *begun)

    def _example(self, question: str, answer: str) -> tuple[Message[Any], Message[Any]]:
        said = f'{self.lead}{answer}".' if opens_quotation(self.lead) else f"{self.lead} {answer}".strip()
        return Message("user", (_asked(question),)), Message("assistant", (said,))


@dataclass(frozen=True)
class QA(_Chat):
    """Questions over a context, answered with a few words.

    Small models write sentences unless they are shown that they need not: a few worked examples stand before the
    question as earlier turns, and the answer is begun with a lead that the examples share. A generator that cannot
    go on with a turn begins its own. ``examples: []`` asks without examples; with ``lead: ""`` besides, nothing but
    context, instruction and question is said.

    Attributes:
        instruction: Said before the question, after the context: small models follow what they read last.
        system: The system turn; "" leaves it to the model's own template.
        examples: Worked examples, a question and its answer each, without contexts.
        lead: How each answer begins, those of the examples and the model's own; not part of the answer. Where it opens
            quotation marks, the answer ends with the closing one.
        titles: Whether each passage's title stands before its text.
    """

    instruction: str = "Answer with words of the context above.\nQuestion:"
    system: str = "You are a helpful assistant."
    examples: Examples = SHORT
    lead: str = LEAD
    titles: bool = True


@dataclass(frozen=True)
class YesNo(_Chat):
    """Questions over a context, answered with yes or no: as ``qa``, with examples of that kind.

    Attributes:
        instruction: Said before the question, after the context.
        system: The system turn; "" leaves it to the model's own template.
        examples: Worked examples, a question and its answer each, without contexts.
        lead: How each answer begins, those of the examples and the model's own; not part of the answer. Where it opens
            quotation marks, the answer ends with the closing one.
        titles: Whether each passage's title stands before its text.
    """

    instruction: str = "Answer with yes or no.\nQuestion:"
    system: str = "You are a helpful assistant."
    examples: Examples = YES_OR_NO
    lead: str = LEAD
    titles: bool = True


@dataclass(frozen=True)
class LongForm(_Chat):
    """Questions over a context, answered in sentences, without examples. With no context the question stands alone.

    Attributes:
        instruction: Said before the question, after the context: small models follow what they read last.
        system: The system turn; "" leaves it to the model's own template.
        examples: Worked examples, a question and its answer each, without contexts; none by default.
        lead: How each answer begins, those of the examples and the model's own; not part of the answer. Where it opens
            quotation marks, the answer ends with the closing one.
        titles: Whether each passage's title stands before its text.
    """

    instruction: str = "Answer in full sentences, from the context above.\nQuestion:"
    system: str = "You are a helpful assistant."
    examples: Examples = ()
    lead: str = ""
    titles: bool = True


@dataclass(frozen=True)
class Plain:
    """A user turn written by a template with ``{context}`` and ``{query}``, each exactly once.

    Attributes:
        template: The turn; ``{context}`` may stand anywhere, also after the query.
        system: The system turn; "" leaves it out.
        titles: Whether each passage's title stands before its text.
    """

    template: str = "{context}\n\n{query}"
    system: str = ""
    titles: bool = True

    def __post_init__(self) -> None:
        for name in ("{context}", "{query}"):
            if self.template.count(name) != 1:
                raise ConfigError("template", f"needs {name} exactly once", hint="Example: '{context}\\n\\n{query}'.")

    def render(self, context: Context[S_co]) -> tuple[Message[S_co], ...]:
        """The template filled in; braces in texts mean nothing."""
        before, after = self.template.split("{context}")
        query = context.query.text.strip()
        lead, tail = before.replace("{query}", query), after.replace("{query}", query)
        # what stands before the context is a piece of its own, though it be empty: the next one may be a title
        pieces = (lead, *lay_out(context, titles=self.titles), *([tail] if tail else []))
        return (*_system(self.system), Message("user", pieces))


def _asked(question: str) -> str:
    return f"Question: {question}"


def _system(text: str) -> tuple[Message[Any], ...]:
    return (Message("system", (text,)),) if text else ()
