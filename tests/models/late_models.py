"""Tiny late-interaction models with random weights, in the layouts that they are published in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ragzip.testing.models import tiny_encoder

MARKERS = ("[Q] ", "[D] ")


def base(folder: Path, *tokens: str, **options: Any) -> Path:
    """A tiny encoder that knows more tokens, a mask token among them, and gives token vectors of its own."""
    tiny_encoder(folder, **options)
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "1_Pooling")
    said = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    first = len(said["model"]["vocab"])
    for number, content in enumerate(("[MASK]", *tokens)):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        said["added_tokens"].append({"id": first + number, "content": content, "special": False, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(said), "utf-8")
    write(folder / "tokenizer_config.json", mask_token="[MASK]")
    weights = load_file(folder / "model.safetensors")
    more = torch.randn(1 + len(tokens), weights["embeddings.word_embeddings.weight"].shape[1], generator=draw(1)) * 0.3
    key = "embeddings.word_embeddings.weight"
    weights[key] = torch.cat([weights[key], more])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write(folder / "config.json", vocab_size=len(weights[key]))
    return folder


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write(path: Path, **values: Any) -> None:
    """Sets values in a JSON file."""
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, **values}), "utf-8")


def pylate(folder: Path, layers: list[dict[str, Any]] | None = None, width: int = 32, **said: Any) -> Path:
    """As PyLate saves a model: a dense layer for each of ``layers``, which are options of these, without bias."""
    base(folder, *MARKERS, dimensions=width)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, layer in enumerate(layers if layers is not None else [{"out_features": 8}], 1):
        name = f"{number}_Dense"
        (folder / name).mkdir()
        out = layer["out_features"]
        tensors = {"linear.weight": torch.randn(out, width, generator=draw(number))}
        if layer.get("bias"):
            tensors["linear.bias"] = torch.randn(out, generator=draw(number + 50))
        if layer.get("use_residual") and out != width:
            tensors["residual.weight"] = torch.randn(out, width, generator=draw(number + 90))
        save_file(tensors, folder / name / "model.safetensors")
        defaults = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
        write(folder / name / "config.json", in_features=width, **{**defaults, **layer})
        modules.append({"idx": number, "name": str(number), "path": name, "type": "pylate.models.Dense.Dense"})
        width = out
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    write(folder / "sentence_bert_config.json", max_seq_length=7, do_lower_case=False)  # of what was encoded last
    defaults = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 16, "document_length": 24}
    defaults |= {"do_query_expansion": True, "attend_to_expansion_tokens": False, "skiplist_words": [",", "."]}
    write(folder / "config_sentence_transformers.json", **{**defaults, **said})
    return folder


def stanford(folder: Path, **said: Any) -> Path:
    """As ColBERT saves a model: its projection among the weights of the encoder."""
    base(folder, "[unused0]", "[unused1]")
    weights = {f"bert.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    weights["linear.weight"] = torch.randn(8, 32, generator=draw(1))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write(folder / "config.json", architectures=["HF_ColBERT"])
    defaults = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_token": "[Q]", "doc_token": "[D]"}
    defaults |= {"query_maxlen": 16, "doc_maxlen": 24, "dim": 8, "mask_punctuation": True, "similarity": "cosine"}
    write(folder / "artifact.metadata", **{**defaults, "attend_to_mask_tokens": False, **said})
    return folder
