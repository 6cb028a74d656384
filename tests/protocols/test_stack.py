"""The algebra of stacks: ``>>``, settings, binding."""

import dataclasses
import pickle

import pytest

from ragzip.errors import ConfigError
from ragzip.protocols import Selector, Stack
from ragzip.tokens import TokenCounter
from tests.protocols.parts import CONTEXT, Backwards, First, Holder, Soft, Upper, words

ONE, TWO, THREE = First(2), Upper(), Backwards()


def test_joining_is_associative_and_flat():
    left, right = (ONE >> TWO) >> THREE, ONE >> (TWO >> THREE)
    assert left == right
    assert left.compressors == (ONE, TWO, THREE)


def test_the_empty_stack_is_neutral():
    assert Stack() >> ONE == Stack((ONE,)) == ONE >> Stack()
    result = Stack().run([CONTEXT])[0]
    assert result.context is CONTEXT
    assert result.steps == ()
    assert result.ratio == 1.0


def test_a_stack_runs_its_parts_in_order():
    result = (First(2) >> Backwards() >> First(1)).run([CONTEXT])[0]
    assert words(result) == ["Dogs bark at night."]
    assert words((Backwards() >> First(1)).run([CONTEXT])[0]) == ["Rain falls."]


def test_a_nested_stack_gives_what_a_flat_one_does():
    flat = ONE >> TWO >> THREE
    nested = Stack((ONE, Stack((TWO, THREE))))
    assert nested.compress([CONTEXT]) == flat.compress([CONTEXT])


def test_selectors_stack_with_selectors():
    assert isinstance(ONE, Selector)
    assert (ONE >> THREE).compressors == (ONE, THREE)


@pytest.mark.parametrize("joined", [Stack((ONE,), timeout=5.0) >> TWO, ONE >> Stack((TWO,), timeout=5.0)])
def test_settings_survive_joining(joined):
    assert joined == Stack((ONE, TWO), timeout=5.0)


def test_settings_of_the_first_win():
    joined = Stack((ONE,), min_tokens=7) >> Stack((TWO,), timeout=5.0)
    assert joined == Stack((ONE, TWO), min_tokens=7)


def test_stacks_are_values():
    stack = First(2) >> Soft()
    assert stack == First(2) >> Soft()
    assert stack != First(3) >> Soft()
    assert pickle.loads(pickle.dumps(stack)) == stack
    with pytest.raises(dataclasses.FrozenInstanceError):
        stack.timeout = 3.0
    assert len({stack, First(2) >> Soft()}) == 1


def test_binding_reaches_every_part_and_changes_no_option():
    counter = TokenCounter(lambda texts: [len(text) for text in texts])
    made = Holder(inner=Holder(), parts=(Holder(), First(2)))
    bound = made.bind(counter)
    assert made.counter is None
    assert bound.counter is bound.inner.counter is bound.parts[0].counter is counter
    assert bound == made
    assert "counter" not in repr(bound)
    assert Stack((made,)).bind(counter).compressors[0].counter is counter
    assert First(2).bind(counter) == First(2)


def test_a_stack_counts_with_its_bound_counter():
    characters = TokenCounter(lambda texts: [len(text) for text in texts], titles=False)
    result = Stack((First(1),)).bind(characters).run([CONTEXT])[0]
    assert result.tokens_out == len(CONTEXT.segments[0].text)
    other = TokenCounter(lambda texts: [1 for _ in texts])
    assert Stack((First(1),)).bind(characters).run([CONTEXT], counter=other)[0].tokens_out == 1


def test_a_counter_survives_joining():
    counter, other = TokenCounter(lambda texts: [1 for _ in texts]), TokenCounter(lambda texts: [2 for _ in texts])
    bound = Stack((ONE,)).bind(counter)
    for joined in (bound >> TWO, TWO >> bound, bound >> Stack((TWO,), timeout=5.0), bound >> Stack((TWO,)).bind(other)):
        assert joined.counter is counter
    assert (ONE >> TWO).counter is None


@pytest.mark.parametrize("other", [First, 5, None, "dedupe", [ONE]])
def test_what_is_no_compressor_does_not_join(other):
    for first in (ONE, TWO, ONE >> TWO):
        with pytest.raises(TypeError):
            first >> other
    with pytest.raises(ConfigError, match="not a compressor"):
        Stack((ONE, other))


def test_a_list_is_no_stack():
    with pytest.raises(ConfigError, match="must be a tuple"):
        Stack([ONE])
