"""Training of ``lexsem`` from a made-up data folder: only the multipliers change."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ragzip.models import load_encoder
from ragzip.models.lexsem import load_bridge
from ragzip.training.card import check_card
from ragzip.training.encoders import hold_out
from ragzip.training.examples import read_examples
from ragzip.training.lexsem import LexSemTraining, Modulation, Pool, _asked
from ragzip.training.options import make_trainer

CPU = {"dtype": "fp32", "device": "cpu"}


def toy(kind, encoder):
    return LexSemTraining(
        base=encoder, kind=kind, sets=("squad", "hotpotqa"), most=(), held_out=4, batch=8, steps=30, lr=3e-2,
        eval_every=10, patience=0, seed=1, **CPU,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["slr", "llr"])
def trained(request, tmp_path_factory, tiny_encoder_path, small_data):
    out, events = tmp_path_factory.mktemp(request.param), []
    trainer = toy(request.param, tiny_encoder_path)
    report = trainer.run(out, data=small_data, on_event=events.append)
    return SimpleNamespace(trainer=trainer, out=out, report=report, events=events)


def test_it_learns_and_starts_from_dense(trained, small_data):
    losses = [event.loss for event in trained.events if event.kind == "step"]
    assert len(losses) == 30
    assert np.mean(losses[-6:]) < np.mean(losses[:6]) - 0.1
    encoder = load_encoder(trained.trainer.base, **CPU)
    held, kept = hold_out(read_examples(("squad", "hotpotqa"), data=small_data, seed=1, most={}), 4, 1)
    pool = Pool(encoder, kept, held, 2)
    (first,) = [event for event in trained.events if event.message == "before training"]
    again = _asked(encoder, held)
    assert first.metrics == pool.scores(again.vectors, [pool.rows(example) for example in held])
    ranks = []
    for vector, example in zip(again.vectors, held, strict=True):
        products = pool.vectors @ vector
        best = max(products[row] for row in pool.rows(example))
        ranks.append(1 + sum(product > best for product in products))
    assert first.metrics["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))


def test_what_was_trained_is_what_retrieval_computes(trained, small_data):
    encoder = load_encoder(trained.trainer.base, **CPU)
    examples = read_examples(("squad", "hotpotqa"), data=small_data, seed=1, most={})
    asked = _asked(encoder, examples)
    model = Modulation(trained.trainer, encoder, Pool(encoder, examples, (), 2))
    for name, value in load_file(trained.out / "model.safetensors").items():
        with torch.no_grad():
            model.values[name.removeprefix("heads.")].copy_(torch.tensor(value))
    with torch.inference_mode():
        expected = model.vectors(asked, range(len(examples))).numpy()
    got = load_bridge(str(trained.out), encoder).modulate(asked.vectors, asked.tokens)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(got - asked.vectors).max() > 1e-3


def test_the_same_config_gives_the_same_weights_also_in_two_parts(trained, small_data, tmp_path):
    def interrupt(event):
        if event.kind == "step" and event.step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.trainer.run(tmp_path, data=small_data, on_event=interrupt)
    trained.trainer.run(tmp_path, data=small_data)
    names = "model.safetensors", "config.json"
    assert [(tmp_path / name).read_bytes() for name in names] == [(trained.out / name).read_bytes() for name in names]


def test_the_card(trained):
    card = check_card(trained.out)
    assert (card.method, card.base_model) == ("lexsem", trained.trainer.base)
    assert make_trainer("lexsem", dict(card.config)) == trained.trainer
    (table,) = card.results
    assert {row.role for row in table.rows} == {"trained", "untrained", "baseline"}
    assert table.metrics == ("mrr", "recall@10")


def test_passages_of_held_out_questions_are_no_negatives(trained, small_data):
    encoder = load_encoder(trained.trainer.base, **CPU)
    held, kept = hold_out(read_examples(("squad", "hotpotqa"), data=small_data, seed=1, most={}), 4, 1)
    asked = _asked(encoder, kept)
    losses = []
    for others in (held, ()):
        pool = Pool(encoder, kept, others, 2)
        items = [(row, place) for row, example in enumerate(kept[:3]) for place in pool.rows(example)]
        model = Modulation(trained.trainer, encoder, pool)
        losses.append(float(model.loss(asked, items, [pool.rows(e) for e in kept]).detach()))
    assert len(Pool(encoder, kept, held, 2).places) > len(Pool(encoder, kept, (), 2).places)
    assert losses[0] == losses[1]
