"""Rows read out of segments: what the formula says, segment by segment."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from ragzip.models import load_causal_lm
from ragzip.models.concepts import Parts, Recipe, read_out


@pytest.fixture(scope="module")
def lm(tiny_lm_path):
    return load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")


def by_hand(lm, parts, recipe, segment, rate):
    tokens = lm.embed(segment)
    count = -(-len(segment) // rate)
    groups = [range(i, min(i + rate, len(segment))) for i in range(0, len(segment), rate)]
    inputs = tokens
    if recipe.readout == "tokens":
        inputs = torch.cat([tokens, parts.appended[[i % recipe.slots for i in range(count)]]])
    hidden = lm.model.base_model(inputs_embeds=inputs[None]).last_hidden_state[0]
    read = (
        hidden[len(segment) :] if recipe.readout == "tokens" else torch.stack([hidden[list(g)].mean(0) for g in groups])
    )
    out = linear(read, parts.weight, parts.bias)
    return out + torch.stack([tokens[list(g)].mean(0) for g in groups]) if recipe.residual else out


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("readout", ["tokens", "mean"])
@pytest.mark.parametrize("rate", [1, 2, 3, 8])
def test_every_segment_has_the_rows_it_has_alone(lm, rate, readout, residual):
    draw = torch.Generator().manual_seed(rate)
    d = lm.dimensions
    parts = Parts(*(torch.randn(*shape, generator=draw) for shape in ((3, d), (d, d), (d,))))
    recipe = Recipe(20, (rate,), readout, 3, residual, True)
    segments = [tuple(range(5, 5 + n)) for n in (1, 7, 20, 2, 8, 13)]
    with torch.inference_mode():
        together = read_out(lm.model, parts, recipe, segments, rate)
        for segment, rows in zip(segments, together, strict=True):
            torch.testing.assert_close(rows, by_hand(lm, parts, recipe, segment, rate), rtol=1e-4, atol=1e-4)
