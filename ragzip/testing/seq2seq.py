"""A tiny encoder-decoder made in a moment: a random T5, for testing plumbing."""

from __future__ import annotations

from pathlib import Path

from ragzip.testing.models import _save, _train_tokenizer


def tiny_seq2seq(folder: str | Path, *, dimensions: int = 32, silent: bool = False, seed: int = 0) -> Path:
    """Writes a random two-layer T5 with a byte-level tokenizer, for which any text is fine.

    Args:
        folder: Where to; made if need be.
        dimensions: Width of its embeddings, a multiple of 4.
        silent: Whether it writes nothing: the end of the text is always the likeliest. Otherwise it is never, and what
            it writes goes from token to token and depends on the input.
        seed: Of its weights.

    Returns:
        The folder.
    """
    import torch
    from tokenizers import processors
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    folder = Path(folder)
    tokenizer = _train_tokenizer(["</s>", "<pad>", "<extra_id_0>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    config = AutoConfig.for_model(
        "t5",
        vocab_size=tokenizer.get_vocab_size(),
        d_model=dimensions,
        d_kv=dimensions // 4,
        d_ff=2 * dimensions,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        initializer_factor=3.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=1,
        eos_token_id=0,
        decoder_start_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        model.lm_head.weight[:3] = 0  # control tokens are never the likeliest
        if silent:
            model.lm_head.weight.zero_()  # all alike, and of these the first is taken: the end
    _save(folder, model, tokenizer, {"pad_token": "<pad>", "eos_token": "</s>"}, 1024)
    return folder
