"""The cheapest row whose loss is surely within a limit: a non-inferiority test, corrected for many candidates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragzip.errors import UsageError
from ragzip.evaluation.loss import Loss
from ragzip.evaluation.metrics import parse
from ragzip.evaluation.noninferiority import TINY, Evidence, evidence
from ragzip.evaluation.statistics import holm
from ragzip.evaluation.verdict import Candidate, Recommendation, message
from ragzip.evaluation.view import (
    RunView,
    baseline_of,
    failed,
    finite,
    generator_of,
    mean_of,
    reads_labels,
    require_row,
)

__all__ = ["Candidate", "Loss", "Recommendation", "choose"]

_DRAWS = 20_000


def choose(
    run: RunView,
    *,
    metric: str,
    max_loss: Loss,
    cost: str = "tokens_out",
    confidence: float = 0.95,
    baseline: str = "",
    candidates: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = _DRAWS,
) -> Recommendation:
    """Tests every row that is cheaper than the baseline and takes the cheapest that qualifies.

    A row qualifies where a loss beyond the limit is ruled out; with many rows one would do so by chance, so that p is
    corrected (Holm): the chance that any row qualifies that truly loses more is at most ``1 - confidence``. Rows that
    read labels are left out. The row without any context is tested like the others.

    Each row is tested on all questions that its baseline answered. One that it did not answer itself counts as the
    worst there is. Costs are compared on the questions that both have a cost for.

    Args:
        run: What was measured.
        metric: A quality metric, as ``em``.
        max_loss: What may be lost of it.
        cost: What is to be little: ``tokens_out``, ``ttft`` or another cost.
        confidence: That all that qualify do so rightly.
        baseline: The row compared with; "" compares each with its generator without compression.
        candidates: Names of the rows to test; None takes all. Fewer candidates need fewer questions.
        seed: Of the random weights.
        draws: How many of them, or more where the correction asks for it.

    Raises:
        UsageError: No such metric, cost or row in this run, a metric that is no quality within known bounds, a
            confidence that is none, nothing to choose from, rows of several generators.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must be between 0 and 1, not {confidence!r}.", hint="Write 0.95 for 95 %.")
    bounds = check_limit(metric, max_loss)
    if parse(cost).quality or parse(cost).higher_is_better:
        raise UsageError(f"{cost} is no cost.", hint="Take tokens_out, ttft or another cost of the run.")
    base = require_row(run, baseline or baseline_of(run), "baseline")
    asked = [require_row(run, name, "candidates") for name in (run.names if candidates is None else candidates)]
    against = {name: base if baseline else baseline_of(run, name) or base for name in dict.fromkeys(asked)}
    rows = [name for name in against if name != against[name] and not reads_labels(run, name)]
    for name in dict.fromkeys([base, *(against[row] for row in rows)]):
        for wanted in (metric, cost):
            if not finite(run, name, wanted):
                raise UsageError(f"the row {name!r} has no {wanted}.", hint="Run it again with this metric.")
    if not rows:
        raise UsageError(f"there is no row to recommend besides {base!r}.", hint="Give pipelines to choose from.")
    _one_generator(run, rows, against, cost, bool(baseline))
    pairs: list[_Pair] = []
    untested: dict[str, str] = {}
    for name in rows:
        pair = _paired(run, name, against[name], metric, cost)
        if pair is None:
            untested[name] = f"it has no {metric} and {cost} on any question that {against[name]} answered"
        elif max_loss.relative and max(pair.theirs) <= TINY:
            untested[name] = f"{against[name]} scores 0 in {metric}, and a share of 0 means nothing (allow 1pt, say)"
        elif pair.cost < pair.baseline_cost:
            # Which rows are cheaper is no matter of their quality: leaving the others out does no harm to the test.
            pairs.append(pair)
    level = (1 - confidence) / max(len(pairs), 1)
    enough = max(draws, math.ceil(20 / level))
    seen = {
        pair.name: evidence(pair.ours, pair.theirs, max_loss, bounds=bounds, seed=seed, draws=enough) for pair in pairs
    }
    qualified, others = _decide({pair.name: pair for pair in pairs}, seen, confidence)
    best = qualified[0] if qualified else None
    own_cost = mean_of(finite(run, base, cost))
    draft = Recommendation(
        best.name if best else base,
        qualified,
        others,
        best.baseline if best else base,
        best.baseline_cost if best else own_cost,
        metric,
        cost,
        max_loss,
        confidence,
        "",
    )
    return dataclasses.replace(draft, message=message(run, draft, seen, level, untested))


@dataclass(frozen=True, slots=True)
class _Pair:
    """A row and its baseline on the questions that the baseline answered."""

    name: str
    baseline: str
    ours: list[float]
    theirs: list[float]
    failed: int
    cost: float
    baseline_cost: float
    expected: float  # the cost on all questions, by how it compares to the baseline's on those that both have


def _paired(run: RunView, name: str, base: str, metric: str, cost: str) -> _Pair | None:
    """None where there is nothing to compare."""
    mine, values = finite(run, name, metric), finite(run, base, metric)
    spent, own = finite(run, name, cost), finite(run, base, cost)
    both = [key for key in own if key in spent]
    if not both or not values or not (mine.keys() & values.keys() or failed(run, name) & values.keys()):
        return None
    bounds = parse(metric).bounds or (0.0, 1.0)
    # A question without a value is one that the row could not do: left out, crashing on hard ones would look good.
    ours = [mine.get(key, bounds[0]) for key in values]
    means = [mean_of({key: one[key] for key in both}) for one in (spent, own)]
    share = mean_of(own) / means[1] if means[1] > 0 else 1.0
    missing = len(values) - len(mine.keys() & values.keys())
    return _Pair(name, base, ours, list(values.values()), missing, means[0], means[1], means[0] * share)


def _one_generator(run: RunView, rows: Sequence[str], against: Mapping[str, str], cost: str, named: bool) -> None:
    """A loss against one generator says nothing of another, and their tokens are not the same tokens.

    Against one named baseline losses mean the same, so that costs other than tokens may be compared.
    """
    if named and parse(cost).unit != "tokens":
        return
    what = f"their {cost} are not of one tokenizer" if named else "a loss against one says nothing of another"
    one_generator({name: generator_of(run, name) for name in (*rows, *(against[row] for row in rows))}, what)


def one_generator(rows: Mapping[str, str], why: str = "a loss against one says nothing of another") -> None:
    """Refuses rows of several generators.

    Args:
        rows: Name -> generator.
        why: They cannot be compared.

    Raises:
        UsageError: Names two of them.
    """
    kinds: dict[str, str] = {}
    for name, kind in rows.items():
        kinds.setdefault(kind, name)
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        raise UsageError(
            f"the rows are of {len(kinds)} generators (as {first!r} and {second!r}), and {why}.",
            hint="Recommend among the pipelines of one generator at a time.",
        )


def check_limit(metric: str, limit: Loss) -> tuple[float, float]:
    """A metric's bounds, where a loss of it can be limited so.

    Raises:
        UsageError: It is no quality, none that compression can change, or the limit means nothing for it.
    """
    found = parse(metric)
    if "qrels" in found.needs:
        raise UsageError(
            f"{metric} judges what was retrieved, before compression, which loses nothing of it.",
            hint="Take one such as em, f1 or answer_in_context.",
        )
    if not found.quality or not found.higher_is_better or found.bounds is None:
        raise UsageError(f"{metric} is no quality to lose.", hint="Take one such as em, f1 or answer_in_context.")
    if limit.relative and found.bounds[0] != 0:
        raise UsageError(f"a share of {metric} means nothing, since it does not start at 0.", hint="Write 0.01 or 1pt.")
    return found.bounds


def _decide(
    pairs: Mapping[str, _Pair], seen: Mapping[str, Evidence], confidence: float
) -> tuple[tuple[Candidate, ...], tuple[Candidate, ...]]:
    """Holm's steps: the smallest p first, until one is too large for the candidates that are left."""
    names = sorted(seen, key=lambda name: (seen[name].p, name))
    corrected = dict(zip(names, holm([seen[name].p for name in names]), strict=True))
    alpha = 1 - confidence
    qualified: list[Candidate] = []
    others: list[Candidate] = []
    for rank, name in enumerate(names):
        # After the first that fails, no later step is taken, and its level stands.
        level = alpha / (len(names) - (len(qualified) if others else rank))
        found, pair = seen[name], pairs[name]
        passed = not others and found.p <= level
        loss, low = 0.0 - found.difference, found.low(level)
        costs = (pair.baseline, pair.baseline_cost, pair.failed)
        row = Candidate(name, loss, low, corrected[name], pair.cost, len(pair.theirs), *costs)
        (qualified if passed else others).append(row)

    def order(row: Candidate) -> tuple[float, float, str]:
        return pairs[row.name].expected, row.loss, row.name

    return tuple(sorted(qualified, key=order)), tuple(sorted(others, key=order))
