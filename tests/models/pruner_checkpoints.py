"""Tiny checkpoints as Provence and OpenProvence are published, with random weights; and what they should give."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file
from tokenizers import processors

from ragzip.testing.models import _train_tokenizer
from ragzip.testing.token_classifiers import _unigram

QUESTION = "Who was in rome?"
PASSAGE = "The river is open. The muse of rome reads, and muses!"


def _save(folder, config, tensors, tokenizer, tokens):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(folder / "model.safetensors"))
    return folder


def _random(shapes, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(*shape, generator=draw) * 0.3 for name, shape in shapes.items()}


def _pair(tokenizer, cls, sep, middle):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls}:0 $A:0 {middle} $B:1 {sep}:1",
        special_tokens=[(cls, tokenizer.token_to_id(cls)), (sep, tokenizer.token_to_id(sep))],
    )
    return tokenizer


def provence(folder, **changes):
    """A DeBERTa as that of naver/provence-reranker-debertav3-v1."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    tokenizer = _pair(_unigram(), "<s>", "</s>", "</s>:0")
    config = {
        "architectures": ["Provence"],
        "auto_map": {"AutoConfig": "modeling_provence.ProvenceConfig", "AutoModel": "modeling_provence.Provence"},
        "model_type": "Provence",
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "torch_dtype": "float32",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "max_relative_positions": -1,
        "position_buckets": 16,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "type_vocab_size": 0,
        "pad_token_id": 1,
        "pooler_hidden_size": 32,
        "pooler_hidden_act": "gelu",
        **changes,
    }
    plain = {key: value for key, value in config.items() if key not in ("architectures", "auto_map", "model_type")}
    with torch.device("meta"):
        model = DebertaV2ForSequenceClassification(DebertaV2Config(**plain))
    tensors = _random({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    tensors |= _random({"token_classifier.weight": (2, 32), "token_classifier.bias": (2,)}, seed=1)
    return _save(folder, config, tensors, tokenizer, {})


def provence_says(folder, question, passage):
    """Keep probabilities of the passage's tokens, and relevance, from the formulas of the paper's code."""
    from tokenizers import Tokenizer
    from transformers import DebertaV2Config, DebertaV2Model

    config, tensors = json.loads((folder / "config.json").read_text()), load_file(str(folder / "model.safetensors"))
    encoder = DebertaV2Model(
        DebertaV2Config(**{k: v for k, v in config.items() if k not in ("model_type", "auto_map")})
    )
    encoder.load_state_dict({n.removeprefix("deberta."): t for n, t in tensors.items() if n.startswith("deberta.")})
    pair = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(question, passage)
    with torch.inference_mode():
        hidden = encoder.eval()(torch.tensor([pair.ids])).last_hidden_state[0]

        def linear(name, x):
            return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

        pooled = torch.nn.functional.gelu(linear("pooler.dense", hidden[0]))
        keep = linear("token_classifier", hidden).softmax(-1)[:, 1]
        rank = linear("classifier", pooled).sigmoid().item()
    return [p.item() for p, owner in zip(keep, pair.sequence_ids, strict=True) if owner == 1], rank


_BASES = {
    "modernbert": {
        "global_attn_every_n_layers": 3,
        "local_attention": 8,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "classifier_pooling": "cls",
        "max_position_embeddings": 256,
    },
    "bert": {"max_position_embeddings": 128, "type_vocab_size": 2},
    "xlm-roberta": {"max_position_embeddings": 130, "type_vocab_size": 1},
}


def open_provence(folder, base="modernbert", *, prefix="ranking_model.", template=True, max_length=128, **changes):
    """A sequence classifier with a pruning head, as those of hotchpotch/open-provence-reranker-*."""
    import transformers

    xlm = base == "xlm-roberta"
    cls, sep = ("<s>", "</s>") if xlm else ("[CLS]", "[SEP]")
    tokenizer = _unigram() if xlm else _train_tokenizer(["[PAD]", "[CLS]", "[SEP]"])
    if template:
        middle = f"{sep}:0 {sep}:0" if xlm else f"{sep}:0"
        tokenizer = _pair(tokenizer, cls, sep, middle)
    inner = {
        "model_type": base,
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "pad_token_id": 1 if xlm else 0,
        "torch_dtype": "float32",
        "id2label": {"0": "LABEL_0"},
        **_BASES[base],
        **changes,
    }
    config = {
        "architectures": ["OpenProvenceForSequenceClassification"],
        "auto_map": {"AutoModel": "modeling_open_provence_standalone.OpenProvenceModel"},
        "model_type": "open_provence",
        "base_model_config": inner,
        "pruning_config": {"hidden_size": 32, "num_labels": 2},
        "max_length": max_length,
    }
    settings = _settings(inner)
    with torch.device("meta"):
        model = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(settings)](settings)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors = {prefix + name: tensor for name, tensor in _random(shapes).items()}
    tensors |= _random({"pruning_head.classifier.weight": (2, 32), "pruning_head.classifier.bias": (2,)}, seed=1)
    tokens = {"cls_token": {"content": cls}, "sep_token": sep}
    return _save(folder, config, tensors, tokenizer, tokens)


def _settings(inner):
    from transformers import AutoConfig

    given = {k: v for k, v in inner.items() if k not in ("model_type", "id2label", "torch_dtype")}
    return AutoConfig.for_model(inner["model_type"], **given, num_labels=1)


def open_provence_says(folder, ids, inside, types=None):
    """As ``provence_says``, for given tokens, of which those ``inside`` are the passage's."""
    import transformers

    config, tensors = json.loads((folder / "config.json").read_text()), load_file(str(folder / "model.safetensors"))
    settings = _settings(config["base_model_config"])
    model = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(settings)](settings).eval()
    own = {n.removeprefix("ranking_model."): t for n, t in tensors.items() if not n.startswith("pruning_head.")}
    model.load_state_dict(own, strict=False)
    layers = model.base_model.layers if hasattr(model.base_model, "layers") else model.base_model.encoder.layer
    seen = []  # what the last layer gives, before any final norm
    layers[-1].register_forward_hook(
        lambda *call: seen.append(call[-1][0] if isinstance(call[-1], tuple) else call[-1])
    )
    more = {} if types is None else {"token_type_ids": torch.tensor([types])}
    with torch.inference_mode():
        rank = model(torch.tensor([ids]), **more).logits[0, 0].sigmoid().item()
        weight, bias = tensors["pruning_head.classifier.weight"], tensors["pruning_head.classifier.bias"]
        keep = (seen[0].reshape(len(ids), -1) @ weight.T + bias).softmax(-1)[:, 1]
    return keep[inside].tolist(), rank


def without(folder, *names, **replaced):
    """The checkpoint's weights with some tensors left out, or replaced."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(str(path)).items() if name not in names}
    save_file({**tensors, **replaced}, str(path))
    return folder
