"""Token ids -> text as it grows: whole characters only, nothing that would have to be taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\ufffd"


class AnswerText:
    """The text of one answer while its tokens arrive.

    What has been given out is always a prefix of the final text. So these wait until they are certain: a character
    whose bytes are not all there, text that may be the beginning of a stop string, white space at the end (the final
    text has none), and white space at the beginning, which never comes.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        *,
        stop: tuple[str, ...] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self._decode = decode
        self._stop = stop
        self._on_text = on_text
        self._ids: list[int] = []
        self._start = self._read = 0  # ids before _start are settled; those up to _read are in the text
        self._text = ""  # all of it, up to a stop string
        self._lead = self._given = 0  # given out is the text between these
        self.done = False

    @property
    def text(self) -> str:
        """What has been given out so far; after ``finish``, the answer."""
        return self._text[self._lead : self._given]

    def feed(self, token: int) -> bool:
        """Takes the next token; True when a stop string is complete and the answer with it."""
        if self.done:
            return True
        self._ids.append(token)
        self._grow(final=False)
        self._give()
        return self.done

    def finish(self) -> str:
        """No more tokens come: gives out what was held back, and returns the answer."""
        if not self.done:
            self._grow(final=True)
        self._give(final=True)
        self.done = True
        return self.text

    def add(self, piece: str) -> bool:
        """Takes text instead of a token, from a server that sends text; True when a stop string is complete."""
        if not self.done:
            self._append(piece)
            self._give()
        return self.done

    def _grow(self, *, final: bool) -> None:
        """Decodes what is new. The tokens just before it are decoded along, as some decoders look at them."""
        before = self._decode(self._ids[self._start : self._read])
        now = self._decode(self._ids[self._start :])
        if final:
            now = now.rstrip(BROKEN)
        elif now.endswith(BROKEN):
            return
        if len(now) > len(before):
            self._append(now[len(before) :])
            self._start = self._read  # not behind what shows nothing: a space before the next word would be lost
        self._read = len(self._ids)

    def _append(self, piece: str) -> None:
        looked_at = max(len(self._text) - max(map(len, self._stop), default=0), 0)
        self._text += piece
        found = ((self._text.find(stop, looked_at), stop) for stop in self._stop)
        hits = [(at + len(stop), at) for at, stop in found if at >= 0]
        if hits:  # the one that is complete first, so that it does not matter how the text is cut into tokens
            self._text = self._text[: min(hits)[1]]
            self.done = True

    def _give(self, *, final: bool = False) -> None:
        certain = len(self._text)
        if not (final or self.done):
            certain -= self._undecided()
        certain = len(self._text[:certain].rstrip())
        if certain and not self._given:
            self._lead = self._given = certain - len(self._text[:certain].lstrip())
        if certain > self._given:
            piece = self._text[self._given : certain]
            self._given = certain
            if self._on_text:
                self._on_text(piece)

    def _undecided(self) -> int:
        """Length of the longest end of the text that a stop string could begin with."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._text)), 0, -1):
            end = self._text[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0
