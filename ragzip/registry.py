"""Names to classes, as strings until used: listing every component imports none of them.

Built-in components stand in the table below. Third parties add theirs through entry points in the groups
``ragzip.retriever``, ``ragzip.compressor``, ``ragzip.generator``, ``ragzip.prompt``, ``ragzip.kv`` and
``ragzip.training``::

    [project.entry-points."ragzip.compressor"]
    my_filter = "my_package.my_filter:MyFilter"

or, within one program, with ``register``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import re
from typing import Any, Literal, get_args

from ragzip.errors import ConfigError

Kind = Literal["retriever", "compressor", "generator", "prompt", "kv", "training"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_BUILTIN: dict[Kind, dict[str, str]] = {
    "retriever": {
        "dense": "ragzip.retrievers.dense:Dense",
        "bm25": "ragzip.retrievers.bm25:BM25",
        "lexsem": "ragzip.retrievers.lexsem:LexSem",
        "graph": "ragzip.retrievers.graph:Graph",
        "fusion": "ragzip.retrievers.fusion:Fusion",
        "rerank": "ragzip.retrievers.rerank:Rerank",
        "cross_encoder": "ragzip.retrievers.cross_encoder:CrossEncoder",
        "multi_vector": "ragzip.retrievers.multi_vector:MultiVector",
        "jpq": "ragzip.retrievers.jpq:JPQ",
        "oracle": "ragzip.retrievers.oracle:Oracle",
    },
    "compressor": {
        "identity": "ragzip.compressors.identity:Identity",
        "truncate": "ragzip.compressors.truncate:Truncate",
        "top_k": "ragzip.compressors.top_k:TopK",
        "dedupe": "ragzip.compressors.dedupe:Dedupe",
        "reorder": "ragzip.compressors.reorder:Reorder",
        "provence": "ragzip.compressors.provence:Provence",
        "sentence_filter": "ragzip.compressors.sentence_filter:SentenceFilter",
        "exit": "ragzip.compressors.exit:EXIT",
        "bm25_sentences": "ragzip.compressors.bm25_sentences:BM25Sentences",
        "random_sentences": "ragzip.compressors.random_sentences:RandomSentences",
        "recomp_extractive": "ragzip.compressors.recomp_extractive:RecompExtractive",
        "coverage": "ragzip.compressors.coverage:Coverage",
        "structured": "ragzip.compressors.structured:Structured",
        "llmlingua2": "ragzip.compressors.llmlingua2:LLMLingua2",
        "llmlingua": "ragzip.compressors.llmlingua:LLMLingua",
        "long_llmlingua": "ragzip.compressors.long_llmlingua:LongLLMLingua",
        "selective_context": "ragzip.compressors.selective_context:SelectiveContext",
        "semantic_drop": "ragzip.compressors.semantic_drop:SemanticDrop",
        "recomp_abstractive": "ragzip.compressors.recomp_abstractive:RecompAbstractive",
        "summary": "ragzip.compressors.summary:Summary",
        "gate": "ragzip.compressors.gate:Gate",
        "xrag": "ragzip.compressors.xrag:XRAG",
        "comp_llm": "ragzip.compressors.comp_llm:CompLLM",
        "icae": "ragzip.compressors.icae:ICAE",
        "refrag": "ragzip.compressors.refrag:REFRAG",
        "text_then_soft": "ragzip.compressors.text_then_soft:TextThenSoft",
        "budget": "ragzip.compressors.budget:Budget",
        "stack": "ragzip.protocols._compressor:Stack",
    },
    "generator": {
        "huggingface": "ragzip.generators.huggingface:HuggingFace",
        "openai": "ragzip.generators.openai:OpenAI",
        "echo": "ragzip.generators.echo:Echo",
    },
    "prompt": {
        "qa": "ragzip.pipelines.prompt:QA",
        "yes_no": "ragzip.pipelines.prompt:YesNo",
        "long_form": "ragzip.pipelines.prompt:LongForm",
        "plain": "ragzip.pipelines.prompt:Plain",
    },
    "kv": {
        "streaming_llm": "ragzip.kv.streaming_llm:StreamingLLM",
        "snapkv": "ragzip.kv.snapkv:SnapKV",
        "expected_attention": "ragzip.kv.expected_attention:ExpectedAttention",
        "h2o": "ragzip.kv.h2o:H2O",
        "scissorhands": "ragzip.kv.scissorhands:Scissorhands",
        "sentence_kv": "ragzip.kv.sentence_kv:SentenceKV",
        "quantized_kv": "ragzip.kv.quantized:QuantizedKV",
        "precomputed_kv": "ragzip.kv.precomputed:PrecomputedKV",
    },
    "training": {
        "provence": "ragzip.training.provence:ProvenceTraining",
        "llmlingua2": "ragzip.training.llmlingua2:LLMLingua2Training",
        "recomp_extractive": "ragzip.training.recomp_extractive:RecompExtractiveTraining",
        "recomp_abstractive": "ragzip.training.recomp_abstractive:RecompAbstractiveTraining",
        "exit": "ragzip.training.exit:EXITTraining",
        "late_interaction": "ragzip.training.late_interaction:LateInteractionTraining",
        "retriever": "ragzip.training.retriever:RetrieverTraining",
        "lexsem": "ragzip.training.lexsem:LexSemTraining",
        "jpq": "ragzip.training.jpq:JPQTraining",
        "xrag": "ragzip.training.xrag:XRAGTraining",
        "comp_llm": "ragzip.training.comp_llm:CompLLMTraining",
        "icae": "ragzip.training.icae:ICAETraining",
        "refrag": "ragzip.training.refrag:REFRAGTraining",
        "refrag_policy": "ragzip.training.refrag_policy:REFRAGPolicyTraining",
    },
}

_extra: dict[Kind, dict[str, str]] = {kind: {} for kind in KINDS}
_entry_points: dict[Kind, dict[str, str]] = {}


def snake(class_name: str) -> str:
    """``SentenceFilter`` -> ``sentence_filter``: the name of a class that no table names."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()


def register(kind: Kind, name: str, target: str) -> None:
    """Adds a component for this process.

    Args:
        kind: Its role.
        name: What YAML and the command line call it, in snake case.
        target: ``"module:Class"``, imported on first use.

    Raises:
        ConfigError: The name is taken by another class, or not in snake case.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError("", f"{name!r} is no registry name", hint="Use snake case: my_filter.")
    taken = table(kind).get(name)
    if taken is not None and taken != target:
        raise ConfigError("", f"{kind} {name!r} is already {taken}", hint="Choose another name.")
    _extra[kind][name] = target


def table(kind: Kind) -> dict[str, str]:
    """All names of a role with their ``module:Class``; the built-in ones cannot be replaced from outside."""
    if kind not in _entry_points:
        found = importlib.metadata.entry_points(group=f"ragzip.{kind}")
        _entry_points[kind] = {point.name: point.value for point in found}
    return {**_entry_points[kind], **_extra[kind], **_BUILTIN[kind]}


def names(kind: Kind) -> list[str]:
    """All names of a role, built-in ones first, in the order of the table."""
    everything = table(kind)
    return [*_BUILTIN[kind], *sorted(name for name in everything if name not in _BUILTIN[kind])]


def get(kind: Kind, name: str, *, path: str = "") -> type[Any]:
    """The class behind a name, imported now.

    Raises:
        ConfigError: No such name; says which names are close and which exist.
    """
    target = table(kind).get(name) if isinstance(name, str) else None
    if target is None:
        raise ConfigError(path, f"unknown {kind} {name!r}", hint=suggest(str(name), names(kind)))
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
    except Exception as error:
        said = str(error) if isinstance(error, ImportError | AttributeError) else repr(error)
        raise ConfigError(
            path, f"{kind} {name!r} cannot be loaded from {target!r}: {said}", hint="Reinstall its package."
        ) from error


def kind_of(component: Any) -> Kind | None:
    """The role under which this component's class (or class itself) stands in the registry, or None."""
    found = _find(component)
    return found[0] if found else None


def name_of(component: Any) -> str:
    """The registry name of a component or class; its class name in snake case where it has none."""
    found = _find(component)
    cls = component if isinstance(component, type) else type(component)
    return found[1] if found else snake(cls.__name__)


def _find(component: Any) -> tuple[Kind, str] | None:
    cls = component if isinstance(component, type) else type(component)
    target = f"{cls.__module__}:{cls.__qualname__}"
    for kind in KINDS:
        for name, value in table(kind).items():
            if value == target:
                return kind, name
    return None


def suggest(word: str, known: list[str]) -> str:
    """``Did you mean 'dense'?`` and the list of what there is."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return f"{meant}Known: {', '.join(known)}."
