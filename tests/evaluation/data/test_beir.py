"""BEIR folders in all their forms."""

import gzip
import json

import pytest

from ragzip.errors import IngestError, UsageError
from ragzip.evaluation.data import open_set
from ragzip.types import Passage

CORPUS = [{"_id": "d1", "title": "T", "text": "One."}, {"_id": "d2", "text": "Two."}]
QUERIES = [{"_id": "q1", "text": "one?"}, {"_id": "q2", "text": "two?"}, {"_id": "q3", "text": "unjudged?"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\n"


def folder(path, qrels=None, corpus=CORPUS, queries=QUERIES, *, packed=False):
    path.mkdir(exist_ok=True)

    def put(name, text):
        (path / name).parent.mkdir(exist_ok=True)
        data = text.encode()
        (path / f"{name}.gz").write_bytes(gzip.compress(data)) if packed else (path / name).write_bytes(data)

    put("corpus.jsonl", "".join(json.dumps(line) + "\n" for line in corpus))
    put("queries.jsonl", "".join(json.dumps(line) + "\n" for line in queries))
    for name, text in ({"qrels.tsv": QRELS} if qrels is None else qrels).items():
        put(name, text)
    return str(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "qrels",
    [
        QRELS,
        QRELS.partition("\n")[2],
        "q1 0 d1 2\nq1 0 d2 0\r\nq2 Q0 d2 1\n",
        "\ufeffq1\t0\td1\t2\n\nq1\t0\td2\t0\nq2\t0\td2\t1\nq2\t0\td2\t1",
    ],
)
def test_every_form_of_qrels_gives_the_same_set(tmp_path, qrels, packed):
    found = open_set(folder(tmp_path / "mine", {"qrels.tsv": qrels}, packed=packed))
    assert found.corpus == (Passage("d1", "One.", "T"), Passage("d2", "Two."))
    assert [(record.id, record.question, record.qrels) for record in found.records] == [
        ("q1", "one?", {"d1": 2, "d2": 0}),
        ("q2", "two?", {"d2": 1}),
    ]
    assert (found.name, found.task, found.labels, found.split) == ("mine", "retrieval", "", "")


def test_splits(tmp_path):
    path = folder(tmp_path / "mine", {"qrels/train.tsv": "q1\td1\t1\n", "qrels/dev.tsv": "q2\td2\t1\n"})
    assert (open_set(path).split, open_set(path).records[0].id) == ("dev", "q2")
    for found in (open_set(path, split="train"), open_set(f"{path}:train")):
        assert (found.split, found.records[0].id) == ("train", "q1")
    with pytest.raises(UsageError, match="no judgements for the split 'test'"):
        open_set(path, split="test")
    with pytest.raises(UsageError, match="'train' in the name and 'dev' beside it"):
        open_set(f"{path}:train", split="dev")
    folder(tmp_path / "mine", {"qrels/test.tsv": "q2\td2\t1\n"})
    assert open_set(path).split == "test"


def test_answers_count_where_all_have_one(tmp_path):
    queries = [{**query, "metadata": {"answer": "yes"}} for query in QUERIES]
    found = open_set(folder(tmp_path / "a", queries=queries))
    assert (found.task, found.records[0].answers) == ("yes_no", ("yes",))
    queries[1] = {"_id": "q2", "text": "two?", "metadata": {"answer": None}}
    found = open_set(folder(tmp_path / "b", queries=queries))
    assert (found.task, found.records[0].answers) == ("retrieval", ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qrels": {"qrels.tsv": "q1\td1\t1\nq9\td1\t1\n"}}, "qrels.tsv:2: no query has the id 'q9'"),
        ({"qrels": {"qrels.tsv": "q1\td1\t1\nq1\td2\tx\n"}}, "qrels.tsv:2: the grade 'x' is no whole number"),
        ({"qrels": {"qrels.tsv": "q1\td1\n"}}, "qrels.tsv:1: needs 3 or 4 columns, not 2"),
        ({"qrels": {"qrels.tsv": "q1\td1\t1\nq1\td1\t0\n"}}, "qrels.tsv:2: query 'q1' and document 'd1' have another"),
        ({"qrels": {"qrels.tsv": "query\tdoc\tgrade\n"}}, "qrels.tsv: has no judgement"),
        ({"qrels": {"qrels.tsv": "q1\td8\t1\nq1\td1\t0\n"}}, "no relevant document of the qrels stands in the corpus"),
        ({"corpus": [*CORPUS, CORPUS[0]]}, "corpus.jsonl:3: the document id 'd1' comes twice"),
        ({"corpus": [{"text": "x"}]}, "corpus.jsonl:1: has no _id"),
        ({"corpus": [{"_id": "d1"}]}, "corpus.jsonl:1: text and title must be text"),
        ({"corpus": []}, "corpus.jsonl: has no document"),
        ({"queries": [*QUERIES, QUERIES[0]]}, "queries.jsonl:4: the query id 'q1' comes twice"),
        ({"queries": [{"_id": "q1"}]}, "queries.jsonl:1: the query has no text"),
        ({"queries": [{"_id": "q1", "text": " "}]}, "queries.jsonl:1: the query has no text"),
    ],
)
def test_bad_folders(tmp_path, change, said):
    with pytest.raises(IngestError) as caught:
        open_set(folder(tmp_path / "mine", **change))
    assert said in caught.value.message


def test_a_folder_without_judgements(tmp_path):
    with pytest.raises(UsageError, match="has no judgements"):
        open_set(folder(tmp_path / "mine", {}))
    with pytest.raises(UsageError, match="of no split"):
        open_set(folder(tmp_path / "other"), split="test")


def test_a_folder_that_is_no_set(tmp_path):
    with pytest.raises(UsageError, match=r"is no BEIR folder \(corpus\.jsonl"):
        open_set(str(tmp_path))
