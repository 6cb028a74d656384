"""A run made of synthetic text, with the attributes of the real one."""

import random
from dataclasses import dataclass, field

COLOURS = ["red", "amber", "teal", "violet", "grey"]
TOWNS = ["Aldmoor", "Birkenvale", "Corrastone", "Dunhallow", "Eskerby", "Fenwick Mere"]
HOSTILE = "</script><img src=x onerror=alert(1)> & \u2028 \u202eright to left\u202c 🦊🦊 end"
BUDGETS = (100, 400)
GIVEN = ("sentence_filter@100", "sentence_filter@400", "rewriter", "soft_stack")


@dataclass
class FakeRun:
    config: dict
    environment: dict
    metrics: dict
    summary: dict
    names: list
    questions: dict
    records: dict = field(default_factory=dict)

    def rows(self, name):
        return self.records[name]

    def values(self, name, metric):
        return {r["id"]: v for r in self.records[name] if (v := r["metrics"].get(metric)) is not None}


def names_of(given=GIVEN, budgets=BUDGETS):
    baselines = ["closed_book", "no_compression"]
    for budget in budgets:
        baselines += [f"{k}@{budget}" for k in ("oracle_sentences", "truncate", "random_sentences", "bm25_sentences")]
    return [*given, *baselines]


def _passages(random_, number):
    town = random_.choice(TOWNS)
    colour = random_.choice(COLOURS)
    passages = []
    for index in range(5):
        sentences = [
            f"The gate of {town} was painted {colour} in {1700 + random_.randrange(200)}." if index == 2 else "",
            f"Travellers who pass stop {index} write about the bells, the {random_.choice(COLOURS)} roofs and the fog.",
            "Each spring the river rises by a hand's breadth, and the market moves uphill for a week.",
            "Nobody has counted the steps to the tower twice and come to the same number.",
        ]
        text = " ".join(s for s in sentences if s)
        if number % 7 == 0 and index == 1:
            text = f"🦊 {HOSTILE} {text}"
        if number % 11 == 0 and index == 3:
            text = f"שלום עולם, זהו טקסט מימין לשמאל. {text}"
        passages.append({"id": f"q{number}-p{index}", "title": f"{town}, part {index}", "text": text})
    return passages, town, colour


def _sentences(text):
    start = 0
    for position, char in enumerate(text):
        if char == "." or position == len(text) - 1:
            yield start, position + 1
            start = position + 2


def _share(name):
    if name == "closed_book":
        return 0.0
    if name == "no_compression":
        return 1.0
    return 0.6 if "400" in name else 0.25


def make_run(n=12, given=GIVEN, budgets=BUDGETS, seed=0, break_even=True, savings=True):
    random_ = random.Random(seed)
    names = names_of(given, budgets)
    questions, records = {}, {name: [] for name in names}
    metrics_list = ["em", "f1", "match", "answer_in_context", "sentence_f1", "tokens_in", "tokens_out", "ratio"]
    metrics_list += ["retrieve_seconds", "compress_seconds", "prefill_seconds", "decode_seconds", "ttft"]
    metrics_list += ["total_seconds", "peak_memory", "prefill_flops"]
    for number in range(n):
        passages, town, colour = _passages(random_, number)
        gate = passages[2]["text"].index(".") + 1
        identity = f"q{number}"
        question = f"Which colour has the gate of {town}?" + (f" {HOSTILE}" if number == 3 else "")
        questions[identity] = {
            "id": identity,
            "question": question,
            "answers": [colour, f"the colour {colour}"],
            "relevant": [{"passage_id": f"{identity}-p2", "start": 0, "end": gate}],
            "passages": passages,
        }
        for name in names:
            records[name].append(_record(random_, name, identity, passages, colour, number))
    metrics, comparisons = _aggregate(names, records, metrics_list, random_)
    data = {"name": "synthetic-gates", "version": "3", "sha256": "ab12" * 16, "split": "dev", "task": "short"}
    data |= {"labels": "sentences", "records": n, "limit": n, "seed": seed, "source": "made up"}
    rows = {
        name: {"kind": "given" if name in given else "baseline", "budget": None, "like": "", "pipeline": {"ragzip": 1}}
        for name in names
    }
    summary = {"data": data, "baseline": "no_compression", "comparisons": comparisons}
    if break_even:
        summary["break_even"] = _break_even(given)
    summary["savings"] = (
        {
            "price_in": 0.5,
            "price_out": 1.5,
            "rows": {name: {"per_1000": 0.3, "low": 0.25, "high": 0.36} for name in given},
        }
        if savings
        else None
    )
    config = {"ragzip_run": 1, "ragzip": "0.1.0", "data": data, "seed": seed, "generate": True}
    config |= {"metrics": metrics_list, "baseline": "no_compression", "rows": rows}
    environment = {"python": "3.11.7", "platform": "Linux", "cpu": "A fast one", "cores": 2, "threads": 2}
    environment |= {"memory_gib": 24.0, "device": "cpu", "versions": {"torch": "2.13.0"}, "commit": "0" * 40}
    return FakeRun(config, environment, metrics, summary, names, questions, records)


def _record(random_, name, identity, passages, colour, number):
    share = _share(name)
    kept = []
    if "oracle" in name:
        kept = [[passages[2]["id"], 0, passages[2]["text"].index(".") + 1]]
    elif share == 1.0:
        kept = [[p["id"], 0, len(p["text"])] for p in passages]
    elif share:
        for p in passages:
            kept += [[p["id"], s, e] for s, e in _sentences(p["text"]) if random_.random() < share]
    found = share and (random_.random() < 0.25 + 0.5 * share or "oracle" in name)
    answer = colour if found else random_.choice(["mauve", "It is not said.", "🦊"])
    tokens_in = 300 + number
    tokens_out = int(tokens_in * share) if "oracle" not in name else 18
    compress = 0.0 if share in (0.0, 1.0) else 0.002 if "truncate" in name else 0.05 + 0.02 * random_.random()
    stages = {"retrieve_seconds": 0.01, "compress_seconds": compress}
    stages["prefill_seconds"] = 0.03 + tokens_out * 0.0011
    stages["decode_seconds"] = 0.25 + 0.05 * random_.random()
    ttft = sum(stages.values()) - stages["decode_seconds"]
    score = {"em": float(answer == colour), "f1": 1.0 if answer == colour else random_.choice([0.0, 0.2, 0.4])}
    score["match"] = score["em"]
    score["answer_in_context"] = float(bool(found))
    score["sentence_f1"] = None if name == "closed_book" else random_.random()
    tokens = {"tokens_in": tokens_in, "tokens_out": tokens_out, "ratio": tokens_in / tokens_out if tokens_out else None}
    rest = {"ttft": ttft, "total_seconds": ttft + stages["decode_seconds"], "peak_memory": 812.5, "prefill_flops": 2e10}
    steps = []
    if name in GIVEN:
        step = {"name": "sentence_filter", "status": "ok", "tokens_in": tokens_in, "tokens_out": tokens_out}
        steps = [step | {"seconds": compress, "detail": "threshold 0.1"}]
        if number % 5 == 0:
            step = {"name": "budget", "status": "no_gain", "tokens_in": tokens_out, "tokens_out": tokens_out}
            steps.append(step | {"seconds": 0.0001, "detail": "already within the budget"})
    line = {"pipeline": name, "id": identity, "answer": answer, "passages": [p["id"] for p in passages], "kept": kept}
    line |= {"soft": 16 if name == "soft_stack" else 0, "steps": steps, "prompt_tokens": tokens_out + 60}
    line["metrics"] = score | tokens | stages | rest
    if name == "rewriter":
        line["context"] = f"A gate in a town was painted {colour}. {HOSTILE}"
    return line


def _aggregate(names, records, metrics_list, random_):
    metrics, comparisons = {}, {}
    base = records["no_compression"]
    for name in names:
        metrics[name], comparisons[name] = {}, {}
        for metric in metrics_list:
            values = [r["metrics"][metric] for r in records[name] if r["metrics"].get(metric) is not None]
            if not values:
                metrics[name][metric] = {"mean": None, "low": None, "high": None, "n": 0}
                continue
            mean = sum(values) / len(values)
            half = 0.08 * mean if metric not in ("em", "f1", "match") else 0.07
            metrics[name][metric] = {"mean": mean, "low": mean - half, "high": mean + half, "n": len(values)}
            others = [r["metrics"][metric] for r in base if r["metrics"].get(metric) is not None]
            if name != "no_compression" and others:
                d = mean - sum(others) / len(others)
                p = 0.001 if abs(d) > 0.25 * max(abs(mean), 0.01) else 0.4
                found = {"difference": d, "low": d - half, "high": d + half, "p": p, "p_corrected": min(1.0, 2 * p)}
                comparisons[name][metric] = found | {"significant": 2 * p < 0.05, "n": len(values)}
    comparisons.pop("no_compression")
    return metrics, comparisons


def _break_even(given):
    rows = {}
    for index, name in enumerate(given):
        per_token = 0.00012 * (index + 1)
        points = [
            [c, 0.04 + c * (per_token + 0.0003), 0.02 + c * 0.0005] for c in (128, 256, 512, 1024, 2048, 4096, 8192)
        ]
        gain = 0.0002 - per_token
        note = "" if gain > 0 else "the compressor costs more for each token than the prefill it saves"
        rows[name] = {"pays_from": 0.02 / gain if gain > 0 else None, "points": points}
        rows[name] |= {"compress_per_token": per_token, "prefill_per_token": 0.0005, "note": note}
    return {"unit": "tokens", "window": 8192, "rows": rows}
