"""Published checkpoints of Provence and OpenProvence, opened without the code that comes with them.

Provence (https://arxiv.org/abs/2501.16214, ``naver/provence-reranker-debertav3-v1``) is a DeBERTa-v3 reranker with a
second head over its tokens. OpenProvence (``hotchpotch/open-provence-reranker-*``) is any sequence classifier, mostly
ModernBERT, with such a head. Both tell two labels of a token apart, the second of which means "keep".

OpenProvence's heads over ModernBERT were trained on what the last layer gives, before the final norm: that is what
``hidden_states[-1]`` was in ``transformers`` 4. In ``transformers`` 5 it is what comes after the norm, so that their
published code gives other numbers there; the numbers here do not depend on the version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.runtime import quiet, settle_threads
from ragzip.models.tokenizer import read_tokenizer, tokenizer_file
from ragzip.models.weights import weight_files

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    Forward = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]

Specials = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool, int]
"""Special tokens before the question, between it and the passage, and after that; whether token types tell the two
apart; the padding token."""

_RANKER, _HEAD = "ranking_model.", "pruning_head."
_HINT = "Give a checkpoint of Provence (naver/provence-*) or OpenProvence (hotchpotch/open-provence-*)."
_AGAIN = "The config and the weights do not belong together; get the model again."
_NOT_THE_MODELS = {"architectures", "auto_map", "dtype", "id2label", "label2id", "model_type", "num_labels"}
_NOT_THE_MODELS |= {"torch_dtype", "transformers_version", "_name_or_path", "_attn_implementation"}


def open_published(folder: Path, dtype: torch.dtype, device: str) -> tuple[Forward, Tokenizer, Specials, int]:
    """A checkpoint's forward function, tokenizer, special tokens and window.

    The forward function takes ids, mask and token types ``[b, n]`` (the latter two may be None) and gives keep
    probabilities ``[b, n]`` and relevance ``[b]``, 0 to 1, both float32. Heads over tokens compute in float32.

    Args:
        folder: With config.json, tokenizer.json and safetensors.
        dtype: What the encoder computes in.
        device: Where to.

    Raises:
        ModelError: It is of no architecture that is known, damaged, or lacks tensors (which are named).
    """
    config = _json(folder / "config.json")
    architectures = [str(name) for name in config.get("architectures") or ()]
    kind = str(config.get("model_type", ""))
    settle_threads()
    if kind == "Provence" or "Provence" in architectures:
        forward, settings = _provence(folder, config, dtype, device)
        window = int(settings.max_position_embeddings)
    elif kind == "open_provence" or any(name.startswith("OpenProvence") for name in architectures):
        forward, settings, positions = _open_provence(folder, config, dtype, device)
        longest = config.get("max_length")
        window = min(longest if isinstance(longest, int) else 512, positions)
    else:
        found = ", ".join(architectures) or kind or "none"
        raise ModelError(f"{folder} is no pruner that is known: its architecture is {found}", hint=_HINT)
    tokenizer = read_tokenizer(tokenizer_file(folder))
    first, middle, last, types = pair_specials(folder, tokenizer)
    typed = types and int(getattr(settings, "type_vocab_size", 0) or 0) > 1
    return forward, tokenizer, (first, middle, last, typed, int(settings.pad_token_id or 0)), window


def _provence(folder: Path, config: Mapping[str, Any], dtype: torch.dtype, device: str) -> tuple[Forward, Any]:
    """DeBERTa-v2 with its own head for ranking, and ``token_classifier`` over the tokens."""
    import transformers

    tensors = _tensors(folder)
    settings = _settings(folder, lambda: transformers.DebertaV2Config(**_own(config, 1)))
    model = _fill(folder, transformers.DebertaV2ForSequenceClassification, settings, tensors, dtype, device)
    keep = _keep_head(folder, tensors, "token_classifier", int(settings.hidden_size), device)

    def forward(ids: Any, mask: Any, types: Any) -> tuple[Any, Any]:
        hidden = model.deberta(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        return keep(hidden), model.classifier(model.pooler(hidden))[:, 0].float().sigmoid()

    return forward, settings


def _open_provence(
    folder: Path, config: Mapping[str, Any], dtype: torch.dtype, device: str
) -> tuple[Forward, Any, int]:
    """Any sequence classifier of ``transformers``, and ``pruning_head`` over the tokens; also its positions."""
    import transformers

    base = config.get("base_model_config")
    if not isinstance(base, dict) or not isinstance(base.get("model_type"), str):
        raise ModelError(f"{folder / 'config.json'} lacks base_model_config with a model_type", hint=_HINT)
    labels = config.get("num_labels") or 1
    settings = _settings(folder, lambda: transformers.AutoConfig.for_model(base["model_type"], **_own(base, labels)))
    classes = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if type(settings) not in classes:
        raise ModelError(f"{folder} ranks with {base['model_type']!r}, which classifies no sequences", hint=_HINT)
    tensors = _tensors(folder)
    prefix = _RANKER if any(name.startswith(_RANKER) for name in tensors) else ""  # none in early checkpoints
    ranker = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix) and not n.startswith(_HEAD)}
    model = _fill(folder, classes[type(settings)], settings, ranker, dtype, device, prefix)
    keep = _keep_head(folder, tensors, f"{_HEAD}classifier", int(settings.hidden_size), device)
    run = _modern_bert(model) if base["model_type"] == "modernbert" else _classifier(model)

    def forward(ids: Any, mask: Any, types: Any) -> tuple[Any, Any]:
        hidden, logits = run(ids, mask, types)
        return keep(hidden), logits[:, 0].float().sigmoid()

    return forward, settings, _positions(model)


def _classifier(model: Any) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """Last hidden states and logits of a sequence classifier."""

    def run(ids: Any, mask: Any, types: Any) -> tuple[Any, Any]:
        more = {} if types is None else {"token_type_ids": types}
        found = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **more)
        return found.hidden_states[-1], found.logits

    return run


def _modern_bert(model: Any) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """Hidden states before the final norm, and logits from what comes after it."""
    import torch

    encoder = model.model
    norm, encoder.final_norm = encoder.final_norm, torch.nn.Identity()
    mean = model.config.classifier_pooling == "mean"

    def run(ids: Any, mask: Any, types: Any) -> tuple[Any, Any]:
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        final = norm(hidden)
        if mean:
            inside = torch.ones_like(ids) if mask is None else mask
            pooled = (final * inside.unsqueeze(-1)).sum(dim=1) / inside.sum(dim=1, keepdim=True)
        else:
            pooled = final[:, 0]
        return hidden, model.classifier(model.head(pooled.to(final.dtype)))

    return run


def _keep_head(
    folder: Path, tensors: Mapping[str, Any], name: str, width: int, device: str
) -> Callable[[Any], torch.Tensor]:
    """Hidden states ``[b, n, d]`` -> keep probabilities ``[b, n]``, in float32."""
    from torch.nn.functional import linear

    wanted = {f"{name}.weight": (2, width), f"{name}.bias": (2,)}
    _complain(folder, [key for key in wanted if key not in tensors])
    wrong = {key: tuple(tensors[key].shape) for key in wanted if tuple(tensors[key].shape) != wanted[key]}
    _complain(folder, [f"{key} {list(shape)} for {list(wanted[key])}" for key, shape in wrong.items()])
    weight, bias = (tensors[key].to(device).float() for key in wanted)

    def keep(hidden: Any) -> torch.Tensor:
        found: torch.Tensor = linear(hidden.float(), weight, bias).softmax(dim=-1)[..., 1]
        return found

    return keep


def _fill(
    folder: Path, model: Any, settings: Any, tensors: Mapping[str, Any], dtype: Any, device: str, prefix: str = ""
) -> Any:
    """A model of ``transformers`` with all of its parameters out of these tensors, frozen."""
    import torch

    try:
        with quiet():
            made, info = model.from_pretrained(
                None,
                config=settings,
                state_dict=dict(tensors),
                dtype=dtype,
                ignore_mismatched_sizes=True,  # they are reported below, by name
                output_loading_info=True,
            )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelError(f"not enough memory for {folder}", hint="Use a smaller model, or dtype: bf16.") from error
    except Exception as error:  # weights and configs that do not go together raise errors of many kinds
        raise _broken(folder, error) from error
    wrong = [f"{prefix}{name} {list(has)} for {list(wants)}" for name, has, wants in info["mismatched_keys"]]
    _complain(folder, [prefix + name for name in info["missing_keys"]] + wrong)
    return made.to(device).train(False).requires_grad_(False)


def _complain(folder: Path, names: list[str]) -> None:
    """Parameters that are missing would be random numbers; that must never pass for the model."""
    if names:
        shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
        raise ModelError(f"the weights in {folder} lack {len(names)} parameters of the model ({shown})", hint=_AGAIN)


def _settings(folder: Path, make: Callable[[], Any]) -> Any:
    try:
        with quiet():
            return make()
    except Exception as error:  # wrong values raise errors of many kinds
        raise _broken(folder, error) from error


def _broken(folder: Path, error: Exception) -> ModelError:
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return ModelError(f"{folder} cannot be loaded: {type(error).__name__}: {first}", hint=_AGAIN)


def _own(config: Mapping[str, Any], labels: int) -> dict[str, Any]:
    """The fields that say what the encoder is like, and the labels of the head that ranks."""
    return {**{key: value for key, value in config.items() if key not in _NOT_THE_MODELS}, "num_labels": labels}


def _positions(model: Any) -> int:
    """The longest input: as many tokens as there are positions, less those that RoBERTa's kin lose."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    return int(positions) - (0 if padding is None else int(padding) + 1)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        try:
            found.update(load_file(str(file)))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} cannot be read: {error}", hint=_AGAIN) from error
    return found


def pair_specials(folder: Path, tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]:
    """The special tokens around a pair, and whether the passage has a token type of its own.

    As the tokenizer puts them; where it puts none, as with some of ModernBERT's, those that its config names.
    """
    pair = tokenizer.encode("a", "a")
    owners = pair.sequence_ids
    if 0 in owners and 1 in owners:
        ends = owners.index(0), len(owners) - 1 - owners[::-1].index(0)
        starts = owners.index(1), len(owners) - 1 - owners[::-1].index(1)
        first, middle, last = pair.ids[: ends[0]], pair.ids[ends[1] + 1 : starts[0]], pair.ids[starts[1] + 1 :]
        if first and middle:
            return tuple(first), tuple(middle), tuple(last), pair.type_ids[starts[0]] == 1
    config = _json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    begin, end = (
        _named(config, tokenizer, *names) for names in (("cls_token", "bos_token"), ("sep_token", "eos_token"))
    )
    if begin is None or end is None:
        raise ModelError(f"the tokenizer in {folder} has no tokens that begin and part a pair", hint=_HINT)
    return (begin,), (end,), (end,), False


def _named(config: Mapping[str, Any], tokenizer: Tokenizer, *names: str) -> int | None:
    for name in names:
        value = config.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        number = tokenizer.token_to_id(content) if isinstance(content, str) else None
        if number is not None:
            return number
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_HINT) from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is no JSON object", hint=_HINT)
    return found
