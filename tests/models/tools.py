"""A tiny model as GGUF inside a fake package, and a catalogue that knows it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

from ragzip.models import catalogue
from ragzip.models.catalogue import GENERATOR, ModelSpec

NAME = "tiny-instruct"
PACKAGE = "tiny_instruct_package"


def write_gguf(source: Path, target: Path, *, pre: str = "gpt-2", quantised: bool = False, drop: str = "") -> None:
    """The model of ``tiny_causal_lm`` in ``source`` as a GGUF file, as llama.cpp's own converter lays it out."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    control = {t["id"] for t in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if i in control else 1 for i in range(len(vocabulary))])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template((source / "chat_template.jinja").read_text())
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for key, values in load_file(source / "model.safetensors").items():
        stem = key.removesuffix(".weight")
        if stem in names:
            name = f"{names[stem]}.weight"
        else:
            _, _, layer, rest = stem.split(".", 3)
            name = f"blk.{layer}.{names[rest]}.weight"
        if name == drop:
            continue
        if ".attn_q." in name or ".attn_k." in name:
            heads = config["num_attention_heads"]
            halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        if quantised and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def spec_for(gguf: Path) -> ModelSpec:
    """The catalogue's entry for a GGUF file in the fake package."""
    return replace(
        catalogue.CATALOGUE[GENERATOR],
        name=NAME,
        requirement="tiny-instruct-package==1.0",
        package=PACKAGE,
        path="model.gguf",
        weights="model.gguf",
        sha256=hashlib.sha256(gguf.read_bytes()).hexdigest(),
        hub="nobody/tiny-instruct",
        download_bytes=gguf.stat().st_size,
    )


def make_package(site: Path, gguf: Path) -> ModelSpec:
    """Lays the file into a package that must not be imported."""
    folder = site / PACKAGE
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('model packages are found, never imported')\n")
    (folder / "model.gguf").write_bytes(gguf.read_bytes())
    return spec_for(gguf)


def make_wheel(folder: Path, gguf: Path) -> Path:
    """The fake package as a wheel that pip accepts."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PACKAGE}-1.0-py3-none-any.whl"
    info = f"{PACKAGE}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{PACKAGE}/__init__.py", "raise RuntimeError('never imported')\n")
        wheel.writestr(f"{PACKAGE}/model.gguf", gguf.read_bytes())
        wheel.writestr(f"{PACKAGE}/../../outside.txt", "a member that climbs out of its folder")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-instruct-package\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def child(site: Path, spec: ModelSpec, body: str) -> subprocess.Popen[str]:
    """A process of its own that knows the fake package, and in which converting writes a marker and waits.

    ``convert`` there is a stand-in that needs no heavy library: it writes one file, appends a line to ``converted``
    and sleeps while a file ``hold`` exists.
    """
    code = f"""
    import sys, time, types
    from pathlib import Path
    sys.path.insert(0, {str(site)!r})
    from ragzip.models import catalogue, locate
    from ragzip.models.catalogue import ModelSpec
    spec = {spec!r}
    catalogue.CATALOGUE = types.MappingProxyType({{spec.name: spec}})
    site = Path({str(site)!r})

    def convert(gguf, folder, on_progress=None):
        (folder / "config.json").write_text("{{}}")
        with (site / "converted").open("a") as log:
            log.write("x")
        while (site / "hold").exists():
            time.sleep(0.02)
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())

    module = types.ModuleType("ragzip.models.convert")
    module.convert = convert
    sys.modules["ragzip.models.convert"] = module
    """
    program = textwrap.dedent(code) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
