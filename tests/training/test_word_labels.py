"""Labels for words: what is held out stays apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragzip.training.word_labels import Paragraph, apart

COMMON = "Everybody there likes the old harbour very much."
SENTENCES = [
    f"Sentence number {n} of the passage says something that no other one says in such words." for n in range(12)
]
CUTS = st.tuples(st.integers(0, 11), st.integers(1, 5)).map(lambda cut: SENTENCES[cut[0] : sum(cut)])


@given(st.lists(CUTS, max_size=8), st.lists(CUTS, max_size=3))
def test_no_cut_of_what_is_held_out_is_left(given_, held):
    made = [[Paragraph(" ".join([*cut, COMMON]), ()) for cut in some] for some in (given_, held)]
    told = {sentence for cut in held for sentence in cut}
    assert apart(*made) == [p for p, cut in zip(made[0], given_, strict=True) if told.isdisjoint(cut)]
