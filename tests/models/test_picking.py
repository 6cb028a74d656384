"""Which tokens stand for a segment: those of its rarest words."""

from __future__ import annotations

import math

import pytest
import torch

from ragzip.models import load_causal_lm
from ragzip.models.picking import group, pick, word_table
from ragzip.models.tokenizer import text_tokenizer

pytestmark = pytest.mark.models
LM = "smollm2-135m-instruct"
CORPUS = ["The river of the town runs to the sea, and the sea is the end of the river."] * 3 + ["The Volga is long."]


@pytest.fixture(scope="module")
def table():
    text = text_tokenizer(LM)
    return word_table(text, size(), whole, CORPUS)


def size():
    return len(load_causal_lm(LM).model.get_input_embeddings().weight)


def whole(texts):
    """Texts as one segment each."""
    return [[ids] for ids in text_tokenizer(LM).encode(texts)]


def picked(table, text, count):
    (ids,) = text_tokenizer(LM).encode([text])
    row = torch.tensor([ids])
    chosen = pick(table, row, torch.ones_like(row, dtype=torch.bool), torch.tensor([min(count, len(ids))]))
    assert int(chosen.sum()) == min(count, len(ids))
    return text_tokenizer(LM).tokenizer.decode([t for t, c in zip(ids, chosen[0].tolist(), strict=True) if c])


def test_scores_without_questions_are_information(table):
    ids = [token for row in text_tokenizer(LM).encode(CORPUS) for token in row]
    (the,) = text_tokenizer(LM).encode([" the"])
    share = (ids.count(the[0]) + 0.5) / len(ids)
    assert table.values[0, the[0]] == pytest.approx(-0.3 * math.log(share), rel=1e-3)
    assert table.values[0].max() == pytest.approx(-0.3 * math.log(0.5 / len(ids)), rel=1e-3)


def test_what_is_asked_for_scores_higher():
    text = text_tokenizer(LM)
    corpus = ["the red house and the blue house and the green house"] * 50
    asked = [(corpus[0], "Which colour has the house that was sold?", "blue")] * 100
    plain, taught = word_table(text, size(), whole, corpus), word_table(text, size(), whole, corpus, asked)
    red, blue, green = (text.encode([f" {word}"])[0][0] for word in ("red", "blue", "green"))
    assert plain.values[0, red] == plain.values[0, blue]
    assert taught.values[0, blue] > taught.values[0, red] + 1
    assert taught.values[0, red] == taught.values[0, green]
    assert picked(taught, corpus[0], 1).strip() == "blue"


@pytest.mark.parametrize(
    ("token", "begins"), [(" the", 1), ("river", 0), (",", 1), ("7", 0), ("ing", 0), (" 7", 1), ("\n", 1), ("é", 0)]
)
def test_where_words_begin(table, token, begins):
    ids = text_tokenizer(LM).encode([token])[0]
    assert table.values[1, ids[0]] == begins


def test_rare_words_are_picked_whole_and_in_their_order(table):
    assert picked(table, "The Zygmunt of the town runs to the sea", 4).strip() == "Zygmunt"
    assert picked(table, "The sea of the Volga is the Quux", 4).split()[:1] == ["Volga"]


def test_all_are_picked_where_all_have_a_row(table):
    text = "The river of the town, and the sea."
    assert picked(table, text, 99) == text


def test_padding_is_never_picked_and_changes_nothing(table):
    (ids,) = text_tokenizer(LM).encode(["The Volga runs to the sea"])
    wide = torch.tensor([ids + [40_000] * 5])
    own = torch.arange(wide.shape[1])[None] < len(ids)
    alone = pick(table, torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool), torch.tensor([3]))
    padded = pick(table, wide, own, torch.tensor([3]))
    assert padded[0, : len(ids)].tolist() == alone[0].tolist()
    assert not padded[0, len(ids) :].any()


def test_tokens_belong_to_the_next_pick():
    chosen = torch.tensor([[False, True, False, False, True, False]])
    assert group(chosen, torch.tensor([2])).tolist() == [[0, 0, 1, 1, 1, 1]]
