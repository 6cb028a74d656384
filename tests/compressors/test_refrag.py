"""``refrag``: which chunks stay text, by each policy, with a threshold and without."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from ragzip.compressors._expansion import scores
from ragzip.compressors._layout import take
from ragzip.compressors._stored import fill
from ragzip.compressors.refrag import REFRAG, mixed
from ragzip.compressors.text_then_soft import TextThenSoft
from ragzip.errors import ConfigError, ModelError
from ragzip.indexes.soft_store import SoftStore
from ragzip.models.chunks import ChunkEncoder, pooled
from ragzip.types import Context, Passage, Query, SoftSegment, TextSegment, context_of
from tests.compressors.knowing import Knowing
from tests.compressors.soft_parts import ALBA, BORGO, LONG, QUERY, compress, made, tokens_of

OTHERS = ["similarity", "perplexity", "trained"]
TOWN = Passage("t", "Nobody came by sea that year. Alba was founded by Count Albason. Goats are seen there.", "Alba")
HILL = Passage("h", "It lies behind a wall of stones. Sheep are seen there, and few of them.", "Borgo")


@pytest.fixture
def knowing(monkeypatch):
    """Who founded Alba stands in a sentence that scores 0.3; all others score 0."""
    pruner = Knowing(founded=0.9, albason=0.9)
    monkeypatch.setattr("ragzip.models.load_pruner", lambda name, **options: pruner)
    return pruner


def text_of(method, *passages, query=QUERY):
    """The characters that stay text."""
    found = compress(method, *passages, query=query)
    spans = [span for segment in found.segments if isinstance(segment, TextSegment) for span in segment.sources]
    return {(span.passage_id, at) for span in spans for at in range(span.start, span.end)}


def ids_of(context):
    """The passages that something is left of."""
    return {span.passage_id for segment in context.segments for span in segment.sources}


def scored(policy, passages):
    """Where the chunks are, and what each is worth by a policy."""
    method = made(REFRAG, policy=policy)
    encoder = method.load()
    chunks = mixed(context_of(QUERY, passages), encoder)
    found = scores(method, encoder, chunks.layout, chunks.units, chunks.vectors)
    return [chunks.layout.units[unit] for unit in chunks.units], [score for score, _ in found]


def chunks_of(method, passages, start, end, name):
    """The characters of all chunks that have a part of a stretch of a passage, and how many chunks there are."""
    cut = {passage.id: method.load().cut(passage.text) for passage in passages}
    over = [(a, b) for a, b in cut[name] if a < end and start < b]
    return {(name, at) for a, b in over for at in range(a, b)}, sum(map(len, cut.values()))


@pytest.mark.parametrize("options", [{"policy": "provence", "threshold": 0.0}, *({"policy": name} for name in OTHERS)])
def test_policies_expand_as_many_chunks_as_they_may(options):
    method = made(REFRAG, expand=0.25, **options)
    chunks = method.load().cut(ALBA.text)
    after = compress(method, ALBA)
    rows = sum(len(s.embeddings) for s in after.segments if isinstance(s, SoftSegment))
    assert len(chunks) - rows == len(chunks) // 4


@pytest.mark.parametrize("policy", OTHERS)
def test_chunks_that_score_less_than_the_threshold_do_not_stay_text(policy):
    passages = (ALBA, BORGO, LONG)
    places, found = scored(policy, passages)
    share = text_of(made(REFRAG, policy=policy, expand=0.2), *passages)
    for least in sorted(found)[:: len(found) // 5]:
        stays = [place for place, score in zip(places, found, strict=True) if score >= least]
        after = text_of(made(REFRAG, policy=policy, expand=1.0, threshold=least), *passages)
        assert after == {(passages[p.segment].id, at) for p in stays for at in range(p.start, p.end)}
        some = text_of(made(REFRAG, policy=policy, expand=0.2, threshold=least), *passages)
        assert some == (after if len(stays) <= len(found) // 5 else share)


@pytest.mark.parametrize("policy", OTHERS)
def test_passages_of_which_no_chunk_reaches_the_threshold_are_left_out(policy):
    passages = (ALBA, BORGO, LONG)
    places, found = scored(policy, passages)
    best = [max(s for s, place in zip(found, places, strict=True) if place.segment == n) for n in range(3)]
    assert len(set(best)) == 3
    for least in sorted(best):
        for expand in (0.0, 0.2, 1.0):
            options = {"policy": policy, "expand": expand, "threshold": least}
            whole = compress(made(REFRAG, drop=False, **options), *passages)
            after = compress(made(REFRAG, **options), *passages)
            stay = {passage.id for passage, most in zip(passages, best, strict=True) if most >= least}
            assert ids_of(whole) == {passage.id for passage in passages}
            assert ids_of(after) == stay
            same = [segment for segment in whole.segments if segment.sources[0].passage_id in stay]
            assert [(type(s), s.sources) for s in after.segments] == [(type(s), s.sources) for s in same]


def test_a_passage_in_pieces_stays_for_one_of_them_and_goes_where_none_helps(knowing):
    (before,) = context_of(QUERY, (TOWN,)).segments
    pieces = [take(before, [span], {"t": TOWN}, True) for span in ((0, 30), (31, len(TOWN.text)))]
    (other,) = context_of(QUERY, (HILL,)).segments
    context = Context(QUERY, (pieces[0], other, pieces[1]), (TOWN, HILL))
    assert "Alba" not in pieces[0].text
    (after,) = made(REFRAG, policy="provence", expand=0.9).compress([context])
    assert next(s.sources[0].start for s in after.segments if isinstance(s, SoftSegment)) == 0
    assert ids_of(after) == {"t"}
    (none,) = made(REFRAG, policy="provence", threshold=0.31).compress([context])
    assert none.segments == ()
    assert none.passages == context.passages


def test_within_a_budget_passages_that_do_not_help_make_room(knowing):
    counter, context = tokens_of(REFRAG), context_of(QUERY, (HILL, TOWN))
    method = made(REFRAG, policy="provence", expand=0.9).bind(counter)
    (free,) = method.compress([context])
    budget = counter.context(free)
    within = dataclasses.replace(method, budget=budget)
    (same,), (all_of_them,) = within.compress([context]), dataclasses.replace(within, drop=False).compress([context])
    assert [(type(s), s.sources) for s in same.segments] == [(type(s), s.sources) for s in free.segments]
    assert ids_of(free) == {"t"}
    assert "h" in ids_of(all_of_them)
    assert counter.context(all_of_them) <= budget
    text = [sum(len(s.text) for s in c.segments if isinstance(s, TextSegment)) for c in (same, all_of_them)]
    assert text[0] > text[1]


def test_where_no_chunk_may_be_text_and_no_threshold_is_named_nothing_is_read(knowing):
    after = compress(made(REFRAG, policy="provence", expand=0.0), HILL, TOWN)
    assert ids_of(after) == {"t", "h"}
    assert knowing.calls == []
    after = compress(made(REFRAG, policy="provence", expand=0.0, threshold=0.1), HILL, TOWN)
    assert ids_of(after) == {"t"}
    assert all(isinstance(segment, SoftSegment) for segment in after.segments)
    knowing.calls.clear()
    compress(made(REFRAG, policy="provence", expand=0.0, threshold=0.0), HILL, TOWN)
    compress(made(REFRAG, policy="provence", expand=0.0, threshold=0.9, drop=False), HILL, TOWN)
    assert knowing.calls == []
    counter = tokens_of(REFRAG)
    (whole,) = (
        made(REFRAG, policy="provence", expand=0.0, budget=500)
        .bind(counter)
        .compress([context_of(QUERY, (HILL, TOWN))])
    )
    assert ids_of(whole) == {"t", "h"}


def test_the_pruner_leaves_whole_sentences_that_help_as_text_and_no_others(knowing):
    start = TOWN.text.index("Alba")
    method = made(REFRAG, policy="provence", expand=0.9)
    helped, count = chunks_of(method, (HILL, TOWN), start, TOWN.text.index(" Goats"), "t")
    assert text_of(method, HILL, TOWN) == helped
    assert len(method.load().cut(TOWN.text[start : TOWN.text.index(" Goats")])) > 1  # so that there is a whole
    assert 0.9 * count > count - len(method.load().cut(HILL.text))
    assert text_of(made(REFRAG, policy="provence", expand=0.9, threshold=0.31), HILL, TOWN) == set()
    assert len(text_of(made(REFRAG, policy="provence", expand=0.9, threshold=0.0), HILL, TOWN)) > len(helped)


def test_where_nothing_helps_the_share_is_filled_unless_a_threshold_is_named(knowing):
    knowing.table = {"goats": 0.36}  # 0.09
    (filled, none), low = (
        [text_of(made(REFRAG, policy="provence", threshold=least), HILL, TOWN) for least in (None, 0.1)],
        text_of(made(REFRAG, policy="provence", threshold=0.0), HILL, TOWN),
    )
    assert filled == low != set()
    assert none == ids_of(compress(made(REFRAG, policy="provence", threshold=0.1), HILL, TOWN)) == set()
    assert ids_of(compress(made(REFRAG, policy="provence"), HILL, TOWN)) == {"t", "h"}
    assert ("t", TOWN.text.index("Goats")) in filled


def test_of_one_sentence_the_chunks_that_score_most_stay(knowing):
    text = " ".join(["word"] * 60 + ["founded"] + ["word"] * 60)
    passage, at = Passage("p", text), text.index("founded")
    knowing.table = {"founded": 0.9, "word": 0.2}
    stays = text_of(made(REFRAG, policy="provence", expand=0.15), passage)
    assert ("p", at + 6) in stays
    assert len(stays) < 0.3 * len(text)


def test_what_has_no_word_does_not_stay(knowing):
    passage = Passage("p", "It is a table of towns.\n|---|---|\n|---|---|")
    knowing.table = {"|---|---|": 0.9}
    assert max(mean for judged in knowing.judge("", [passage.text], [""]) for mean in judged.keep) > 0.5
    assert text_of(made(REFRAG, policy="provence", expand=1.0, threshold=0.1), passage) == set()


def test_passages_that_do_not_help_are_left_without_text_beside_whole_ones(knowing):
    counter = tokens_of(REFRAG)
    for least, ids in ((0.1, {"t"}), (None, {"t", "h"})):
        method = TextThenSoft(made(REFRAG, policy="provence", threshold=least, expand=0.5), text=1).bind(counter)
        assert {name for name, _ in text_of(method, TOWN, HILL)} == ids_of(compress(method, TOWN, HILL)) == ids
        assert {at for name, at in text_of(method, TOWN, HILL) if name == "t"} == set(range(len(TOWN.text)))


def test_the_best_passages_stay_text_whatever_the_threshold_leaves_out(knowing):
    best, other = dataclasses.replace(HILL, score=0.9), dataclasses.replace(TOWN, score=0.5)
    inner = made(REFRAG, policy="provence", threshold=0.1, expand=0.5)
    whole = {("h", at) for at in range(len(HILL.text))}
    for text, ids in ((0, {"t"}), (1, {"h", "t"})):
        method = TextThenSoft(inner, text=text).bind(tokens_of(REFRAG))
        assert ids_of(compress(method, best, other)) == ids
        assert (whole <= text_of(method, best, other)) == (text == 1)


def test_passages_that_are_left_out_are_not_encoded(knowing, monkeypatch):
    read, vectors = [], ChunkEncoder.vectors
    monkeypatch.setattr(ChunkEncoder, "vectors", lambda self, texts: read.extend(texts) or vectors(self, texts))
    compress(made(REFRAG, policy="provence"), HILL, TOWN)
    assert read
    assert all(text.strip() in TOWN.text for text in read)
    read.clear()
    compress(made(REFRAG, policy="provence", drop=False), HILL, TOWN)
    assert any(text.strip() in HILL.text for text in read)


def test_with_a_store_what_is_left_out_is_not_looked_up(knowing, monkeypatch, tmp_path):
    fill(made(REFRAG), [HILL], tmp_path)
    asked, get, read, vectors = [], SoftStore.get, [], ChunkEncoder.vectors
    monkeypatch.setattr(SoftStore, "get", lambda self, units: asked.extend(map(str, units)) or get(self, units))
    monkeypatch.setattr(ChunkEncoder, "vectors", lambda self, texts: read.extend(texts) or vectors(self, texts))
    method = made(REFRAG, policy="provence", store=str(tmp_path))
    contexts = [context_of(QUERY, (HILL, TOWN)), context_of(QUERY, (HILL,)), context_of(QUERY, ())]
    after = method.compress(contexts)
    assert all(text.strip() in TOWN.text for text in read)  # HILL, whose rows the second context is made of, is there
    assert len(asked) == len(set(asked)) > len(set(read)) > 0
    plain = made(REFRAG, policy="provence").compress(contexts)
    for one, other in zip(after, plain, strict=True):
        assert [s.sources for s in one.segments] == [s.sources for s in other.segments]
    asked.clear()
    compress(method, HILL, TOWN)
    assert asked
    assert all(text.strip() in TOWN.text for text in asked)


@pytest.mark.parametrize("times", [60, 240])
@pytest.mark.parametrize("policy", ["similarity", "trained", "perplexity"])
def test_the_end_of_a_long_question_counts(policy, times):
    method = made(REFRAG, policy=policy)
    encoder = method.load()
    before = "All of this was told by somebody who had heard it from a friend of the family. " * times
    found = []
    for asks in ("Who founded Alba?", "What do the goats eat?"):
        chunks = mixed(context_of(Query(before + asks), (ALBA, BORGO)), encoder)
        found.append(scores(method, encoder, chunks.layout, chunks.units, chunks.vectors))
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "text", ["Alba lies by the sea. " * n for n in (200, 900)] + ["Alba \ud800 lies there. " * 200]
)
def test_a_question_is_read_in_parts_that_fit(text):
    encoder = made(REFRAG).load()
    parts = encoder.parts(text)
    assert len(parts) > 1
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(encoder.parts(part) == [part] for part in parts)
    assert encoder.parts("Who?") == ["Who?"]
    assert encoder.parts("") == [""]


def test_without_a_question_no_threshold_counts(knowing):
    method = made(REFRAG, policy="provence", threshold=0.9, expand=0.5)
    (a, *_), count = method.load().cut(ALBA.text), len(method.load().cut(ALBA.text))
    stays = text_of(method, ALBA, query=Query(" "))
    assert ids_of(compress(method, ALBA, TOWN, query=Query(" "))) == {"a", "t"}
    assert ("a", a[0]) in stays
    assert len(stays) < len(ALBA.text)
    assert count > 2
    assert knowing.calls == []


@pytest.mark.parametrize("policy", ["provence", "similarity"])
def test_scores_that_are_no_numbers_are_an_error(policy, knowing, monkeypatch):
    knowing.table = {"founded": math.nan}
    if policy == "similarity":
        monkeypatch.setattr("torch.nn.functional.cosine_similarity", lambda a, b, dim: b[..., 0] * math.nan)
    with pytest.raises(ModelError, match=f"{policy}.*not a number"):
        compress(made(REFRAG, policy=policy), TOWN)


BAD = [("provence", 1.1), ("provence", -0.1), ("similarity", 1.1), ("perplexity", 0.1), ("similarity", math.nan)]


@pytest.mark.parametrize(("policy", "value"), [*BAD, ("trained", math.inf)])
def test_a_threshold_that_cannot_be_is_an_error(policy, value):
    with pytest.raises(ConfigError, match="threshold"):
        made(REFRAG, policy=policy, threshold=value)


@pytest.mark.parametrize("value", [1, 0, None, "no"])
def test_drop_is_true_or_false(value):
    with pytest.raises(ConfigError, match="drop"):
        made(REFRAG, drop=value)


def test_a_chunk_of_more_tokens_than_the_encoder_reads_at_once_is_read_whole():
    """Few tokens of the generator can be many of the encoder."""
    encoder = made(REFRAG)._encoder()
    narrow = dataclasses.replace(encoder, _tokenizer=copy.deepcopy(encoder._tokenizer))
    narrow._tokenizer.enable_truncation(6)
    text = "Alba is a town by the sea, and Borgo is a hill where goats live."
    ends = [narrow.vectors([text + end])[0] for end in ("", " Nobody knows.")]
    assert not torch.equal(*ends)
    torch.testing.assert_close(narrow.vectors(["Alba is", text])[1], ends[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(narrow.vectors(["Alba"])[0], encoder.vectors(["Alba"])[0])
    parts = narrow._encoded([text])[0]
    rows = [parts.ids, *(more.ids for more in parts.overflowing)]
    assert len(rows) > 2
    alone = pooled(narrow._backbone, rows, "cpu")
    mean = (alone * torch.tensor([[float(len(row))] for row in rows])).sum(0) / sum(map(len, rows))
    torch.testing.assert_close(ends[0], mean, rtol=1e-4, atol=1e-5)


def test_where_all_may_be_text_nothing_is_read(knowing, monkeypatch):
    context, counter = context_of(QUERY, (TOWN, HILL)), tokens_of(REFRAG)
    whole = counter.context(context)
    (less,) = made(REFRAG, policy="provence", expand=1.0, budget=whole - 1).bind(counter).compress([context])
    text = " ".join(segment.text for segment in less.segments if isinstance(segment, TextSegment))
    assert "founded" in text
    assert "Sheep" not in text  # what is cut is not filled with what does not help
    monkeypatch.setattr("ragzip.compressors.refrag.load_chunks", None)
    knowing.calls.clear()
    for options in ({}, {"budget": whole}, {"threshold": 0.0}, {"policy": "similarity", "threshold": -1.0}):
        method = made(REFRAG, **{"policy": "provence", "expand": 1.0, **options}).bind(counter)
        assert method.compress([context])[0].segments == context.segments
    assert knowing.calls == []
    with pytest.raises(TypeError):
        made(REFRAG, policy="provence", expand=1.0, threshold=0.1).compress([context])
