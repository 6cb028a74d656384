import subprocess
import sys

import pytest
import torch

from ragzip import models
from ragzip.errors import ConfigError
from ragzip.models import runtime
from ragzip.testing.models import tiny_causal_lm, tiny_encoder


@pytest.fixture
def fresh_probe(monkeypatch, tmp_path):
    """A process on a machine where nothing was tried yet; gives its cache."""
    monkeypatch.setenv("RAGZIP_CACHE", str(tmp_path))
    runtime._cpu_has_bf16.cache_clear()
    yield tmp_path
    runtime._cpu_has_bf16.cache_clear()


@pytest.mark.parametrize(
    ("amx", "gain", "expected"),
    [
        (True, 0.5, torch.bfloat16),  # matrix units are never tried
        (False, 4.3, torch.bfloat16),
        (False, 2.0, torch.bfloat16),
        (False, 1.9, torch.float32),  # a model gains far less than its products
        (False, 0.6, torch.float32),  # instructions for bf16 that are slower than fp32
        (None, 0.6, torch.float32),  # a torch that cannot be asked
    ],
)
def test_auto_is_bf16_where_the_processor_gains_by_it(monkeypatch, fresh_probe, amx, gain, expected):
    if amx is None:
        monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    else:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(runtime, "_gain_of_bf16", lambda: gain)
    assert runtime.choose_dtype("auto", "cpu") == expected
    assert runtime.choose_dtype("auto", "cuda") == torch.bfloat16
    assert runtime.choose_dtype("fp16", "cpu") == torch.float16
    assert runtime.choose_dtype("fp32", "cpu") == torch.float32


def test_the_processor_is_tried_once_and_leaves_the_random_numbers(monkeypatch, fresh_probe):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    tried = []
    real = runtime._gain_of_bf16
    monkeypatch.setattr(runtime, "_gain_of_bf16", lambda: tried.append(real()) or tried[-1])
    before = torch.get_rng_state()
    chosen = {runtime.choose_dtype("auto", "cpu") for _ in range(3)}
    assert len(tried) == 1 and tried[0] > 0 and chosen == {torch.bfloat16 if tried[0] >= 2 else torch.float32}
    assert torch.equal(torch.get_rng_state(), before)


def test_a_second_process_decides_as_the_first_one_did(monkeypatch, fresh_probe):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)

    def process(gain):
        runtime._cpu_has_bf16.cache_clear()
        monkeypatch.setattr(runtime, "_gain_of_bf16", lambda: gain)
        return runtime.choose_dtype("auto", "cpu")

    assert process(2.1) == process(1.8) == torch.bfloat16
    for damaged in ("{", "[]", '{"gain of bf16": "much"}', "[" * 100_000):
        (fresh_probe / "tried.json").write_text(damaged)
        assert process(1.8) == process(2.1) == torch.float32
    monkeypatch.setattr(torch, "__version__", "another")
    assert process(2.1) == process(1.8) == torch.bfloat16
    assert [path.name for path in fresh_probe.iterdir()] == ["tried.json"]
    monkeypatch.setenv("RAGZIP_CACHE", str(fresh_probe / "tried.json" / "no folder"))  # then each process tries
    assert (process(1.8), process(2.1)) == (torch.float32, torch.bfloat16)


def test_a_processor_that_multiplies_faster_in_bf16_is_seen(monkeypatch):
    clock = [0.0]
    linear = torch.nn.functional.linear

    def timed(rows, weight):
        clock[0] += 1.0 if rows.dtype == torch.bfloat16 else 3.0
        return linear(rows, weight)

    monkeypatch.setattr(torch.nn.functional, "linear", timed)
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: clock[0])
    assert runtime._gain_of_bf16() == pytest.approx(3.0)


def test_auto_device_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime.choose_device("auto") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.choose_device("auto") == "cpu"


def threads_in_child(tiny_encoder_path, value):
    code = (
        "import torch; from ragzip import models; "
        f"models.load_encoder({tiny_encoder_path!r}); print(torch.get_num_threads())"
    )
    import os

    env = {**os.environ, "RAGZIP_THREADS": value}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_threads_come_from_the_environment(tiny_encoder_path):
    assert threads_in_child(tiny_encoder_path, "1").stdout.strip() == "1"


@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5"])
def test_bad_thread_numbers_are_config_errors(value, monkeypatch):
    monkeypatch.setenv("RAGZIP_THREADS", value)
    monkeypatch.setattr(runtime, "_threads_settled", False)
    with pytest.raises(ConfigError, match="RAGZIP_THREADS"):
        runtime.settle_threads()


def test_no_more_threads_than_cores(monkeypatch):
    set_to = []
    monkeypatch.delenv("RAGZIP_THREADS", raising=False)
    monkeypatch.setattr(runtime, "_threads_settled", False)
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    runtime.settle_threads()
    assert set_to == [2]


def test_set_threads_refuses_none():
    with pytest.raises(ConfigError):
        models.set_threads(0)


def test_quiet_puts_everything_back():
    from huggingface_hub import utils as hub
    from transformers.utils import logging

    for level in (logging.INFO, logging.WARNING):
        for bars in (True, False):
            before = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
            try:
                logging.set_verbosity(level)
                (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
                hub.disable_progress_bars()
                with pytest.raises(KeyError), runtime.quiet():
                    assert not logging.is_progress_bar_enabled()
                    raise KeyError
                assert logging.get_verbosity() == level
                assert logging.is_progress_bar_enabled() is bars
                assert hub.are_progress_bars_disabled()
            finally:
                logging.set_verbosity(before[0])
                (logging.enable_progress_bar if before[1] else logging.disable_progress_bar)()
                (hub.disable_progress_bars if before[2] else hub.enable_progress_bars)()


def test_unload_forgets(tiny_encoder_path):
    first = models.load_encoder(tiny_encoder_path)
    models.unload()
    assert models.load_encoder(tiny_encoder_path) is not first


@pytest.mark.parametrize("make", [tiny_encoder, tiny_causal_lm])
def test_tiny_models_are_made_the_same_for_a_seed_and_leave_randomness_alone(make, tmp_path):
    before = torch.get_rng_state()
    one, two, other = make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)
    assert (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_weights_that_changed_take_the_place_of_those_before(tmp_path):
    folder = tiny_causal_lm(tmp_path / "lm")
    first = models.load_causal_lm(str(folder), dtype="fp32", device="cpu")
    other = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "other")), dtype="fp32", device="cpu")
    reader = runtime.kept(("prefix", id(first), (1,)), lambda: first)
    assert reader is first
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text() + "\n")
    second = models.load_causal_lm(str(folder), dtype="fp32", device="cpu")
    assert second is not first
    held = runtime.loaded(type(first))
    assert not any(one is first for one in held)
    assert any(one is second for one in held) and any(one is other for one in held)
    assert models.load_causal_lm(str(folder), dtype="fp32", device="cpu") is second
