"""Models by name: where their files are, how to get them, and how to load them, once, with sensible settings.

Importing this package loads no heavy library; loading a model does.
"""

from ragzip.models.cache import cache_dir
from ragzip.models.catalogue import EMBEDDER, GENERATOR, ModelSpec, all_models, find
from ragzip.models.causal_lm import CausalLM, load_causal_lm
from ragzip.models.download import fetch
from ragzip.models.encoder import Encoder, load_encoder
from ragzip.models.identity import fingerprint
from ragzip.models.locate import Place, canonical, resolve, status
from ragzip.models.pair_scorer import PairScorer, load_pair_scorer
from ragzip.models.pruner import Judged, Pruner, load_pruner
from ragzip.models.runtime import Dtype, check_options, set_threads, unload
from ragzip.models.shipped import ShippedSpec, all_shipped
from ragzip.models.tokenizer import (
    CountTokens,
    TextTokenizer,
    default_counter,
    load_tokenizer,
    text_tokenizer,
)

__all__ = [
    "EMBEDDER",
    "GENERATOR",
    "CausalLM",
    "CountTokens",
    "Dtype",
    "Encoder",
    "Judged",
    "ModelSpec",
    "PairScorer",
    "Place",
    "Pruner",
    "ShippedSpec",
    "TextTokenizer",
    "all_models",
    "all_shipped",
    "cache_dir",
    "canonical",
    "check_options",
    "default_counter",
    "fetch",
    "find",
    "fingerprint",
    "load_causal_lm",
    "load_encoder",
    "load_pair_scorer",
    "load_pruner",
    "load_tokenizer",
    "resolve",
    "set_threads",
    "status",
    "text_tokenizer",
    "unload",
]
