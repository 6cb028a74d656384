"""What does reading a document once for all its sentences save `exit`, and does it decide the same?

    python benchmarks/run.py exit_prefix        # a quarter of an hour on two cores; needs the long_documents data

Documents of 5, 10, 20 and 40 sentences, one query each. Each is judged with its beginning (query and document) read
once and shared by its sentences, and with one pass of the whole prompt for each sentence; the passes compute no logits
but the two that are compared. Every repetition runs the two one after the other, in turn first, and the ratio of their
times is taken within the repetition. Tokenising, prompts and the choice of sentences are within the times.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.measure import median

SIZES = (5, 10, 20, 40)
REPEATS, DOCUMENTS = 5, 3
CLOSE = 0.02


def run(
    sizes: Sequence[int] = SIZES, repeats: int = REPEATS, documents: int = DOCUMENTS, **options: Any
) -> dict[str, Any]:
    """For each size the ratio of times, the seconds, and how many decisions differ.

    Args:
        sizes: Sentences of a document.
        repeats: Times each document is judged either way.
        documents: Of each size.
        options: Of `exit`: another model, say.
    """
    from ragzip.compressors.exit import EXIT

    judge = EXIT(**options).load()
    ways = {"shared": judge, "apart": dataclasses.replace(judge, shared=False)}
    texts = _documents(max(sizes), documents)
    for way in ways.values():
        way.yes("Warm up?", "One sentence. Another one.", ["One sentence.", "Another one."])
    results: dict[str, Any] = {}
    for size in sizes:
        ratios: list[float] = []
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        tokens: list[float] = []
        differ, close, far = 0, 0, 0.0
        for query, sentences in texts:
            chosen = sentences[:size]
            document = " ".join(chosen)
            tokens.append(judge.count([document])[0])
            found: dict[str, list[float]] = {}
            for repeat in range(repeats):
                taken: dict[str, float] = {}
                for name in sorted(ways, reverse=repeat % 2 == 0):
                    start = time.perf_counter()
                    found[name] = ways[name].yes(query, document, chosen)
                    taken[name] = time.perf_counter() - start
                    seconds[name].append(taken[name])
                ratios.append(taken["apart"] / taken["shared"])
            for one, other in zip(found["shared"], found["apart"], strict=True):
                differ += (one >= 0.5) != (other >= 0.5)
                close += abs(other - 0.5) < CLOSE
                far = max(far, abs(one - other))
        results[f"{size} sentences"] = {
            "tokens of a document": round(median(tokens)),
            "one pass per sentence / shared": f"{median(ratios):.1f}x (target {size / 2:g}x)",
            "seconds, shared": round(median(seconds["shared"]), 3),
            "seconds, one pass per sentence": round(median(seconds["apart"]), 3),
            "decisions that differ": f"{differ} of {size * len(texts)}, {close} of them within {CLOSE} of one half",
            "largest difference of a probability": round(far, 4),
        }
    return results


def _documents(size: int, count: int) -> list[tuple[str, list[str]]]:
    """Questions with the first sentences of a context that is long enough."""
    from ragzip.evaluation.data import open_set
    from ragzip.text import sentences

    found: list[tuple[str, list[str]]] = []
    for record in open_set("nq_multidoc@30").sample(10 * count, 0).records:
        text = "\n\n".join(passage.text for passage in record.passages)
        cut = [" ".join(text[start:end].split()) for start, end in sentences(text)]
        prose = [sentence for sentence in cut if 40 <= len(sentence) <= 400]
        if len(prose) >= size:
            found.append((record.question, prose[:size]))
        if len(found) == count:
            break
    return found
