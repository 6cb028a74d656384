"""Reading a prompt with the attention in blocks of bf16 products, against torch's, and how near both are to fp32.

    python benchmarks/run.py prefill        # some minutes on two cores

The built-in generator reads the beginning of the corpus, so many tokens of it, by both ways in turns; the ratio of
their times is taken within a round. Then it predicts 1,500 tokens in bf16 by both, and in fp32. Processors on which
ragzip does not take this attention by itself are measured, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.corpus import documents
from benchmarks.measure import median

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "smollm2-135m-instruct"
SIZES, ROUNDS, PREDICTED = (200, 400, 700, 1500, 3000, 6000), 5, 1500


def run(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> dict[str, Any]:
    """For each size the seconds of both and their ratio; then the divergence from fp32."""
    from ragzip.models import load_causal_lm, prefill, set_threads

    set_threads(os.cpu_count() or 1)
    lm = load_causal_lm(MODEL, dtype="bf16", device="cpu")
    prefill._register()
    ids: list[int] = []
    for document in documents():
        ids += lm.text.encode([document.text])[0]
        if len(ids) >= max(*sizes, PREDICTED):
            break
    ways = ("sdpa", prefill.NAME)
    results: dict[str, Any] = {}
    for size in sizes:
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(rounds + 1):
            for way in ways:
                lm.model.config._attn_implementation = way
                start = time.perf_counter()
                _read(lm.model, ids[:size], 1)
                if turn:  # the first one warms up
                    seconds[way].append(time.perf_counter() - start)
        usual, mine = (seconds[way] for way in ways)
        results[f"{size} tokens"] = {
            "seconds, torch's": round(median(usual), 3),
            "seconds, in blocks": round(median(mine), 3),
            "torch's / in blocks": f"{median([a / b for a, b in zip(usual, mine, strict=True)]):.2f}x",
        }
    truth = _read(load_causal_lm(MODEL, dtype="fp32", device="cpu").model, ids[:PREDICTED], 0)
    for way, name in zip(ways, ("torch's", "in blocks"), strict=True):
        lm.model.config._attn_implementation = way
        found = _read(lm.model, ids[:PREDICTED], 0)
        results[f"bf16 against fp32, {name}"] = {
            "divergence, nats a token": f"{float((truth.exp() * (truth - found)).sum(-1).mean()):.5f}",
            "same token first": f"{float((truth.argmax(-1) == found.argmax(-1)).float().mean()):.3f}",
        }
    return results


def _read(model: Any, ids: Sequence[int], keep: int) -> Tensor:
    """Log-probabilities after the last tokens, of all where ``keep`` is 0: ``[n, vocabulary]``."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids]), use_cache=bool(keep), logits_to_keep=keep).logits
        return torch.log_softmax(logits[0].float(), -1)
