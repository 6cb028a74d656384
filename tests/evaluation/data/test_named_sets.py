"""Every named set on its real files: counts, and what must hold for each record."""

import re
import string
import time

import pytest

from ragzip.evaluation.data import data_dir, open_set, sources
from ragzip.evaluation.data.records import task_of

pytestmark = pytest.mark.skipif(data_dir() is None, reason="no data folder: set RAGZIP_DATA to run these")

# records, and the least share of them with an answer that stands in the passages (0: answers are not taken from them)
EXPECTED = {
    "hotpotqa:dev": (533, 0.97),
    "hotpotqa:train": (499, 0.94),
    "hotpotqa_fullwiki:dev": (957, 0.5),
    "2wikimultihopqa:dev": (357, 0.9),
    "2wikimultihopqa:train": (500, 0.9),
    "musique:dev": (100, 1),
    "musique:train": (100, 1),
    "nq_multidoc:dev": (500, 1),
    "nq_multidoc:train": (1155, 1),
    "qed:dev": (81, 0.9),
    "qed:train": (1274, 0.9),
    "squad:dev": (10_570, 1),
    "squad:train": (11_877, 1),
    "squad_v2:dev": (11_873, 1),
    "squadshifts:train": (7_938, 1),
    "policyqa:train": (3_809, 1),
    "covidqa:dev": (1_380, 0.99),
    "xquad_de:dev": (1_190, 0.99),
    "xquad_zh:dev": (1_190, 0.99),
    "xquad_ar:dev": (1_190, 0.99),
    "xquad_hi:dev": (1_190, 0.99),
    "scifact:dev": (300, 0),
    "scifact:train": (809, 0),
    "scifact_retrieval:dev": (300, 0),
    "scifact_retrieval:train": (809, 0),
    "fever_rationale:train": (6_004, 0),
    "selqa:dev": (785, 1),
    "selqa:train": (1_590, 1),
    "entailmentbank:dev": (187, 0),
    "entailmentbank:train": (1_313, 0),
    "fairytaleqa:dev": (1_025, 0.6),
    "fairytaleqa:train": (8_548, 0.5),
    "squality:dev": (125, 0),
    "squality:train": (250, 0),
    "qmsum:dev": (272, 0),
    "qmsum:train": (1_257, 0),
    "pubmedqa:dev": (250, 0),
    "pubmedqa:train": (500, 0),
    "tatqa:dev": (1_668, 0.5),
    "hotpotqa_pooled500:dev": (500, 0),
    "cranfield:dev": (225, 0),
    "dbpedia_small:dev": (40, 0),
    "medquad:train": (16_407, 0),
    "chunking_eval:dev": (472, 0),
}
# records without a labelled span, in sets that have labels
UNLABELLED = {
    "hotpotqa_fullwiki:dev": 153,
    "qed:dev": 18,
    "qed:train": 316,
    "squad_v2:dev": 5_945,
    "scifact:dev": 112,
    "scifact:train": 304,
    "qmsum:dev": 35,
    "qmsum:train": 162,
}
CORPUS = {
    "scifact_retrieval": 5_183,
    "hotpotqa_pooled500": 4_937,
    "cranfield": 1_400,
    "dbpedia_small": 5_000,
    "medquad": 16_407,
}


def normal(text):
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def test_all_sets_and_splits_are_checked():
    assert set(EXPECTED) == {f"{source.name}:{split}" for source in sources() for split in source.splits}


@pytest.mark.parametrize("spec", EXPECTED)
def test_a_set(spec):
    name, _, split = spec.partition(":")
    start = time.monotonic()
    found = open_set(name, split=split)
    assert time.monotonic() - start < 10
    assert (len(found.records), found.split) == (EXPECTED[spec][0], split)
    assert found.name == (name if split == found.split and open_default(name) == split else spec)
    assert len({record.id for record in found.records}) == len(found.records)
    assert found.version
    assert len(found.corpus) == CORPUS.get(name, len(found.corpus))

    corpus = {passage.id: passage for passage in found.corpus}
    assert len(corpus) == len(found.corpus)
    inside = asked = unlabelled = punctuation = 0
    for record in found.records:
        assert record.question.strip()
        assert record.question == record.question.strip()
        passages = {passage.id: passage for passage in record.passages}
        assert len(passages) == len(record.passages)
        assert all(passage.text == passage.text.strip() for passage in record.passages)
        for span in record.relevant:
            text = (passages or corpus)[span.passage_id].text
            assert 0 <= span.start < span.end <= len(text)
            piece = text[span.start : span.end]
            assert piece.strip()
            assert piece == piece.strip()
            if found.labels == "passages":
                assert piece == text
        assert len(set(record.relevant)) == len(record.relevant)
        unlabelled += not record.relevant
        assert len(set(record.answers)) == len(record.answers)
        if found.task == "retrieval":
            assert record.qrels
            assert not record.answers
            assert record.qrels.keys() <= corpus.keys()
        else:
            assert record.answers
            assert record.answers == ("",) or all(answer.strip() == answer != "" for answer in record.answers)
            punctuation += not any(map(normal, record.answers)) and record.answers != ("",)
        if EXPECTED[spec][1] and any(record.answers):
            context = normal(" ".join(passage.text for passage in record.passages))
            asked += 1
            inside += any(normal(answer) in context for answer in record.answers)
    assert punctuation <= (spec == "hotpotqa_fullwiki:dev")  # the band !!!
    assert inside >= EXPECTED[spec][1] * asked
    if found.labels:
        assert unlabelled == UNLABELLED.get(spec, 0)
    else:
        assert unlabelled == len(found.records)
    if found.task in ("yes_no", "retrieval"):
        assert task_of(found.records) == found.task


def open_default(name):
    return next(source.splits[0] for source in sources() if source.name == name)


def test_labelled_sentences_of_hotpotqa_are_those_of_the_file():
    # HotpotQA: both supporting paragraphs are there, so at least two passages hold a label
    found = open_set("hotpotqa")
    assert all(len({span.passage_id for span in record.relevant}) == 2 for record in found.records)


def test_squad_sentences_hold_an_answer():
    for record in open_set("squad").records:
        texts = {record.passages[0].text[span.start : span.end] for span in record.relevant}
        words = {word for answer in record.answers for word in answer.split()[:1]}
        assert any(word in text for text in texts for word in words)
        assert len(record.relevant) <= 6


def test_labelled_characters_of_the_chunking_set_are_those_of_the_file():
    found = open_set("chunking_eval")
    passages = {passage.id: passage.text for passage in found.corpus}
    assert max(map(len, passages.values())) <= 1000
    assert {own.partition("/")[0] for own in passages} == {
        "chatlogs",
        "finance",
        "pubmed",
        "state_of_the_union",
        "wikitexts",
    }
    assert all(record.qrels.keys() == {span.passage_id for span in record.relevant} for record in found.records)


def test_nq_gold_is_everywhere():
    found = open_set("nq_multidoc@20")
    places = {[p.id for p in record.passages].index(record.relevant[0].passage_id) for record in found.records}
    assert places == set(range(20))
    assert {len(record.passages) for record in found.records} == {20}
