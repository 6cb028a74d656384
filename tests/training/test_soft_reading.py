"""Frozen generators over rows: what training sees is what a generator will read, and gradients reach the rows alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ragzip.models import load_causal_lm
from ragzip.pipelines.prompt import SHORT
from ragzip.training.soft_data import Asking, Telling
from ragzip.training.soft_losses import checksum
from ragzip.training.soft_prompts import TELL, Frames, Reader

PASSAGES = (("Alba", "Alba is a town by the sea. It was founded by Count Albason."), ("", "Ships pass."))
ASKED = Asking("Who founded Alba?", "Count Albason", PASSAGES[:1], PASSAGES[1:], "toy")
OTHER = Asking("Why?", "because of 3 things", PASSAGES[1:], (), "toy")


@pytest.fixture(scope="module")
def lm(tiny_lm_path):
    return load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def frames(lm):
    return Frames(lm)


def embedded(lm, text):
    (ids,) = lm.text.encode([text])
    return lm.embed(ids)


def logits(reader, prompt, rows=()):
    ((found, _),) = reader.read([prompt], [list(rows)])
    return found


def test_the_kept_beginning_changes_nothing(lm, frames):
    prompts = [frames.asking(a, PASSAGES[:n], None) for a in (ASKED, OTHER) for n in (0, 1, 2)]
    whole, kept = Reader(lm, [], most=4000), Reader(lm, prompts, most=4000)
    assert len(kept._prefix) > 50
    for prompt in prompts:
        torch.testing.assert_close(logits(kept, prompt), logits(whole, prompt), rtol=1e-4, atol=1e-4)


def test_a_prompt_that_begins_otherwise_is_read_whole(lm, frames):
    """As that of a question that is a worked example, which is left out then."""
    asked = dataclasses.replace(ASKED, question=SHORT[0][0])
    prompts = [frames.asking(a, PASSAGES, None) for a in (ASKED, asked, OTHER)]
    reader, whole = Reader(lm, [prompts[0], prompts[2]], most=4000), Reader(lm, [], most=4000)
    assert prompts[1].pieces[0][: len(reader._prefix)] != reader._prefix
    together = reader.read(prompts, [[]] * 3)
    for prompt, (found, _) in zip(prompts, together, strict=True):
        torch.testing.assert_close(found, logits(whole, prompt), rtol=1e-4, atol=1e-4)
    assert sorted(i for batch in reader.batches(prompts, [[]] * 3) for i in batch) == [0, 1, 2]


def test_logits_are_those_of_the_plain_model_over_the_whole_prompt(lm, frames):
    prompt = frames.asking(ASKED, PASSAGES, None)
    (ids,) = prompt.pieces
    with torch.inference_mode():
        plain = lm.model(input_ids=torch.tensor([[*ids, *prompt.answer]])).logits[0]
    expected = plain[len(ids) - 1 : -1].float()
    torch.testing.assert_close(logits(Reader(lm, [], most=4000), prompt), expected, rtol=1e-4, atol=1e-4)


def test_rows_that_are_the_texts_own_embeddings_read_as_the_text(lm, frames):
    text = PASSAGES[0][1]
    rows = embedded(lm, text)
    soft = frames.telling(Telling(text, ""), len(rows), TELL[1])
    hard = frames.telling(Telling(text, ""), None, TELL[1])
    reader = Reader(lm, [], most=4000)
    assert sum(len(p) if isinstance(p, list) else len(rows) for p in soft.pieces) == len(hard.pieces[0])
    torch.testing.assert_close(logits(reader, soft, [rows]), logits(reader, hard), rtol=1e-4, atol=1e-4)


def test_a_batch_gives_what_its_prompts_give_alone(lm, frames):
    prompts = [frames.asking(ASKED, PASSAGES, None), frames.asking(OTHER, (), []), frames.asking(OTHER, PASSAGES, None)]
    reader = Reader(lm, prompts, most=4000)
    together = reader.read(prompts, [[]] * 3, hidden=True)
    for prompt, (found, layers) in zip(prompts, together, strict=True):
        ((alone, own),) = reader.read([prompt], [[]], hidden=True)
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
        assert len(layers) == lm.model.config.num_hidden_layers
        for layer, mine in zip(layers, own, strict=True):
            torch.testing.assert_close(layer, mine, rtol=1e-4, atol=1e-4)


def test_batches_hold_every_prompt_once_and_no_more_than_they_may(lm, frames):
    prompts = [frames.telling(Telling("Ships pass. " * n, ""), None, TELL[0]) for n in (1, 9, 3, 7, 2, 30)]
    reader = Reader(lm, [], most=300)
    batches = list(reader.batches(prompts, [[]] * 6))
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    for batch in batches:
        lengths = [len(prompts[i].pieces[0]) + len(prompts[i].answer) for i in batch]
        assert len(batch) == 1 or len(batch) * max(lengths) <= 300


def test_gradients_reach_the_rows_and_not_the_generator(lm, frames):
    before = checksum(lm.model)
    rows = [torch.randn(2, lm.dimensions, requires_grad=True) for _ in PASSAGES]
    prompt = frames.asking(ASKED, PASSAGES, [2, 2])
    logits(Reader(lm, [], most=4000), prompt, rows).logsumexp(-1).sum().backward()
    assert all(float(row.grad.abs().sum()) > 0 for row in rows)
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())
    assert checksum(lm.model) == before
