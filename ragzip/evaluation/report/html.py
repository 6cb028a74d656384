"""A run as one self-contained HTML page: nothing is fetched, nothing of the data is run as code."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template

from ragzip.evaluation.report import examples, plots, sections, view
from ragzip.evaluation.report.measures import heading
from ragzip.evaluation.report.view import RunView
from ragzip.evaluation.report.words import mapping, word

_PREFERRED = ("f1", "em", "match", "rouge_l", "answer_in_context", "sentence_f1")
_PLOTTED_FIRST = 2
_COSTS = ("tokens_out", "ttft")
# Signs that could end a script element, open a tag or break a line of JavaScript.
_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def write(run: RunView, path: str | Path) -> Path:
    """Write the page; a page that was there before is replaced as a whole or not at all.

    Args:
        run: What to show.
        path: The file.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.
    """
    target = Path(path)
    content = render(run).encode("utf-8")
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def render(run: RunView) -> str:
    """The page as text, the same for the same run."""
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = mapping(run.summary.get("data")) or mapping(run.config.get("data"))
    title = f"{data.get('name', 'ragzip')} – evaluation of context compression"
    browser = examples.collect(run)
    return Template(_part("page.html")).substitute(
        policy=policy,
        title=sections.text(word(title)),
        style=_part("page.css"),
        header=sections.header(run),
        results=sections.results(run),
        pareto=_pareto(run),
        stages=_stages(run),
        break_even=_break_even(run),
        savings=_section("savings", "Savings", sections.savings(run)),
        left_out=_left_out(browser["total"], len(browser["questions"])),
        data=json.dumps(browser, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_UNSAFE),
        script=script,
    )


def _part(name: str) -> str:
    return files("ragzip.evaluation.report").joinpath(name).read_text("utf-8")


def _section(key: str, title: str, content: str) -> str:
    if not content:
        return ""
    return (
        f'<section id="{key}" class="card" aria-labelledby="{key}-h"><h2 id="{key}-h">{title}</h2>{content}</section>'
    )


def _pareto(run: RunView) -> str:
    """Each main quality metric against tokens and against time to first token."""
    measured = view.quality_names(run)
    known = [str(key).rpartition("/")[0] for key in mapping(run.summary.get("fronts"))]
    wanted = [metric for metric in (*_PREFERRED, *known) if metric in measured] or measured
    wanted = list(dict.fromkeys(wanted))
    shown = [
        (m, "".join(_figure(plots.pareto(run, m, cost, f"pareto{n}{cost}")) for cost in _COSTS))
        for n, m in enumerate(wanted)
    ]
    shown = [(metric, figures) for metric, figures in shown if figures]
    if not shown:
        return ""
    first = "".join(figures for _, figures in shown[:_PLOTTED_FIRST])
    rest = "".join(figures for _, figures in shown[_PLOTTED_FIRST:])
    remark = (
        '<p class="remark">Up and to the left is better. The dashed line is the front: no row is both cheaper and '
        "better than one on it. Hollow points read the labels and are no competitors. Lines through points are "
        "95 % intervals. Point at one to read its name and numbers.</p>"
    )
    content = f'{remark}{sections.families_legend(run)}<div class="figures">{first}</div>'
    if rest:
        names = ", ".join(heading(metric) for metric, _ in shown[_PLOTTED_FIRST:])
        content += f'<details><summary>{sections.text(names)}</summary><div class="figures">{rest}</div></details>'
    return _section("pareto", "Quality against cost", content)


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>" if svg else ""


def _stages(run: RunView) -> str:
    figure = plots.stages(run, "stages")
    if not figure:
        return ""
    remark = '<p class="remark">Means of the questions, the compressor\'s own time included.</p>'
    return _section(
        "stages", "Time by stage", f'{remark}{sections.stages_legend()}<div class="figures">{_figure(figure)}</div>'
    )


def _break_even(run: RunView) -> str:
    table = sections.break_even(run)
    if not table:
        return ""
    figure = plots.break_even(run, "even")
    remark = (
        '<p class="remark">The thick line is the time to first token without compression. A compressor pays from '
        "where its curve falls below it; dotted lines mark these points. For this generator on this machine.</p>"
    )
    return _section("break-even", "Break-even", f'{remark}<div class="split">{_figure(figure)}<div>{table}</div></div>')


def _left_out(total: int, shown: int) -> str:
    if shown >= total:
        return f"All {total:,} questions."
    return (
        f"{shown:,} of {total:,} questions: mostly those where rows differ most from the baseline, and a sample of "
        f"the others; {total - shown:,} were left out."
    )
