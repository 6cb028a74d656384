"""Tiny token classifiers in the two families that are published: random weights, real tokenizers, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ragzip.testing.models import _save

_CHARACTERS = "abcdefghijklmnopqrstuvwxyzäéß0123456789.,;:!?()[]{}<>/-'\"的字因为好"
_WORDS = ("the", "of", "and", "in", "is", "river", "open", "muse", "rome", "passage")
_ENDINGS = ("s", "ed", "ing", "um", "er", "st", "on")


def tiny_token_classifier(
    folder: str | Path,
    *,
    family: Literal["bert", "xlm-roberta"] = "bert",
    window: int = 64,
    labels: int = 2,
    seed: int = 0,
) -> Path:
    """Writes a random two-layer classifier of tokens in the layout of ``transformers``.

    The families differ in all that tempts one to look at names: BERT marks the parts of words with ``##``, XLM-R the
    beginnings with ``▁``; the special tokens have other names; and XLM-R loses two of its positions.

    Args:
        folder: Where to; made if need be.
        family: ``bert`` with WordPiece, or ``xlm-roberta`` with a unigram model over metaspaces.
        window: Most tokens it reads, special tokens included.
        labels: How many it tells apart.
        seed: Of its weights.

    Returns:
        The folder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForTokenClassification

    bert = family == "bert"
    tokenizer = _wordpiece() if bert else _unigram()
    config = AutoConfig.for_model(
        family,
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=window if bert else window + 2,
        type_vocab_size=2 if bert else 1,
        pad_token_id=0 if bert else 1,
        initializer_range=0.3,
        num_labels=labels,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForTokenClassification.from_config(config)
    names = ("[PAD]", "[CLS]", "[SEP]", "[UNK]") if bert else ("<pad>", "<s>", "</s>", "<unk>")
    special: dict[str, str] = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token"), names, strict=True))
    _save(Path(folder), model, tokenizer, special, window)
    return Path(folder)


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_CHARACTERS, *(f"##{c}" for c in _CHARACTERS), *_WORDS]
    pieces += [f"##{ending}" for ending in _ENDINGS]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no secret
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return tokenizer


def _unigram() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = ["▁", *_CHARACTERS, *_ENDINGS, *_WORDS, *(f"▁{word}" for word in _WORDS)]
    scored = [(piece, -8.0 / len(piece)) for piece in dict.fromkeys(pieces)]
    tokenizer = Tokenizer(models.Unigram([*((name, 0.0) for name in special), *scored], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(special)
    return tokenizer
