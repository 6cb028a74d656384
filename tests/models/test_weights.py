import json
import shutil
import struct
from pathlib import Path

import pytest

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models.weights import looks_complete, weight_files


@pytest.fixture
def folder(tiny_lm_path, tmp_path):
    return Path(shutil.copytree(tiny_lm_path, tmp_path / "model"))


def test_whole_weights_pass(folder):
    assert weight_files(folder) == [folder / "model.safetensors"]
    assert looks_complete(folder)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_cut_weights_are_refused_before_torch_sees_them(folder, keep):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(ModelError, match="is damaged"):
        models.load_causal_lm(str(folder))
    assert not looks_complete(folder)


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 64, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 7) + b'{"a":1}', struct.pack("<Q", 3) + b"{,}"],
)
def test_rubbish_is_refused(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="is damaged"):
        weight_files(folder)


def test_shards_are_all_needed(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    (folder / names[0]).write_bytes(data)
    with pytest.raises(ModelError, match=r"00002.*is missing"):
        weight_files(folder)
    (folder / names[1]).write_bytes(data)
    assert [p.name for p in weight_files(folder)] == names


@pytest.mark.parametrize("name", ["../outside.safetensors", "model.bin", "/etc/passwd", 3])
def test_an_index_cannot_point_elsewhere(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="no safetensors file beside it"):
        weight_files(folder)


def test_pickles_are_refused_with_the_reason(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    for load in (models.load_causal_lm, models.load_encoder, models.fingerprint):
        with pytest.raises(ModelError, match=r"pickled weights only \(pytorch_model\.bin\)"):
            load(str(folder))


def test_missing_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        models.load_causal_lm(str(folder))


def test_remote_code_is_never_run(folder):
    """A folder that brings its own Python gets an error, not a prompt and not an import."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "evil.Evil")}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="cannot be loaded"):
        models.load_causal_lm(str(folder))
    assert not (folder / "ran").exists()


def test_weights_of_another_model_are_refused(folder, tiny_encoder_path):
    shutil.copy(Path(tiny_encoder_path) / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ModelError, match="lack"):
        models.load_causal_lm(str(folder))


def test_weights_of_another_width_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(ModelError):
        models.load_causal_lm(str(folder))


def test_fingerprint_tells_models_apart_and_copies_together(tiny_lm_path, folder, tmp_path):
    from ragzip.testing.models import tiny_causal_lm

    first = models.fingerprint(tiny_lm_path)
    assert len(first) == 64
    assert models.fingerprint(str(folder)) == first
    assert models.fingerprint(str(tiny_causal_lm(tmp_path / "other", seed=1))) != first

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_version": "9.9.9"}, indent=7))
    assert models.fingerprint(str(folder)) == first
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert models.fingerprint(str(folder)) != first


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "model.safetensors"])
def test_fingerprint_sees_every_deciding_file(folder, name):
    before = models.fingerprint(str(folder))
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert models.fingerprint(str(folder)) != before


def test_a_header_that_is_nested_too_deeply_is_damage(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    header = b"[" * 100_000
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="is damaged"):
        weight_files(tmp_path)
