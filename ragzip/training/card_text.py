"""Model cards as text: ``render`` writes one, ``parse`` reads it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ragzip import yaml_io
from ragzip.errors import ConfigError, ModelError
from ragzip.training.card import LIBRARY, Card, DataSource, Results, Row, number

MAX_BYTES = yaml_io.MAX_BYTES
_FORMAT = 1
_LABELS, _LIMITS = "How the labels were made", "Limits"
_PLAIN = ("name", "method", "licence", "command", "steps", "seed", "seconds")


def render(card: Card) -> str:
    """The card as Markdown with front matter."""
    own: dict[str, Any] = {"card": _FORMAT, **{name: getattr(card, name) for name in _PLAIN}}
    own |= {"sha256": dict(card.sha256), "environment": dict(card.environment), "config": dict(card.config)}
    own["data"] = [{"name": d.name, "split": d.split, "rows": d.rows, "licence": d.licence} for d in card.data]
    own["results"] = [
        {
            "data": table.data,
            "metrics": list(table.metrics),
            "rows": [{"name": row.name, "role": row.role, "values": list(row.values)} for row in table.rows],
        }
        for table in card.results
    ]
    head = {
        "license": card.licence.lower(),  # as hubs spell it
        "base_model": card.base_model,
        "library_name": LIBRARY,
        "tags": list(card.tags),
        "datasets": list(dict.fromkeys(source.name for source in card.data)),
        LIBRARY: own,
    }
    text = yaml.safe_dump(head, sort_keys=False, default_flow_style=None, width=110)
    return f"---\n{text}---\n\n{_body(card)}"


def _body(card: Card) -> str:
    sources = [[d.name, d.split, f"{d.rows:,}", d.licence] for d in card.data]
    batch = card.config.get("batch")
    drawn = f"{card.steps:,} batches of {batch} were drawn from these."
    drawn = drawn if isinstance(batch, int) and sources else ""
    given = " from the weights it went on from" if card.config.get("start") else ""
    minutes = f" in {card.seconds / 60:,.0f} minutes" if card.seconds else ""
    where = "".join(f", {key} {value}" for key, value in card.environment.items())
    return (
        "\n\n".join(
            [
                f"# {card.name}",
                card.about,
                f"Weights for `{card.method}`, trained from `{card.base_model}`. Licence: {card.licence}.",
                "## Training data",
                _table(["set", "split", "examples", "licence"], sources),
                *([drawn] if drawn else []),
                f"## {_LABELS}",
                card.labels,
                "## Results",
                *(_results(card) or ["Not measured yet."]),
                f"## {_LIMITS}",
                card.limits,
                "## Make it again",
                f"```\n{card.command}\n```",
                f"{card.steps:,} steps{minutes}, seed {card.seed}{where}. The config stands at the head of this file: "
                f"`ragzip train {card.method} FOLDER --out OTHER`, FOLDER being that of this file, trains it again"
                f"{given}.",
                "## Files",
                _table(["file", "SHA-256"], [[name, f"`{value}`"] for name, value in card.sha256.items()]),
            ]
        )
        + "\n"
    )


def _results(card: Card) -> list[str]:
    parts = []
    for table in card.results:
        names = [f"{m.removeprefix('-')}{' (less is better)' if m.startswith('-') else ''}" for m in table.metrics]
        rows = [[row.name, row.role, *(number(value) for value in row.values)] for row in table.rows]
        parts += [f"### {table.data}", _table(["", "", *names], rows)]
    losses = [loss for table in card.results for loss in table.losses()]
    missing = {"trained", "untrained", "baseline"} - {row.role for table in card.results for row in table.rows}
    if losses:
        parts.append("\n".join(f"- {loss}." for loss in losses))
    elif missing and parts:
        parts.append(f"Nothing follows from this: no row is {' or '.join(sorted(missing))}.")
    elif parts:
        parts.append("By each of these numbers, better than its untrained self and every baseline.")
    return parts


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def parse(text: str, source: str) -> Card:
    """The card in a Markdown text.

    Args:
        text: With line feeds as line ends.
        source: The file, for errors.

    Raises:
        ModelError: No front matter, or a field that is missing or of another kind.
    """
    start, _, rest = text.partition("---\n")
    front, end, body = rest.partition("\n---\n")
    if start.strip("\ufeff \n") or not end:
        raise ModelError(f"{source} has no front matter between two lines of ---", hint="Is it a model card?")
    try:
        values, _ = yaml_io.parse(front, source=source)
    except ConfigError as error:
        raise ModelError(error.message, hint="Get the model's files again.") from error
    head = _Fields(values, "", source)
    own = head.inner(LIBRARY)
    if own.get("card", int) != _FORMAT:
        raise own.wrong("card", f"is not {_FORMAT}: another version of ragzip wrote it")
    sections = _sections(body)
    about = sections[""].partition("\n")[2].rpartition("\n\n")[0]
    return Card(
        base_model=head.get("base_model", str),
        tags=tuple(head.strings("tags")),
        about=about,
        labels=sections.get(_LABELS, ""),
        limits=sections.get(_LIMITS, ""),
        name=own.get("name", str),
        method=own.get("method", str),
        licence=own.get("licence", str),
        command=own.get("command", str),
        steps=own.get("steps", int),
        seed=own.get("seed", int),
        seconds=own.get("seconds", float),
        sha256={key: str(value) for key, value in own.get("sha256", dict).items()},
        environment={key: str(value) for key, value in own.get("environment", dict).items()},
        config=own.get("config", dict),
        data=tuple(
            DataSource(d.get("name", str), d.get("split", str), d.get("rows", int), d.get("licence", str))
            for d in own.each("data")
        ),
        results=tuple(
            Results(t.get("data", str), tuple(t.strings("metrics")), tuple(map(_row, t.each("rows"))))
            for t in own.each("results")
        ),
    )


def _row(fields: _Fields) -> Row:
    values = fields.get("values", list)
    for i, value in enumerate(values):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise fields.wrong(f"values.{i}", "is no number")
    return Row(fields.get("name", str), fields.get("role", str), tuple(values))


def _sections(body: str) -> dict[str, str]:
    """Heading of the second level -> text below it; "" for what stands before the first."""
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in body.split("\n"):
        if line.startswith("## "):
            current = line[3:]
            found[current] = []  # a heading that stands twice keeps the later text, which write_card notices
        else:
            found[current].append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


class _Fields:
    """A mapping of the front matter, that knows where it stands."""

    def __init__(self, values: Any, path: str, source: str) -> None:
        self.path, self.source = path, source
        if not isinstance(values, Mapping):
            raise ModelError(f"{source}: {path or 'the front matter'} is no mapping", hint="Is it a model card?")
        self.values = values

    def wrong(self, key: str, problem: str) -> ModelError:
        """The error for a key."""
        path = f"{self.path}.{key}" if self.path else key
        return ModelError(f"{self.source}: {path} {problem}", hint="Get the model's files again, or mend the card.")

    def get(self, key: str, kind: type[Any]) -> Any:
        """A value of a kind; a whole number serves as a number."""
        if key not in self.values:
            raise self.wrong(key, "is missing")
        value = self.values[key]
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise self.wrong(key, f"should be of type {kind.__name__}")
        return value

    def inner(self, key: str) -> _Fields:
        """The mapping below a key."""
        return _Fields(self.get(key, dict), f"{self.path}.{key}" if self.path else key, self.source)

    def each(self, key: str) -> list[_Fields]:
        """The mappings in a list."""
        path = f"{self.path}.{key}" if self.path else key
        return [_Fields(item, f"{path}.{i}", self.source) for i, item in enumerate(self.get(key, list))]

    def strings(self, key: str) -> list[str]:
        """A list of strings."""
        found: list[str] = self.get(key, list)
        if not all(isinstance(item, str) for item in found):
            raise self.wrong(key, "should hold strings only")
        return found
