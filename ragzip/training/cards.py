"""The model card that a trainer leaves: what was done, from what, and what it reached on held-out data."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragzip.models import catalogue
from ragzip.models.locate import canonical
from ragzip.models.runtime import choose_device, cores
from ragzip.models.shipped import PROVENCE, SHIPPED
from ragzip.registry import name_of
from ragzip.training.card import Card, DataSource, Results, Role, Row, write_card
from ragzip.training.examples import Example
from ragzip.training.loop import LoopResult
from ragzip.training.options import Trainer, trainer_config
from ragzip.training.starts import went_on

LICENCES: Mapping[str, str] = {
    "squad": "CC-BY-SA-4.0",
    "squad_sentences": "CC-BY-SA-4.0",
    "squad_paragraphs": "CC-BY-SA-4.0",
    "squadshifts": "CC-BY-4.0",
    "policyqa": "MIT",
    "qed": "CC-BY-SA-3.0",
    "hotpotqa": "CC-BY-SA-4.0",
    "2wikimultihopqa": "Apache-2.0",
    "nq_multidoc": "CC-BY-SA-3.0",
    "fever_rationale": "CC-BY-SA-3.0",
    "scifact": "CC-BY-4.0 and ODC-BY",
    "selqa": "Apache-2.0",
    "entailmentbank": "Apache-2.0",
    "qmsum": "MIT",
    "musique": "CC-BY-4.0",
    "fairytaleqa": "Apache-2.0",
    "medquad": "CC-BY-4.0",
    "composed": "CC-BY-SA-4.0",
}
_LICENCE = "CC-BY-SA-4.0"

_SAYS: Mapping[str, tuple[str, str, str]] = {
    "provence": (
        "A cross-encoder that reads a question with a passage, marks the tokens that help to answer and judges the "
        "passage: it prunes and reranks.",
        "By people: sentences that annotators marked as needed, and sentences that hold the answer they gave. "
        "Passages that do not help are those that came with the question, or those of other questions that the base "
        "encoder finds closest; passages that hold an answer are left out of these.",
        "English only, and mostly encyclopedic text.",
    ),
    "llmlingua2": (
        "A token classifier that says which words of a text to keep, whatever will be asked.",
        "Words of answers that people gave about a passage, and words that a question shares with the sentence that "
        "answers it, are to be kept. {teacher}",
        "English only. It does not know the question: with one at hand, a method that reads it loses less.",
    ),
    "recomp_extractive": (
        "A dual encoder: the vectors of a question and of the sentences that help to answer it are close.",
        "By people: sentences that annotators marked as needed, and sentences that hold the answer they gave. The "
        "other sentences of the same passages are the negatives, and those of other questions in the batch.",
        "English only. A sentence is read without its neighbours, with its passage's title.",
    ),
    "late_interaction": (
        "An encoder with a projection that makes a short vector of every token: a passage helps as far as the tokens "
        "of the question find like ones in it.",
        "By people: passages that they marked as needed, or that hold the answer they gave. Passages that do not "
        "help are those that came with the question, or those of other questions that share its words (BM25), and all "
        "others of the batch; passages that hold an answer are left out of these. {judge}",
        "English only, and mostly encyclopedic text. Passages are read up to 256 tokens.",
    ),
    "recomp_abstractive": (
        "A low-rank adapter that makes a language model write what of some passages helps to answer a question, or "
        "that nothing does.",
        "The target is the sentences that people marked as needed, in order, with their passage's title where they "
        "do not name it; for a share of the examples only passages that do not help are shown, and the target says "
        "so.",
        "English only, and a small model: it copies well and concludes poorly. Check what it writes against the "
        "spans that it read.",
    ),
    "exit": (
        "A low-rank adapter by which a language model says of a sentence, with its passage before it, whether it helps "
        "to answer a question.",
        "By people: sentences that annotators marked as needed, and sentences that hold the answer they gave are to "
        "be answered with Yes, the others of the same passage with No, and all of passages that do not help. These "
        "are those that came with the question, or some of other questions, without an answer, that the built-in "
        "encoder finds close among the passages that the steps can read: with few of these they are not always hard.",
        "English only, and mostly encyclopedic text, in passages of at most `max_tokens` of the config, sentences "
        "included. A sentence that helps only together with another passage is judged without that one. Asked with "
        "`prompt: chat`.",
    ),
    "retriever": (
        "A low-rank adapter of an embedding model, for one corpus.",
        "By nobody. Questions were made from the corpus: a sentence for the rest of its passage, a title or first "
        "sentence for what follows, a sentence for a neighbouring passage, and, where the config says so, questions "
        "that a language model wrote. Negatives are {near}those of other questions in the batch.",
        "For the corpus it was trained on. Held-out questions are made in the same way, not asked by people: what "
        "helps with them need not help with yours, so measure it on questions of your own before you use it.",
    ),
    "jpq": (
        "Codes of a few bytes for the vectors of one encoder, and a low-rank adapter of that encoder for questions, "
        "trained together. Passages are encoded as before.",
        "By nobody. Questions were made from the corpus: a sentence, a title or a first sentence for the passage it is "
        "from or beside. Negatives are the passages whose codes the questions find, while that changes. As far as "
        "the config says (teacher), the ranking by whole vectors is what is to be learned.",
        "For one encoder, and for passages like those it was trained on. Held-out questions are made in the same way, "
        "not asked by people: measure it on questions of your own.",
    ),
    "lexsem": (
        "Multipliers for the vectors of questions, element by element, made from the questions' own tokens or vectors. "
        "The encoder and the passages' vectors are left alone.",
        "By people: passages that annotators marked as helping, or that hold the answer they gave. All other passages "
        "of the training sets are negatives.",
        "English only, for one encoder only, and for questions like those of the training sets.",
    ),
}


_WHERE: Mapping[str, tuple[str, str]] = {
    "teacher": (
        "All others have a soft label up to 0.7: the square of their rank by how much they surprise a language model "
        "(the teacher) that reads the passage from the left.",
        "All others are to be dropped.",
    ),
    "judge": (
        "How much each helps was learned from a cross-encoder, too (`judge` in the config), which was trained on the "
        "same sets.",
        "",
    ),
    "near": ("passages of other documents that the base encoder finds close, and ", ""),
}
"""What labels say where an option is set, and where it is not."""


def _labels(text: str, config: Mapping[str, Any]) -> str:
    """What is said of the labels, as far as the config says so."""
    on = {option: bool(config.get(option)) for option in _WHERE}
    on["judge"] = on["judge"] and bool(config.get("judge_weight", 1))
    if config.get("judge") != PROVENCE:
        text = text.replace("{judge}", _WHERE["judge"][0].partition(", which")[0] + "." if on["judge"] else "")
    for option, (there, not_there) in _WHERE.items():
        text = text.replace(f"{{{option}}}", there if on[option] else not_there)
    return text.strip()


def write_result(out: Path, trainer: Trainer, result: LoopResult, **about: Any) -> Card:
    """Writes the card beside the weights; see ``card_of``.

    Raises:
        ModelError: The card cannot be written.
    """
    return write_card(out, card_of(trainer, result, **about))


def card_of(
    trainer: Trainer,
    result: LoopResult,
    *,
    untrained: Mapping[str, float],
    examples: Sequence[Example],
    held: int,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    more: Sequence[Results] = (),
    what: str = "",
    base: str = "",
) -> Card:
    """The card of a training that has ended.

    Args:
        trainer: Whose options were used.
        result: How training ended.
        untrained: The metrics of the same model before training.
        examples: What was trained on.
        held: How many examples were held out.
        baselines: Metrics of other methods on the held-out examples, by name.
        more: Results on other data.
        what: The held-out data in words, where they are not just training examples.
        base: What was trained from, where the trainer has no option that says so.
    """
    config: dict[str, Any] = trainer_config(trainer)
    method = name_of(trainer)
    about, labels, limits = _SAYS[method]
    base = base or str(config["base"])
    name = name_of_card(trainer, method, base)
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.set_name] = counts.get(example.set_name, 0) + 1
    start = config.get("start")
    before = "the weights it went on from" if start else "before training"
    table = results_of(
        what or f"{held:,} training examples that were held out",
        {name: result.metrics, before: untrained, **(baselines or {})},
    )
    return Card(
        name=name,
        method=method,
        about=f"{about} {went_on(start, str(config.get('start_sha256')), config)}" if start else about,
        licence=licence_of(base),
        base_model=base,
        data=tuple(DataSource(s, "train", rows_, LICENCES.get(s, "unknown")) for s, rows_ in counts.items()),
        labels=_labels(labels, config),
        limits=limits,
        command=f"ragzip train {method} CONFIG.yaml --out FOLDER",
        config=config,
        steps=result.steps,
        seed=int(config["seed"]),
        seconds=round(result.seconds, 1),
        results=(table, *more),
        environment=environment(str(config.get("device", "auto"))),
    )


def licence_of(base: str) -> str:
    """That of what is trained from a base: a change of it, so that nothing is said of what is not known."""
    return _LICENCE if catalogue.find(base) else "other"


def name_of_card(trainer: Trainer, method: str, base: str) -> str:
    """That of the shipped weights for what may take their place; else the method's, as names are asked for."""
    kind = type(trainer)  # whose attributes are the defaults of the options
    own = any(getattr(trainer, o) != getattr(kind, o) for o in ("sets", "texts", "encoder") if hasattr(kind, o))
    same = canonical(base)
    shipped = (spec.name for spec in SHIPPED.values() if spec.method == method and canonical(spec.base) == same)
    return method if own else next(shipped, method)


def results_of(what: str, found: Mapping[str, Mapping[str, float]]) -> Results:
    """A table of metrics by name: the trained weights first, then the same before training, then baselines."""
    metrics = tuple(next(iter(found.values())))
    after: list[Role] = ["baseline"] * (len(found) - 2)
    roles: list[Role] = ["trained", "untrained", *after]
    rows = tuple(
        Row(name, role, tuple(values.get(metric) for metric in metrics))
        for role, (name, values) in zip(roles, found.items(), strict=False)
    )
    return Results(what, metrics, rows)


def environment(device: str = "auto") -> dict[str, str]:
    """Versions and hardware, for a card.

    Args:
        device: Where it was trained, as the options say.
    """
    import torch
    import transformers

    used = choose_device(device)
    where = torch.cuda.get_device_name(used) if used.startswith("cuda") else f"{cores()} cores, {platform.machine()}"
    return {"torch": torch.__version__, "transformers": transformers.__version__, "hardware": where}
