"""``ragzip expand``: from compressed output back to the text it was made from."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragzip.cli.console import note, print_json, shown
from ragzip.errors import UsageError

if TYPE_CHECKING:
    from ragzip.pipelines.originals import Excerpt
    from ragzip.types import Context, Span, TextSegment

_MOST_INPUT = 256_000_000
_DIGITS = 12  # of a place in a text


def expand(
    file: Annotated[
        Path | None, typer.Argument(help="JSON of compress --json or query --json; standard input without it.")
    ] = None,
    segment: Annotated[int | None, typer.Option("--segment", min=1, help="A segment, by its number from 1.")] = None,
    passage: Annotated[str | None, typer.Option("--passage", help="A whole passage, by its id.")] = None,
    citation: Annotated[int | None, typer.Option("--citation", min=1, help="A citation, by its number from 1.")] = None,
    span: Annotated[str | None, typer.Option("--span", help="Characters of a passage: ID:START-END.")] = None,
    around: Annotated[int, typer.Option("--around", min=0, help="Sentences before and after.")] = 0,
    characters: Annotated[int, typer.Option("--characters", min=0, help="Characters before and after.")] = 0,
    line: Annotated[int | None, typer.Option("--line", min=1, help="Which of several JSON lines, from 1.")] = None,
    index: Annotated[
        str | None, typer.Option("--index", "-i", help="Where passages are that are not in the JSON.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object for each stretch of text.")] = False,
) -> None:
    """Print the original text of a segment, passage, citation or span of compressed output.

    \b
    Example:
        ragzip compress --json -q "Who pays?" < notes.txt > short.json
        ragzip expand short.json --segment 1 --around 2
        ragzip query "Who pays?" -i kb/ --json | ragzip expand -i kb/ --citation 1 --around 1
    """  # noqa: D301 - a backspace, by which the help keeps lines apart
    from ragzip.pipelines.originals import context_from_dict, span_from
    from ragzip.pipelines.originals import expand as original

    given = [name for name, value in _named(segment, passage, citation, span).items() if value is not None]
    value = _one(_read(file), line)
    inner = value.get("context")
    context = context_from_dict(inner if isinstance(inner, dict) else value)
    listed = value.get("citations")
    citations = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    if len(given) != 1:
        problem = f"{' and '.join(given)} cannot go together" if given else "say what to expand"
        raise UsageError(problem, hint=_there_is(context, citations))
    what: Span | TextSegment | str
    if segment is not None:
        if segment > len(context.segments):
            raise UsageError(f"no segment {segment}", hint=_there_is(context, citations))
        what = context.segments[segment - 1]
        needed = [s.passage_id for s in what.sources]
    elif citation is not None:
        if citation > len(citations):
            raise UsageError(f"no citation {citation}", hint=_there_is(context, citations))
        what = span_from(citations[citation - 1], f"citations[{citation - 1}]")
        needed = [what.passage_id]
    elif span is not None:
        what = _span(span)
        needed = [what.passage_id]
    else:
        what = str(passage)
        needed = [what]
    if index is not None:
        context = _with_passages(context, needed, index)
        _check_same(context, what, citations[citation - 1].get("text") if citation is not None else None)
    elif not context.passages:
        raise UsageError(
            "the JSON holds no passages", hint="Pass --index, or write them: ragzip query --json --show-context"
        )
    _print(original(context, what, sentences=around, characters=characters), json_)


def _named(*values: object) -> dict[str, object]:
    return dict(zip(("--segment", "--passage", "--citation", "--span"), values, strict=True))


def _read(file: Path | None) -> str:
    if file is None:
        if sys.stdin.isatty():
            note("reading JSON from the terminal; end with Ctrl-D")
        data, where = sys.stdin.buffer.read(_MOST_INPUT + 1), "standard input"
    else:
        if not file.is_file():
            raise UsageError(f"no file {file}", hint="Write one: ragzip compress --json ... > FILE")
        where = str(file)
        with file.open("rb") as handle:
            data = handle.read(_MOST_INPUT + 1)
    if len(data) > _MOST_INPUT:
        raise UsageError(f"{where}: more than {_MOST_INPUT // 1_000_000} MB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 (byte {error.start:,})") from error


def _one(text: str, line: int | None) -> Mapping[str, Any]:
    """The one JSON object of the input."""
    lines = [row for row in text.split("\n") if row.strip()]
    try:
        found = [json.loads(text)] if line is None and len(lines) < 2 else [json.loads(row) for row in lines]
    except (ValueError, RecursionError):
        found = []
    if not found:
        try:
            found = [json.loads(text)]
        except (ValueError, RecursionError) as error:
            raise UsageError(f"not JSON: {error}", hint="Write it with --json: ragzip compress, query") from error
    if len(found) > 1 and line is None:
        raise UsageError(f"{len(found)} JSON lines", hint="Choose one: --line 1")
    if line is not None and line > len(found):
        raise UsageError(f"no line {line}", hint=f"There are {len(found)}.")
    value = found[(line or 1) - 1]
    if not isinstance(value, dict) or not value.keys() & {"passages", "context", "citations"}:
        raise UsageError(
            "the JSON has no passages, context or citations", hint="Write it with --json: ragzip compress, query"
        )
    return value


def _span(text: str) -> Span:
    from ragzip.types import Span

    name, _, place = text.rpartition(":")
    start, _, end = place.partition("-")
    places = [place for place in (start, end) if place.isascii() and place.isdigit() and len(place) <= _DIGITS]
    if not name or len(places) < 2 or int(start) > int(end):
        raise UsageError(f"--span {text!r} is not ID:START-END", hint="For example: --span guide.md#3:120-180")
    return Span(name, int(start), int(end))


def _with_passages(context: Context[TextSegment], needed: list[str], folder: str) -> Context[TextSegment]:
    """The context with the passages of an index that it lacks."""
    from ragzip.indexes import Index

    known = {passage.id for passage in context.passages}
    opened = Index.open(folder)
    try:
        found = [opened.passage(name) for name in dict.fromkeys(needed) if name not in known]
    except KeyError as error:
        raise UsageError(f"no passage {error.args[0]!r} in {folder}", hint="Is it the index of the answer?") from error
    return dataclasses.replace(context, passages=(*context.passages, *found))


def _check_same(context: Context[TextSegment], what: Span | TextSegment | str, cited: object) -> None:
    """Whether what was copied from passages still stands there; of what was rewritten nobody can tell.

    Raises:
        UsageError: It does not: the passages have changed since.
    """
    from ragzip.models.tokenizer import well_formed
    from ragzip.types import TextSegment

    spans = what.sources if isinstance(what, TextSegment) else () if isinstance(what, str) else (what,)
    texts = {passage.id: passage.text for passage in reversed(context.passages)}
    found = [texts.get(span.passage_id, "")[span.start : span.end] for span in spans]
    joined, said, copied = "".join(found), cited, isinstance(cited, str)
    if isinstance(what, TextSegment):
        joined, said = what.joiner.join(found), what.text
        length = sum(span.end - span.start for span in spans) + len(what.joiner) * (len(spans) - 1)
        copied = bool(spans) and length == len(what.text)
    if copied and well_formed(joined) != well_formed(str(said)):
        names = ", ".join(dict.fromkeys(span.passage_id for span in spans))
        raise UsageError(
            f"{names} has changed since: what was taken from it stands there no more",
            hint="Ask again, or expand with the index as it was.",
        )


def _there_is(context: Context[TextSegment], citations: list[Any]) -> str:
    passages = list(dict.fromkeys(passage.id for passage in context.passages))
    parts = [
        f"--segment 1 to {len(context.segments)}" if context.segments else "no segment",
        f"--citation 1 to {len(citations)}" if citations else "no citation",
        f"--passage {', '.join(passages[:6])}{', ...' if len(passages) > 6 else ''}" if passages else "no passage",
    ]
    return f"There is {'; '.join(parts)}."


def _print(excerpts: tuple[Excerpt, ...], as_json: bool) -> None:
    from ragzip.models.tokenizer import well_formed

    for number, excerpt in enumerate(excerpts):
        excerpt = dataclasses.replace(excerpt, text=well_formed(excerpt.text), title=well_formed(excerpt.title))
        if as_json:
            print_json(dataclasses.asdict(excerpt))
            continue
        if len(excerpts) > 1:
            named = f"{excerpt.passage_id}:{excerpt.start}-{excerpt.end}"
            head = shown(f"[{named}]" + (f" {excerpt.title}" if excerpt.title else ""))
            typer.echo(("\n" if number else "") + head)
        typer.echo(shown(excerpt.text), nl=not excerpt.text.endswith("\n"))
