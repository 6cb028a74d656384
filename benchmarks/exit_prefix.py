"""What does reading a document once for all its sentences save `exit`, and does it decide the same?

    python benchmarks/run.py exit_prefix        # a quarter of an hour on two cores; needs the nq_multidoc data

A document of 5, 10, 20 and 40 sentences, one query. Each is judged with its beginning (query and document) read
once and shared by its sentences, and with one pass of the whole prompt for each sentence; the passes compute no logits
but the two that are compared. Every repetition runs the two one after the other, in turn first, and the ratio of their
times is taken within the repetition. Tokenising, prompts and the choice of sentences are within the times. The passes
as the public code makes them, which compute the logits of every token and of the whole vocabulary, stand beside, once.

Beside it stands the same ratio of the operations that are counted: products of the layers' matrices with every token,
and of every token's query with the keys and values that it may look at. No exact way of sharing can be faster than that
but by using the machine better.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.measure import median

if TYPE_CHECKING:
    from ragzip.compressors._judge import Judge

SIZES = (5, 10, 20, 40)
REPEATS, DOCUMENTS = 2, 1
MODEL = "smollm2-135m-instruct"  # as it is: what is trained for this takes the same time
SHARE = 3  # one sentence of so many is kept: this model says No to nearly all, so that one half tells nothing


def run(sizes: Sequence[int] = SIZES, repeats: int = REPEATS, documents: int = DOCUMENTS) -> dict[str, Any]:
    """For each number format and size the ratio of times, the seconds, and how many decisions differ.

    Args:
        sizes: Sentences of a document.
        repeats: Times each document is judged either way.
        documents: Of each size.
    """
    from ragzip.models.runtime import choose_dtype

    formats = ["fp32"] if "float32" in str(choose_dtype("auto", "cpu")) else ["bf16", "fp32"]
    return {name: values for dtype in formats for name, values in _measure(dtype, sizes, repeats, documents).items()}


def _measure(dtype: str, sizes: Sequence[int], repeats: int, documents: int) -> dict[str, Any]:
    from ragzip.compressors.exit import EXIT

    judge = EXIT(model=MODEL, dtype=dtype).load()  # type: ignore[arg-type]
    ways = {"shared": judge, "apart": dataclasses.replace(judge, shared=False)}
    texts = _documents(max(sizes), documents)
    for way in ways.values():
        way.yes("Warm up?", "One sentence. Another one.", ["One sentence.", "Another one."])
    results: dict[str, Any] = {}
    for size in sizes:
        ratios: list[float] = []
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        tokens: list[float] = []
        counted: list[float] = []
        published: list[float] = []
        differ, far = 0, 0.0
        for query, sentences in texts:
            chosen = sentences[:size]
            document = " ".join(chosen)
            tokens.append(judge.count([document])[0])
            counted.append(_counted(judge, *judge.prompts(query, document, chosen)))
            for repeat in range(repeats):
                taken: dict[str, float] = {}
                found: dict[str, list[float]] = {}
                for name in sorted(ways, reverse=repeat % 2 == 0):
                    start = time.perf_counter()
                    found[name] = ways[name].yes(query, document, chosen)
                    taken[name] = time.perf_counter() - start
                    seconds[name].append(taken[name])
                ratios.append(taken["apart"] / taken["shared"])
                if repeat == 0:
                    start = time.perf_counter()
                    _published(judge, query, document, chosen)
                    published.append((time.perf_counter() - start) / taken["shared"])
                differ += len(_kept(found["shared"]) ^ _kept(found["apart"])) // 2
                far = max(far, *(abs(a - b) for a, b in zip(found["shared"], found["apart"], strict=True)))
        results[f"{size} sentences, {dtype}"] = {
            "tokens of a document": round(median(tokens)),
            "one pass per sentence / shared": f"{median(ratios):.1f}x (target {size / 2:g}x)",
            "the same, operations counted": f"{median(counted):.1f}x",
            "with the logits of every token / shared": f"{median(published):.1f}x",
            "seconds, shared": round(median(seconds["shared"]), 3),
            "seconds, one pass per sentence": round(median(seconds["apart"]), 3),
            "kept sentences that differ": f"{differ} of {len(_kept([0.0] * size)) * len(texts) * repeats}",
            "largest difference of a probability": f"{far:.2g}",
        }
    return results


def _published(judge: Judge, query: str, document: str, sentences: Sequence[str]) -> list[bool]:
    """Whether each sentence is judged useful, by the whole pass that the model's class makes of its prompt."""
    import torch

    beginning, endings = judge.prompts(query, document, sentences)
    found = []
    with torch.inference_mode():
        for ending in endings:
            ids = torch.tensor([[*beginning, *ending]])
            yes, no = judge.lm.model(input_ids=ids, use_cache=False).logits[0, -1, list(judge.answers)].tolist()
            found.append(yes > no)
    return found


def _counted(judge: Judge, beginning: Sequence[int], endings: Sequence[Sequence[int]]) -> float:
    """Operations of one pass for each ending over those with the beginning read once."""
    config = judge.lm.model.config
    layers = sum(p.numel() for name, p in judge.lm.model.named_parameters() if ".layers." in name)
    width = config.num_hidden_layers * config.hidden_size
    first = len(beginning)

    def operations(tokens: int, before: int) -> int:
        """Of tokens that are read behind others, each looking at these, those of its own before it, and itself."""
        seen = tokens * before + tokens * (tokens + 1) // 2
        return 2 * layers * tokens + 4 * width * seen

    apart = sum(operations(first + len(ending), 0) for ending in endings)
    shared = operations(first, 0) + sum(operations(len(ending), first) for ending in endings)
    return apart / shared


def _kept(scores: Sequence[float]) -> set[int]:
    """The best third."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return set(order[: max(len(scores) // SHARE, 1)])


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
