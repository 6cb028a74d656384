"""A GGUF file of the Llama family -> a folder in the layout of ``transformers``: config, tokenizer, weights.

Done once for a model that comes as GGUF. Every weight is de-quantised and stored in bfloat16, which halves the disk
space and the load time of float32. De-quantised values do not fit bfloat16 exactly; the rounding is some 30 times
finer than the steps of the 4-bit quantisation they come from. A float32 model is loaded from the same folder by
widening, so that both widths hold the same numbers.

GGUF files of other families, and tokenizers other than byte-level BPE, are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragzip.errors import ModelError

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL = 3  # the GGUF token type of control tokens


def convert(gguf: Path, folder: Path, *, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Writes the model in a GGUF file into a folder.

    Args:
        gguf: The file.
        folder: An empty folder.
        on_progress: Told tensors done and tensors in all.

    Raises:
        ModelError: The file is damaged or of a family that is not supported.
        OSError: The folder cannot be written.
    """
    import gguf as library

    try:
        reader = library.GGUFReader(gguf)
        meta = dict(reader.fields)
        config = _config(meta, tied=all(t.name != "output.weight" for t in reader.tensors))
        tokenizer, special = _tokenizer(meta)
        tensors = _tensors(reader.tensors, config, on_progress)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelError(
            f"{gguf} cannot be converted: {type(error).__name__}: {error}", hint="Get the file again."
        ) from error
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config},
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", special)
    if "tokenizer.chat_template" in meta:
        (folder / "chat_template.jinja").write_text(str(meta["tokenizer.chat_template"].contents()), "utf-8")
    _save(tensors, folder / "model.safetensors")


def _config(meta: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    def value(key: str, default: Any = None) -> Any:
        if key not in meta and default is not None:
            return default
        return meta[key].contents()

    family = value("general.architecture")
    if family != "llama" or "llama.rope.scaling.type" in meta or "llama.expert_count" in meta:
        raise ModelError(
            f"GGUF models of the family {family!r} with these options are not supported",
            hint="Use the model's safetensors folder.",
        )
    width, heads = int(value("llama.embedding_length")), int(value("llama.attention.head_count"))
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": len(meta["tokenizer.ggml.tokens"].data),
        "hidden_size": width,
        "intermediate_size": int(value("llama.feed_forward_length")),
        "num_hidden_layers": int(value("llama.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(value("llama.attention.head_count_kv", heads)),
        "head_dim": width // heads,
        "max_position_embeddings": int(value("llama.context_length")),
        "rms_norm_eps": float(value("llama.attention.layer_norm_rms_epsilon")),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(value("llama.rope.freq_base", 10000.0))},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
    }
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        if f"tokenizer.ggml.{theirs}_token_id" in meta:
            config[f"{ours}_token_id"] = int(value(f"tokenizer.ggml.{theirs}_token_id"))
    return config


def _tokenizer(meta: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Byte-level BPE, pre-split as the family ``tokenizer.ggml.pre`` does it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind, pre = meta["tokenizer.ggml.model"].contents(), "gpt-2"
    if "tokenizer.ggml.pre" in meta:
        pre = meta["tokenizer.ggml.pre"].contents()
    if kind != "gpt2" or pre not in ("gpt-2", "smollm"):
        raise ModelError(f"GGUF tokenizers of the kind {kind!r}/{pre!r} are not supported", hint="Use safetensors.")
    tokens = list(meta["tokenizer.ggml.tokens"].contents())
    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level]) if pre == "smollm" else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    types = list(meta["tokenizer.ggml.token_type"].contents())
    control = [
        AddedToken(t, normalized=False, special=True) for t, k in zip(tokens, types, strict=True) if k == _CONTROL
    ]
    tokenizer.add_special_tokens(control)
    special: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    special["model_max_length"] = int(meta["llama.context_length"].contents())
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        if f"tokenizer.ggml.{theirs}_token_id" in meta:
            special[f"{ours}_token"] = tokens[int(meta[f"tokenizer.ggml.{theirs}_token_id"].contents())]
    return tokenizer, special


def _tensors(
    found: list[Any], config: dict[str, Any], on_progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    import gguf as library
    import torch

    tensors: dict[str, Any] = {}
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for done, tensor in enumerate(found, start=1):
        values = library.dequantize(tensor.data, tensor.tensor_type)
        match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor.name)
        if tensor.name in _TOP:
            name = _TOP[tensor.name]
        elif match and match[2] in _BLOCK:
            name = f"model.layers.{match[1]}.{_BLOCK[match[2]]}.weight"
            if match[2] in heads:
                values = _unpermute(values, heads[match[2]])
        else:
            raise ModelError(f"the GGUF file has a tensor {tensor.name!r} that no Llama has", hint="Use safetensors.")
        tensors[name] = torch.tensor(values).to(torch.bfloat16)
        if on_progress:
            on_progress(done, len(found))
    return tensors


def _unpermute(values: Any, heads: int) -> Any:
    """GGUF interleaves the two halves that rotary embeddings turn together; ``transformers`` keeps them apart."""
    half = values.shape[0] // heads // 2
    return values.reshape(heads, half, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _save(tensors: dict[str, Any], path: Path) -> None:
    """Through bytes, so that a full disk is an OSError with its number."""
    from safetensors.torch import save

    path.write_bytes(save(tensors, metadata={"format": "pt"}))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
