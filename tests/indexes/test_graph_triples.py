"""Facts from a language model: whatever it writes is data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ragzip.cli.app import app
from ragzip.errors import StoreMismatch, UsageError
from ragzip.indexes import Index, info, repair, verify
from ragzip.indexes.graph import tensors
from ragzip.indexes.graph.edges import FACT, TRIPLE
from ragzip.indexes.graph.triples import MOST_TRIPLES, Triple, add_triples, parse
from ragzip.indexes.graph.words import phrase, words
from ragzip.types import Generation
from tests.indexes.tools import document, documents, make

WORD = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30).filter(
    lambda text: text.strip()
)


class Speaker:
    """A generator whose answers a function writes."""

    def __init__(self, answer) -> None:
        self.answer, self.read = answer, []

    def generate(self, prompts, *, on_text=None):
        texts = ["".join(map(str, prompt)) for prompt in prompts]
        self.read += texts
        return [Generation(self.answer(text.partition("Text:\n")[2]), 1, 1, 0.0, 0.0, True) for text in texts]

    def count_tokens(self, texts):
        return [len(text) for text in texts]


def facts(text: str) -> str:
    """Two facts of ends that stand in the text, whose last word is a number, and one of ends that do not."""
    title, body = text.split("\n", 1)
    first, second = body.split()[:2], body.rstrip(".").split()[-1]
    return json.dumps(
        [[title, "is in", " ".join(first)], [" ".join(first), "is by", second], ["Mira Olsen", "founded", title]]
    )


def ends_of(passage) -> set[int]:
    return {of(passage.title), of(" ".join(passage.text.split()[:2])), of(passage.text.rstrip(".").split()[-1])}


@given(st.lists(st.tuples(WORD, WORD, WORD), max_size=8), st.text(max_size=20), st.booleans())
def test_what_is_written_is_read(triples, around, named):
    value = [dict(zip(Triple._fields, one, strict=True)) if named else list(one) for one in triples]
    around = around.replace("[", "").replace("]", "")
    tidy = [Triple(*(" ".join(side.split()) for side in one)) for one in triples]
    assert parse(around + json.dumps(value) + around) == list(dict.fromkeys(tidy))


@given(st.text(max_size=300) | st.text(alphabet='[]",ab \\{}:', max_size=300))
def test_any_answer_is_read(text):
    for triple in parse(text):
        assert all(isinstance(side, str) for side in triple)
        assert triple.subject
        assert triple.object


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('```json\n[["a", "b", "c"]]\n``` done [1]', [("a", "b", "c")]),
        ('[["a", "b", "c"], ["d", "e", "f"], ["g", "h', [("a", "b", "c"), ("d", "e", "f")]),
        ('["a", "b", "c"]', [("a", "b", "c")]),
        ('[["a", "b"], ["a", 1, "c"], ["", "b", "c"], ["x", "", "z"], null]', [("x", "", "z")]),
        ("__import__('os').system('touch pwned')", []),
        ("[" * 20_000 + "]" * 20_000, []),
        ("", []),
    ],
)
def test_answers(answer, found):
    assert parse(answer) == [Triple(*one) for one in found]


def test_an_answer_without_an_end_takes_no_time_and_few_triples():
    assert parse('["' * 200_000) == []
    assert len(parse(json.dumps([[str(n), "is", "x"] for n in range(1000)]))) == MOST_TRIPLES


def arrays(kb):
    index = Index.open(kb)
    return index, tensors.read(index.path, index.part("graph").whole[0])


def of(text: str) -> int:
    return phrase(words(text).hashes)


def triples_of(kb) -> set[tuple[str, int]]:
    index, found = arrays(kb)
    ids = [passage.id for passage in index]
    owners = np.repeat(np.arange(len(found["indptr"]) - 1), np.diff(found["indptr"]))
    mine = (found["kinds"] == TRIPLE) & (owners < len(ids))
    return {
        (ids[owner], int(found["keys"][target - len(ids)]))
        for owner, target in zip(owners[mine], found["indices"][mine], strict=True)
    }


def test_facts_become_edges_and_stay_while_documents_come_and_go(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(6), retriever="graph")
    count = len(Index.open(kb))
    speaker, told = Speaker(facts), []
    report = add_triples(kb, speaker, batch=4, on_progress=lambda done, total: told.append((done, total)))
    assert (report.passages, report.triples, report.unfounded, report.unreadable) == (count, 2 * count, count, 0)
    assert told[-1] == (count, count)
    assert triples_of(kb) == {(p.id, end) for p in Index.open(kb) for end in ends_of(p)}
    _, found = arrays(kb)
    assert (found["kinds"] == FACT).sum() > 0
    assert verify(kb) == []
    # What was read is not read again; what is new is.
    assert add_triples(kb, Speaker(facts)).passages == 0
    make(kb, [*documents(3), document(8)])
    assert {owner for owner, _ in triples_of(kb)} == {p.id for p in Index.open(kb) if p.metadata["number"] < 3}
    again = Speaker(facts)
    add_triples(kb, again)
    assert all("Title 8" in text for text in again.read)
    assert len(again.read) == sum(p.metadata["number"] == 8 for p in Index.open(kb))
    make(kb, [document(8)])  # rows are numbered anew
    assert {owner for owner, _ in triples_of(kb)} == {p.id for p in Index.open(kb)}
    assert add_triples(kb, Speaker(facts)).passages == 0


def test_bad_answers_are_counted(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(3), retriever="graph")
    report = add_triples(kb, Speaker(lambda text: "I cannot" if "Title 1" in text else facts(text)))
    assert report.unreadable == sum(p.metadata["number"] == 1 for p in Index.open(kb))


def test_a_stopped_run_goes_on(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(6), retriever="graph")
    count = len(Index.open(kb))
    left = [2]

    def stopping(text):
        if "Title 3" in text and left:
            left.clear()
            raise KeyboardInterrupt
        return facts(text)

    speaker = Speaker(stopping)
    with pytest.raises(KeyboardInterrupt):
        add_triples(kb, speaker, batch=2)
    assert not info(kb).searchable
    assert arrays(kb)[0].part("graph").of is not None  # the graph of before is still walked
    assert 0 < add_triples(kb, Speaker(facts), batch=2).passages < count
    assert {owner for owner, _ in triples_of(kb)} == {p.id for p in Index.open(kb)}
    make(tmp_path / "other", documents(6), retriever="graph")
    add_triples(tmp_path / "other", Speaker(facts))
    one, other = arrays(kb)[1], arrays(tmp_path / "other")[1]
    assert all((one[name] == other[name]).all() for name in one)


def test_an_index_without_a_graph_says_so(tmp_path):
    make(tmp_path / "kb", documents(2))
    with pytest.raises(StoreMismatch, match="--retriever graph"):
        add_triples(tmp_path / "kb", Speaker(facts))


def test_repair_says_that_facts_are_lost(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(4), retriever="graph")
    add_triples(kb, Speaker(facts))
    file = kb / Index.open(kb).part("graph").whole[0].name
    file.write_bytes(b"no graph")
    assert repair(kb).lost == ()
    assert triples_of(kb)
    (kb / Index.open(kb).part("graph").files[0].name).write_bytes(b"no rows")
    (lost,) = repair(kb).lost
    assert f"ragzip index triples {kb}" in lost
    assert not triples_of(kb)
    assert add_triples(kb, Speaker(facts)).triples
    assert triples_of(kb)


def test_facts_after_a_run_that_was_stopped_are_kept(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(4), retriever="graph")

    def items():
        yield from (document(number, version=1) for number in range(4))
        yield from (document(number) for number in range(4, 8))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(kb, items(), sync=False)
    report = add_triples(kb, Speaker(facts))
    assert report.passages == len(Index.open(kb))
    assert triples_of(kb) == {(p.id, end) for p in Index.open(kb) for end in ends_of(p)}
    assert add_triples(kb, Speaker(facts)).passages == 0


def test_a_repair_that_was_stopped_does_not_hide_what_is_lost(tmp_path, monkeypatch):
    kb = tmp_path / "kb"
    make(kb, documents(4), retriever="graph")
    add_triples(kb, Speaker(facts))
    (kb / Index.open(kb).part("graph").files[0].name).write_bytes(b"no rows")

    def stops(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ragzip.indexes.writer.Writer.finish", stops)
        with pytest.raises(KeyboardInterrupt):
            repair(kb)
    assert repair(kb).lost
    assert repair(kb).lost
    add_triples(kb, Speaker(facts))
    assert repair(kb).lost == ()


def test_the_command(tmp_path, monkeypatch):
    kb = tmp_path / "kb"
    make(kb, documents(3), retriever="graph")
    made = []

    class Server(Speaker):
        def __init__(self, **options):
            super().__init__(facts)
            made.append(options)

    monkeypatch.setattr("ragzip.generators.openai.OpenAI", Server)
    command = ["index", "triples", str(kb), "--model", "some", "--base-url", "http://localhost:1/v1", "--batch", "2"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert made == [{"base_url": "http://localhost:1/v1", "model": "some", "max_new_tokens": 512}]
    assert f"{len(Index.open(kb)):,} passages read" in done.output
    assert triples_of(kb)
    again = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert again == {"passages": 0, "triples": 0, "unfounded": 0, "unreadable": 0}


def test_the_generator_of_a_pipeline_reads_instead(tmp_path):
    kb, file = tmp_path / "kb", tmp_path / "pipeline.yaml"
    make(kb, documents(3), retriever="graph")
    file.write_text("ragzip: 1\ngenerator: {type: huggingface, max_new_tokens: 7}\n")
    command = ["index", "triples", str(kb), "--pipeline", str(file), "--json"]
    seen = []

    def facts_of(self, prompts, **_):
        seen.append(self)
        return Speaker(facts).generate(prompts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ragzip.generators.huggingface.HuggingFace.generate", facts_of)
        done = CliRunner().invoke(app, [*command, "--set", "generator.max_new_tokens=600"])
    assert json.loads(done.stdout)["passages"] == len(Index.open(kb))
    assert {generator.max_new_tokens for generator in seen} == {600}
    assert triples_of(kb)


def test_what_held_no_fact_is_read_again_when_asked_to(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(4), retriever="graph")
    count = len(Index.open(kb))
    some = Speaker(lambda text: facts(text) if text.startswith("Title 2") else "no idea")
    report = add_triples(kb, some, batch=3)
    known = sum("Title 2" in text for text in some.read)
    assert 0 < known < count
    assert report.unreadable == count - known
    assert add_triples(kb, Speaker(facts)).passages == 0
    every = Speaker(facts)
    report = add_triples(kb, every, batch=3, again=True)
    assert (report.passages, report.unreadable) == (count - known, 0)
    assert not [text for text in every.read if "Title 2" in text]
    assert add_triples(kb, Speaker(facts), again=True).passages == 0
    make(kb, documents(5))
    assert add_triples(kb, Speaker(facts)).passages == len(Index.open(kb)) - count
    assert verify(kb) == []


def test_a_command_whose_answers_hold_nothing_says_what_to_do(tmp_path, monkeypatch):
    kb = tmp_path / "kb"
    make(kb, documents(2), retriever="graph")
    monkeypatch.setattr("ragzip.generators.openai.OpenAI", lambda **_: Speaker(lambda text: "hm"))
    command = ["index", "triples", str(kb), "--model", "some", "--base-url", "http://localhost:1/v1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "--again" in done.output
    monkeypatch.setattr("ragzip.generators.openai.OpenAI", lambda **_: Speaker(facts))
    done = CliRunner().invoke(app, [*command, "--again"])
    assert f"{len(Index.open(kb)):,} passages read" in done.output
    assert "--again" not in done.output


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--model", "some", "--pipeline", "p.yaml"],
        ["--pipeline", "p.yaml", "--base-url", "http://localhost:1/v1"],
        ["--model", "some", "--set", "generator.max_new_tokens=9"],
    ],
)
def test_who_reads_is_said_once(tmp_path, given):
    kb = tmp_path / "kb"
    make(kb, documents(1), retriever="graph")
    done = CliRunner().invoke(app, ["index", "triples", str(kb), *given])
    assert isinstance(done.exception, UsageError), done.output
