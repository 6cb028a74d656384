"""A tiny cross-encoder in the format of sentence-transformers: random weights, no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def tiny_pair_scorer(
    folder: str | Path, base: str | Path, *, labels: int = 1, activation: str = "", kind: str = "Bert", seed: int = 0
) -> Path:
    """Writes a random sequence classifier with the tokenizer of a tiny encoder.

    Args:
        folder: Where to; made if need be.
        base: The folder of ``tiny_encoder``.
        labels: Of the classifier.
        activation: ``Sigmoid`` or ``Identity``, written as sentence-transformers does; "" leaves it out.
        kind: Architecture of ``transformers``: ``Bert`` has types of tokens, ``DistilBert`` has none.
        seed: Of its weights.

    Returns:
        The folder.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, processors

    from ragzip.models.runtime import quiet

    folder, base = Path(folder), Path(base)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    window = int(json.loads((base / "config.json").read_text("utf-8"))["max_position_embeddings"])
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    if kind == "DistilBert":
        sizes = {"n_layers": 2, "n_heads": 2, "dim": 32, "hidden_dim": 64}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=window,
        pad_token_id=0,
        num_labels=labels,
        initializer_range=0.3,
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text((base / "tokenizer_config.json").read_text("utf-8"), "utf-8")
    if activation:
        settings = {"model_type": "CrossEncoder", "activation_fn": f"torch.nn.modules.activation.{activation}"}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings), "utf-8")
    return folder
