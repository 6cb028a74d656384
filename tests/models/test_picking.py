"""Which tokens stand for a segment: those of its rarest words."""

from __future__ import annotations

import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ragzip.models import load_causal_lm
from ragzip.models.picking import group, pick, word_table
from ragzip.models.tokenizer import TextTokenizer, text_tokenizer

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


LINES = [
    "the river runs to the sea",
    "the town by the river was founded in 1290",
    "a long way to the town, and back",
] * 4


def metaspace():
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>"], show_progress=False))
    return made, lambda piece: piece.startswith("▁") or not piece[0].isalnum()


def wordpiece():
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False)
    teach = trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]"], show_progress=False)
    made.train_from_iterator(LINES, teach)
    return made, lambda piece: not piece.startswith("##")


@pytest.mark.parametrize("make", [metaspace, wordpiece])
def test_words_begin_where_other_tokenizers_begin_them(make):
    made, begins = make()
    text = TextTokenizer(made)
    asked = [(line, "When was the town founded?", "1290") for line in LINES]
    found = word_table(text, made.get_vocab_size() + 7, lambda texts: [[i] for i in text.encode(texts)], LINES, asked)
    assert found.values.shape == (3, made.get_vocab_size() + 7)
    assert bool(found.values.isfinite().all())
    for piece, token in made.get_vocab().items():
        if token:  # the unknown one is nobody's word
            assert bool(found.values[1, token]) == begins(piece), piece
    (ids,) = text.encode(["the town by the river was founded in 1290"])
    row = torch.tensor([ids])
    number = len(text.encode(["a 1290"])[0]) - len(text.encode(["a"])[0])
    chosen = pick(found, row, torch.ones_like(row, dtype=torch.bool), torch.tensor([number]))
    assert made.decode([t for t, c in zip(ids, chosen[0].tolist(), strict=True) if c]).strip() == "1290"
