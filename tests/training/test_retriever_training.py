"""``ragzip train retriever`` on a small index: an adapter of its encoder that finds held-out passages better."""

from __future__ import annotations

import dataclasses
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from ragzip.cli.app import app
from ragzip.errors import ConfigError, ModelError, UsageError
from ragzip.indexes import Index, build
from ragzip.ingest import Document
from ragzip.models import fingerprint, load_encoder
from ragzip.models.loading import open_model
from ragzip.retrievers import Dense
from ragzip.training.card import check_card
from ragzip.training.options import make_trainer
from ragzip.training.retriever import Adapted, RetrieverTraining, Search
from ragzip.training.self_supervised import Item, document_of, hold_out_passages, make_items
from ragzip.types import Query

CPU = {"dtype": "fp32", "device": "cpu"}
NAMES = [a + b for a in ("Al", "Bor", "Cel", "Dor", "El", "Fa") for b in ("ba", "go", "la", "no", "va")]


def document(name: str) -> Document:
    draw = random.Random(name)
    facts = [
        f"{name} is a town by the {draw.choice(['sea', 'river', 'lake'])} with a harbour.",
        f"The first railway of {name} was opened in the year {draw.randint(1800, 1950)}.",
        f"Count {name}son founded the old town of {name} long ago.",
        f"Many people of {name} like the fox and the dog.",
    ]
    return Document(f"{name}.md", " ".join(facts), name)


@pytest.fixture(scope="module")
def kb(tmp_path_factory, tiny_encoder_path):
    folder = tmp_path_factory.mktemp("adapt") / "kb"
    build(map(document, NAMES), folder, sync=True, model=tiny_encoder_path, tokens=100, overlap=0)
    return str(folder)


def toy(kb, **options):
    values = {"steps": 24, "batch": 8, "lr": 2e-2, "eval_every": 8, "patience": 0, "held_out": 6, "rank": 4, "alpha": 8}
    return RetrieverTraining(corpus=kb, seed=1, **CPU, **{**values, **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory, kb):
    out, events = tmp_path_factory.mktemp("trained"), []
    trainer = toy(kb)
    report = trainer.run(out, on_event=events.append)
    return SimpleNamespace(trainer=trainer, out=out, report=report, events=events)


def test_it_learns(trained):
    losses = [event.loss for event in trained.events if event.kind == "step"]
    assert len(losses) == 24
    assert np.mean(losses[-6:]) < np.mean(losses[:6])
    evals = [event.metrics for event in trained.events if event.kind == "eval"]
    assert len(evals) == 4
    assert trained.report.metrics == max(evals[1:], key=lambda metrics: metrics["mrr"])
    assert trained.report.metrics["mrr"] > evals[0]["mrr"]


def test_the_metrics_are_those_of_the_encoder_that_is_loaded(trained, kb, tiny_encoder_path):
    passages = list(Index.open(kb))
    held, kept = hold_out_passages(passages, 6, 1)
    assert not {document_of(p) for p in held} & {document_of(p) for p in kept}
    asked = make_items(held, trained.trainer.tasks, 1)
    others = random.Random("1 others").sample(kept, len(kept))
    texts = [*(i.positive for i in asked), *(f"{p.title}\n{p.text}" for p in others)]

    def mrr(name):
        encoder = load_encoder(name, **CPU)
        vectors, ranks = encoder.encode(texts), []
        for place, (item, vector) in enumerate(zip(asked, encoder.encode([i.question for i in asked]), strict=True)):
            scores = vectors @ vector
            rivals = [i for i in range(len(texts)) if i >= len(asked) or asked[i].document != item.document]
            ranks.append(1 + sum(scores[i] > scores[place] for i in rivals))
        return np.mean([1 / rank for rank in ranks])

    (first,) = [event for event in trained.events if event.message == "before training"]
    assert mrr(tiny_encoder_path) == pytest.approx(first.metrics["mrr"])
    assert mrr(str(trained.out)) == pytest.approx(trained.report.metrics["mrr"], abs=0.01)  # saved in half precision


def test_the_folder_is_a_model_for_an_index(trained, kb, tmp_path, tiny_encoder_path):
    build(map(document, NAMES), tmp_path / "new", sync=True, model=str(trained.out), tokens=100, overlap=0)
    new = Index.open(tmp_path / "new")
    assert new.manifest.model.fingerprint == fingerprint(str(trained.out)) != fingerprint(tiny_encoder_path)
    (found,) = Dense(str(tmp_path / "new"), top_k=60).retrieve([Query("Who founded the town?")])
    assert len(found) == len(new) == len(Index.open(kb))
    assert [p.id for p in found] != [p.id for p in Dense(kb, top_k=60).retrieve([Query("Who founded the town?")])[0]]
    with pytest.raises(ModelError, match="an adapter"):
        toy(str(tmp_path / "new")).run(tmp_path / "out")


def test_the_adapter_is_added_to_the_base(trained, tiny_encoder_path):
    from pathlib import Path

    import torch

    plain = open_model("AutoModel", Path(tiny_encoder_path), dtype=torch.float32, device="cpu", may_lack="pooler")
    adapted = load_encoder(str(trained.out), **CPU)._model
    tensors = load_file(trained.out / "adapter_model.safetensors")
    changed = 0
    own = dict(adapted.named_parameters())
    for name, old in plain.named_parameters():
        key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        if f"{key}A.weight" in tensors:
            a, b = (torch.tensor(tensors[f"{key}{part}.weight"]).float() for part in "AB")
            assert torch.allclose(own[name], old + 2.0 * b @ a, atol=1e-5)
            changed += 1
        else:
            assert torch.equal(own[name], old)
    assert changed == 12 == len(tensors) // 2


def test_the_same_config_gives_the_same_weights_also_in_two_parts(trained, tmp_path):
    def interrupt(event):
        if event.kind == "step" and event.step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.trainer.run(tmp_path, on_event=interrupt)
    trained.trainer.run(tmp_path)
    names = "adapter_model.safetensors", "adapter_config.json"
    assert [(tmp_path / name).read_bytes() for name in names] == [(trained.out / name).read_bytes() for name in names]


def test_the_card(trained, tiny_encoder_path):
    card = check_card(trained.out)
    assert (card.method, card.base_model, card.licence) == ("retriever", tiny_encoder_path, "unknown")
    assert make_trainer("retriever", dict(card.config)) == trained.trainer
    assert {source.name for source in card.data} == {"cloze", "body", "next"}
    (table,) = card.results
    assert [row.role for row in table.rows] == ["trained", "untrained", "baseline"]


def loss_of(tensor):
    return float(tensor.detach())


def test_no_text_of_the_same_document_is_a_negative(kb, tiny_encoder_path):
    model = Adapted(toy(kb), tiny_encoder_path)
    one = Item("cloze", "The fox of the town.", "A dog by the sea.", "a#0", "a", "a")
    two = dataclasses.replace(one, question="The old railway.", positive="A harbour, and more.", passage="a#1")
    apart = dataclasses.replace(two, document="b", asker="b")
    both = loss_of(model.loss([one, two], [("", ""), ("", "")]))
    assert both == pytest.approx(0, abs=1e-6)
    assert loss_of(model.loss([one, apart], [("", ""), ("", "")])) > 1e-3
    linked = dataclasses.replace(apart, asker="a")  # asks with a sentence of the other's document
    assert (
        loss_of(model.loss([one, linked], [("", ""), ("", "")]))
        < loss_of(model.loss([one, apart], [("", ""), ("", "")])) - 1e-3
    )
    close = "The fox of the town, and the railway."
    assert loss_of(model.loss([one], [(close, "elsewhere")])) > 1e-3
    assert loss_of(model.loss([one], [(close, "a")])) == pytest.approx(0, abs=1e-6)
    alone = loss_of(model.loss([one, apart], [("", ""), ("", "")]))
    both = loss_of(
        model.loss([one, apart], [("", ""), (one.positive, "a")])
    )  # near to the second one, the first one's own
    assert both > alone
    assert both < loss_of(model.loss([one, apart], [("", ""), (one.positive, "elsewhere")])) - 1e-3
    model.close()


def test_bm25_on_the_same_task():
    item = Item("cloze", "the old lighthouse keeper", "lighthouse keeper stories", "a#0", "a", "a")
    other = Item("cloze", "green turtles swim", "nothing to see", "b#0", "b", "b")
    same = dataclasses.replace(item, positive="the old lighthouse keeper", passage="a#1")
    task = Search([item, other, same], ["turtles swim", "unrelated"])
    assert task.competing(0) == [0, 1, 3, 4]
    assert task.by_words()["mrr"] == pytest.approx((1 + 1 / 5 + 1) / 3)


def test_corpora_that_cannot_be(tmp_path, tiny_encoder_path, kb):
    with pytest.raises(UsageError, match="--corpus"):
        RetrieverTraining().run(tmp_path / "out")
    build([document("Alba")], tmp_path / "one", sync=True, model=tiny_encoder_path, tokens=100)
    with pytest.raises(UsageError, match="too few"):
        toy(str(tmp_path / "one")).run(tmp_path / "out")
    for options, path in (
        ({"tasks": ("crossword",)}, "tasks"),
        ({"tasks": ()}, "tasks"),
        ({"questions": -1}, "questions"),
        ({"others": -1}, "others"),
    ):
        with pytest.raises(ConfigError) as caught:
            toy(kb, **options)
        assert caught.value.path == path


def test_questions_by_a_language_model_join_the_others(kb, tmp_path, tiny_lm_path):
    told = []
    trainer = toy(kb, tasks=("cloze",), questions=3, generator=tiny_lm_path, steps=2, eval_every=2)
    trainer.run(tmp_path, on_event=told.append)
    assert "3 of 3 questions written" in [event.message for event in told if event.kind == "data"]


def test_on_the_command_line(kb, tmp_path):
    options = ["--set", "steps=2", "--set", "batch=4", "--set", "held_out=6", "--set", "eval_every=1"]
    done = CliRunner().invoke(
        app, ["train", "retriever", "--corpus", kb, "--out", str(tmp_path / "a"), *options, "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["method"] == "retriever"
    assert check_card(tmp_path / "a").config["corpus"] == kb
    done = CliRunner().invoke(app, ["train", "provence", "--corpus", kb, "--out", str(tmp_path / "b")])
    assert done.exit_code != 0
