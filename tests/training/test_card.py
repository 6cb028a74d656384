"""Model cards, and the folder that is trained into."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip import registry
from ragzip.errors import ConfigError, ModelError, StoreDamaged, StoreError, StoreMismatch, UsageError
from ragzip.models.shipped import COMP_LLM, PROVENCE, XRAG
from ragzip.training.card import CARD, Card, DataSource, Results, Role, Row, check_card, read_card, write_card
from ragzip.training.card_text import parse, render
from ragzip.training.cards import _SAYS as SAYS
from ragzip.training.cards import _labels as card_labels
from ragzip.training.cards import licence_of, name_of_card
from ragzip.training.comp_llm import CompLLMTraining
from ragzip.training.folder import read_report, train_into
from ragzip.training.options import Trainer, make_trainer, read_trainer, trainer_config
from ragzip.training.xrag import XRAGTraining
from tests.training.fake import TARGET, FakeTraining, card


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_extra", {kind: {} for kind in registry.KINDS})
    registry.register("training", "fake", TARGET)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"some weights")
    return tmp_path


def test_a_card_is_read_as_it_was_written(folder: Path) -> None:
    written = write_card(folder, card())
    assert set(written.sha256) == {"model.safetensors"}
    assert read_card(folder) == check_card(folder) == written
    assert write_card(folder, read_card(folder)) == written
    batches = dataclasses.replace(written, config={**written.config, "batch": 16})
    assert f"{written.steps:,} batches of 16 were drawn from these" in render(batches)
    assert "were drawn" not in render(dataclasses.replace(batches, data=()))
    text = (folder / CARD).read_text()
    for part in (
        "license: cc-by-sa-4.0", "library_name: ragzip", written.sha256["model.safetensors"], "| qed | train | 7,638 |",
        "| fake | trained | 0.512 | 0.100 |", "ttft (less is better)", "| – |", "English only.", "60 minutes, seed 3",
        "better than its untrained self and every baseline",
    ):  # fmt: skip
        assert part in text
    (folder / CARD).write_bytes(text.replace("\n", "\r\n").encode())  # as a checkout on Windows has it
    assert check_card(folder) == written


words = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
prose = st.lists(
    st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=30).map(lambda t: "x" + t),
    min_size=1,
    max_size=3,
).map("\n\n".join)
values = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | words
plain = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
tables = st.integers(0, 3).flatmap(
    lambda width: st.builds(
        Results,
        words,
        st.tuples(*[words] * width),
        st.lists(
            st.builds(Row, words, st.sampled_from(get_args(Role)), st.tuples(*[numbers] * width)),
            max_size=3,
        ).map(tuple),
    )
)
cards = st.builds(
    Card,
    name=words,
    method=words,
    about=prose,
    licence=words,
    base_model=words,
    data=st.lists(st.builds(DataSource, words, words, st.integers(0, 10**9), words), max_size=2).map(tuple),
    labels=prose,
    limits=prose,
    command=words,
    config=st.dictionaries(words, plain, max_size=3),
    steps=st.integers(0, 10**9),
    seed=st.integers(),
    seconds=st.floats(0, 1e9),
    results=st.lists(tables, max_size=2).map(tuple),
    tags=st.lists(words, max_size=3).map(tuple),
    environment=st.dictionaries(words, words, max_size=3),
)


@given(cards)
def test_whatever_a_card_says_is_read_back_or_refused(made: Card) -> None:
    try:
        back = parse(render(made).replace("\r\n", "\n"), "card")
    except ModelError:
        back = None
    if not any("\n" in part for part in (made.name, made.method, made.base_model, made.licence)):
        assert back == made
    # a name of several lines breaks the body; write_card then refuses it, because it reads back what it writes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": " "}, "name is empty"),
        ({"data": ()}, "data is empty"),
        ({"limits": "\n"}, "limits is empty"),
        ({"config": {}}, "config is empty"),
        ({"sha256": {"model.safetensors": "0" * 64}}, "not those that the card is about"),
        ({"results": (Results("dev", ("f1",), (Row("a", "trained", ()),)),)}, "not one value a metric"),
        ({"results": (Results("dev", ("f1",), (Row("a", "best", (1.0,)),)),)}, "role"),  # type: ignore[arg-type]
        ({"results": (Results("dev", ("f1",), (Row("a", "trained", (float("nan"),)),)),)}, "not finite"),
        ({"labels": "by hand\n\n## Limits\n\nnone"}, "read back"),
        ({"about": "\ud800"}, "read back"),
    ],
)
def test_what_a_card_cannot_say_is_not_written(folder: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        write_card(folder, card(**changes))
    assert not (folder / CARD).exists()


def test_other_weights_are_noticed(folder: Path) -> None:
    write_card(folder, card())
    (folder / "checkpoint.safetensors").write_bytes(b"no part of the result")
    check_card(folder)
    (folder / "more.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"says nothing of more\.safetensors"):
        check_card(folder)
    (folder / "more.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"some wxights")
    with pytest.raises(ModelError, match="checksum differs"):
        check_card(folder)
    with pytest.raises(ModelError, match="not those"):
        write_card(folder, read_card(folder))
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        check_card(folder)
    (folder / "other.safetensors").unlink()
    with pytest.raises(ModelError, match="has no"):
        check_card(folder)


@pytest.mark.parametrize("key", ["base_model", "tags", "name", "method", "licence", "command", "steps", "seed",
                                 "sha256", "config", "data", "results", "card", "ragzip"])  # fmt: skip
def test_a_missing_field_is_named(folder: Path, key: str) -> None:
    import yaml

    write_card(folder, card())
    _, front, body = (folder / CARD).read_text().split("---\n", 2)
    head = yaml.safe_load(front)
    del (head if key in head else head["ragzip"])[key]
    (folder / CARD).write_text(f"---\n{yaml.safe_dump(head)}---\n{body}")
    with pytest.raises(ModelError, match=f"{key} is missing"):
        check_card(folder)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("card: 1", "card: 2", "another version"),
        ("steps: 5", "steps: five", "ragzip.steps should be of type int"),
        ("rows: 499", "rows: true", r"ragzip.data.0.rows should be of type int"),
        ("0.51234", "high", "ragzip.results.0.rows.0.values.0 is no number"),
        ("license:", "license: !!python/object:os.system", "YAML"),
        ("---\n", "", "no front matter"),
        ("model.safetensors:", "../model.safetensors:", "no weight file beside"),
        ("## Limits", "## Limit", "limits is empty"),
    ],
)
def test_a_damaged_card_is_one_clear_error(folder: Path, old: str, new: str, says: str) -> None:
    write_card(folder, card())
    text = (folder / CARD).read_text()
    assert old in text
    (folder / CARD).write_text(text.replace(old, new))
    with pytest.raises(ModelError, match=says) as caught:
        check_card(folder)
    assert str(folder) in str(caught.value)


def test_no_card(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model card"):
        read_card(tmp_path)
    (tmp_path / CARD).write_bytes(b"---\n\xff\n---\n")
    with pytest.raises(ModelError, match="cannot be read"):
        read_card(tmp_path)
    (tmp_path / CARD).write_bytes(b"x" * 1_000_001)
    with pytest.raises(ModelError, match="too large"):
        read_card(tmp_path)


def test_what_is_not_beaten_is_said(folder: Path) -> None:
    table = card().results[0]
    worse = dataclasses.replace(table, rows=(Row("fake", "trained", (0.4, 0.3)), *table.rows[1:]))
    assert worse.losses() == [
        f"fake does not beat fake, untrained on {table.data}: ttft 0.300 against 0.200",
        f"fake does not beat bm25_sentences on {table.data}: sentence f1 0.400 against 0.400",
    ]
    write_card(folder, card(results=(worse,)))
    text = (folder / CARD).read_text()
    assert all(loss in text for loss in worse.losses())
    assert "better than" not in text
    alone = dataclasses.replace(table, rows=table.rows[:2])
    write_card(folder, card(results=(alone,)))
    text = (folder / CARD).read_text()
    assert "no row is baseline" in text
    assert "better than" not in text


def test_a_trainer_and_its_config(tmp_path: Path) -> None:
    path = tmp_path / "fake.yaml"
    path.write_text("ragzip: 1\ntype: fake\nsteps: 7\n")
    made = read_trainer("fake", path, ["rate=0.5"])
    assert made == FakeTraining(steps=7, rate=0.5)
    assert isinstance(made, Trainer)
    assert make_trainer("fake", trainer_config(made)) == made
    path.write_text("")
    assert read_trainer("fake", path, ["steps=2"]) == FakeTraining(steps=2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps: 7\nstpes: 7\n", "fake.yaml:2: stpes: training 'fake' has no option 'stpes' Did you mean 'steps'"),
        ("rate: fast\n", "fake.yaml:1: rate: should be a number"),
        ("seed: 1\nsteps: 0\n", "fake.yaml:2: steps: must be at least 1"),
        ("ragzip: 2\n", "ragzip: format 2 is not 1"),
        ("type: provence\n", "type: is 'provence', but 'fake' is to be trained"),
        ("- steps\n", "a mapping of options"),
        ("steps: [\n", "not valid YAML"),
    ],
)
def test_errors_start_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "fake.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_trainer("fake", path)
    assert says in str(caught.value)


def test_a_card_trains_the_same_again(tmp_path: Path) -> None:
    first = train_into(tmp_path / "a", FakeTraining(steps=3, seed=4))
    assert read_trainer("fake", first.folder) == FakeTraining(steps=3, seed=4)
    assert read_trainer("fake", first.folder, ["seed=5"]) == FakeTraining(steps=3, seed=5)


def test_a_folder_goes_on_and_ends(tmp_path: Path) -> None:
    out = tmp_path / "out"
    trainer = FakeTraining(stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        train_into(out, trainer)
    assert read_report(out) is None
    report = train_into(out, trainer)
    assert (out / "log").read_text() == "0\n2\n"
    assert train_into(out, trainer) == report == read_report(out)
    assert (out / "log").read_text() == "0\n2\n"
    out.rename(tmp_path / "moved")
    assert train_into(tmp_path / "moved", trainer).folder == tmp_path / "moved"
    (tmp_path / "moved" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="checksum differs"):
        train_into(tmp_path / "moved", trainer)


def test_another_config_is_refused_until_restarted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train_into(out, FakeTraining(stop_at=2))
    with pytest.raises(StoreMismatch, match=r"rate is 0\.1 there and 0\.2 here"):
        train_into(out, FakeTraining(stop_at=2, rate=0.2))
    train_into(out, FakeTraining(rate=0.2), restart=True)
    unfit = tmp_path / "unfit"
    with pytest.raises(ModelError, match="does not fit"):
        train_into(unfit, FakeTraining(unfit=True))
    train_into(unfit, FakeTraining())  # nothing was trained: the folder is free
    assert not list(out.glob("checkpoint*"))
    assert (out / "log").read_text() == "0\n0\n"
    (out / "training.yaml").write_text("{{")
    with pytest.raises(StoreDamaged):
        train_into(out, FakeTraining(rate=0.2))
    (out / "training.yaml").write_text("type: fake\n")
    with pytest.raises(StoreMismatch, match="is not set there"):
        train_into(out, FakeTraining(rate=0.2))


def test_folders_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for restart in (False, True):
        with pytest.raises(UsageError, match="something else"):
            train_into(tmp_path, FakeTraining(), restart=restart)
    with pytest.raises(UsageError, match="no folder"):
        train_into(tmp_path / "notes.txt", FakeTraining())
    with pytest.raises(UsageError, match="cannot be made"):
        train_into(tmp_path / "notes.txt" / "below", FakeTraining())


def test_one_process_at_a_time(tmp_path: Path) -> None:
    import filelock

    (tmp_path / "out").mkdir()
    with filelock.FileLock(tmp_path / "out" / ".lock"), pytest.raises(StoreError, match="another process"):
        train_into(tmp_path / "out", FakeTraining())


def test_a_metric_that_is_not_finite_is_null(tmp_path: Path) -> None:
    train_into(tmp_path / "out", FakeTraining(best=float("inf")))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["metrics"] == {"f1": None}
    (tmp_path / "out" / "report.json").write_text("[]")
    with pytest.raises(StoreDamaged):
        read_report(tmp_path / "out")


def test_weights_of_other_data_are_not_called_as_those_that_come_with_ragzip():
    from ragzip.training.cards import card_of
    from ragzip.training.loop import LoopResult
    from ragzip.training.provence import ProvenceTraining

    result = LoopResult(1, 1.0, {"score": 0.5}, "all steps done")

    def card(**options):
        return card_of(ProvenceTraining(**options), result, untrained={"score": 0.1}, examples=(), held=1)

    usual, other, foreign = card(), card(sets=("medquad",)), card(base="someone/encoder")
    assert (usual.name, other.name, foreign.name) == ("provence-minilm-l6", "provence", "provence")
    assert (usual.licence, other.licence, foreign.licence) == ("CC-BY-SA-4.0", "CC-BY-SA-4.0", "other")


def test_labels_say_what_the_config_says():
    taught, alone = (card_labels(SAYS["llmlingua2"][1], {"teacher": name}) for name in ("a model", ""))
    assert "(the teacher)" in taught
    assert "teacher" not in alone
    late = SAYS["late_interaction"][1]
    assert "on the same sets" in card_labels(late, {"judge": PROVENCE, "judge_weight": 1.0})
    assert card_labels(late, {"judge": "mine", "judge_weight": 1.0}).endswith(
        "from a cross-encoder, too (`judge` in the config)."
    )
    for config in ({"judge": None, "judge_weight": 1.0}, {"judge": PROVENCE, "judge_weight": 0.0}):
        assert "cross-encoder" not in card_labels(late, config)
    close = [card_labels(SAYS["retriever"][1], {"near": on}) for on in (True, False)]
    assert ["finds close" in text for text in close] == [True, False]
    assert not any("{" in card_labels(text, {}) for _, text, _ in SAYS.values())


def test_only_what_may_take_their_place_has_the_name_of_shipped_weights():
    whole = CompLLMTraining()
    assert name_of_card(whole, "comp_llm", whole.base) == COMP_LLM
    assert name_of_card(dataclasses.replace(whole, sets=("policyqa",)), "comp_llm", whole.base) == "comp_llm"
    assert name_of_card(whole, "comp_llm", "other") == "comp_llm"
    assert name_of_card(dataclasses.replace(whole, texts=()), "comp_llm", whole.base) == "comp_llm"
    bridge = XRAGTraining()
    assert name_of_card(bridge, "xrag", bridge.base) == XRAG
    assert name_of_card(dataclasses.replace(bridge, encoder="mine"), "xrag", bridge.base) == "xrag"
    assert (licence_of(whole.base), licence_of("/mine")) == ("CC-BY-SA-4.0", "other")
