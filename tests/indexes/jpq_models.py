"""Folders as ``ragzip train jpq`` leaves them, indexes made with these, and what their codes say by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from ragzip.indexes import Index, info, verify
from ragzip.indexes.jpq import part as module
from ragzip.indexes.jpq import quantizer
from ragzip.indexes.jpq.quantizer import FILE, Quantizer
from ragzip.models import fingerprint, load_encoder
from ragzip.retrievers import JPQ
from ragzip.types import Query
from tests.indexes.tools import make

QUESTIONS = ["amber bridge copper", "title 7", "ocean north 3", "", "zzzz 日本"]
WIDTH, PIECES = 32, 4


def trained(folder, base, seed=0):
    """A folder as training leaves it: an adapter that does something, and centroids for scoring of their own."""
    import torch

    from ragzip.models.locate import resolve
    from ragzip.models.tuned import open_base
    from ragzip.training.low_rank import save_adapter

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    name = "encoder.layer.0.attention.self.query"
    weight = dict(open_base(str(resolve(base)), torch.float32, "cpu").named_parameters())[f"{name}.weight"]
    tensors = {
        f"base_model.model.{name}.lora_{part}.weight": torch.tensor(rng.standard_normal(shape), dtype=torch.float32)
        for part, shape in (("A", (2, weight.shape[1])), ("B", (weight.shape[0], 2)))
    }
    save_adapter(folder, base, [name], 2, 2, tensors)
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
    centroids = rng.standard_normal((PIECES, 256, WIDTH // PIECES)).astype(np.float32) * np.float32(0.2)
    prices = rng.standard_normal((PIECES, 256)).astype(np.float32) * np.float32(0.01)
    scoring = centroids + rng.standard_normal(centroids.shape).astype(np.float32) * np.float32(0.01)
    made = Quantizer(rotation, centroids, prices, scoring, base, fingerprint(base))
    (folder / FILE).write_bytes(made.dump())
    return str(folder)


def build(kb, items, model, base, **options):
    more = {"encoder": load_encoder(base), **options}
    if model is not None:
        more = {"retriever": "jpq", "settings": {"model": model}, **more}
    return make(kb, items, **more)


def brute(kb, model, question):
    """Passages with the inner products of what their codes stand for, one by one."""
    learned = quantizer.load(module.resolve(model) / FILE)
    (asked,) = load_encoder(model).encode_each([question])
    found = {}
    with Index.open(kb) as index:
        for passage, vector in zip(index, index.vectors.take(index.rows), strict=True):
            turned, score = vector @ learned.rotation, 0.0
            for number in range(PIECES):
                place = slice(number * WIDTH // PIECES, (number + 1) * WIDTH // PIECES)
                costs = ((turned[place] - learned.centroids[number]) ** 2).sum(1) + learned.prices[number]
                score += float((asked @ learned.rotation)[place] @ learned.scoring[number][costs.argmin()])
            found[passage.id] = score
    return found


def is_right(kb, model):
    assert verify(kb) == []
    assert info(kb).searchable
    for question in QUESTIONS:
        expected = brute(kb, model, question)
        (every,) = JPQ(str(kb), top_k=10_000).retrieve([Query(question)])
        assert {p.id: pytest.approx(p.score, abs=1e-4) for p in every} == expected
        (some,) = JPQ(str(kb), top_k=3).retrieve([Query(question)])
        assert some == every[:3]
