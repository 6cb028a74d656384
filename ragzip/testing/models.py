"""Tiny models made in a moment: real architectures, real tokenizers, random weights, no download.

They are folders in the layout of ``transformers``, so everything that takes a model's name takes their path. The same
seed gives the same files; global random state is left alone. They mean nothing: use them to test plumbing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_TEXT = (
    "The quick brown fox jumps over the lazy dog while the river runs to the sea.",
    "A context is compressed before a frozen language model reads it and answers the question.",
    "Which city is the capital of the country, and when was the first railway opened there?",
    "Numbers such as 1, 22 and 333, and marks like (these), are tokens too.",
)


def tiny_encoder(folder: str | Path, *, dimensions: int = 32, window: int = 128, seed: int = 0) -> Path:
    """Writes a random two-layer BERT in the layout of sentence-transformers, pooled by the mean.

    Args:
        folder: Where to; made if need be.
        dimensions: Width of its vectors, a multiple of 2.
        window: Most tokens it reads.
        seed: Of its weights.

    Returns:
        The folder.
    """
    import torch
    from tokenizers import processors
    from transformers import BertConfig, BertModel

    folder = Path(folder)
    tokenizer = _train_tokenizer(["[PAD]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=dimensions,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * dimensions,
        max_position_embeddings=window,
        pad_token_id=0,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    _save(folder, model, tokenizer, {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}, window)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    _write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": dimensions, "pooling_mode_mean_tokens": True}
    _write(folder / "1_Pooling" / "config.json", pooling)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": window, "do_lower_case": False})
    return folder


def tiny_causal_lm(
    folder: str | Path,
    *,
    chat_template: bool | str = True,
    dimensions: int = 32,
    window: int = 2048,
    varied: bool = True,
    seed: int = 0,
) -> Path:
    """Writes a random two-layer Llama with two heads and a byte-level tokenizer, for which any text is fine.

    Args:
        folder: Where to; made if need be.
        chat_template: True for one of the ChatML kind, False for none, or the template itself.
        dimensions: Width of its input embeddings, a multiple of 4.
        window: Most tokens it reads and writes.
        varied: Weights large enough that greedy answers go from token to token and depend on the prompt, and that
            they do not end by themselves; otherwise weights as a fresh model has them, which repeats itself.
        seed: Of its weights.

    Returns:
        The folder.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(folder)
    tokenizer = _train_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=dimensions,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=2 * dimensions,
        max_position_embeddings=window,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=False,
        initializer_range=0.5 if varied else 0.02,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    if varied:
        with torch.no_grad():
            model.lm_head.weight[:3] = 0  # control tokens are never the likeliest
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    _save(folder, model, tokenizer, {**special, "unk_token": "<|endoftext|>"}, window)
    template = CHAT_TEMPLATE if chat_template is True else chat_template
    path = folder / "chat_template.jinja"
    path.unlink(missing_ok=True)
    if template:
        path.write_text(template, "utf-8")
    return folder


def _train_tokenizer(special: list[str]) -> Any:
    """Byte-level BPE: 256 bytes and some merges, so that no text is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        show_progress=False,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return tokenizer


def _save(folder: Path, model: Any, tokenizer: Any, special: dict[str, str], window: int) -> None:
    from ragzip.models.runtime import quiet

    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    _write(folder / "tokenizer_config.json", {**config, "model_max_length": window, **special})


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
