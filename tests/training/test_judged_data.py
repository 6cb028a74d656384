"""What ``exit`` learns from, and that training reads it as the compressor does."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragzip.compressors._judge import load_judge
from ragzip.compressors.exit import EXIT
from ragzip.errors import ModelError, UsageError
from ragzip.models.prefix import twin
from ragzip.training._judged_data import Judged, make_groups
from ragzip.training.baselines import of_groups
from ragzip.training.examples import Example, Marked
from ragzip.training.exit import EXITTraining, _together, check_packed, evaluate, logits, losses
from ragzip.training.low_rank import Adaptable, LowRank
from ragzip.types import Passage, Query, context_of

TEXT = "Rome has seven hills. Bread is made of flour. The hills of Rome are old. Tea is hot."
HELPS = (TEXT.index("The hills"), TEXT.index(" Tea"))
ROME = Marked(TEXT, "Rome", (HELPS,), relevant=True)
TEA = Marked("Tea comes from China. Many people drink it.", "Tea")
SALT = Marked("Salt comes from the sea. It is white.")
HILLS = Example("a", "set", " How old are the hills of Rome? ", (ROME,), (TEA, SALT))


@pytest.fixture(scope="module")
def judge(tiny_lm_path):
    return load_judge(tiny_lm_path, "chat", 4096, dtype="fp32")


@pytest.fixture(scope="module")
def model(judge):
    return twin(judge.lm, judge.answers)


@pytest.fixture(scope="module")
def double(judge):
    """In double precision: what fp32 rounds otherwise in other shapes hangs on the processor."""
    return dataclasses.replace(judge, lm=dataclasses.replace(judge.lm, model=copy.deepcopy(judge.lm.model).double()))


def make(judge, *examples, **options):
    return make_groups(judge, examples or (HILLS,), **{"negatives": 2, "seed": 0, "max_tokens": 4000, **options})


def test_labels_say_which_sentences_help(judge):
    (group,) = make(judge)
    assert group.passages[0] == ROME
    assert set(group.passages[1:]) == {TEA, SALT}
    assert [judged.labels for judged in group.judged] == [(0.0, 0.0, 1.0, 0.0), (0.0, 0.0), (0.0, 0.0)]


def test_prompts_are_those_of_the_compressor(judge, monkeypatch, tiny_lm_path):
    monkeypatch.setattr("ragzip.compressors.exit.load_judge", load_judge)  # no stand-in, whatever other tests left
    asked = []
    prompts = type(judge).prompts

    def note(self, *given_):
        asked.append(prompts(self, *given_))
        return asked[-1]

    monkeypatch.setattr(type(judge), "prompts", note)
    twice = Marked("It is hot. Tea is good. It is hot.", "Tea")
    example = dataclasses.replace(HILLS, negatives=(TEA, SALT, twice))
    passages = tuple(Passage(m.text[:9], m.text, m.title) for m in (ROME, *example.negatives))
    EXIT(model=tiny_lm_path, dtype="fp32").compress([context_of(Query(HILLS.question), passages)])
    read = list(asked)
    (group,) = make(judge, example, negatives=3)
    wanted = [(list(judged.beginning), list(map(list, judged.endings))) for judged in group.judged]
    assert len(wanted) == 4
    assert sorted(read) == sorted(wanted)


def test_what_is_not_known_or_too_long_is_left_out(judge):
    unknown = Example("b", "set", "Why?", (Marked(TEXT, "Rome", (), relevant=True, known=False),), (TEA,))
    assert make(judge, unknown) == []
    lengths = sorted(judged.tokens for judged in make(judge)[0].judged)
    (group,) = make(judge, max_tokens=lengths[-1])
    assert len(group.judged) == 3
    assert make(judge, max_tokens=lengths[-1] - 1) == []  # the passage that helps is the longest one
    long = Marked(" ".join(f"Sentence {n} is about tea." for n in range(60)), "Tea")
    (group,) = make(judge, Example("c", "set", "How old?", (ROME,), (long,)), max_tokens=lengths[-1])
    assert group.passages == (ROME,)


def test_of_many_sentences_those_that_help_stay(judge):
    text = " ".join(f"Sentence {n} is about {'Rome' if n in (3, 17) else 'tea'}." for n in range(20))
    places = [(text.index(f"Sentence {n} "), text.index(f"Sentence {n + 1} ")) for n in (3, 17)]
    example = Example("d", "set", "What of Rome?", (Marked(text, "", tuple(places), relevant=True),))
    chosen = set()
    for seed in range(4):
        ((judged,),) = (group.judged for group in make(judge, example, most=5, seed=seed))
        assert len(judged.labels) == len(judged.endings) == 5
        assert sum(judged.labels) == 2.0
        chosen.add(judged.endings)
    assert len(chosen) > 1
    assert sum(make(judge, example, most=1)[0].judged[0].labels) == 1.0


def test_a_sentence_that_comes_twice_is_asked_of_once(judge):
    text = "Yes. Rome has seven hills. Yes. No."
    example = Example("e", "set", "How many?", (Marked(text, "", ((5, 26),), relevant=True),))
    (group,) = make(judge, example)
    assert group.judged[0].labels == (0.0, 1.0, 0.0)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    passages=st.lists(
        st.tuples(
            st.lists(st.integers(3, 383), min_size=1, max_size=40),
            st.lists(st.lists(st.integers(3, 383), min_size=1, max_size=12), min_size=1, max_size=6),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_one_pass_is_one_for_each_sentence(double, passages):
    given_ = [Judged(tuple(start), tuple(map(tuple, ends)), (0.0,) * len(ends)) for start, ends in passages]
    yes, no = double.answers
    with torch.inference_mode():
        for (beginning, endings), row in zip(passages, logits(twin(double.lm, double.answers), given_), strict=True):
            for ending, value in zip(endings, row, strict=True):
                ids = torch.tensor([[*beginning, *ending]])
                last = double.lm.model(input_ids=ids, use_cache=False).logits[0, -1]
                assert abs(float(last[yes] - last[no]) - float(value)) < 1e-4


@pytest.mark.parametrize(("dtype", "far"), [("fp32", 1e-5), ("bf16", 0.02)])
def test_it_is_the_logit_of_what_the_compressor_computes(tiny_lm_path, dtype, far):
    judge = load_judge(tiny_lm_path, "chat", 4096, dtype=dtype)
    document, sentences = f"Rome\n{TEXT}", [TEXT[:21], TEXT[22:45]]
    beginning, endings = judge.prompts("How old?", document, sentences)
    judged = Judged(tuple(beginning), tuple(map(tuple, endings)), (0.0, 0.0))
    with torch.inference_mode():
        (found,) = logits(twin(judge.lm, judge.answers), [judged])
    assert found.dtype == torch.float32
    assert found.sigmoid().tolist() == pytest.approx(judge.yes("How old?", document, sentences), abs=far)


def test_passes_on_a_gpu_are_bounded_by_their_tokens(judge, monkeypatch):
    many = [judged for group in make(judge) for judged in group.judged] * 3
    on = {kind: SimpleNamespace(device=SimpleNamespace(type=kind)) for kind in ("cpu", "cuda")}
    assert list(_together(on["cpu"], many)) == [[judged] for judged in many]
    for most in (1, 600, 10**6):
        monkeypatch.setattr("ragzip.training.exit._PASS", most)
        passes = list(_together(on["cuda"], many))
        assert [judged for some in passes for judged in some] == many
        assert all(len(some) == 1 or len(some) * max(j.tokens for j in some) <= most for some in passes)
    assert len(passes) == 1


def test_gradients_reach_the_adapter_alone_and_the_model_is_left_alone(judge, model):
    before = judge.yes("How old?", TEXT, [TEXT[:21]])
    adapter = LowRank(Adaptable("tiny", model), 2, 4, 0)
    try:
        parts = list(losses(model, make(judge)))
        assert len(parts) == 3
        sum(parts).backward()
        assert all(parameter.grad is not None for name, parameter in adapter.named() if "lora_B" in name)
        assert all(parameter.grad is None for parameter in judge.lm.model.parameters())
        with torch.no_grad():
            for _, parameter in adapter.named():
                parameter += 0.1
        assert judge.yes("How old?", TEXT, [TEXT[:21]]) == before
    finally:
        adapter.remove()


def test_sentences_that_help_weigh_more(judge, model):
    plain, heavier = (list(map(float, losses(model, make(judge), positive))) for positive in (1.0, 3.0))
    assert heavier[0] > plain[0]
    assert heavier[1:] == plain[1:]


def test_scores_of_a_judge_that_knows_and_of_one_that_errs(judge, model, monkeypatch):
    groups = make(judge)
    monkeypatch.setattr("ragzip.training.exit.logits", lambda _, some: [torch.tensor(j.labels) * 4 - 2 for j in some])
    assert evaluate(model, groups) == {"score": 1.0, "sentence": 1.0, "passage": 1.0, "f1": 1.0}
    monkeypatch.setattr("ragzip.training.exit.logits", lambda _, some: [2 - torch.tensor(j.labels) * 4 for j in some])
    assert evaluate(model, groups) == {"score": 0.0, "sentence": 0.0, "passage": 0.0, "f1": 0.0}


def test_baselines_rank_passages_by_their_best_sentence(tiny_encoder_path):
    words = "Rome hills old"
    long = Marked(f"{words}. {'Tea is hot. ' * 30}".strip(), "", ((0, len(words) + 1),), relevant=True)
    other = Marked("Rome has hills. Old tea is hot.", "")
    shown = [(words, [long, other])]
    assert of_groups(shown, tiny_encoder_path, 0)["bm25_sentences"]["passage"] == 0.0
    assert of_groups(shown, tiny_encoder_path, 0, by_sentence=True)["bm25_sentences"]["passage"] == 1.0


def test_an_architecture_that_reads_otherwise_is_refused(judge, model, monkeypatch):
    (group,) = make(judge)
    check_packed(judge, model, group.judged[0])
    wrong = lambda model, some: [row + 1.0 for row in logits(model, some)]  # noqa: E731
    monkeypatch.setattr("ragzip.training.exit.logits", wrong)
    with pytest.raises(ModelError, match="in one pass: a logit differs by 1"):
        check_packed(judge, model, group.judged[0])

    def refuse(model, some):
        raise TypeError("got an unexpected keyword argument 'position_ids'")

    monkeypatch.setattr("ragzip.training.exit.logits", refuse)
    with pytest.raises(ModelError, match="in one pass: got an unexpected"):
        check_packed(judge, model, group.judged[0])


def test_nothing_of_what_helps_held_out_questions_is_trained_on(small_data):
    sets = ("squad", "hotpotqa", "squad_sentences")
    trainer = EXITTraining(sets=sets, most=(), held_out=5, dtype="fp32", device="cpu")
    kept, held = trainer.examples(small_data)
    assert len(held) == 5
    read = " ".join(m.text for example in kept for m in (*example.positives, *example.negatives))
    for example in held:
        for marked in example.positives:
            for start, end in marked.support:
                assert marked.text[start:end].strip() not in read
    assert {example.question for example in kept}.isdisjoint(example.question for example in held)


def test_without_anything_that_fits_it_says_so(tmp_path, tiny_lm_path, small_data):
    trainer = EXITTraining(base=tiny_lm_path, sets=("squad",), most=(), repeat=(), held_out=2, max_tokens=40, steps=2)
    with pytest.raises(UsageError, match="fit 40 tokens"):
        trainer.run(tmp_path, data=small_data)
    with pytest.raises(UsageError, match="all 12 examples are held out"):
        dataclasses.replace(trainer, held_out=99).run(tmp_path, data=small_data)
