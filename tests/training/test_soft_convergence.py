"""A tiny generator that can repeat some texts learns to read them from rows: perfectly, through each method.

The generator is taught to say a closed set of texts again when it reads them, and is frozen then. What writes the rows
is trained on the same texts until every token of every text comes first.
"""

from __future__ import annotations

import pytest
import torch

from ragzip import registry
from ragzip.models import load_causal_lm
from ragzip.models.runtime import quiet
from ragzip.testing.models import tiny_causal_lm
from ragzip.training.loop import LoopSettings
from ragzip.training.soft_data import Asking, SoftData, Telling
from ragzip.training.soft_loop import SoftPlan, train_soft
from ragzip.training.soft_prompts import SAME, TELL, Frames, Reader

TEXTS = tuple(
    Telling(text, "closed")
    for text in (
        "The fox runs to the sea.",
        "A railway was opened in 1922.",
        "Numbers are tokens too.",
        "Which city is the capital?",
        "The river jumps over the dog.",
        "Marks like (these) count.",
    )
)
DATA = SoftData(TEXTS, (), TEXTS, (Asking("Which?", "a city", (("", "The city."),), (), "closed"),))


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """A tiny generator that says the texts again, whichever way it is asked."""
    folder = tiny_causal_lm(tmp_path_factory.mktemp("speaker") / "lm", dimensions=64, varied=False)
    lm = load_causal_lm(str(folder), dtype="fp32", device="cpu", own=True)
    frames, reader = Frames(lm), Reader(lm, [], most=100_000)
    prompts = [frames.telling(t, None, way) for t in TEXTS for way in (*TELL[:1], *SAME[:1])]
    lm.model.requires_grad_(True)
    adam = torch.optim.AdamW(lm.model.parameters(), lr=3e-3)
    for _ in range(400):
        read = reader.read(prompts, [[]] * len(prompts))
        pairs = [(logits, torch.tensor(p.answer)) for (logits, _), p in zip(read, prompts, strict=True)]
        loss = torch.stack([torch.nn.functional.cross_entropy(a, b) for a, b in pairs]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if float(loss.detach()) < 0.01:
            break
    assert float(loss.detach()) < 0.05
    lm.model.requires_grad_(False)
    with quiet():
        lm.model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("xrag", {"width": 64}),
        ("comp_llm", {"rates": (2,), "segment": 8, "residual": "none"}),
        ("comp_llm", {"rates": (2, 4), "segment": 8, "readout": "mean", "residual": "none"}),
        ("comp_llm", {"rates": (16,), "segment": 16, "residual": "picked", "layers": 1}),
        ("icae", {"rates": (2,), "segment": 64}),
        ("refrag", {"layers": 1, "chunk": 6}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_a_closed_set_is_told_again_perfectly(method, options, speaker, tiny_encoder_path, tmp_path, monkeypatch):
    monkeypatch.setattr("ragzip.training.soft_loop.TELL", TELL[:1])
    monkeypatch.setattr("ragzip.training.soft_loop.SAME", SAME[:1])
    encoder = {"encoder": tiny_encoder_path} if method in ("xrag", "refrag") else {"rank": 8, "alpha": 16}
    trainer = registry.get("training", method)(base=speaker, **encoder, **options, dtype="fp32", device="cpu")
    lm = load_causal_lm(speaker, dtype="fp32", device="cpu", own=True)
    writer = trainer.writer(lm)
    plan = SoftPlan(len(TEXTS), 1.0, trainer.gist, 1, 1.0, 0.0, 0.0, trainer.eval_rates)
    settings = LoopSettings(steps=600, lr=1e-2, weight_decay=0.0, eval_every=40)
    evaluations = []

    def watch(event):
        if event.kind == "eval":
            evaluations.append([value for name, value in event.metrics.items() if name.startswith("right")])
            if min(evaluations[-1]) == 1.0:
                raise Reached

    with pytest.raises(Reached):
        train_soft(
            trainer, lm, writer, DATA, plan, settings, tmp_path, save=lambda _: None, resume=False, on_event=watch
        )
    assert max(evaluations[0]) < 1.0


class Reached(Exception):
    """Everything is told again."""
