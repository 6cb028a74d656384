"""A trainer without any model: one number that goes down, a weight file, a card, checkpoints."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragzip.errors import ConfigError, ModelError
from ragzip.training.card import Card, DataSource, Results, Row, write_card
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport, trainer_config

TARGET = "tests.training.fake:FakeTraining"


def card(**changes: Any) -> Card:
    """A card with something in every field."""
    values: dict[str, Any] = {
        "name": "fake-minilm",
        "method": "fake",
        "about": "Weights that mean nothing.",
        "licence": "CC-BY-SA-4.0",
        "base_model": "all-minilm-l6-v2",
        "data": (DataSource("hotpotqa", "train", 499, "CC-BY-SA-4.0"), DataSource("qed", "train", 7638, "Apache-2.0")),
        "labels": "Supporting sentences, as the set has them.",
        "results": (
            Results(
                "hotpotqa dev, 533 questions, 100 tokens",
                ("sentence f1", "-ttft"),
                (
                    Row("fake", "trained", (0.51234, 0.1)),
                    Row("fake, untrained", "untrained", (0.1, 0.2)),
                    Row("bm25_sentences", "baseline", (0.4, None)),
                    Row("oracle", "reference", (1.0, 0.01)),
                ),
            ),
        ),
        "limits": "English only.\n\n- Nothing else, either.",
        "command": "ragzip train fake fake.yaml --out fake",
        "config": {"ragzip": 1, "type": "fake", "steps": 5, "rate": 1e-05, "parts": ("a", None, True)},
        "steps": 5,
        "seed": 3,
        "seconds": 3600.0,
        "environment": {"torch": "2.9", "device": "cpu, 2 threads"},
    }
    return Card(**{**values, **changes})


@dataclass(frozen=True, kw_only=True)
class FakeTraining:
    """Counts down: a trainer to test with.

    Attributes:
        steps: How many.
        rate: Of nothing.
        seed: Of nothing.
        pause: Seconds a step.
        stop_at: The step after which Ctrl-C is pressed; 0 for never.
        best: A metric to report.
        unfit: Whether what it is to be trained on does not fit, which it finds before anything is trained.
    """

    steps: int = 5
    rate: float = 0.1
    seed: int = 0
    pause: float = 0.0
    stop_at: int = 0
    best: float = 0.5
    unfit: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError("steps", f"must be at least 1, not {self.steps}")

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Writes ``log`` with the step it starts at, a checkpoint, weights and a card."""
        tell = on_event or (lambda event: None)
        if self.unfit:
            raise ModelError("does not fit")
        saved = out / "checkpoint.json"
        start = json.loads(saved.read_text()) if resume and saved.exists() else 0
        with (out / "log").open("a") as log:
            log.write(f"{start}\n")
        tell(TrainingEvent("data", start, self.steps, message=f"examples from {data}"))
        step = start
        try:
            for step in range(start, self.steps):
                if self.stop_at and step == self.stop_at and not start:
                    raise KeyboardInterrupt
                time.sleep(self.pause)
                tell(TrainingEvent("step", step + 1, self.steps, loss=1 / (step + 1)))
        except KeyboardInterrupt:
            saved.write_text(json.dumps(step))
            tell(TrainingEvent("checkpoint", step, self.steps))
            raise
        tell(TrainingEvent("eval", self.steps, self.steps, metrics={"f1": self.best}))
        (out / "model.safetensors").write_bytes(b"weights %d" % self.seed)
        config = trainer_config(self)
        write_card(out, card(config=config, steps=self.steps, seed=self.seed))
        return TrainingReport(out, self.steps, 0.25, {"f1": self.best}, "all steps taken")
