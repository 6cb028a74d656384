"""Model cards of soft compressors: against the text, against no context, and against themselves before training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragzip.registry import name_of
from ragzip.training.card import Card, DataSource, Results, Role, Row, write_card
from ragzip.training.cards import LICENCES, environment, licence_of, name_of_card
from ragzip.training.options import Trainer, trainer_config
from ragzip.training.soft_data import SoftData
from ragzip.training.soft_loop import SoftOutcome

_TEXTS: Mapping[str, str] = {"lm_corpus": "CC-BY-SA-3.0 and public domain", **LICENCES}

_ABOUT: Mapping[str, str] = {
    "xrag": "A bridge of two layers from the retrieval embedding of a passage to one row of input embeddings of a "
    "frozen generator.",
    "comp_llm": "A low-rank adapter with a linear layer, by which a generator reads short segments and writes fewer "
    "rows of its own input embeddings; the generator that reads these is the frozen one.",
    "icae": "A low-rank adapter with learned slots, by which a generator reads a passage and writes fewer rows of its "
    "own input embeddings; the generator that reads these is the frozen one.",
    "refrag": "A light encoder with a projection, by which a chunk of tokens becomes one row of input embeddings of a "
    "frozen generator; a share of the chunks can stay text, and metrics with @ name that share.",
    "refrag_policy": "The weights of refrag, with a policy that says which chunks stay text. What the other weights "
    "were trained on stands on their own card.",
}
_PICKED = (
    "A row begins as the embedding of a word that is rare and often asked for, by a table that was counted in the "
    "training data; before training it is that alone."
)
_TAKEN = (
    "A row begins as the embedding of a word that is rare and often asked for, by the table of the weights that this "
    "went on from."
)
_BEFORE: Mapping[str, str] = {"refrag_policy": "the chunks closest to the question"}
_TOLD = "First, texts are told again from their rows, the loss being that of the text. "
_ANSWERED = "Questions are answered from rows: the loss is that of the reference answer"
_EXPANDED = "Questions are answered from rows and text, as much as the config says: the loss is that of the answer"
_TAUGHT = (
    ", with the divergence from what the same frozen generator says when it reads the passages as text, or the "
    "distance of its hidden states, as the config says"
)
_BESIDE = ". Passages that do not help stand beside those that do, where there is more than one."
_REWARD = (
    "The reward of a choice of chunks is the negative loss of the reference answer a token, with these as text and the "
    "others as rows; the mean over the choices of a question is the baseline."
)
_LIMITS = "English only. For this generator alone: other files under its name are refused."


def _labels(config: Mapping[str, Any], expands: bool) -> str:
    """How it was trained, as far as the config says."""
    telling = float(config["telling"])
    taught = _TAUGHT if config["kl"] or config["hidden"] else ""
    answered = f"{_EXPANDED if expands else _ANSWERED}{taught}{_BESIDE}" if telling < 1 else ""
    return f"{_TOLD if telling > 0 else ''}{answered}".strip()


def write_soft_card(
    out: Path, trainer: Trainer, outcome: SoftOutcome, data: SoftData, *, base: str = "", more: str = ""
) -> Card:
    """Writes the card beside the weights.

    Args:
        out: With the weights.
        trainer: Whose options were used.
        outcome: How training ended.
        data: What was trained on and held out.
        base: The generator, where the trainer does not name it.
        more: What else there is to say of the weights.

    Raises:
        ModelError: The card cannot be written.
    """
    config: dict[str, Any] = trainer_config(trainer)
    method = name_of(trainer)
    counts: dict[str, int] = {}
    telling = float(config.get("telling", 0.0))
    picked = config.get("residual") == "picked"
    counted = picked and not config.get("start")
    begin = _PICKED if counted else _TAKEN if picked else ""
    tellings = [telling.source for telling in data.tellings] if telling > 0 or counted else []
    askings = [asking.source for asking in data.askings] if telling < 1 else []
    for source in (*tellings, *askings):
        counts[source] = counts.get(source, 0) + 1
    read = f"It read about {outcome.tokens:,} tokens in training." if outcome.tokens else ""
    metrics = tuple(name for name in outcome.untrained if name not in ("other", "alone"))
    expands = any(config.get("expand") or ()) if method == "refrag" else False
    nothing = dict.fromkeys(metrics)
    before = "the weights it went on from" if config.get("start") else "before training"
    rows: list[tuple[str, Role, Mapping[str, float | None]]] = [
        (method, "trained", outcome.result.metrics),
        (_BEFORE.get(method, before), "untrained", outcome.untrained),
        ("no passages", "baseline", {**nothing, "answer": outcome.closed, "gain": 0.0}),
        ("the passages as text", "reference", {**nothing, "answer": outcome.text, "gain": 1.0}),
    ]
    controls = {"alone": "the text that stays, without rows and their titles"}
    controls["other"] = "the text that stays, with rows of other passages" if expands else "rows of other passages"
    for key, said in controls.items():
        if key in outcome.result.metrics:
            rows.insert(2, (said, "baseline", {**nothing, "answer": outcome.result.metrics[key]}))
    told = f" and {len(data.held_tellings):,} texts" if "right" in metrics else ""
    held = f"{len(data.held_askings):,} questions{told} that were held out of training"
    table = Results(
        held, metrics, tuple(Row(name, role, tuple(values.get(m) for m in metrics)) for name, role, values in rows)
    )
    return write_card(
        out,
        Card(
            name=name_of_card(trainer, method, base or str(config["base"])),
            method=method,
            about=" ".join(filter(None, (_ABOUT[method], begin, read, more))),
            licence=licence_of(base or str(config["base"])),
            base_model=base or str(config["base"]),
            data=tuple(DataSource(s, "train", n, _TEXTS.get(s, "unknown")) for s, n in counts.items()),
            labels=_REWARD if method == "refrag_policy" else _labels(config, expands),
            limits=_LIMITS,
            command=f"ragzip train {method} CONFIG.yaml --out FOLDER",
            config=config,
            steps=outcome.result.steps,
            seed=int(config["seed"]),
            seconds=round(outcome.result.seconds, 1),
            results=(table,),
            tags=("context-compression", "soft-compression", "retrieval-augmented-generation"),
            environment=environment(str(getattr(trainer, "device", "auto"))),
        ),
    )
