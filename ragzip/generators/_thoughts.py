"""The answer alone, of a server that sends what its model thought before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BEGIN, _END = "<think>", "</think>"


class Thoughts:
    """Takes a leading ``<think>`` block out of a text that comes in pieces."""

    def __init__(self) -> None:
        self._held = ""
        self._thinks: bool | None = None  # not known yet

    def rest(self, piece: str, *, final: bool = False) -> str:
        """As much as is certain of the answer so far, what was given before left out.

        Args:
            piece: What came.
            final: Whether nothing more comes.
        """
        if self._thinks is False:
            return piece
        self._held += piece
        if self._thinks is None:
            start = self._held.lstrip()
            if start.startswith(_BEGIN):
                self._thinks = True
            elif _BEGIN.startswith(start) and not final:
                return ""
            else:
                return self._over(self._held)
        _, end, answer = self._held.partition(_END)
        return self._over(answer) if end else ""

    def _over(self, rest: str) -> str:
        self._thinks, self._held = False, ""
        return rest


def said(content: Any) -> str:
    """The text of a chunk's content: of a list of typed parts, as some servers send them, that of its texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        return ""
    return "".join(str(_of(part, "text") or "") for part in content if _of(part, "type") == "text")


def _of(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)
