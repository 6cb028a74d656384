"""What ``recommend`` says, and in which words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragzip.evaluation.loss import Loss
from ragzip.evaluation.noninferiority import TINY, Evidence
from ragzip.evaluation.view import RunView, drops_all, failed, failed_steps, settings

_NAMED = 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that was tested.

    Attributes:
        name: The row.
        loss: Observed, above 0 where it is worse than the baseline; a share of its mean where the limit is relative.
        low: Least difference (candidate minus baseline) not ruled out, at the level of its step in Holm's correction;
            above minus the limit exactly where it qualifies.
        p: One-sided, Holm-corrected.
        cost: Mean over the questions that both it and its baseline have a cost for.
        n: Questions that the baseline has a value for.
        baseline: The row it was tested against.
        baseline_cost: That row's mean cost on the same questions as ``cost``.
        failed: Of the ``n`` questions those without a value, counted as the worst there is.
    """

    name: str
    loss: float
    low: float
    p: float
    cost: float
    n: int
    baseline: str = ""
    baseline_cost: float = math.nan
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to use, and why.

    Attributes:
        name: The row recommended: the baseline where no candidate qualifies.
        qualified: Rows whose loss is surely within the limit, cheapest first.
        others: Rows tested of which that cannot be said, cheapest first.
        baseline: What the row recommended was compared with.
        baseline_cost: Its mean cost, on the same questions as that of the row recommended.
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


def message(
    run: RunView, found: Recommendation, seen: Mapping[str, Evidence], level: float, untested: Mapping[str, str]
) -> str:
    """The recommendation in plain words, with what failed.

    Args:
        run: What was measured.
        found: The recommendation, without its message.
        seen: The evidence on each row tested.
        level: Of one row's test, corrected for the number of rows.
        untested: Rows left out for a reason other than their cost, and the reason.
    """
    if found.qualified:
        said = _chosen(run, found)
    elif seen:
        said = _stays(found, seen, level)
    elif untested:
        said = [f"No row could be tested, so {found.baseline} stays."]
    else:
        said = [f"No row is cheaper than {found.baseline}."]
    said += [f"Not tested: {_some([f'{name}, since {why}' for name, why in untested.items()], '; ')}."] * bool(untested)
    return " ".join([*said, *_failures(run, found, [*seen, *untested])])


def _chosen(run: RunView, found: Recommendation) -> list[str]:
    limit, tested = found.max_loss, len(found.qualified) + len(found.others)
    best = found.qualified[0]
    others = {row.baseline for row in (*found.qualified, *found.others)} - {best.baseline}
    against = best.baseline + (" (each row against its own baseline)" if others else "")
    said = [
        f"{best.name} is the cheapest of {_rows(len(found.qualified))} that surely lose at most {limit} of "
        f"{found.metric} against {against} ({found.confidence:.0%} confidence for all {_rows(tested)} "
        f"tested together, {best.n} questions): {_change(limit, best.loss)} observed, at worst "
        f"{limit.shown(max(-best.low, 0.0))} lost, for {_amount(best.cost)} instead of "
        f"{_amount(best.baseline_cost)} {found.cost}."
    ]
    if drops_all(run, best.name):
        said.append("It reads no context at all: these questions need none, and compression is not the question.")
    elif settings(run, best.name).get("kind") == "baseline" and best.name.startswith("random_sentences"):
        said.append("It keeps sentences at random: which of them are kept hardly matters to these questions.")
    within = _within(found)
    if within is not None and within.cost < best.cost:
        said.append(f"{within.name} is cheaper and {_unproven(within, limit)}.")
    return said


def _stays(found: Recommendation, seen: Mapping[str, Evidence], level: float) -> list[str]:
    limit, tested = found.max_loss, len(found.others)
    said = [
        f"No row surely loses at most {limit} of {found.metric} ({found.confidence:.0%} confidence for all "
        f"{_rows(tested)} tested together), so {found.baseline} stays."
    ]
    needed = {name: seen[name].needed(level) for name in seen}
    margins = {name: float(seen[name].margins.mean()) for name in seen}
    nearest = min(seen, key=lambda name: (needed[name], -margins[name], name))
    questions = len(seen[nearest].margins)
    if math.isfinite(needed[nearest]):
        said.append(
            f"{nearest} would need roughly {_round(max(needed[nearest], 1.1 * questions))} questions instead of "
            f"{questions} to qualify, if what they show here holds."
        )
    elif margins[nearest] < -TINY:
        said.append(
            f"All lost more than that on these questions, {nearest} least: "
            f"{limit.shown(-seen[nearest].difference)}. More questions are not likely to change it."
        )
    elif limit.limit <= 0:
        said.append(
            f"A loss of exactly 0 can never be proven of a row that gains nothing, as {nearest} here: allow a little, "
            "as 1% or 1pt."
        )
    else:
        said.append(f"{nearest} lost just what is allowed. More questions are not likely to prove that it is no more.")
    within = _within(found)
    if within is not None:
        said.append(f"The cheapest within the limit as far as seen is {within.name}: it {_unproven(within, limit)}.")
    return said


def _failures(run: RunView, found: Recommendation, names: list[str]) -> list[str]:
    """What went wrong in the rows tested and in what they were compared with."""
    said: list[str] = []
    rows = {row.name: row for row in (*found.qualified, *found.others)}
    counted = [f"{name} to {row.failed} of {row.n} questions" for name, row in rows.items() if row.failed]
    if counted:
        said.append(f"No answer, counted as the worst there is: {_some(counted)}.")
    bases = list(dict.fromkeys([found.baseline, *(row.baseline for row in rows.values())]))
    lost = [f"{name} to {len(failures)} questions" for name in bases if (failures := failed(run, name))]
    if lost:
        said.append(f"No answer, and these questions left out: {_some(lost)}.")
    steps = [
        f"{name} ({', '.join(f'{step}, {count} times' for step, count in counts.items())})"
        for name in dict.fromkeys([*rows, *names])
        if (counts := failed_steps(run, name))
    ]
    if steps:
        said.append(f"Compressors failed, and their input went on as it was: {_some(steps)}.")
    return said


def _within(found: Recommendation) -> Candidate | None:
    return next((row for row in found.others if row.loss <= found.max_loss.limit + TINY), None)


def _some(names: list[str], join: str = ", ") -> str:
    more = len(names) - _NAMED
    return join.join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


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
