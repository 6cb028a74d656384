"""``ragzip query``: answers with citations, token counts and times."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ragzip.cli import answers
from ragzip.cli.console import complain, note, print_json, waiting
from ragzip.errors import UsageError

DEFAULT_BUDGET = 400
DEFAULT_TOP_K = 20
MODEL = "smollm2-135m-instruct"
_MOST_INPUT = 10_000_000
_SAMPLE = 10_000  # passages that are looked at for the keys that there are
SENTENCE = "Answer with one sentence of the context above.\nQuestion:"  # somebody reads it, beside its citations
PARAGRAPH = "\n\n"  # where the answer of a small model ends, and its wandering begins


def query(
    questions: Annotated[
        list[str] | None, typer.Argument(help="Questions; without any, they are read line by line.", show_default=False)
    ] = None,
    index: Annotated[str | None, typer.Option("--index", "-i", help="The index to search.")] = None,
    pipeline: Annotated[Path | None, typer.Option("--pipeline", "-p", help="A pipeline's YAML file.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a value: compressors.0.threshold=0.1")] = None,
    compress: Annotated[
        list[str] | None,
        typer.Option("--compress", "-c", help="By name, several in order; 'none' for none; default sentence_filter."),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option("--budget", "-b", min=0, help="Most context tokens; default 400 where no limit is given."),
    ] = None,
    keep: Annotated[float | None, typer.Option("--keep", help="Share of tokens kept, above 0 up to 1.")] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", "-t", help="Least score kept.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, help="Passages retrieved; default 20.")] = None,
    retriever: Annotated[
        str | None, typer.Option("--retriever", help="dense, bm25, lexsem, fusion, multi_vector, graph or jpq.")
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option("--rerank", help="Rank 50 passages anew: 'provence', or a cross-encoder's folder or hub id."),
    ] = None,
    filter_: Annotated[list[str] | None, typer.Option("--filter", help="Metadata filter: source=docs/*")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The generator's model; default smollm2-135m-instruct.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer; default 64.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a question, nothing else.")] = False,
    show_context: Annotated[
        bool, typer.Option("--show-context", help="Print the passages: kept text bright, dropped text dim.")
    ] = False,
) -> None:
    """Answer questions from an index, and show what compression saved.

    \b
    Examples:
        ragzip query "When is __del__ called?" --index kb/
        ragzip query "When is __del__ called?" --index kb/ --compress none
        ragzip query "When is __del__ called?" --index kb/ --rerank provence --compress provence
        ragzip query "When is __del__ called?" --pipeline pipeline.yaml --set compressors.0.budget=200
    """  # noqa: D301 - a backspace, by which the help keeps lines apart
    from ragzip.pipelines import Pipeline, check_question

    asked = _questions(questions)
    for question in asked:
        check_question(question)
    if pipeline is not None:
        unused: dict[str, Any] = {"--compress": compress, "--budget": budget, "--keep": keep, "--threshold": threshold}
        unused |= {"--model": model, "--max-new-tokens": max_new_tokens}
        if index is None:
            unused |= {"--top-k": top_k, "--retriever": retriever, "--rerank": rerank, "--filter": filter_}
        _refuse(pipeline, unused)
        late = [value for value in set_ or () if index is not None and value.strip().startswith("retriever.")]
        made: Pipeline[Any] = Pipeline.load(pipeline, overrides=[value for value in set_ or () if value not in late])
        if index is not None and made.retriever is None:
            made = _overridden(_with_retriever(made, index, retriever, rerank, top_k, filter_), late)
        elif index is not None:
            raise UsageError(f"{pipeline} names its own index", hint="Use --set retriever.index=..., not --index.")
    elif index is None:
        raise UsageError("no index", hint="Give --index kb/ (made by: ragzip index PATH... --index kb/) or --pipeline.")
    else:
        from ragzip.generators.huggingface import HuggingFace
        from ragzip.pipelines.prompt import LongForm

        parts = _compressors(compress or [], budget, keep, threshold)
        generator = HuggingFace(model=model or MODEL, max_new_tokens=max_new_tokens or 64, stop=(PARAGRAPH,))
        base: Pipeline[Any] = Pipeline(generator, compressors=parts, prompt=LongForm(instruction=SENTENCE))
        made = _overridden(_with_retriever(base, index, retriever, rerank, top_k, filter_), set_)
    if made.retriever is None:
        raise UsageError(f"{pipeline} has no retriever", hint="Give --index kb/, or add a retriever to the file.")
    made.check()
    with waiting("loading models"):
        made.warm_up()
    if not asked:
        _loop(made, json_, show_context)
    _each(made, asked, json_, show_context)


def _overridden(pipeline: Any, overrides: list[str] | None) -> Any:
    """The pipeline with values changed, those of its retriever, too."""
    from ragzip.pipelines import Pipeline
    from ragzip.pipelines.overrides import apply_overrides

    return Pipeline.from_config(apply_overrides(pipeline.to_config(), overrides)) if overrides else pipeline


def _questions(given: list[str] | None) -> list[str]:
    """The questions of the call, else those on standard input; none in a terminal, where they are asked for."""
    if given:
        return given
    if sys.stdin.isatty():
        return []
    data = sys.stdin.buffer.read(_MOST_INPUT + 1)
    if len(data) > _MOST_INPUT:
        raise UsageError(
            f"more than {_MOST_INPUT // 1_000_000} MB of questions on standard input", hint="One question a line."
        )
    try:
        asked = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not UTF-8 (byte {error.start:,})", hint="Convert it: iconv -f latin1 -t utf-8"
        ) from error
    if not asked:
        raise UsageError("no question", hint='Ask one: ragzip query "..." --index kb/')
    return asked


def _refuse(pipeline: Path, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None and value != []:
            raise UsageError(
                f"{name} has no effect on {pipeline}", hint="Change the file, or a value of it: --set path=value"
            )


def _one(pipeline: Any, question: str, as_json: bool, show_context: bool) -> None:
    with waiting("answering"):
        answer = pipeline.answer(question)
    if not answer.compression.context.passages:
        note("no passage was found; the answer is the model's own")
        _explain_filters(pipeline)
    if as_json:
        print_json(answers.as_dict(answer, context=show_context))
    else:
        answers.show(answer, show_context=show_context)


def _each(pipeline: Any, questions: list[str], as_json: bool, show_context: bool) -> None:
    """Answers all that can be; a question whose prompt is too long is named, and the exit code is 1 then."""
    from ragzip.errors import PromptTooLong

    failed = 0
    for question in questions:
        try:
            _one(pipeline, question, as_json, show_context)
        except PromptTooLong as error:
            if len(questions) == 1:
                raise
            failed += 1
            complain(f"{question[:80]!r}: {error.message}", error.hint)
    if failed:
        raise typer.Exit(1)


def _explain_filters(pipeline: Any) -> None:
    """Says which keys there are where a filter asks for one that no passage has: a misspelt one finds nothing."""
    from ragzip.indexes import Index, filters
    from ragzip.pipelines.fitting import components

    parts = [part for path, part in components(pipeline) if path.startswith("retriever")]
    given = next((part.filters for part in parts if getattr(part, "filters", ())), ())
    index = next((part.index for part in parts if isinstance(getattr(part, "index", None), str)), "")
    if not given or not index:
        return
    opened = Index.open(index)
    keys = {"id", "title"}.union(*(passage.metadata for passage in itertools.islice(opened, _SAMPLE)))
    unknown = sorted({condition.key for condition in filters.parse(given)} - keys)
    if unknown:
        none = "no passage" if len(opened) <= _SAMPLE else f"none of the first {_SAMPLE:,} passages"
        note(f"{none} has {', '.join(map(repr, unknown))}; there are {', '.join(sorted(keys))}")


def _loop(pipeline: Any, as_json: bool, show_context: bool) -> None:
    from ragzip.errors import RagzipError

    note("Ask a question; an empty line or Ctrl-D ends.")
    while True:
        try:
            typer.echo("? ", nl=False, err=True)  # input() would write it to standard output
            question = input().strip()
        except EOFError:
            return
        if not question:
            return
        try:
            _one(pipeline, question, as_json, show_context)
        except RagzipError as error:
            complain(error.message, error.hint)


def _with_retriever(
    pipeline: Any, index: str, retriever: str | None, rerank: str | None, top_k: int | None, filters: list[str] | None
) -> Any:
    import dataclasses

    from ragzip.models.shipped import PROVENCE
    from ragzip.retrievers import for_index
    from ragzip.retrievers.cross_encoder import CrossEncoder
    from ragzip.retrievers.rerank import Rerank

    k = top_k or DEFAULT_TOP_K
    found: Any = for_index(index, top_k=k, filters=tuple(filters or ()), kind=retriever)
    if rerank is not None:
        found = Rerank(found, top_k=k) if rerank in ("provence", PROVENCE) else CrossEncoder(found, rerank, top_k=k)
    return dataclasses.replace(pipeline, retriever=found)


def _compressors(names: list[str], budget: int | None, keep: float | None, threshold: float | None) -> tuple[Any, ...]:
    """The stack the options describe; without any option, ``sentence_filter`` at the default budget."""
    given = {"budget": budget, "keep": keep, "threshold": threshold}
    wanted = {name: value for name, value in given.items() if value is not None}
    if [n.strip().lower() for n in names] == ["none"]:
        if wanted:
            raise UsageError(f"--compress none takes no --{next(iter(wanted))}", hint="Drop one of the two.")
        return ()
    return build_stack(names or ["sentence_filter"], wanted)


def build_stack(names: list[str], wanted: dict[str, Any]) -> tuple[Any, ...]:
    """Compressors by name, with ``budget``, ``keep`` and ``threshold`` given to the last one that has such an option.

    A budget that no compressor takes is met by a ``budget`` step at the end. Where nothing is given, the last
    compressor that has a budget gets the default.

    Raises:
        UsageError: A keep or threshold that no compressor takes.
        ConfigError: An unknown name, or a value outside its range.
    """
    from ragzip import config, registry

    together = next((name for name in names if "," in name), "")
    if together:
        raise UsageError(f"{together!r} is no compressor", hint="Repeat the option: -c provence -c truncate")
    if any(name.strip().lower() == "none" for name in names):
        alone = len(names) == 1
        said = "there is nothing to do without a compressor" if alone else "none stands alone: it leaves all others out"
        raise UsageError(said, hint="Name one: ragzip list compressor" if alone else "Leave it or the others out.")
    settings: list[dict[str, Any]] = [{"type": name} for name in names]
    fields = [{f.name for f in config.options(registry.get("compressor", name, path="--compress"))} for name in names]
    if not wanted and any(_budget_name(known) for known in fields):
        wanted = {"budget": DEFAULT_BUDGET}
    for option, value in wanted.items():
        if option == "budget":
            taking = [i for i, known in enumerate(fields) if _budget_name(known)]
            if taking:
                settings[taking[-1]][_budget_name(fields[taking[-1]])] = value
            else:
                settings.append({"type": "budget", "tokens": value})
            continue
        taking = [i for i, known in enumerate(fields) if option in known]
        if not taking:
            raise UsageError(f"{', '.join(names)} has no {option!r}", hint="See the options with: ragzip show NAME")
        settings[taking[-1]][option] = value
    return tuple(config.from_config("compressor", s, path=f"--compress {s['type']}") for s in settings)


def _budget_name(known: set[str]) -> str:
    return "budget" if "budget" in known else "tokens" if "tokens" in known else ""
