"""What of a passage is searched."""

from __future__ import annotations

from ragzip.types import Passage


def searched_text(passage: Passage) -> str:
    """Title and text, each on lines of its own: what is embedded, and what BM25 reads.

    Ingest puts the section into the title, and measures passages in just this form. Encoders cut what is too long.
    """
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text
