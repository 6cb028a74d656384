"""Which prompt makes the built-in model answer briefly and rightly? Measured on training files only.

    python benchmarks/prompts.py            # all variants on all sets: about half an hour on two cores
    python benchmarks/prompts.py qa yes_no  # some of them

What is done is kept in a log (PROMPTS_LOG, else in the folder for temporary files), so that a second run goes on
where the first one was stopped. Only means go into benchmarks/results/prompts.json. The data is found through
RAGZIP_DATA, else in ../shared/data; no file of a development set is opened.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measure import environment  # noqa: E402
from ragzip import config  # noqa: E402
from ragzip.generators.huggingface import HuggingFace  # noqa: E402
from ragzip.pipelines.prompt import LEAD, QA, SHORT, YesNo  # noqa: E402
from ragzip.tokens import lay_out  # noqa: E402
from ragzip.types import Context, Message, Passage, Query, context_of  # noqa: E402

DATA = Path(os.environ.get("RAGZIP_DATA") or ROOT.parent / "shared" / "data")
LOG = Path(os.environ.get("PROMPTS_LOG") or Path(tempfile.gettempdir()) / "ragzip-prompts.jsonl")
RESULT = ROOT / "benchmarks" / "results" / "prompts.json"
QUESTIONS, SEED = 40, 0
GENERATOR = HuggingFace(dtype="bf16", max_new_tokens=32, stop=("\n",), batch_size=8)
OLD = "Answer with one sentence of the context above.\nQuestion:"
HELPFUL = "You are a helpful assistant."
CONTEXTS = (
    "Danube\nThe Danube rises in the Black Forest in Germany. It flows through ten countries and ends in the "
    "Black Sea.",
    "Tea in Europe\nTea was drunk in China long before Europe knew it. Dutch ships brought the first chests to "
    "Amsterdam in 1610.",
    "Zip fastener\nEarly zips came open by themselves. Gideon Sundback, an engineer from Sweden, built one that stayed "
    "shut in 1913.",
)


@dataclass(frozen=True)
class Shown:
    """What ``qa`` might have been: each example with a context of its own, as turns or within the one user turn."""

    one_turn: bool = False
    contexts: tuple[str, ...] = CONTEXTS
    lead: str = LEAD
    titles: bool = True

    def render(self, context: Context[Any]) -> tuple[Message[Any], ...]:
        """As a prompt renders."""
        question, pieces = f"Question: {context.query.text}", lay_out(context, titles=True)
        instruction = QA().instruction.removesuffix("Question:")
        turn = ("Context:\n", *pieces, f"\n\n{instruction}{question}") if pieces else (question,)
        made: list[Message[Any]] = [Message("system", (QA().system,))]
        head = ""
        for text, (asked, answer) in zip(self.contexts, SHORT, strict=False):
            user = f"Context:\n{text}\n\n{instruction}Question: {asked}" if pieces else f"Question: {asked}"
            head += f'{user}\nThe answer is "{answer}".\n\n'
            if not self.one_turn:
                made += [Message("user", (user,)), Message("assistant", (f'{self.lead}{answer}".',))]
        last = Message("user", (head, *turn) if self.one_turn else turn)
        return (*made, last, *((Message("assistant", (self.lead,)),) if self.lead else ()))


FEW = "You answer questions with a few words."
VARIANTS: dict[str, Any] = {
    "zero-shot": QA(instruction=OLD, system=HELPFUL, examples=(), lead=""),
    "qa": QA(),
    "yes_no": YesNo(),
    "no examples": QA(examples=()),
    "2 examples": QA(examples=SHORT[:2]),
    "system says it": QA(instruction="Question:", system=FEW),
    "lead alone": QA(instruction="Question:", system=FEW, examples=()),
    "other lead": QA(lead="Answer:"),
    "no lead": QA(lead=""),
    "3 contexts": Shown(),
    "in one turn": Shown(one_turn=True),
}
COMMON = ("squad", "hotpotqa 4", "nq 5")
"""Sets on which prompts for short answers are compared, and their names' meaning: passages a question."""
FURTHER = {
    "zero-shot": ("nq closed book", "2wiki 4", "yes or no", "hotpotqa 10"),
    "qa": ("nq closed book", "2wiki 4", "yes or no", "hotpotqa 10"),
    "yes_no": ("yes or no",),
}
Asked = tuple[str, tuple[str, ...], tuple[Passage, ...]]


def load(name: str) -> list[Asked]:
    """Questions with answers and passages, drawn with the seed."""
    draw = random.Random(SEED)
    if name == "squad":
        return draw.sample(_squad(), QUESTIONS)
    if name.startswith("nq"):
        rows = draw.sample(_rows("nq_multidoc/train.jsonl.gz"), QUESTIONS)
        if name == "nq closed book":
            return [(r["question"], tuple(r["answers"]), ()) for r in rows]
        texts = {p["pid"]: p for p in _rows("nq_multidoc/passages.jsonl.gz")}
        return [(r["question"], tuple(r["answers"]), _mixed(r, texts, draw)) for r in rows]
    path = "hotpotqa/train.jsonl.gz" if name.startswith("hotpotqa") else "2wikimultihopqa/train.jsonl.gz"
    rows = [r for r in _rows(path) if name != "yes or no" or r["answer"] in ("yes", "no")]
    few = 10 if name == "hotpotqa 10" else 4
    return [(r["question"], (r["answer"],), _few(r, few, draw)) for r in draw.sample(rows, QUESTIONS)]


def _rows(path: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _squad() -> list[Asked]:
    with gzip.open(DATA / "squad/train-v1.1-part.json.gz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    return [
        (q["question"], tuple(a["text"] for a in q["answers"]), (Passage("0", p["context"], a["title"]),))
        for a in articles
        for p in a["paragraphs"]
        for q in p["qas"]
    ]


def _mixed(row: dict[str, Any], texts: dict[str, Any], draw: random.Random) -> tuple[Passage, ...]:
    chosen = row["distractor_pids"][:4]
    chosen.insert(draw.randrange(5), row["gold_pid"])
    return tuple(Passage(pid, texts[pid]["text"], texts[pid]["title"]) for pid in chosen)


def _few(row: dict[str, Any], most: int, draw: random.Random) -> tuple[Passage, ...]:
    gold = {title for title, _ in row["supporting_facts"]}
    kept = sorted(row["context"], key=lambda c: c[0] not in gold)[:most]
    draw.shuffle(kept)
    return tuple(Passage(str(i), " ".join(s.strip() for s in ss), t) for i, (t, ss) in enumerate(kept))


def score(answer: str, references: Sequence[str]) -> tuple[float, float, float]:
    """Exact match, word F1 and whether a reference stands in the answer, in SQuAD's normalisation."""
    said = _normal(answer)
    wanted = [_normal(r) for r in references]
    within = max(float(f" {w} " in f" {said} ") for w in wanted)
    return float(said in wanted), max(_f1(said.split(), w.split()) for w in wanted), within


def _normal(text: str) -> str:
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _f1(a: list[str], b: list[str]) -> float:
    common = (Counter(a) & Counter(b)).total()
    return 2 * common / (len(a) + len(b)) if common else float(a == b)


def measure(name: str, where: str, done: dict[str, Any]) -> dict[str, float]:
    """Means of one variant on one set, from the log where it has them."""
    prompt = VARIANTS[name]
    described = config.to_config(prompt) | {"generator": config.to_config(GENERATOR)}
    identity = json.dumps([described, where, QUESTIONS, SEED])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    if key not in done:
        asked = load(where)
        GENERATOR.load()
        start = time.perf_counter()
        made = GENERATOR.generate([prompt.render(context_of(Query(q), passages)) for q, _, passages in asked])
        spent = time.perf_counter() - start
        scores = [score(g.text, references) for g, (_, references, _) in zip(made, asked, strict=True)]
        columns = [*zip(*scores, strict=True), [g.prompt_tokens for g in made], [g.new_tokens for g in made]]
        means = [sum(column) / len(column) for column in columns]
        names = ("em", "f1", "match", "prompt tokens", "new tokens")
        done[key] = {k: round(v, 4) for k, v in zip(names, means, strict=True)} | {"s": round(spent / len(asked), 3)}
        with LOG.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"key": key, "variant": name, "set": where, "means": done[key]}) + "\n")
    return done[key]  # type: ignore[no-any-return]


def main(chosen: Sequence[str]) -> None:
    """Measures, prints a line a variant and set, and writes the means."""
    done = {}
    if LOG.exists():
        for line in LOG.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            done[found["key"]] = found["means"]
    names = [name for name in VARIANTS if not chosen or name in chosen]
    results: dict[str, Any] = {name: {} for name in names}
    for sets in ({name: COMMON for name in names if name != "yes_no"}, FURTHER):
        for name in [name for name in names if name in sets]:
            for where in sets[name]:
                means = results[name][where] = measure(name, where, done)
                print(f"{name:14} {where:15} " + "  ".join(f"{k} {v:g}" for k, v in means.items()), flush=True)
    for name in [name for name in names if name != "yes_no"]:
        common = [results[name][where] for where in COMMON]
        results[name]["mean"] = {k: round(sum(m[k] for m in common) / len(common), 4) for k in common[0]}
        print(f"{name:14} {'mean of 3':15} " + "  ".join(f"{k} {v:g}" for k, v in results[name]["mean"].items()))
    if not chosen:
        record = {
            "command": "python benchmarks/prompts.py",
            "when": datetime.now(UTC).strftime("%Y-%m-%d"),
            "environment": environment(),
            "questions": QUESTIONS,
            "seed": SEED,
            "generator": config.to_config(GENERATOR),
            "results": results,
        }
        RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
