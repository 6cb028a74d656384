"""Training of ``recomp_extractive``, ``llmlingua2``, ``recomp_abstractive`` and ``exit`` from a made-up data folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ragzip.compressors._writer import Block
from ragzip.compressors.exit import EXIT
from ragzip.compressors.llmlingua2 import LLMLingua2
from ragzip.compressors.recomp_abstractive import RecompAbstractive
from ragzip.compressors.recomp_extractive import RecompExtractive
from ragzip.errors import ModelError, UsageError
from ragzip.models import load_causal_lm
from ragzip.models.lora import trained_window
from ragzip.models.prefix import twin
from ragzip.training.baselines import of_summaries, summary_scores
from ragzip.training.card import check_card
from ragzip.training.exit import EXITTraining
from ragzip.training.llmlingua2 import LLMLingua2Training
from ragzip.training.low_rank import Adaptable, LowRank, check_same
from ragzip.training.options import make_trainer
from ragzip.training.recomp_abstractive import RecompAbstractiveTraining
from ragzip.training.recomp_extractive import RecompExtractiveTraining
from ragzip.types import Passage, Query, context_of

SHARED = {"sets": ("squad", "hotpotqa"), "most": (), "held_out": 4, "dtype": "fp32", "device": "cpu", "seed": 1}


def toy(method, encoder, lm):
    if method == "recomp_extractive":
        more = {"layers": 1, "batch": 8, "steps": 40, "lr": 1e-2, "eval_every": 20}
        return RecompExtractiveTraining(base=encoder, **SHARED, **more)
    if method == "llmlingua2":
        more = {"teacher": lm, "layers": 1, "batch": 4, "steps": 40, "lr": 1e-2, "eval_every": 20}
        return LLMLingua2Training(base=encoder, **SHARED, **more, max_tokens=96)
    if method == "exit":
        more = {"rank": 4, "alpha": 8, "max_tokens": 2000, "batch": 2, "steps": 16, "lr": 2e-2, "eval_every": 8}
        return EXITTraining(base=lm, **SHARED, **more, repeat=("hotpotqa=2",), sentences=2)
    more = {"passages": 2, "rank": 4, "alpha": 8, "max_tokens": 900, "batch": 2, "steps": 12, "lr": 2e-2}
    return RecompAbstractiveTraining(base=lm, **SHARED, **more, eval_every=6, written=2, empty=0.3)


METHODS = ("recomp_extractive", "llmlingua2", "recomp_abstractive", "exit")


@pytest.mark.parametrize("method", METHODS)
def test_holding_everything_out_is_refused(method, tmp_path, tiny_encoder_path, tiny_lm_path, small_data):
    with pytest.raises(UsageError, match="is left to train on"):
        replace(toy(method, tiny_encoder_path, tiny_lm_path), held_out=10_000).run(tmp_path, data=small_data)
    assert not list(tmp_path.glob("*.md"))


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tmp_path_factory, tiny_encoder_path, tiny_lm_path, small_data):
    """The method, its trainer, the folder, the report and what was told."""
    out, events = tmp_path_factory.mktemp(request.param), []
    trainer = toy(request.param, tiny_encoder_path, tiny_lm_path)
    report = trainer.run(out, data=small_data, on_event=events.append)
    return SimpleNamespace(method=request.param, trainer=trainer, out=out, report=report, events=events)


def weights(folder):
    (path,) = [p for p in folder.glob("*.safetensors") if "checkpoint" not in p.name]
    return path.read_bytes()


def test_it_learns(trained):
    losses = [event.loss for event in trained.events if event.kind == "step"]
    assert len(losses) == trained.report.steps == trained.trainer.steps
    quarter = max(len(losses) // 4, 2)
    assert np.mean(losses[-quarter:]) < np.mean(losses[:quarter])


def test_the_same_config_gives_the_same_weights(trained, small_data, tmp_path):
    again = trained.trainer.run(tmp_path, data=small_data)
    assert weights(tmp_path) == weights(trained.out)
    assert again.metrics == trained.report.metrics


def test_an_interrupted_training_goes_on(trained, small_data, tmp_path):
    stop = trained.trainer.steps // 2 + 1

    def interrupt(event):
        if event.kind == "step" and event.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.trainer.run(tmp_path, data=small_data, on_event=interrupt)
    steps = []
    trained.trainer.run(
        tmp_path, data=small_data, on_event=lambda e: steps.append(e.step) if e.kind == "step" else None
    )
    assert steps[0] == stop + 1
    assert weights(tmp_path) == weights(trained.out)


def test_a_checkpoint_is_not_taken_up_with_other_data(trained, small_data, tmp_path):
    import shutil

    from tests.training import data

    other = shutil.copytree(small_data, tmp_path / "data")
    asked = [(name, data.town(name), [(f"Who was it that founded {name}?", f"Count {name}son")]) for name in data.TOWNS]
    data.squad(other / "squad" / "train-v1.1-part.json.gz", *asked)
    out = tmp_path / "out"

    def interrupt(event):
        if event.kind == "step":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.trainer.run(out, data=small_data, on_event=interrupt)
    with pytest.raises(UsageError, match="other data"):
        trained.trainer.run(out, data=other)


def test_the_card(trained):
    card = check_card(trained.out)
    assert (card.method, card.base_model, card.seed) == (trained.method, trained.trainer.base, 1)
    assert make_trainer(trained.method, dict(card.config)) == trained.trainer
    assert {(s.name, s.split) for s in card.data} == {("squad", "train"), ("hotpotqa", "train")}
    (table,) = card.results
    assert {row.role for row in table.rows} == {"trained", "untrained", "baseline"}
    assert table.metrics == tuple(trained.report.metrics)
    assert all(value is not None for value in table.rows[0].values)


def test_the_folder_serves_as_a_model(trained):
    options = {"model": str(trained.out), "dtype": "fp32", "device": "cpu"}
    passage = Passage("p", "Alba is a town by the sea. It was founded by Count Albason. Many like it.", "Alba")
    made = {
        "recomp_extractive": lambda: RecompExtractive(**options, budget=12),
        "llmlingua2": lambda: LLMLingua2(**options, budget=12),
        "exit": lambda: EXIT(**options, budget=12),
        "recomp_abstractive": lambda: RecompAbstractive(**options, budget=12, max_new_tokens=8, window=512),
    }[trained.method]()
    (after,) = made.compress([context_of(Query("Who founded Alba?"), (passage,))])
    assert len(" ".join(segment.text for segment in after.segments)) < len(passage.text)


@pytest.mark.parametrize("trained", ["recomp_abstractive"], indirect=True)
def test_a_summariser_goes_on_from_an_adapter_and_says_what_it_read(trained, small_data, tmp_path):
    told = []
    more = replace(trained.trainer, start=str(trained.out), steps=1, lr=1e-9)
    more.run(tmp_path, data=small_data, on_event=told.append)
    first = next(event.metrics for event in told if event.kind == "eval")
    assert first["likelihood"] == pytest.approx(trained.report.metrics["likelihood"], abs=0.01)
    card = check_card(tmp_path)
    assert card.config["start_sha256"] in check_card(trained.out).sha256.values()
    assert "steps behind them, without the examples" in card.about
    with pytest.raises(ModelError, match="another rank"):
        replace(more, rank=2).run(tmp_path / "refused", data=small_data)
    other = tmp_path / "other"
    shutil.copytree(trained.trainer.base, other)
    weights = load_file(other / "model.safetensors")
    changed = {key: value + 0.5 for key, value in weights.items()}
    save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
    check_same(trained.out, trained.trainer.base, more.rank, more.alpha)
    with pytest.raises(ModelError, match="another model than"):
        check_same(trained.out, str(other), more.rank, more.alpha)
    assert trained_window(tmp_path) == trained.trainer.max_tokens
    edit = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**edit, "ragzip_window": "many"}))
    with pytest.raises(ModelError, match="ragzip_window 'many'"):
        trained_window(tmp_path)


def test_what_is_written_is_scored_beside_sentences_and_silence(tiny_encoder_path):
    told = summary_scores(["Rome has seven hills.", "", "words", ""], ["Rome has seven hills.", "", "", "Tea."])
    assert told == {"overlap": pytest.approx(0.5), "gate": pytest.approx(0.5)}
    blocks = (Block("Rome has seven hills. Nobody knows why.", "Rome"), Block("Tea comes from China."))
    found = of_summaries(
        [("How many hills has Rome?", blocks, "Rome has seven hills."), ("x?", blocks, "")], tiny_encoder_path, 0
    )
    assert found["nothing"] == {"overlap": 0.5, "gate": 0.5}
    assert found["bm25_sentences, 40 words"]["gate"] == 0.5
    assert 0 < found["bm25_sentences, 40 words"]["overlap"] < 0.5


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory, tiny_encoder_path, tiny_lm_path, small_data):
    """A trained ``exit``: its trainer, its folder, its report, and what was told."""
    trainer, told, out = toy("exit", tiny_encoder_path, tiny_lm_path), [], tmp_path_factory.mktemp("judge")
    return SimpleNamespace(
        trainer=trainer, out=out, report=trainer.run(out, data=small_data, on_event=told.append), events=told
    )


def test_the_adapter_of_exit_is_what_judges(judge_folder, tiny_lm_path):
    (before, *_) = (event.metrics for event in judge_folder.events if event.kind == "eval")
    assert judge_folder.report.metrics["f1"] > before["f1"]
    assert json.loads((judge_folder.out / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
    text = "Alba is a town by the sea. It was founded by Count Albason. Many like it."
    asked = ("Who founded Alba?", text, [text[:26], text[27:59]])
    base, after = (EXIT(model=str(m), dtype="fp32").load().yes(*asked) for m in (tiny_lm_path, judge_folder.out))
    assert max(abs(a - b) for a, b in zip(base, after, strict=True)) > 0.05


def test_the_card_counts_what_was_read(judge_folder, small_data, tmp_path):
    few = replace(judge_folder.trainer, steps=1, batch=1, eval_every=1)
    few.run(tmp_path, data=small_data)
    assert sum(source.rows for source in check_card(tmp_path).data) == 1
    assert sum(source.rows for source in check_card(judge_folder.out).data) > 1


@pytest.mark.parametrize("method", ["exit", "recomp_abstractive"])
def test_an_adapter_is_no_base(method, judge_folder, small_data, tmp_path):
    with pytest.raises(ModelError, match="adapter itself"):
        toy(method, "", str(judge_folder.out)).run(tmp_path, data=small_data)


def test_exit_goes_on_from_an_adapter(judge_folder, small_data, tmp_path):
    told, once = [], []
    more = replace(judge_folder.trainer, start=str(judge_folder.out), steps=2, lr=1e-9)

    def interrupt(event):
        once.append(event)
        if event.kind == "step":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        more.run(tmp_path, data=small_data, on_event=interrupt)
    more.run(tmp_path, data=small_data, on_event=told.append)
    first = next(event.metrics for event in once if event.kind == "eval")
    before = next(event.metrics for event in judge_folder.events if event.kind == "eval")
    after = judge_folder.report.metrics
    assert first == pytest.approx(after, abs=0.05)  # written in half precision: a close call may go the other way
    assert before != pytest.approx(after, abs=0.05)
    assert [event.step for event in told if event.kind == "step"] == [2]
    card = check_card(tmp_path)
    (digest,) = check_card(judge_folder.out).sha256.values()
    assert (card.config["start"], card.config["start_sha256"]) == (str(judge_folder.out), digest)
    assert "steps behind them, without the examples" in card.about
    assert "the weights it went on from" in [row.name for row in card.results[0].rows]


def test_what_exit_cannot_go_on_from(judge_folder, small_data, tmp_path, tiny_encoder_path):
    more = replace(judge_folder.trainer, start=str(judge_folder.out))
    bare = tmp_path / "bare"
    shutil.copytree(judge_folder.out, bare)
    (bare / "README.md").unlink()
    for changed, said in (
        ({"rank": 2}, "another rank"),
        ({"alpha": 3}, "another rank"),
        ({"start_sha256": "0" * 64}, "checksum"),
        ({"start": tiny_encoder_path}, "of another program"),
        ({"start": str(bare)}, "no model card"),
        ({"base": tiny_encoder_path}, "not of exit from"),
        ({"start": "recomp-abstractive-smollm2"}, "those of recomp_abstractive"),
    ):
        with pytest.raises(ModelError, match=said):
            replace(more, **changed).run(tmp_path / "refused", data=small_data)
    with pytest.raises(UsageError, match="to go on from"):
        more.run(judge_folder.out, data=small_data)


def test_an_adapter_that_is_not_finite_is_not_taken_up(judge_folder, tmp_path, tiny_lm_path):
    folder = shutil.copytree(judge_folder.out, tmp_path / "odd")
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, folder / "adapter_model.safetensors")
    lm = load_causal_lm(tiny_lm_path, dtype="fp32")
    adapter = LowRank(Adaptable("tiny", twin(lm, (5, 9))), 4, 8, 0)
    with pytest.raises(ModelError, match="not finite"):
        adapter.go_on(folder)
    with pytest.raises(ModelError, match="other layers"):
        LowRank(Adaptable("tiny", twin(lm, (5, 9))), 4, 8, 0, ("q_proj",)).go_on(folder)
