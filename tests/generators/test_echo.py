import pickle

import torch

from ragzip.generators.echo import Echo
from ragzip.types import Message, SoftSegment, TextSegment


def test_repeats_its_context_and_not_the_rest():
    prompt = [
        Message("system", ("Be brief.",)),
        Message("user", ("Context:\n", TextSegment("One two."), "\n\n", TextSegment("Three."), "\n\nQuestion?")),
    ]
    answer = Echo().generate([prompt])[0]
    assert answer.text == "One two.\n\nThree."
    assert answer.new_tokens == 5
    assert answer.prompt_tokens == 3 + 2 + 3 + 2 + 2


def test_without_context_it_repeats_the_last_turn():
    assert Echo().generate([[Message("user", (" Hi? ",))]])[0].text == "Hi?"
    assert Echo().generate([[Message("user", ("Hi?",)), Message("assistant", ("Well,",))]])[0].text == "Hi?"
    assert Echo().generate([[]])[0].text == ""


def test_fixed_text_soft_segments_and_order():
    soft = SoftSegment(torch.zeros(4, 8), "any")
    prompts = [[Message("user", ("a", soft))], [Message("user", (TextSegment("b"),))]]
    answers = Echo("Fixed answer.").generate(prompts)
    assert [a.text for a in answers] == ["Fixed answer."] * 2
    assert [a.prompt_tokens for a in answers] == [5, 1]


def test_stream_is_the_answer():
    told = []
    answer = Echo().generate(
        [[Message("user", (TextSegment(" Größe  東京\n\nx "),))]], on_text=lambda *a: told.append(a)
    )
    assert "".join(text for _, text in told) == answer[0].text == "Größe  東京\n\nx"
    assert {i for i, _ in told} == {0}
    assert len(told) == 3


def test_it_is_plain_values():
    assert pickle.loads(pickle.dumps(Echo("x"))) == Echo("x")
    assert Echo().count_tokens(["a, b", ""]) == [3, 0]
