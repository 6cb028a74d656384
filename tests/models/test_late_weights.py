"""The late-interaction weights that come with ragzip, for what they are: no stand-in anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from ragzip.models.late_interaction import load_late_interaction
from ragzip.models.shipped import LATE_INTERACTION

pytestmark = pytest.mark.models

PEOPLE = ("Ines Marchetti", "Tomas Lindqvist", "Aiko Watanabe", "Peter Okafor")
TOLD = (
    ("Where was {} born?", "{} came into the world in a village near Tartu. The winters are long there."),
    ("Who opened the mill?", "Rain is common in October. After two years of work the mill was opened by {}."),
    ("What does {} teach?", "Students of {} learn geometry and algebra. The lessons begin at nine."),
    ("Which bridge did {} design?", "Ships pass below the old bridge, which {} drew on a napkin. Tolls are low."),
)


@pytest.fixture(scope="module")
def model():
    return load_late_interaction(LATE_INTERACTION)


def test_they_are_small_vectors_of_unit_length(model):
    assert (model.dimensions, model.max_tokens) == (96, 256)
    (one,) = model.encode_documents(["A dog, with a cat and a full stop."])
    assert one.vectors.shape == (9 + 2, 96)  # nine words and two special tokens; comma and full stop are left out
    assert np.allclose(np.linalg.norm(one.vectors, axis=1), 1, atol=1e-5)


def test_the_passage_that_answers_comes_first(model):
    """Each question over all sixteen passages: four facts of four people."""
    passages = [text.format(person) for _, text in TOLD for person in PEOPLE]
    found = [one.vectors for one in model.encode_documents(passages)]
    hits = asked = 0
    for kind, (question, _) in enumerate(TOLD):
        if "{}" not in question:
            continue
        for number, person in enumerate(PEOPLE):
            (query,) = model.encode_queries([question.format(person)])
            scores = [(query @ vectors.T).max(1).sum() for vectors in found]
            hits += int(np.argmax(scores)) == kind * len(PEOPLE) + number
            asked += 1
    assert asked == 12
    assert hits >= 11


def test_a_document_does_not_depend_on_the_others(model):
    texts = ["The river runs to the sea.", "A context is compressed. " * 40, "", "Tea."]
    for alone, together in zip(
        [model.encode_documents([t])[0] for t in texts], model.encode_documents(texts), strict=True
    ):
        assert np.allclose(alone.vectors, together.vectors, atol=5e-2 if model.dtype == "bfloat16" else 1e-4)
