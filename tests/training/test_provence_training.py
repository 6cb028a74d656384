"""Training a cross-encoder from a made-up data folder: it learns, and what it saves is what it is."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch

from ragzip.errors import ConfigError, ModelError, UsageError
from ragzip.models import load_pruner
from ragzip.models.tuned import save_tuned
from ragzip.training.card import Results, Row, check_card, read_card, write_card
from ragzip.training.joint import Joint, evaluate
from ragzip.training.loop import LoopResult
from ragzip.training.options import make_trainer, trainer_config
from ragzip.training.pairs import IGNORED
from ragzip.training.provence import ProvenceTraining
from ragzip.training.provence_card import write
from ragzip.training.starts import went_on
from tests.training.data import TOWNS, squad, town

SETS = ("squad", "hotpotqa", "squad_sentences")


def toy(base, **options):
    plain = {
        "sets": SETS,
        "most": (),
        "repeat": ("hotpotqa=2",),
        "max_tokens": 96,
        "window": 96,
        "batch": 4,
        "steps": 60,
    }
    more = {"lr": 3e-3, "eval_every": 20, "held_out": 6, "dtype": "fp32", "device": "cpu", "seed": 1}
    return ProvenceTraining(base=base, **{**plain, **more, **options})


def test_a_base_that_cannot_tell_question_and_passage_apart_is_refused_at_once(tmp_path, tiny_encoder_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_encoder_path, base)
    for path in base.glob("tokenizer*.json"):
        path.write_text(path.read_text("utf-8").replace("[CLS]", "<s>"), "utf-8")
    with pytest.raises(ModelError, match=r"base has no \[CLS\], \[SEP\] and two token types"):
        toy(str(base)).run(tmp_path / "out", data=tmp_path / "no data, which would be the next problem")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_encoder_path, small_data):
    """The trainer, its folder, its report, its events, and the model in memory as it was when it was last saved."""
    out, trainer, events, models = tmp_path_factory.mktemp("trained"), toy(tiny_encoder_path), [], []
    start = Joint.start
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Joint, "start", classmethod(lambda cls, s: models.append(start(s)) or models[-1]))
        report = trainer.run(out, data=small_data, on_event=events.append)
    return trainer, out, report, events, models[0]


def test_it_learns(trained):
    _, _, report, events, _ = trained
    losses = [event.loss for event in events if event.kind == "step"]
    assert len(losses) == report.steps == 60
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    evals = [event.metrics for event in events if event.kind == "eval"]
    assert report.metrics["score"] >= max(e["score"] for e in evals[1:])
    assert evals[0] != evals[-1]  # the first is of the untrained model
    assert report.metrics["score"] > evals[0]["score"]
    assert any("passages read" in event.message for event in events if event.kind == "data")


def test_the_saved_folder_gives_the_scores_of_the_model_in_memory(trained, small_data, tiny_encoder_path, tmp_path):
    trainer, out, *_ = trained
    last = toy(tiny_encoder_path, steps=9, eval_every=9)  # saved once, at its end
    models, start = [], Joint.start
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Joint, "start", classmethod(lambda cls, s: models.append(start(s)) or models[-1]))
        last.run(tmp_path, data=small_data)
    pruner = load_pruner(str(tmp_path), dtype="fp32", device="cpu")
    kept, _ = last.examples(small_data)
    groups, *_ = last.groups(kept[:4], [])
    for example, group in zip(kept[:4], groups, strict=False):
        pair, positive = group[0], example.positives[0]
        keep, _, rank = models[0].logits([pair])
        with_title = len(pair.ids) - pair.second - 1 > int((pair.sentences >= 0).sum())
        (found,) = pruner.judge(example.question, [positive.text], [positive.title if with_title else ""])
        scores = keep[0].detach().sigmoid().numpy()[pair.sentences >= 0]
        assert found.keep == pytest.approx(scores, abs=5e-3)  # saved in half precision
        assert found.relevance == pytest.approx(rank.detach().sigmoid().item(), abs=5e-3)
    assert load_pruner(str(out), dtype="fp32", device="cpu").max_tokens == 96
    assert json.loads((out / "config.json").read_text())["base"] == trainer.base


def test_the_same_config_gives_the_same_weights(trained, small_data, tmp_path):
    trainer, out, report, *_ = trained
    again = trainer.run(tmp_path, data=small_data)
    assert (tmp_path / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert again.metrics == report.metrics


def test_an_interrupted_training_goes_on(trained, small_data, tmp_path):
    trainer, out, report, *_ = trained

    def interrupt(event):
        if event.kind == "step" and event.step == 33:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(tmp_path, data=small_data, on_event=interrupt)
    steps = []
    again = trainer.run(
        tmp_path, data=small_data, on_event=lambda e: steps.append(e.step) if e.kind == "step" else None
    )
    assert steps[0] == 34
    assert (tmp_path / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert again.metrics == report.metrics


def test_the_card(trained, small_data):
    trainer, out, report, *_ = trained
    card = check_card(out)
    assert (card.method, card.base_model, card.steps, card.seed) == ("provence", trainer.base, 60, 1)
    assert card.command.startswith("ragzip train provence CONFIG.yaml")
    assert make_trainer("provence", dict(card.config)) == trainer
    kept, _ = trainer.examples(small_data)
    assert {(s.name, s.split, s.licence) for s in card.data} == {
        ("squad", "train", "CC-BY-SA-4.0"),
        ("hotpotqa", "train", "CC-BY-SA-4.0"),
        ("squad_sentences", "train", "CC-BY-SA-4.0"),
    }
    assert sum(source.rows for source in card.data) == len(kept)
    table, again = card.results
    assert re.match(r"\d+ held-out groups: .* 2 that do not", table.data)
    assert {**dict(zip(table.metrics, table.rows[0].values, strict=True)), "again": again.rows[0].values[0]} == (
        report.metrics
    )
    for found in card.results:
        assert [row.role for row in found.rows[:2]] == ["trained", "untrained"]
        assert [row.role for row in found.rows[2:]] == ["baseline"] * 3
    assert all(0 <= row.values[0] <= 1 for row in again.rows)
    assert "asked again" in again.data
    assert "second look" in card.labels
    assert "second look" in card.limits
    assert set(card.sha256) == {"model.safetensors"}


def test_a_card_with_more_results_and_counts_that_are_read_again(trained, small_data):
    trainer, out, report, *_ = trained
    before = read_card(out)
    more = Results("hotpotqa dev", ("f1",), (Row("provence", "trained", (0.5,)), Row("bm25", "baseline", (0.6,))))
    result = LoopResult(report.steps, report.seconds, report.metrics, report.stopped)
    card = write(out, trainer, result, {"score": 0.1}, (10, 0), data=small_data, more=[more])
    assert card.results[0].data.startswith("10 held-out groups:")
    assert card.results[1] == more
    assert any("does not beat bm25" in loss for loss in card.results[1].losses())
    assert {s.name for s in card.data} == {s.name for s in before.data}
    assert check_card(out) == card


def test_held_out_examples_help_nobody_else(trained, small_data):
    trainer, *_ = trained
    kept, held = trainer.examples(small_data)
    assert len(held) == 6
    texts = {m.text for e in held for m in e.positives}
    read = [m.text for e in kept for m in (*e.positives, *e.negatives)]
    assert not texts & set(read)
    helps = {m.text[start:end] for e in held for m in e.positives for start, end in m.support}
    assert helps
    assert not [text for text in read if any(sentence in text for sentence in helps)]
    plain = dataclasses.replace(trainer, again=0.0)
    groups, held_groups, later = plain.groups(kept, held)
    twice = sum(len(e.positives) * (2 if e.set_name == "hotpotqa" else 1) for e in kept)
    assert len(groups) == twice
    assert len(held_groups) == sum(len(e.positives) for e in held)
    assert later == []


def test_questions_are_asked_again(trained, small_data):
    trainer, out, report, *_ = trained
    kept, held = trainer.examples(small_data)
    plain = dataclasses.replace(trainer, again=0.0)
    first, *_ = plain.groups(kept, held)
    groups, held_groups, later = trainer.groups(kept, held)
    assert len(groups) > len(first)
    assert len(held_groups) == sum(len(e.positives) for e in held)
    assert any(not group[0].relevant for group in groups)  # nothing is left that helps
    assert later
    assert all(group[0].relevant for group in later)
    assert 0 <= report.metrics["again"] <= 1
    assert load_pruner(str(out), dtype="fp32", device="cpu").hops == 2


def test_questions_of_several_steps_are_put_together(trained, small_data, tmp_path):
    trainer, *_ = trained
    folder = tmp_path / "data"
    shutil.copytree(small_data, folder)
    counts = [(name, f"Count {name}son sailed far. He died in Port {name}.", f"Count {name}son") for name in TOWNS]
    founded = [(name, town(name), [(f"Who founded {name}?", f"Count {name}son")]) for name in TOWNS]
    died = [(title, text, [(f"Where did {who} die?", f"Port {who[6:-3]}")]) for title, text, who in counts]
    squad(folder / "squad" / "train-v1.1-part.json.gz", *founded, *died)
    more = dataclasses.replace(trainer, composed=6, steps=2, eval_every=2)
    kept, held = more.examples(folder)
    several = [example for example in kept if example.set_name == "composed"]
    assert len(several) == 4
    assert all(re.fullmatch(r"Where did the person who founded \w+ die\?", example.question) for example in several)
    texts = {marked.text for example in held for marked in example.positives}
    assert not texts & {m.text for example in several for m in (*example.positives, *example.negatives)}
    assert all(len(example.negatives) == 4 for example in several)
    more.run(tmp_path / "out", data=folder)
    card = check_card(tmp_path / "out")
    (source,) = [source for source in card.data if source.name == "composed"]
    assert (source.rows, source.licence) == (4, "CC-BY-SA-4.0")
    assert "put together by rules" in card.labels
    again = write(tmp_path / "out", more, LoopResult(2, 1.0, {"score": 0.5}, ""), {"score": 0.1}, (6, 0), data=folder)
    assert again.data == card.data
    with pytest.raises(ConfigError, match="composed"):
        dataclasses.replace(trainer, composed=-1)


def test_further_questions_are_trained_on_and_never_held_out(trained, small_data):
    trainer, *_ = trained
    few = dataclasses.replace(trainer, most=("squad=9",))
    kept, held = few.examples(small_data)
    more = dataclasses.replace(few, further=("squad=4", "squad_sentences=99"))  # of the second all are there already
    wide, same = more.examples(small_data)
    assert [example.id for example in same] == [example.id for example in held]
    ids = [example.id for example in wide]
    assert len(ids) == len(set(ids))
    assert set(ids) > {example.id for example in kept}
    new = [example for example in wide if example.id not in {one.id for one in kept}]
    assert {example.set_name for example in new} == {"squad"}
    assert 1 <= len(new) <= 4
    texts = {marked.text for example in held for marked in example.positives}
    assert not texts & {m.text for example in new for m in (*example.positives, *example.negatives)}
    with pytest.raises(ConfigError, match="further"):
        dataclasses.replace(trainer, further=("squid=4",))


def test_groups_without_a_passage_that_helps_have_a_loss(trained, small_data):
    trainer, *_ = trained
    kept, held = trainer.examples(small_data)
    groups, *_ = trainer.groups(kept, held)
    model = Joint.start(trainer)
    nothing = [group for group in groups if not group[0].relevant][:3]
    loss = model.loss(nothing, 0.5)
    loss.backward()
    assert loss.item() > 0
    assert model.rank.weight.grad.abs().sum() > 0


def test_training_goes_on_from_trained_weights(trained, small_data, tmp_path):
    trainer, out, report, *_ = trained
    more = dataclasses.replace(trainer, start=str(out), steps=3, lr=1e-9)
    events = []
    again = more.run(tmp_path, data=small_data, on_event=events.append)
    before = next(event.metrics for event in events if event.kind == "eval")
    assert before["margin"] == pytest.approx(report.metrics["margin"], abs=5e-3)  # saved in half precision
    assert again.metrics["margin"] == pytest.approx(before["margin"], abs=1e-3)
    card = read_card(tmp_path)
    assert card.config["start"] == str(out)
    digest = read_card(out).sha256["model.safetensors"]
    assert card.config["start_sha256"] == digest
    assert f"SHA-256 `{digest}`" in card.about
    assert "60 steps behind them, without the examples that are held out here." in card.about
    assert card.results[0].rows[1].name == "the weights it went on from"
    assert "trains it again from the weights it went on from." in (tmp_path / "README.md").read_text()


def test_what_the_card_says_of_the_start(trained, tmp_path):
    trainer, out, *_ = trained
    config = trainer_config(trainer)
    digest = read_card(out).sha256["model.safetensors"]
    for changed in ({"seed": 2}, {"held_out": 7}, {"most": ["squad=3"]}, {"sets": ["squad", "qed"]}):
        assert "may not have been new to them" in went_on(str(out), digest, {**config, **changed})
    assert "on other sets" in went_on(str(out), digest, {**config, "sets": ["qed"]})
    assert "without the examples" in went_on(str(out), digest, {**config, "steps": 9, "again": 0.0})
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    assert "is not known" in went_on(str(tmp_path), digest, config)
    assert "is not known" in went_on(str(out), "0" * 64, config)  # the card of other weights
    chained = dataclasses.replace(read_card(out), config={**config, "start": "x", "start_sha256": "d"})
    write_card(tmp_path, chained)
    assert "may not have been new" in went_on(str(tmp_path), digest, config)
    write_card(tmp_path, dataclasses.replace(chained, about="From x, without the examples that are held out here."))
    assert "steps behind them, without the examples" in went_on(str(tmp_path), digest, config)


def test_a_start_that_cannot_be_is_refused_before_anything_is_read(trained, tmp_path, tiny_encoder_path):
    trainer, out, *_ = trained
    nowhere = tmp_path / "no data"

    def refused(error, match, into=tmp_path, **options):
        with pytest.raises(error, match=match):
            dataclasses.replace(trainer, **options).run(into, data=nowhere)

    refused(ModelError, "nothing/there", start="nothing/there")
    refused(ModelError, "of another program", start=tiny_encoder_path)
    refused(ModelError, "not of provence from", start=str(out), base="all-minilm-l6-v2")
    refused(ModelError, "checksum", start=str(out), start_sha256="0" * 64)
    refused(UsageError, "another --out|weights to go on from", into=out, start=str(out))
    save_tuned(
        tmp_path / "other",
        architecture="dual_encoder",
        base=tiny_encoder_path,
        max_tokens=64,
        tensors={"heads.a.weight": torch.zeros(1, 4)},
    )
    refused(ModelError, "those of dual_encoder from", start=str(tmp_path / "other"))


def test_a_training_that_asks_nothing_again_reads_once(trained, small_data, tmp_path):
    trainer, *_ = trained
    report = dataclasses.replace(trainer, again=0.0, steps=2).run(tmp_path, data=small_data)
    assert "again" not in report.metrics
    card = read_card(tmp_path)
    assert len(card.results) == 1
    assert "second look" not in card.labels + card.limits
    assert "trains it again." in (tmp_path / "README.md").read_text()
    assert load_pruner(str(tmp_path), dtype="fp32", device="cpu").hops == 1


def test_metrics_of_a_model_that_knows_and_of_one_that_does_not(trained, small_data):
    trainer, *_ = trained
    kept, held = trainer.examples(small_data)
    _, groups, _ = trainer.groups(kept, held)

    class Knows:
        device, sign = "cpu", 1.0

        def logits(self, pairs):
            keep = [torch.from_numpy(pair.labels) * 9 * self.sign for pair in pairs]
            rank = torch.tensor([float(pair.relevant) * self.sign for pair in pairs])
            return keep, [torch.from_numpy(pair.labels) for pair in pairs], rank

    found = evaluate(Knows(), groups)
    assert (found["score"], found["sentence"], found["passage"]) == (1.0, 1.0, 1.0)
    assert found["margin"] == pytest.approx(0.5, abs=1e-3)
    wrong = Knows()
    wrong.sign = -1.0
    assert evaluate(wrong, groups)["score"] == 0
    assert evaluate(Knows(), groups, size=1) == pytest.approx(found)
    assert evaluate(Knows(), []) == {"score": 0.0, "sentence": 0.0, "passage": 0.0, "margin": 0.0}
    assert any((pair.labels != IGNORED).any() for group in groups for pair in group)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"sets": ("squid",)}, "sets"),
        ({"sets": ()}, "sets"),
        ({"most": ("squid=3",)}, "most"),
        ({"most": ("squad",)}, "most"),
        ({"repeat": ("squad=x",)}, "repeat"),
        ({"negatives": 0}, "negatives"),
        ({"again": -0.1}, "again"),
        ({"again": 1.5}, "again"),
        ({"start": ""}, "start"),
        ({"start_sha256": "0" * 64}, "start_sha256"),
        ({"max_tokens": 8}, "max_tokens"),
        ({"window": 8}, "window"),
        ({"batch": 0}, "batch"),
        ({"steps": 0}, "steps"),
        ({"eval_every": 0}, "eval_every"),
        ({"patience": -1}, "patience"),
        ({"held_out": 0}, "held_out"),
        ({"lr": 0.0}, "lr"),
        ({"rank_weight": float("nan")}, "rank_weight"),
        ({"dtype": "int4"}, "dtype"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_options_out_of_range(options, path):
    with pytest.raises(ConfigError) as caught:
        ProvenceTraining(**options)
    assert caught.value.path == path


def test_nothing_left_to_train_on(tiny_encoder_path, small_data, tmp_path):
    with pytest.raises(UsageError, match="all 24 examples are held out"):
        toy(tiny_encoder_path, sets=("squad", "hotpotqa"), held_out=100).run(tmp_path, data=small_data)


def test_config_round_trip():
    made = ProvenceTraining(steps=7, sets=("squad",), most=("squad=3",))
    assert make_trainer("provence", trainer_config(made)) == made
