"""Trained encoders in ragzip's own format: written whole, read strictly."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragzip.errors import ModelError
from ragzip.models import load_encoder
from ragzip.models.tuned import open_base, open_tuned, read_tuned_config, save_tuned

PARAMETER = "encoder.layer.1.attention.output.dense.weight"


def tensors(seed=0):
    draw = torch.Generator().manual_seed(seed)
    made = {f"backbone.{PARAMETER}": torch.randn(32, 32, generator=draw)}
    return {
        **made,
        "heads.a.weight": torch.randn(3, 32, generator=draw),
        "heads.a.bias": torch.randn(3, generator=draw),
    }


def save(folder, base, given=None, **options):
    save_tuned(
        folder, **{"architecture": "x", "max_tokens": 50, "base": base, "tensors": given or tensors(), **options}
    )
    return str(folder)


def read(name, **options):
    return open_tuned(name, **{"architecture": "x", "dtype": "fp32", "device": "cpu", **options})


def test_what_was_saved_is_read_and_the_rest_is_the_base(tmp_path, tiny_encoder_path):
    tuned = read(save(tmp_path, tiny_encoder_path, title=True))
    wanted, base = tensors(), open_base(tiny_encoder_path, torch.float32, "cpu").state_dict()
    for name, value in tuned.backbone.state_dict().items():
        expected = wanted[f"backbone.{name}"].half().float() if name == PARAMETER else base[name]
        assert torch.equal(value, expected), name
    assert set(tuned.heads) == {"a"}
    assert torch.equal(tuned.heads["a"].weight, wanted["heads.a.weight"].half().float())
    assert torch.equal(tuned.heads["a"].bias, wanted["heads.a.bias"].half().float())
    assert (tuned.max_tokens, tuned.config["title"], tuned.config["tensors"]) == (50, True, sorted(wanted))
    assert not tuned.backbone.training
    assert not any(p.requires_grad for p in (*tuned.backbone.parameters(), *tuned.heads["a"].parameters()))
    assert tuned.tokenizer.truncation is None
    assert read(tuned.name) is tuned
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]  # whoever may read one may read the other


def test_the_window_is_no_longer_than_the_base_reads(tmp_path, tiny_encoder_path):
    assert read(save(tmp_path, tiny_encoder_path, max_tokens=4096)).max_tokens == 128


def test_a_head_without_bias(tmp_path, tiny_encoder_path):
    given = {"heads.b.weight": torch.ones(1, 32)}
    tuned = read(save(tmp_path, tiny_encoder_path, given))
    assert tuned.heads["b"].bias is None


def test_a_base_is_a_module_of_the_callers_own(tiny_encoder_path):
    first, second = (open_base(tiny_encoder_path, torch.float32, "cpu") for _ in range(2))
    assert first is not second
    with torch.no_grad():
        first.get_input_embeddings().weight.zero_()
    assert second.get_input_embeddings().weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {**t, "backbone.nonsense": torch.ones(1)}, r"hold backbone\.nonsense, unknown to the base"),
        (lambda t: {**t, f"backbone.{PARAMETER}": torch.ones(3, 3)}, PARAMETER),
        (lambda t: {**t, "other": torch.ones(1)}, "hold other"),
        (lambda t: {k: v for k, v in t.items() if k != f"backbone.{PARAMETER}"}, f"lack backbone.{PARAMETER}"),
        (lambda t: {k: v for k, v in t.items() if k != "heads.a.bias"}, r"lack heads\.a\.bias"),
        (lambda t: {**t, "heads.a.weight": torch.ones(3, 5)}, r"head 'a' .* \(3, 5\)"),
        (lambda t: {**t, "heads.a.weight": torch.ones(32)}, r"head 'a' .* \(32,\)"),
        (lambda t: {**t, "heads.a.bias": torch.ones(7)}, r"bias of head 'a' .* \(7,\)"),
    ],
)
def test_tensors_that_do_not_belong_there_are_named(tmp_path, tiny_encoder_path, change, said):
    name = save(tmp_path, tiny_encoder_path)
    path = tmp_path / "model.safetensors"
    save_file(change(load_file(str(path))), str(path))
    with pytest.raises(ModelError, match=said):
        read(name)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architecture": "y"}, "trained to be a y, not a x"),
        ({"architecture": 3}, "lacks 'architecture'"),
        ({"base": None}, "lacks 'base'"),
        ({"max_tokens": "many"}, "lacks 'max_tokens'"),
        ({"ragzip_format": 2}, "has format 2"),
        ({"tensors": 3}, "names no tensors"),
        ({"tensors": [3]}, "names no tensors"),
        ({"tensors": None}, "names no tensors"),
    ],
)
def test_configs_that_cannot_be(tmp_path, tiny_encoder_path, values, said):
    name = save(tmp_path, tiny_encoder_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(ModelError, match=said):
        read(name)


def test_folders_of_another_kind(tmp_path, tiny_encoder_path):
    with pytest.raises(ModelError, match="not in ragzip's format"):
        read(tiny_encoder_path)
    (tmp_path / "config.json").write_text("[1]")
    assert read_tuned_config(tmp_path) is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        read_tuned_config(tmp_path)


def test_weights_that_are_not_finite_are_refused_and_those_before_stay(tmp_path, tiny_encoder_path):
    name = save(tmp_path, tiny_encoder_path)
    with pytest.raises(ModelError, match="not finite"):
        save(tmp_path, tiny_encoder_path, {"heads.a.weight": torch.full((1, 32), 1e6)})  # beyond half precision
    assert read(name).heads["a"].out_features == 3


@pytest.mark.parametrize("when", ["pathlib.Path.write_bytes", "pathlib.Path.write_text", "pathlib.Path.replace"])
def test_a_kill_while_saving_leaves_what_was_there(tmp_path, tiny_encoder_path, monkeypatch, when):
    name = save(tmp_path, tiny_encoder_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def die(*given, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(when, die)
        save(tmp_path, tiny_encoder_path, tensors(seed=1))
    for file, content in before.items():
        assert (tmp_path / file).read_bytes() == content
    assert read(name).heads["a"].out_features == 3
    save(tmp_path, tiny_encoder_path, tensors(seed=1))
    assert torch.equal(read(name).heads["a"].bias, tensors(seed=1)["heads.a.bias"].half().float())
    assert not list(tmp_path.glob("*.part"))


def test_a_missing_pooler_moves_no_random_numbers(tmp_path, tiny_encoder_path):
    folder = tmp_path / "bare"
    shutil.copytree(tiny_encoder_path, folder)
    tensors = {key: value for key, value in load_file(folder / "model.safetensors").items() if "pooler" not in key}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    before = torch.get_rng_state()
    load_encoder(str(folder), device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
