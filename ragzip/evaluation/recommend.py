"""The cheapest row whose loss is surely within a limit: a non-inferiority test, corrected for many candidates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ragzip.errors import UsageError
from ragzip.evaluation.loss import Loss
from ragzip.evaluation.metrics import parse
from ragzip.evaluation.noninferiority import Evidence, evidence
from ragzip.evaluation.statistics import holm
from ragzip.evaluation.view import RunView, baseline_of, drops_all, finite, mean_of, reads_labels, require_row, settings

__all__ = ["Candidate", "Loss", "Recommendation", "choose"]

_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that was tested.

    Attributes:
        name: The row.
        loss: Observed, above 0 where it is worse than the baseline; a share of its mean where the limit is relative.
        low: Least difference (candidate minus baseline) not ruled out, at the level of its step in Holm's correction;
            above minus the limit exactly where it qualifies.
        p: One-sided, Holm-corrected.
        cost: Mean over the questions.
        n: Questions that both have.
    """

    name: str
    loss: float
    low: float
    p: float
    cost: float
    n: int


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to use, and why.

    Attributes:
        name: The row recommended: the baseline where no candidate qualifies.
        qualified: Rows whose loss is surely within the limit, cheapest first.
        others: Rows tested of which that cannot be said, cheapest first.
        baseline: What all were compared with.
        baseline_cost: Its mean cost.
        metric: Whose loss.
        cost: What "cheapest" means.
        max_loss: The limit.
        confidence: That no row in ``qualified`` loses more than the limit, all of them together.
        message: All of it in plain words.
    """

    name: str
    qualified: tuple[Candidate, ...]
    others: tuple[Candidate, ...]
    baseline: str
    baseline_cost: float
    metric: str
    cost: str
    max_loss: Loss
    confidence: float
    message: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "max_loss": str(self.max_loss)}


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

    Args:
        run: What was measured.
        metric: A quality metric, as ``em``.
        max_loss: What may be lost of it.
        cost: What is to be little: ``tokens_out``, ``ttft`` or another cost.
        confidence: That all that qualify do so rightly.
        baseline: The row compared with; "" takes the run's.
        candidates: Names of the rows to test; None takes all. Fewer candidates need fewer questions.
        seed: Of the random weights.
        draws: How many of them, or more where the correction asks for it.

    Raises:
        UsageError: No such metric, cost or row in this run, a metric that is no quality within known bounds, a
            confidence that is none, nothing to choose from.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must be between 0 and 1, not {confidence!r}.", hint="Write 0.95 for 95 %.")
    bounds = _bounds(metric, max_loss)
    if parse(cost).quality or parse(cost).higher_is_better:
        raise UsageError(f"{cost} is no cost.", hint="Take tokens_out, ttft or another cost of the run.")
    base = require_row(run, baseline or baseline_of(run), "baseline")
    values = finite(run, base, metric)
    own_cost = mean_of(finite(run, base, cost))
    for name, there in ((metric, bool(values)), (cost, math.isfinite(own_cost))):
        if not there:
            raise UsageError(f"the row {base!r} has no {name}.", hint="Run it again with this metric.")
    rows = [require_row(run, name, "candidates") for name in (run.names if candidates is None else candidates)]
    rows = [name for name in dict.fromkeys(rows) if name != base and not reads_labels(run, name)]
    costs = {name: mean_of(finite(run, name, cost)) for name in rows}
    cheaper: dict[str, Evidence] = {}
    # Which rows are cheaper is no matter of their quality, so that leaving the others out does no harm to the test.
    tested = [name for name in rows if costs[name] < own_cost and finite(run, name, metric).keys() & values.keys()]
    if not rows:
        raise UsageError(f"there is no row to recommend besides {base!r}.", hint="Give pipelines to choose from.")
    level = (1 - confidence) / max(len(tested), 1)
    for name in tested:
        mine = finite(run, name, metric)
        common = [key for key in mine if key in values]
        ours, theirs = [mine[key] for key in common], [values[key] for key in common]
        enough = max(draws, math.ceil(20 / level))
        cheaper[name] = evidence(ours, theirs, max_loss, bounds=bounds, seed=seed, draws=enough)
    qualified, others = _decide(cheaper, costs, confidence)
    name = qualified[0].name if qualified else base
    draft = Recommendation(
        name, qualified, others, base, own_cost, metric, cost, max_loss, confidence, f"No row is cheaper than {base}."
    )
    return dataclasses.replace(draft, message=_message(run, draft, cheaper, level)) if tested else draft


def _bounds(metric: str, limit: Loss) -> tuple[float, float]:
    found = parse(metric)
    if not found.quality or not found.higher_is_better or found.bounds is None:
        raise UsageError(f"{metric} is no quality to lose.", hint="Take one such as em, f1 or answer_in_context.")
    if limit.relative and found.bounds[0] != 0:
        raise UsageError(f"a share of {metric} means nothing, since it does not start at 0.", hint="Write 0.01 or 1pt.")
    return found.bounds


def _decide(
    found: dict[str, Evidence], costs: dict[str, float], confidence: float
) -> tuple[tuple[Candidate, ...], tuple[Candidate, ...]]:
    """Holm's steps: the smallest p first, until one is too large for the candidates that are left."""
    names = sorted(found, key=lambda name: (found[name].p, name))
    corrected = dict(zip(names, holm([found[name].p for name in names]), strict=True))
    alpha = 1 - confidence
    qualified: list[Candidate] = []
    others: list[Candidate] = []
    for rank, name in enumerate(names):
        # After the first that fails, no later step is taken, and its level stands.
        level = alpha / (len(names) - (len(qualified) if others else rank))
        seen = found[name]
        passed = not others and seen.p <= level
        row = Candidate(name, -seen.difference, seen.low(level), corrected[name], costs[name], len(seen.margins))
        (qualified if passed else others).append(row)

    def order(row: Candidate) -> tuple[float, float, str]:
        return row.cost, row.loss, row.name

    return tuple(sorted(qualified, key=order)), tuple(sorted(others, key=order))


def _message(run: RunView, found: Recommendation, seen: dict[str, Evidence], level: float) -> str:
    limit, tested = found.max_loss, len(found.qualified) + len(found.others)
    within = next((row for row in found.others if row.loss <= limit.limit), None)
    said: list[str] = []
    if found.qualified:
        best = found.qualified[0]
        said.append(
            f"{best.name} is the cheapest of {_rows(len(found.qualified))} that surely lose at most {limit} of "
            f"{found.metric} against {found.baseline} ({found.confidence:.0%} confidence for all {_rows(tested)} "
            f"tested together, {best.n} questions): {_change(limit, best.loss)} observed, at worst "
            f"{limit.shown(max(-best.low, 0.0))} lost, for {_amount(best.cost)} instead of "
            f"{_amount(found.baseline_cost)} {found.cost}."
        )
        if drops_all(run, best.name):
            said.append("It reads no context at all: these questions need none, and compression is not the question.")
        elif settings(run, best.name).get("kind") == "baseline" and best.name.startswith("random_sentences"):
            said.append("It keeps sentences at random: which of them are kept hardly matters to these questions.")
        if within is not None and within.cost < best.cost:
            said.append(f"{within.name} is cheaper and {_unproven(within, limit)}.")
        return " ".join(said)
    said.append(
        f"No row surely loses at most {limit} of {found.metric} ({found.confidence:.0%} confidence for all "
        f"{_rows(tested)} tested together), so {found.baseline} stays."
    )
    needed = {name: seen[name].needed(level) for name in seen}
    nearest = min(seen, key=lambda name: (needed[name], -float(seen[name].margins.mean()), name))
    questions = len(seen[nearest].margins)
    if math.isfinite(needed[nearest]):
        said.append(
            f"{nearest} would need roughly {_round(max(needed[nearest], 1.1 * questions))} questions instead of "
            f"{questions} to qualify, if what they show here holds."
        )
    else:
        said.append(
            f"All lost more than that on these questions, {nearest} least: "
            f"{limit.shown(-seen[nearest].difference)}. More questions are not likely to change it."
        )
    if within is not None:
        said.append(f"The cheapest within the limit as far as seen is {within.name}: it {_unproven(within, limit)}.")
    return " ".join(said)


def _unproven(row: Candidate, limit: Loss) -> str:
    seen = "lost nothing" if row.loss <= 0 else f"lost {limit.shown(row.loss)}"
    return f"{seen} here, but with {row.n} questions it may lose {limit.shown(max(-row.low, 0.0))}"


def _change(limit: Loss, loss: float) -> str:
    return f"{limit.shown(abs(loss))} {'lost' if loss > 0 else 'gained'}" if loss else "no difference"


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _round(value: float) -> str:
    """Two digits: it is an estimate."""
    size = 10 ** max(math.floor(math.log10(value)) - 1, 0)
    return f"{math.ceil(value / size) * size:,}"
