"""An answer as JSON and as text for a terminal."""

from __future__ import annotations

import math
from typing import Any

from ragzip.cli.console import human_bytes, out, shown
from ragzip.types import Answer, Status


def as_dict(answer: Answer, *, context: bool = False) -> dict[str, Any]:
    """The object that ``query --json`` prints; ratio is null where nothing is left of the context.

    Args:
        answer: What to print.
        context: With the segments that the generator read and the passages they came from, for ``expand``.
    """
    from ragzip.pipelines.originals import context_dict

    compression, timings = answer.compression, answer.timings
    return {
        "question": answer.query.text,
        "answer": answer.text,
        "citations": [
            {"passage_id": c.passage_id, "source": c.source, "start": c.start, "end": c.end, "text": c.text}
            for c in answer.citations
        ],
        "tokens_in": compression.tokens_in,
        "tokens_out": compression.tokens_out,
        "ratio": round(compression.ratio, 4) if math.isfinite(compression.ratio) else None,
        "prompt_tokens": answer.generation.prompt_tokens,
        "ttft_seconds": round(timings.first_token, 6),
        "steps": [
            {
                "name": step.name,
                "status": str(step.status),
                "tokens_in": step.tokens_in,
                "tokens_out": step.tokens_out,
                "seconds": round(step.seconds, 6),
                **({"detail": step.detail} if step.detail else {}),
            }
            for step in compression.steps
        ],
        "seconds": {
            "retrieve": round(timings.retrieve, 6),
            "compress": round(timings.compress, 6),
            "prefill": round(timings.prefill, 6),
            "decode": round(timings.decode, 6),
            "total": round(timings.total, 6),
        },
        "new_tokens": answer.generation.new_tokens,
        **(
            {"kv_bytes": answer.generation.kv_bytes, "kv_bytes_full": answer.generation.kv_bytes_full}
            if answer.generation.kv_bytes
            else {}
        ),
        **({"context": context_dict(compression.context)} if context else {}),
    }


def show(answer: Answer, *, show_context: bool = False) -> None:
    """The answer, its citations, tokens and times on standard output."""
    from rich.text import Text

    console, compression, timings = out(), answer.compression, answer.timings
    if show_context:
        show_passages(answer)
    console.print(Text(shown(answer.query.text), style="bold"))
    console.print(Text(shown(answer.text) or "(no answer)", style="green"))
    for number, citation in enumerate(answer.citations, 1):
        where = f"  [{number}] {citation.source} ({citation.passage_id}, {citation.start}-{citation.end})"
        console.print(Text(shown(where), style="cyan"))
        console.print(Text(shown(f"      {' '.join(citation.text.split())}"), style="dim"))
    if not answer.citations:
        console.print(Text("  no sentence of the context supports this answer", style="dim"))
    console.print(
        f"  context    {compression.tokens_in:,} -> {compression.tokens_out:,} tokens ({ratio(compression.ratio)}), "
        f"prompt {answer.generation.prompt_tokens:,}"
    )
    for step in compression.steps:
        detail = f": {step.detail}" if step.detail else ""
        told = f"  {step.detail}".rstrip() if step.status is Status.OK else f"  {step.status}{detail}"
        line = f"    {step.name}  {step.tokens_in:,} -> {step.tokens_out:,}  {_seconds(step.seconds)}{told}"
        console.print(Text(line, style="" if step.status is Status.OK else "yellow"))
    if answer.generation.kv_bytes:
        full, left = (human_bytes(n) for n in (answer.generation.kv_bytes_full, answer.generation.kv_bytes))
        console.print(f"  cache      {full} -> {left}")
    console.print(
        f"  time       retrieve {_seconds(timings.retrieve)}, compress {_seconds(timings.compress)}, "
        f"prefill {_seconds(timings.prefill)}, decode {_seconds(timings.decode)}; "
        f"first token after {_seconds(timings.first_token)}"
    )


def show_passages(answer: Answer) -> None:
    """Every retrieved passage: kept text bright, dropped text dim (struck out where there is no colour)."""
    from rich.text import Text

    from ragzip.pipelines import highlight

    console = out()
    for passage, stretches in highlight(answer.compression.context):
        score = f"  {passage.score:.3f}" if passage.score is not None else ""
        console.print(Text(shown(f"{passage.id}{score}  {passage.title}"), style="cyan"))
        line = Text()
        for stretch in stretches:
            if stretch.kept or console.is_terminal:
                line.append(shown(stretch.text), style="bold" if stretch.kept else "dim")
            else:
                line.append(f"[-{stretch.text}-]" if stretch.text.strip() else stretch.text)
        console.print(line)
        console.print()


def ratio(value: float) -> str:
    """``4.0x``."""
    return f"{value:.1f}x" if math.isfinite(value) else "nothing left"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
