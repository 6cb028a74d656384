from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import ConfigError, UsageError
from ragzip.evaluation import metrics
from ragzip.evaluation.metrics import NEEDS, Cost, Metric, Ratio, all_names, forms, names, parse, register_metric
from ragzip.evaluation.outcome import Costs, Outcome
from ragzip.evaluation.record import Record
from ragzip.protocols import Metric as Protocol
from ragzip.types import CompressionResult, Query, context_of

EXPECTED = [
    *("em", "f1", "match", "rouge_l", "recall@k", "ndcg@k", "mrr", "answer_in_context"),
    *("sentence_precision", "sentence_recall", "sentence_f1", "tokens_in", "tokens_out", "ratio"),
    *("prompt_tokens", "new_tokens", "retrieve_seconds", "compress_seconds", "prefill_seconds", "decode_seconds"),
    *("ttft", "total_seconds", "peak_memory", "prefill_flops", "decode_flops", "kv_memory"),
    *("index_bytes", "build_seconds"),
]


@pytest.fixture
def clean(monkeypatch):
    monkeypatch.setattr(names, "_extra", {})


def test_all_are_there(clean):
    assert forms() == EXPECTED
    assert [name.partition("@")[0] for name in all_names()] == [name.partition("@")[0] for name in EXPECTED]


@pytest.mark.parametrize("name", [*all_names(), "recall@1", "ndcg@3", "mrr@10", "recall@999999"])
def test_print_and_parse(name):
    metric: Protocol = parse(name)
    assert str(metric) == metric.name == name
    assert parse(f" {name} ") == metric and hash(parse(name)) == hash(metric)
    assert pickle.loads(pickle.dumps(metric)) == metric
    assert metric.needs <= set(NEEDS)
    assert metric.unit in ("", "tokens", "s", "B", "MiB", "FLOP", "x")
    assert metric.quality == (metric.bounds == (0, 1)) == (metric.unit == "")
    assert metric.higher_is_better == (metric.quality or name == "ratio")
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.k = 3


def test_different_names_are_different_values():
    found = [parse(name) for name in [*all_names(), "recall@6", "mrr@5"]]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emm", "Unknown metric 'emm'. Did you mean 'em'?"),
        ("ndgc@10", "Did you mean 'ndcg@k'?"),
        ("EM", "Unknown metric 'EM'"),
        ("", "Known: em, f1"),
        (None, "Unknown metric None"),
        ("recall", "Write recall@5."),
        ("ndcg", "Write ndcg@10."),
        ("recall@0", "Unknown metric"),
        ("recall@05", "Unknown metric"),
        ("recall@k", "Unknown metric"),
        ("recall@-1", "Unknown metric"),
        ("em@5", "'em' takes no cutoff"),
        ("ratio@5", "'ratio' takes no cutoff"),
        ("tokens_in@5", "'tokens_in' takes no cutoff"),
        ("sentence_f1@5", "takes no cutoff"),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(UsageError) as error:
        parse(name)
    assert message in str(error.value)


@given(st.text(max_size=12))
def test_any_text_parses_or_is_refused(name):
    with contextlib.suppress(UsageError):
        assert str(parse(name)) == name.strip()


@dataclasses.dataclass(frozen=True)
class Brevity(Metric):
    k: int = 10

    @property
    def name(self) -> str:
        return "brevity" if self.k == 10 else f"brevity@{self.k}"

    def score(self, outcome):
        return float(len(outcome.answer) <= self.k)


def test_third_parties(clean):
    register_metric("brevity", Brevity)
    register_metric("brevity", Brevity)
    assert parse("brevity") == Brevity() and parse("brevity@3") == Brevity(3)
    assert "brevity" in all_names() and "brevity" in forms()
    assert parse("brevity").bounds == (0, 1) and parse("brevity").needs == frozenset()
    for name in ("em", "brevity", "Brev", "a b"):
        with pytest.raises(ConfigError):
            register_metric(name, lambda: Brevity())
    with pytest.raises(ConfigError, match="class or function"):
        register_metric("other", "module:Class")
    register_metric("liar", Brevity)
    with pytest.raises(UsageError, match="calls itself 'brevity'"):
        parse("liar")
    register_metric("stranger", object)
    with pytest.raises(UsageError, match="no metric"):
        parse("stranger")


def test_entry_points(clean, monkeypatch):
    here = f"{__name__}:Brevity"
    points = {
        "brevity": importlib.metadata.EntryPoint("brevity", here, "ragzip.metric"),
        "em": importlib.metadata.EntryPoint("em", here, "ragzip.metric"),
        "broken": importlib.metadata.EntryPoint("broken", "no_such_module_at_all:X", "ragzip.metric"),
    }
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[Brevity.__module__])
    monkeypatch.setattr(names, "_points", lambda: points)
    assert parse("brevity@3") == Brevity(3)
    assert parse("em") == metrics.ExactMatch()
    assert all_names()[-2:] == ["brevity", "broken"]
    with pytest.raises(UsageError, match="cannot be loaded from 'no_such_module_at_all:X'"):
        parse("broken")
    with pytest.raises(ConfigError, match="exists already"):
        register_metric("brevity", lambda: Brevity())


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from ragzip.evaluation.metrics import all_names, parse; [parse(n) for n in all_names()];"
        "print([m for m in ('torch', 'rouge_score', 'ir_measures', 'nltk', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- costs ------------------------------------------------------------------------------------------------------


def outcome(costs=None, tokens=(12, 4), answer="x") -> Outcome:
    compression = CompressionResult(context_of(Query("q"), ()), (), *tokens)
    return Outcome(Record("1", "q"), (), compression, answer, costs or Costs())


def test_costs():
    case = outcome(Costs(1.0, 2.0, 4.0, 8.0, 30, 5, 3 * 2**20, 7e9, 8e9, 5 * 2**19, 96.5, 12.0))
    expected = {
        "tokens_in": 12,
        "tokens_out": 4,
        "prompt_tokens": 30,
        "new_tokens": 5,
        "retrieve_seconds": 1,
        "compress_seconds": 2,
        "prefill_seconds": 4,
        "decode_seconds": 8,
        "ttft": 7,
        "total_seconds": 15,
        "peak_memory": 3,
        "prefill_flops": 7e9,
        "decode_flops": 8e9,
        "kv_memory": 2.5,
        "index_bytes": 96.5,
        "build_seconds": 12,
        "ratio": 3,
    }
    assert {name: parse(name).score(case) for name in expected} == expected
    assert all(type(parse(name).score(case)) is float for name in expected)


def test_costs_that_are_not_known():
    for name in ("peak_memory", "prefill_flops", "decode_flops", "kv_memory"):
        assert parse(name).score(outcome()) is None
    silent = outcome(Costs(1.0, 2.0), answer=None)
    said = {name: parse(name).score(silent) for name in EXPECTED[11:]}
    assert {name for name, value in said.items() if value is not None} == {
        "tokens_in",
        "tokens_out",
        "ratio",
        "retrieve_seconds",
        "compress_seconds",
    }
    assert {name for name in said if "answer" in parse(name).needs} == {
        name
        for name, value in said.items()
        if value is None and name not in ("peak_memory", "index_bytes", "build_seconds")
    }
    with pytest.raises(ConfigError, match="Did you mean 'tokens_in'"):
        Cost("token_in")


@pytest.mark.parametrize(("tokens", "ratio"), [((0, 0), None), ((5, 0), None), ((0, 5), None), ((5, 2), 2.5)])
def test_ratio(tokens, ratio):
    assert Ratio().score(outcome(tokens=tokens)) == ratio
    assert [parse(name).score(outcome(tokens=tokens)) for name in Ratio().ratio_of] == list(tokens)
    assert parse("em").ratio_of is None
