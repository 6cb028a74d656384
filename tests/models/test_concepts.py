"""Rows read out of segments: what the formula says, segment by segment."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import linear

from ragzip.models import load_causal_lm
from ragzip.models.concepts import Parts, Recipe, read_out
from ragzip.models.picking import WordTable


@pytest.fixture(scope="module")
def lm(tiny_lm_path):
    return load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")


def by_hand(lm, parts, recipe, segment, rate):
    tokens = lm.embed(segment)
    count = -(-len(segment) // rate)
    groups = [range(i, min(i + rate, len(segment))) for i in range(0, len(segment), rate)]
    inputs = tokens
    begins = torch.zeros(count, lm.dimensions)
    if recipe.residual == "picked":
        places = by_rarity(parts.words, segment, count)
        begins = tokens[places]
        groups = [[t for t in range(len(segment)) if first_of(places, t) == number] for number in range(count)]
    if recipe.readout == "tokens":
        inputs = torch.cat([tokens, parts.appended[[i % recipe.slots for i in range(count)]] + begins])
    if recipe.layers:
        out = lm.model.base_model(inputs_embeds=inputs[None], output_hidden_states=True)
        hidden = lm.model.base_model.norm(out.hidden_states[recipe.layers][0])
    else:
        hidden = lm.model.base_model(inputs_embeds=inputs[None]).last_hidden_state[0]
    read = (
        hidden[len(segment) :] if recipe.readout == "tokens" else torch.stack([hidden[list(g)].mean(0) for g in groups])
    )
    out = linear(read * parts.scale, parts.weight, parts.bias)
    return out + (torch.stack([tokens[list(g)].mean(0) for g in groups]) if recipe.residual == "mean" else begins)


def by_rarity(table, segment, count):
    """Places of the tokens of the rarest words, rarest tokens first within one word, in their order."""
    information, begins, ends = table.values.tolist()
    words = []
    for place, token in enumerate(segment):
        if place == 0 or begins[token] or ends[segment[place - 1]]:
            words.append([])
        words[-1].append(place)
    score = {p: max(information[segment[q]] for q in w) + 0.01 * information[segment[p]] for w in words for p in w}
    return sorted(sorted(score, key=lambda p: (-score[p], p))[:count])


def first_of(places, token):
    return next((n for n, place in enumerate(places) if place >= token), len(places) - 1)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("residual", ["none", "mean", "picked"])
@pytest.mark.parametrize("readout", ["tokens", "mean"])
@pytest.mark.parametrize("rate", [1, 2, 3, 8])
def test_every_segment_has_the_rows_it_has_alone(lm, rate, readout, residual, layers):
    draw = torch.Generator().manual_seed(rate)
    d = lm.dimensions
    parts = Parts(*(torch.randn(*shape, generator=draw) for shape in ((3, d), (d, d), (d,))))
    count = len(lm.model.get_input_embeddings().weight)
    drawn = torch.cat([10 * torch.rand(1, count, generator=draw), (torch.rand(2, count, generator=draw) < 0.4).float()])
    parts = replace(parts, scale=0.5, words=WordTable(drawn))
    recipe = Recipe(20, (rate,), readout, 3, residual, True, layers)
    segments = [tuple(range(5, 5 + n)) for n in (1, 7, 20, 2, 8, 13)]
    with torch.inference_mode():
        together = read_out(lm.model, parts, recipe, segments, rate)
        for segment, rows in zip(segments, together, strict=True):
            torch.testing.assert_close(rows, by_hand(lm, parts, recipe, segment, rate), rtol=1e-4, atol=1e-4)
