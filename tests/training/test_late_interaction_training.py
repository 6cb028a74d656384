"""Training of ``late_interaction`` from a made-up data folder, and the parts of its loss against simple ones."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.errors import ConfigError, UsageError
from ragzip.models.late_interaction import load_late_interaction
from ragzip.testing.pruners import tiny_pruner
from ragzip.training.card import check_card
from ragzip.training.examples import Example, Marked
from ragzip.training.late_data import Item, Pool, by_encoder, confused, items, searched
from ragzip.training.late_interaction import LateInteractionTraining
from ragzip.training.late_model import Late, maxsim
from ragzip.training.negatives import by_words, mine
from ragzip.training.options import make_trainer, trainer_config

OPTIONS = {"sets": ("squad", "hotpotqa"), "most": (), "held_out": 4, "dtype": "fp32", "device": "cpu", "seed": 1}
OPTIONS |= {"layers": 1, "dimensions": 8, "batch": 6, "steps": 30, "lr": 1e-2, "eval_every": 15, "max_tokens": 64}


@pytest.fixture(scope="module")
def judge(tmp_path_factory, tiny_encoder_path):
    return str(tiny_pruner(tmp_path_factory.mktemp("judge"), tiny_encoder_path))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_encoder_path, judge, small_data):
    """The trainer, the folder, the report and what was told."""
    out, events = tmp_path_factory.mktemp("late"), []
    trainer = LateInteractionTraining(base=tiny_encoder_path, judge=judge, judge_weight=0.1, **OPTIONS)
    report = trainer.run(out, data=small_data, on_event=events.append)
    return SimpleNamespace(trainer=trainer, out=out, report=report, events=events)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_it_learns(trained):
    losses = [event.loss for event in trained.events if event.kind == "step"]
    assert len(losses) == trained.report.steps == trained.trainer.steps
    assert np.mean(losses[-8:]) < np.mean(losses[:8])


def test_an_interrupted_training_goes_on_to_the_same_weights(trained, small_data, tmp_path):
    def interrupt(event):
        if event.kind == "step" and event.step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.trainer.run(tmp_path, data=small_data, on_event=interrupt)
    steps = []
    again = trained.trainer.run(
        tmp_path, data=small_data, on_event=lambda e: steps.append(e.step) if e.kind == "step" else None
    )
    assert steps[0] == 18
    assert weights(tmp_path) == weights(trained.out)
    assert again.metrics == trained.report.metrics


def test_the_card(trained):
    card = check_card(trained.out)
    assert (card.method, card.base_model, card.seed) == ("late_interaction", trained.trainer.base, 1)
    assert make_trainer("late_interaction", dict(card.config)) == trained.trainer
    (table,) = card.results
    assert [row.role for row in table.rows] == ["trained", "untrained", "baseline", "baseline"]
    assert table.metrics == tuple(trained.report.metrics) == ("ndcg@10", "mrr")
    assert all(value is not None for row in table.rows for value in row.values)


@pytest.mark.parametrize("layers", [1, None])
def test_what_is_saved_scores_as_what_was_trained(trained, small_data, tmp_path, layers):
    """The folder, read as any model is, against the model in memory: one step, so that the last weights are saved."""
    trainer = LateInteractionTraining(**{**trained.trainer.__dict__, "layers": layers, "steps": 1, "eval_every": 1})
    trainer.run(tmp_path, data=small_data)
    model = load_late_interaction(str(tmp_path), dtype="fp32", device="cpu")
    assert (model.dimensions, model.max_tokens) == (8, 128)
    questions, texts = ["Who founded Alba?", "tea"], ["Alba\nIt is a town, by the sea.", "Tea comes from China."]
    asked = model.encode_queries(questions)
    found = [one.vectors for one in model.encode_documents(texts)]
    scores = [[(q @ d.T).max(1).mean() for d in found] for q in asked]
    late = Late(trainer)
    late.begin(texts)
    assert {name.partition(".")[0] for name in saved(tmp_path)} == (
        {"heads"} if layers is None else {"heads", "backbone"}
    )
    for name, parameter in late.parameters():
        with torch.no_grad():
            parameter.copy_(saved(tmp_path)[name].float())
    assert np.allclose(scores, late.rank(questions, texts), atol=1e-3)
    assert found[0].shape[0] == len(model._text.encode(texts[:1])[0]) + 2 - 2  # without the comma and the full stop


def saved(folder):
    from safetensors.torch import load_file

    return load_file(str(folder / "model.safetensors"))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000), asked=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    found=st.lists(st.integers(1, 6), min_size=1, max_size=5),
)  # fmt: skip
def test_maxsim_is_the_mean_of_the_largest_products(seed, asked, found):
    draw = np.random.default_rng(seed)

    def padded(lengths):
        vectors = draw.normal(size=(len(lengths), max(lengths), 3)).astype(np.float32)
        return vectors, np.arange(max(lengths)) < np.array(lengths)[:, None]

    (q, asking), (d, there) = padded(asked), padded(found)
    scores = maxsim(*map(torch.from_numpy, (q, asking, d, there))).numpy()
    for i, m in enumerate(asked):
        for j, k in enumerate(found):
            expected = np.mean([max(float(q[i, a] @ d[j, b]) for b in range(k)) for a in range(m)])
            assert scores[i, j] == pytest.approx(expected, abs=1e-5)


def test_the_projection_begins_with_the_best_rank(tiny_encoder_path):
    """No other projection of its width keeps more of the token vectors' lengths; all of them keep everything."""
    texts = [f"{name} is a town by the sea" for name in ("Alba", "Borgo", "Cella")]
    late = Late(LateInteractionTraining(base=tiny_encoder_path, **OPTIONS))
    late.begin(texts)
    weight = late.projection.weight.detach()
    assert torch.allclose(weight @ weight.T, torch.eye(8), atol=1e-4)
    hidden, mask = late._hidden(texts)
    rows = torch.nn.functional.normalize(hidden[mask].detach(), dim=-1)
    kept = float((rows @ weight.T).square().sum())
    assert kept == pytest.approx(float(torch.linalg.svdvals(rows)[:8].square().sum()), rel=1e-4)


def test_the_loss_is_the_sum_of_its_parts(tiny_encoder_path):
    """Against one that is written down item by item."""
    trainer = LateInteractionTraining(base=tiny_encoder_path, **{**OPTIONS, "negatives": 2}, judge_weight=0.7)
    late = Late(trainer)
    helps, also, near, far = (Marked(t, relevant=i < 2) for i, t in enumerate(("a town", "two towns", "sea", "tea")))
    batch = [
        Item("where?", (helps, near, far), frozenset({"a town", "two towns"})),
        Item("how many?", (also, far), frozenset({"two towns"})),
    ]
    late.begin(["a town", "sea"])
    judged = {"a town": 2.0, "two towns": 1.0, "sea": 0.5, "tea": -3.0}
    texts = ["a town", "sea", "tea", "two towns"]
    scores = late.rank([item.question for item in batch], texts) * 32.0

    def shares(values):
        powers = [math.exp(v - max(values)) for v in values]
        return [p / sum(powers) for p in powers]

    def divergence(wanted, given_):
        return sum(w * math.log(w / g) for w, g in zip(shares(wanted), shares(given_), strict=True))

    # The first question: another passage that helps, and one that the judge takes for helpful, are no negatives.
    contrast = -math.log(shares([scores[0][0], scores[0][2]])[0]) - math.log(shares(list(scores[1]))[3])
    by_judge = divergence([2.0, 0.5, -3.0], list(scores[0][:3])) + divergence([1.0, -3.0], [scores[1][3], scores[1][2]])
    expected = (contrast + 0.7 * by_judge) / 2
    assert late.loss(batch, lambda _, passages: [judged[m.text] for m in passages]).item() == pytest.approx(
        expected, rel=1e-3
    )
    assert late.loss(batch, None).item() == pytest.approx(
        sum(
            -math.log(shares(row)[0])
            for row in ([scores[0][0], scores[0][1], scores[0][2]], [scores[1][i] for i in (3, 0, 1, 2)])
        )
        / 2,
        rel=1e-3,
    )


def test_items_have_what_helps_first_and_nothing_that_helps_behind():
    helps = (Marked("one", "T", relevant=True), Marked("two", "T", relevant=True), Marked("three", relevant=True))
    others = (Marked("x"), Marked("two", "T"), Marked("y"))
    found = items([Example("e", "s", "Is this true? Cats bark.", helps, others)] * 60, 2, 0)
    assert len(found) == 120
    for item in found:
        assert item.passages[0].relevant
        assert len(item.passages) == 3
        assert {m.text for m in item.passages[1:]} == {"x", "y"}
        assert item.texts[0] in item.helping
        assert len(item.helping) == 3
    assert {item.question for item in found} == {"Is this true? Cats bark.", "Cats bark."}
    assert {item.passages[0].title for item in found if item.passages[0].text == "one"} == {"T", ""}
    assert searched(helps[0]) == "T\none"


def test_what_a_question_is_confused_with():
    """The closest that do not help, by vectors made for it: texts are numbers, and close where the numbers are."""
    passages = [Marked(str(number)) for number in range(40)]
    found = [
        Item(
            str(number),
            (passages[number], *passages[(number + 20) % 40 :][:3]),
            frozenset({str(number), str(number ^ 1)}),
        )
        for number in range(30)
    ]

    def vectors(texts):
        angles = np.array([int(text) / 40 for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    changed = confused(found, vectors, 0)
    assert changed == confused(found, vectors, 0)
    for before, after in zip(found, changed, strict=True):
        assert (after.question, after.passages[0]) == (before.question, before.passages[0])
        assert len(after.passages) == len(before.passages)
        assert after.passages[1] in before.passages[1:]
        number = int(before.question)
        for marked in after.passages[2:]:
            assert marked.text not in before.helping
            assert marked not in before.passages
            assert abs(int(marked.text) - number) <= 14


def test_the_encoder_is_read_once_and_stays_as_it_is(tiny_encoder_path):
    late = Late(LateInteractionTraining(base=tiny_encoder_path, **{**OPTIONS, "layers": None}))
    before = [p.clone() for p in late.backbone.parameters()]
    told = []
    late.prepare(["one", "two", "one"], lambda *progress: told.append(progress))
    late.prepare(["two"], lambda *progress: told.append(progress))
    assert told == [(2, 2)]
    late.begin(["one", "two"])
    late.loss([Item("one", (Marked("two"), Marked("three, four")), frozenset({"two"}))] * 2, None).backward()
    assert [name for name, p in late.parameters() if p.grad is not None] == ["heads.projection.weight"]
    assert all(torch.equal(p, q) for p, q in zip(before, late.backbone.parameters(), strict=True))
    whole = by_encoder(tiny_encoder_path, dtype="fp32", device="cpu")(["one"], ["three, four"])[0][0]
    pooled = late.pooled(["one", "three, four"])
    assert float(pooled[0] @ pooled[1]) == pytest.approx(float(whole), abs=2e-3)


def test_metrics_of_a_pool():
    a, b, c, d = (Marked(t) for t in "abcd")
    held = [Item("1", (a, b), frozenset("a")), Item("2", (c, d), frozenset("cb")), Item("2", (b, d), frozenset("cb"))]
    pool = Pool.of(held)
    assert (pool.questions, pool.texts) == (("1", "2"), ("a", "b", "c", "d"))
    perfect = pool.metrics(lambda _q, _t: np.array([[9, 1, 0, 0], [0, 2, 3, 1]]))
    assert perfect == {"ndcg@10": 1.0, "mrr": 1.0}
    second = pool.metrics(lambda _q, _t: np.array([[2, 9, 0, 0], [0, 0, 1, 2]]))
    wanted = (1 / math.log2(3) + (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))) / 2
    assert second["ndcg@10"] == pytest.approx(wanted)
    assert second["mrr"] == 0.5


def test_words_and_an_encoder_rank(tiny_encoder_path):
    scores = by_words(["a red rose", "a red house", "tea"])(["red rose", "nothing"])
    assert scores[0][0] > scores[0][1] > scores[0][2] == 0
    assert not scores[1].any()
    cosines = by_encoder(tiny_encoder_path, device="cpu")(["one"], ["two", "one"])
    assert cosines[0][0] < cosines[0][1] == pytest.approx(1, abs=1e-5)


def test_negatives_by_words_share_them():
    def example(number, colour):
        text = f"answer{number} is {colour}, as they say"
        return Example(
            str(number), "s", f"who is {colour} number{number}?", (Marked(text, "", ((0, len(text)),), True),)
        )

    examples = [example(i, "red") for i in range(50)] + [example(i, "blue") for i in range(50, 120)]
    for mined, given_ in zip(mine(examples, None, wanted=3, seed=0), examples, strict=True):
        colour = given_.question.split()[2]
        assert len(mined.negatives) == 3
        assert all(f"is {colour}," in m.text and m.text != given_.positives[0].text for m in mined.negatives)


@pytest.mark.parametrize("options", [{"dimensions": 0}, {"judge": ""}, {"judge_weight": -1.0}, {"scale": 0.0}])
def test_bad_options(options):
    with pytest.raises(ConfigError) as caught:
        LateInteractionTraining(**options)
    assert caught.value.path == next(iter(options))


def test_wider_than_the_encoder_and_nothing_left(tiny_encoder_path, small_data, tmp_path):
    wide = LateInteractionTraining(base=tiny_encoder_path, **{**OPTIONS, "dimensions": 999})
    with pytest.raises(ConfigError, match="999"):
        wide.run(tmp_path, data=small_data)
    none = LateInteractionTraining(base=tiny_encoder_path, **{**OPTIONS, "held_out": 999})
    with pytest.raises(UsageError, match="held out"):
        none.run(tmp_path, data=small_data)


def test_config_round_trip():
    made = LateInteractionTraining(judge=None, dimensions=64, sets=("squad",))
    assert make_trainer("late_interaction", trainer_config(made)) == made
