"""Prompts: a context and its question as chat turns. Part of the pipeline, of its YAML and of its fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragzip.errors import ConfigError
from ragzip.tokens import lay_out
from ragzip.types import Context, Message, S_co


@dataclass(frozen=True)
class QA:
    """Questions over a context, answered in a sentence. Without any context the question is asked alone.

    The instruction stands between context and question: small models follow what they read last.

    Attributes:
        instruction: Said before the question, after the context.
        system: The system turn; "" leaves it to the model's own template.
        titles: Whether each passage's title stands before its text.
    """

    instruction: str = "Answer with one sentence of the context above.\nQuestion:"
    system: str = "You are a helpful assistant."
    titles: bool = True

    def render(self, context: Context[S_co]) -> tuple[Message[S_co], ...]:
        """The system turn, then one user turn: the context, the instruction, the question."""
        question = context.query.text.strip()
        pieces = lay_out(context, titles=self.titles)
        if pieces:
            asked = f"{self.instruction} {question}".strip()
            turn: tuple[str | S_co, ...] = ("Context:\n", *pieces, f"\n\n{asked}")
        else:
            turn = (question,)
        return (*_system(self.system), Message("user", turn))


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
        pieces = tuple(p for p in (lead, *lay_out(context, titles=self.titles), tail) if p != "")
        return (*_system(self.system), Message("user", pieces))


def _system(text: str) -> tuple[Message[Any], ...]:
    return (Message("system", (text,)),) if text else ()
