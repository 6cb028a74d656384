"""The static parts of the page as HTML: what was run, the results, break-even and savings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ragzip.evaluation.report import plots, svg, view
from ragzip.evaluation.report.measures import heading, is_quality, show_value
from ragzip.evaluation.report.view import RunView
from ragzip.evaluation.report.words import finite, mapping, plain, word

_SHAPES = {
    "o": '<circle cx="8" cy="8" r="5"/>',
    "s": '<rect x="3.5" y="3.5" width="9" height="9"/>',
    "^": '<path d="M8 2.5 13.5 13h-11z"/>',
    "v": '<path d="M8 13.5 2.5 3h11z"/>',
    "<": '<path d="M2.5 8 13 2.5v11z"/>',
    ">": '<path d="M13.5 8 3 2.5v11z"/>',
    "D": '<path d="M8 2 14 8l-6 6-6-6z"/>',
    "P": '<path d="M6 2.5h4V6h3.5v4H10v3.5H6V10H2.5V6H6z"/>',
    "X": '<path d="M4.5 2 8 5.5 11.5 2 14 4.5 10.5 8 14 11.5 11.5 14 8 10.5 4.5 14 2 11.5 5.5 8 2 4.5z"/>',
}
_MARKS = {"better": "▲", "worse": "▼"}
_WORDS = {"better": "significantly better", "worse": "significantly worse", "n.s.": "not significant (n.s.)"}


def _key(shape: str, style: str) -> str:
    """A shape as it stands in a legend."""
    return f'<svg class="key" viewBox="0 0 16 16" aria-hidden="true" style="{style}">{_SHAPES[shape]}</svg>'


def text(value: object) -> str:
    """Any value as escaped text."""
    return escape(plain(value))


def name_of(name: str) -> str:
    """A row's name, which may break where its parts meet."""
    return re.sub(r"(?<=_)(?=[^@=_])|(?<=.)(?=[@=])", "<wbr>", text(word(name)))


def header(run: RunView) -> str:
    """What was run, on what, with which versions."""
    data = mapping(run.summary.get("data")) or mapping(run.config.get("data"))
    environment = run.environment
    facts = {
        "Data": f"{data.get('name', 'unnamed')}" + (f", {data['split']}" if data.get("split") else ""),
        "Data version": data.get("version", "–"),
        "Data hash": str(data.get("sha256") or "–"),
        "Questions": view.sizes(run, view.quality_names(run)),
        "Seed": run.config.get("seed", "–"),
        "Machine": ", ".join(
            part
            for part in (
                str(environment.get("cpu") or environment.get("platform") or ""),
                f"{environment['cores']} cores" if environment.get("cores") else "",
                f"{environment['memory_gib']:g} GiB" if finite(environment.get("memory_gib")) else "",
                f"device {environment['device']}" if environment.get("device") else "",
                f"auto is {environment['computes']}" if environment.get("computes") else "",
            )
            if part
        ),
        "ragzip": str(run.config.get("ragzip", "–"))
        + (f", commit {str(environment['commit'])[:12]}" if environment.get("commit") else ""),
        "Versions": ", ".join(
            [f"python {environment['python']}"] * bool(environment.get("python"))
            + [f"{name} {version}" for name, version in mapping(environment.get("versions")).items()]
        ),
    }
    items = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in facts.items() if v not in ("", None))
    return f'<dl class="facts">{items}</dl>{_config(run)}'


def _config(run: RunView) -> str:
    import yaml

    shown = yaml.safe_dump(_simple(run.config), sort_keys=False, allow_unicode=True, width=100)
    return f'<details><summary>Configuration</summary><pre tabindex="0">{text(shown)}</pre></details>'


def _simple(value: Any) -> Any:
    """The same with plain containers, as YAML can write it."""
    if isinstance(value, Mapping):
        return {str(key): _simple(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_simple(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def results(run: RunView) -> str:
    """The table of all rows and metrics, and the differences from the baseline in words."""
    metrics = view.metric_names(run)
    if not metrics:
        return "<p>No metric has a value.</p>"
    bases = view.baselines(run)
    head = "".join(_heading(heading(metric), "number") for metric in metrics)
    tops = {metric: view.best(run, metric) for metric in metrics}
    body = []
    for name in run.names:
        cells = "".join(_cell(run, name, metric, name in tops[metric]) for metric in metrics)
        note = "baseline" if name in bases else "reads the labels" if view.uses_labels(run, name) else ""
        note = f'<span class="sub">{note}</span>' if note else ""
        kind = "base" if name in bases else view.kind(run, name)
        body.append(f'<tr class="{text(kind)}"><th scope="row">{name_of(name)}{note}</th>{cells}</tr>')
    remarks = ["Quality in percent with 95 % intervals below; costs are means a question."]
    if bases:
        remarks.append(
            f"The third line of a cell is the difference from {view.against(run)}: ▲ significantly better, "
            f"▼ significantly worse, n.s. not significant; p-values are {view.CORRECTED}."
        )
    remarks.append("The best value of a column is bold. Press a heading to sort.")
    table = (
        f'<table id="results" class="sortable"><thead><tr>{_heading("Pipeline", "name")}{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    failed = "".join(f'<p class="remark failed">{text(remark)}</p>' for remark in view.failures(run))
    remark = f'<p class="remark">{text(" ".join(remarks))}</p>'
    return f"{remark}{failed}{_scroll('Results', table)}{_differences(run, metrics)}"


def _heading(label: str, kind: str) -> str:
    return f'<th scope="col" class="{kind}"><button type="button" class="sort">{text(label)}</button></th>'


def _scroll(label: str, table: str) -> str:
    return f'<div class="scroll" role="region" aria-label="{text(label)}" tabindex="0">{table}</div>'


def _cell(run: RunView, name: str, metric: str, top: bool) -> str:
    found = view.cell(run, name, metric)
    if found.mean is None:
        return '<td class="none">–</td>'
    shown = show_value(metric, found.mean)
    shown = f"<b>{shown}</b>" if top else shown
    if found.low is not None and found.high is not None:
        low, high = show_value(metric, found.low), show_value(metric, found.high)
        shown += f'<span class="sub">[{low}, {high}]</span>'
    if is_quality(metric) and (verdict := view.verdict(run, name, metric)):
        sign, kind = signed(metric, verdict.difference), verdict.words.replace(".", "")
        mark = _MARKS.get(verdict.words)
        # The arrows are for the eye; who listens gets the words.
        said = f'<span aria-hidden="true">{mark}</span>' if mark else "n.s."
        said += f'<span class="spoken">{_WORDS[verdict.words]}</span>' if mark else ""
        shown += f'<span class="sub {kind}">{sign} {said}</span>'
    return f'<td data-value="{found.mean!r}">{shown}</td>'


def signed(metric: str, value: float | None) -> str:
    """A difference with its sign."""
    if value is None:
        return "–"
    return ("+" if value > 0 else "−" if value < 0 else "") + show_value(metric, abs(value))


def _differences(run: RunView, metrics: Sequence[str]) -> str:
    """Every tested difference with its interval and p values, in words."""
    rows = []
    for name in run.names:
        for metric in metrics:
            if (v := view.verdict(run, name, metric)) is None:
                continue
            p, corrected = ("–" if x is None else "< 0.001" if x < 0.001 else f"{x:.3f}" for x in (v.p, v.p_corrected))
            rows.append(
                f'<tr><th scope="row">{name_of(name)}</th><td class="name">{text(heading(metric))}</td>'
                f'<td data-value="{v.difference!r}">{signed(metric, v.difference)}</td>'
                f"<td>{signed(metric, v.low)} to {signed(metric, v.high)}</td>"
                f'<td data-value="{"" if v.p is None else repr(v.p)}">{p}</td>'
                f'<td data-value="{"" if v.p_corrected is None else repr(v.p_corrected)}">{corrected}</td>'
                f'<td>{v.n:,}</td><td class="name {v.words.replace(".", "")}">{_WORDS[v.words]}</td></tr>'
            )
    if not rows:
        return ""
    base = text(view.against(run))
    labels = [("Pipeline", "name"), ("Metric", "name"), ("Difference", "number"), ("95 % interval", "number")]
    labels += [("p", "number"), ("p corrected", "number"), ("n", "number"), ("Verdict", "name")]
    head = "".join(_heading(label, kind) for label, kind in labels)
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    remark = f'<p class="remark">Corrected p-values are {view.CORRECTED} (Holm).</p>'
    shown = f"{remark}{_scroll('Differences', table)}"
    return f"<details><summary>Differences from {base}, spelled out</summary>{shown}</details>"


def families_legend(run: RunView) -> str:
    """Which shape and colour stands for which rows."""
    items = []
    for family, look in plots.looks(run).items():
        style = f"fill:var({'--card' if look.hollow else look.variable});stroke:var({look.variable})"
        members = [label for stem, label in view.families(run.names).values() if stem == family and label != family]
        more = f' <span class="muted">{text(word(" ".join(members)))}</span>' if members else ""
        items.append(f"<li>{_key(look.marker, style)}{text(word(family))}{more}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def stages_legend() -> str:
    """The colours of the stages."""
    keys = "".join(f"<li>{_key('s', f'fill:var(--s{i})')}{name}</li>" for i, name in enumerate(plots.STAGES))
    return f'<ul class="legend">{keys}</ul>'


def break_even(run: RunView) -> str:
    """From how many context tokens on each compressor pays."""
    found = mapping(run.summary.get("break_even"))
    rows = mapping(found.get("rows"))
    if not rows:
        return f'<p class="remark">{text(found["note"])}</p>' if found.get("note") else ""
    window = finite(found.get("window"))
    never = f"not within {window:,.0f}" if window else "never"
    drawn, more = plots.drawn_curves(run)
    body = []
    for name, row in rows.items():
        row = mapping(row)
        note = f'<span class="sub note">{text(row["note"])}</span>' if row.get("note") else ""
        key = ""
        if name in drawn:
            index = drawn.index(name)
            style = f"fill:var(--c{index % len(svg.SERIES)})"
            key = _key(svg.MARKERS[index % len(svg.MARKERS)], style)
        body.append(
            f'<tr><th scope="row">{key}{name_of(name)}</th>'
            f"<td>{_pays(row, never)}{note}</td>"
            f"<td>{_micro(row.get('compress_per_token'))}</td><td>{_micro(row.get('prefill_per_token'))}</td></tr>"
        )
    labels = ("Pipeline", "Pays from", "Compressor, a token", "Prefill, a token")
    head = "".join(
        f'<th scope="col" class="{"name" if label == "Pipeline" else "number"}">{label}</th>' for label in labels
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    more_note = f'<p class="remark">{more} more are in the table only.</p>' if more else ""
    return f"{more_note}{_scroll('Break-even', table)}"


def _pays(row: Mapping[str, Any], never: str) -> str:
    """From where on it pays, and the 95 % interval of that where there is one."""
    pays, low, high = (finite(row.get(part)) for part in ("pays_from", "low", "high"))
    if not row.get("points"):
        return "not known"
    shown = never if pays is None else f"{pays:,.0f} tokens"
    if low is not None:
        shown += f'<span class="sub">[{low:,.0f}, {"never" if high is None else f"{high:,.0f}"}]</span>'
    return shown


def _micro(value: object) -> str:
    seconds = finite(value)
    return "–" if seconds is None else f"{seconds * 1e6:,.0f} µs" if seconds >= 1e-5 else f"{seconds * 1e6:.2g} µs"


def savings(run: RunView) -> str:
    """What each row saves on an API, for 1,000 questions; "" where no prices were given."""
    found = mapping(run.summary.get("savings"))
    rows = mapping(found.get("rows"))
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row">{name_of(name)}</th><td><b>{_money(row.get("per_1000"))}</b></td>'
        f"<td>{_money(row.get('low'))} to {_money(row.get('high'))}</td></tr>"
        for name, row in ((name, mapping(row)) for name, row in rows.items())
    )
    prices = f"At {_money(found.get('price_in'))} a million tokens in and {_money(found.get('price_out'))} out."
    labels = ("Saved for 1,000 questions", "95 % interval")
    head = '<th scope="col" class="name">Pipeline</th>' + "".join(f'<th scope="col">{label}</th>' for label in labels)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<p class="remark">{prices}</p>{_scroll("Savings", table)}'


def _money(value: object) -> str:
    amount = finite(value)
    if amount is None:
        return "–"
    sign = "−" if amount < 0 else ""
    return f"{sign}${abs(amount):,.2f}" if abs(amount) >= 1 else f"{sign}${abs(amount):.4g}"
