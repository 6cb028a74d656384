"""``ragzip compress``: a filter for text or passages, usable in a shell pipe without any index or generator."""

from __future__ import annotations

import json
import math
import sys
from typing import Annotated, Any

import typer

from ragzip.cli.console import note, waiting, writes_unicode
from ragzip.cli.query import build_stack
from ragzip.errors import UsageError
from ragzip.types import CompressionResult, Passage, Query, Segment, Span, TextSegment, context_of

MAX_INPUT = 64_000_000
_TEXT_KEYS = ("text", "contents", "content", "body", "passage")


def compress(
    query: Annotated[str, typer.Option("--query", "-q", help="What the text should answer.")],
    compress: Annotated[
        list[str] | None, typer.Option("--compress", "-c", help="By name, repeatable; default sentence_filter.")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option("--budget", "-b", min=0, help="Most tokens of the output; default 400 where no limit is given."),
    ] = None,
    keep: Annotated[float | None, typer.Option("--keep", help="Share of tokens kept, above 0 up to 1.")] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", "-t", help="Least score kept.")] = None,
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Whose tokens are counted.")] = "smollm2-135m-instruct",
    format_: Annotated[str, typer.Option("--format", help="text, jsonl, or auto by the first line.")] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="One JSON object with all passages, for expand.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No summary on standard error.")] = False,
) -> None:
    """Compress standard input to standard output.

    Text in, text out. JSON lines of passages ({"id", "title", "text"}) in, the same lines out with compressed text
    and the spans it came from; passages with nothing left are left out. Text made from several lines has their
    "sources" instead. All lines share one budget. With --json, what ragzip expand reads.

    \b
    Example:
        cat notes.txt | ragzip compress --query "Who pays?" --budget 200
    """  # noqa: D301 - a backspace, by which the help keeps lines apart
    if not query.strip():
        raise UsageError("the query is empty", hint='Say what the text should answer: --query "..."')
    if format_ not in ("auto", "text", "jsonl"):
        raise UsageError(f"--format {format_!r} is not text, jsonl or auto")
    given = {"budget": budget, "keep": keep, "threshold": threshold}
    stack_parts = build_stack(compress or ["sentence_filter"], {k: v for k, v in given.items() if v is not None})
    text = _read()
    rows = _rows(text, format_)
    from ragzip.models import CountTokens
    from ragzip.protocols import Stack
    from ragzip.tokens import TokenCounter

    stack: Stack[TextSegment, Segment] = Stack(stack_parts)
    _require_text(stack)
    passages = tuple(map(_passage, rows, _ids(rows))) if rows else (Passage("stdin", text),)
    counter = TokenCounter(CountTokens(tokenizer), titles=bool(rows))
    with waiting("compressing"):
        result = stack.run([context_of(Query(query), passages)], counter=counter)[0]
    if json_:
        _write_json(result)
    else:
        _write(result, rows)
    if not quiet:
        _summary(result)


def _require_text(stack: Any) -> None:
    from ragzip.pipelines.check import SOFT, flatten, flow_of
    from ragzip.registry import name_of

    for part in flatten(stack):
        if SOFT in (flow_of(part).gives or ()):
            raise UsageError(
                f"{name_of(part)!r} produces soft segments, and this command writes text",
                hint="Use a soft compressor in a pipeline with a local generator: ragzip query --pipeline",
            )


def _read() -> str:
    if sys.stdin.isatty():
        note("reading text from the terminal; end with Ctrl-D")
    data = sys.stdin.buffer.read(MAX_INPUT + 1)
    if len(data) > MAX_INPUT:
        raise UsageError(f"more than {MAX_INPUT // 1_000_000} MB on standard input", hint="Index it: ragzip index")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not UTF-8 (byte {error.start:,})", hint="Convert it: iconv -f latin1 -t utf-8"
        ) from error


def _rows(text: str, format_: str) -> list[dict[str, Any]]:
    """The passages of JSON lines, or none where the input is plain text."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if format_ == "text" or not lines:
        return []
    if format_ == "auto" and not _is_json(lines[0][1], text):
        return []
    from ragzip.models.tokenizer import well_formed

    rows = []
    for number, line in lines:
        try:
            row = json.loads(line, parse_constant=_refuse_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"standard input, line {number}: not JSON: {error}", hint="Or pass --format text."
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get(_text_key(row)), str):
            raise UsageError(
                f"standard input, line {number}: needs an object with a 'text'", hint="Or pass --format text."
            )
        row[_text_key(row)] = well_formed(row[_text_key(row)])
        rows.append(row)
    return rows


def _is_json(line: str, text: str) -> bool:
    """Whether the input is JSON lines; text that merely begins with a bracket is text."""
    for part in (line, text if text.lstrip()[:1] in ("[", "{") else ""):
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and part is not line and "\n" in part.strip():
            raise UsageError(
                "standard input is one JSON object over several lines, not JSON lines",
                hint="One object a line: jq -c ., or --format text",
            )
        if isinstance(value, list):
            raise UsageError(
                "standard input is a JSON array, not JSON lines",
                hint="One object a line: jq -c '.[]', or --format text",
            )
        return isinstance(value, dict)
    return False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    """A number as it stands in JSON: one beyond all numbers could be read, and not be written again."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is larger than any number can be")
    return value


def _text_key(row: dict[str, Any]) -> str:
    return next((key for key in _TEXT_KEYS if key in row), "text")


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    """What the passages are called: as the rows say where that tells them apart, else by their positions."""
    given = [str(row["id"]) for row in rows if isinstance(row.get("id"), str | int) and row["id"] != ""]
    return given if len(set(given)) == len(rows) else [str(position) for position in range(len(rows))]


def _passage(row: dict[str, Any], name: str) -> Passage:
    score = row.get("score")
    number = None
    if isinstance(score, int | float) and not isinstance(score, bool) and abs(score) <= sys.float_info.max:
        number = float(score)
    title = row.get("title")
    return Passage(name, row[_text_key(row)], title if isinstance(title, str) else "", number)


def _write(result: CompressionResult[Segment], rows: list[dict[str, Any]]) -> None:
    segments = [s for s in result.context.segments if isinstance(s, TextSegment) and s.text]
    from ragzip.tokens import SEPARATOR

    if not rows:
        text = SEPARATOR.join(s.text for s in segments)
        typer.echo(text, nl=not text.endswith("\n") and bool(text))
        return
    from ragzip.models.tokenizer import well_formed

    position = {name: number for number, name in enumerate(_ids(rows))}
    parts = [(segment.text, [(position[span.passage_id], span) for span in segment.sources]) for segment in segments]
    lines: list[tuple[str, list[tuple[int, Span]]]] = []
    for text, places in parts:  # what is left of one row is one line
        rows_of = {at for at, _ in places}
        if lines and len(rows_of) == 1 and rows_of == {at for at, _ in lines[-1][1]}:
            before, known = lines[-1]
            lines[-1] = (f"{before}{SEPARATOR}{text}", [*known, *places])
        else:
            lines.append((text, places))
    for text, places in lines:
        line = _line(text, places, rows)
        typer.echo(well_formed(json.dumps(line, ensure_ascii=not writes_unicode(), allow_nan=False)))


def _line(text: str, places: list[tuple[int, Span]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is left of a row; where it came from several, with nothing that only one of them says."""
    row = rows[places[0][0] if places else 0]
    if len({position for position, _ in places}) <= 1:
        return {**row, _text_key(row): text, "spans": [[span.start, span.end] for _, span in places]}
    names = [position if rows[position].get("id") is None else rows[position]["id"] for position, _ in places]
    sources = [{"id": name, "start": s.start, "end": s.end} for name, (_, s) in zip(names, places, strict=True)]
    return {_text_key(row): text, "sources": sources}


def _write_json(result: CompressionResult[Segment]) -> None:
    """The compressed context with the passages it came from, which ``ragzip expand`` reads."""
    from ragzip.models.tokenizer import well_formed
    from ragzip.pipelines.originals import context_dict

    counts = {"tokens_in": result.tokens_in, "tokens_out": result.tokens_out}
    typer.echo(well_formed(json.dumps({**context_dict(result.context), **counts}, ensure_ascii=not writes_unicode())))


def _summary(result: CompressionResult[Segment]) -> None:
    from ragzip.cli.answers import ratio
    from ragzip.types import Status

    note(f"{result.tokens_in:,} -> {result.tokens_out:,} tokens ({ratio(result.ratio)}) in {result.seconds:.2f} s")
    for step in result.steps:
        if step.status is not Status.OK:
            note(f"  {step.name}: {step.status}: {step.detail}")
