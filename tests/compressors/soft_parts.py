"""Passages, and soft compressors over tiny models with random weights."""

from __future__ import annotations

import json
from pathlib import Path

from ragzip.compressors.comp_llm import CompLLM
from ragzip.compressors.icae import ICAE
from ragzip.compressors.refrag import REFRAG
from ragzip.compressors.xrag import XRAG
from ragzip.generators.huggingface import HuggingFace
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, context_of
from tests.matrix import soft_model

ALBA = Passage("a", "Alba is a town. It was founded by Count Albason in 1290. Ships pass it.", "Alba", 0.9)
BORGO = Passage("b", "Borgo is a hill. Nobody lives there. Goats do.", "Borgo", 0.5)
LONG = Passage("c", " ".join(f"Sentence number {n} says little." for n in range(60)), "", 0.1)
QUERY = Query("Who founded Alba?")
FLAT = [XRAG, CompLLM, ICAE]
NAMES = {XRAG: "xrag", CompLLM: "comp_llm", ICAE: "icae", REFRAG: "refrag"}


def made(cls, **options):
    options = {"policy": "similarity", **options} if cls is REFRAG else options
    return cls(model=soft_model(NAMES[cls]), dtype="fp32", device="cpu", **options)


def base_of(cls):
    return json.loads((Path(soft_model(NAMES[cls])) / "config.json").read_text())["base"]


def tokens_of(cls):
    return TokenCounter(HuggingFace(model=base_of(cls)).count_tokens)


def compress(method, *passages, query=QUERY):
    (after,) = method.compress([context_of(query, passages)])
    return after
