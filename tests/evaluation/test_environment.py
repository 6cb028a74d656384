import torch

from ragzip.evaluation.environment import MACHINE, difference, environment
from ragzip.models import runtime


def test_the_number_format_is_part_of_the_machine(monkeypatch):
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: True)
    fast = environment()
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: False)
    slow = environment()
    assert (fast["computes"], slow["computes"]) == ("bfloat16", "float32")
    assert difference(fast, slow) == "computes was 'bfloat16' and is 'float32'"
    assert not difference(slow, environment())
    assert set(MACHINE) <= set(slow)
    assert difference({key: value for key, value in slow.items() if key != "computes"}, slow)


def test_the_threads_are_those_that_models_will_compute_with(monkeypatch):
    before = torch.get_num_threads()
    try:
        for wanted in (1, 2):
            monkeypatch.setattr(runtime, "_threads_settled", False)
            monkeypatch.setenv("RAGZIP_THREADS", str(wanted))
            torch.set_num_threads(3 - wanted)
            assert environment()["threads"] == wanted
    finally:
        torch.set_num_threads(before)
