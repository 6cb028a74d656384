"""A frozen causal language model with its tokenizer, loaded once."""

from __future__ import annotations

import inspect
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models import prefill
from ragzip.models.loading import open_tokenizer
from ragzip.models.locate import canonical, resolve
from ragzip.models.lora import deciding_files, open_merged, tokenizer_folder
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, state
from ragzip.models.tokenizer import TextTokenizer, text_tokenizer, tokenizer_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


_SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True, eq=False)
class CausalLM:
    """A loaded language model in evaluation mode; no parameter asks for a gradient, and nothing may change one.

    Attributes:
        name: As it was asked for.
        space: Whose input embeddings its soft segments must be: the name in its one canonical spelling.
        model: The ``transformers`` model.
        tokenizer: The ``transformers`` tokenizer, for chat templates and special tokens.
        text: Encodes text that is data, such that no control token comes out of it.
        window: Most tokens it reads and writes in all.
        dimensions: Width of its input embeddings.
        device: Where it runs.
        dtype: The number format it computes in.
        folder: Its files.
        lock: Held while it computes: one prompt batch at a time makes the best of the cores.
    """

    name: str
    space: str
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    text: TextTokenizer = field(repr=False)
    window: int
    dimensions: int
    device: str
    dtype: str
    folder: Path
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Input embeddings of token ids: ``[n, dimensions]``, detached."""
        import torch

        with torch.inference_mode():
            tokens = torch.tensor(list(ids), dtype=torch.long, device=self.device)
            found: Tensor = self.model.get_input_embeddings()(tokens)
        return found.clone()


def load_causal_lm(name: str, *, dtype: str = "auto", device: str = "auto", own: bool = False) -> CausalLM:
    """A language model, loaded once for each process, dtype and device.

    Args:
        name: A built-in model, a folder in the layout of ``transformers`` or with a LoRA adapter in that of ``peft``
            (see ``ragzip.models.lora``), or a hub id.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".
        own: A copy of the caller's own, whose weights it may change: loaded now and shared with nobody.

    Raises:
        ModelError: It is not here, damaged, or no causal language model.
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    files = [*deciding_files(folder, _SETTINGS), tokenizer_file(tokenizer_folder(folder))]

    def load() -> CausalLM:
        model = open_merged("AutoModelForCausalLM", folder, dtype=number, device=device)
        _forget_defaults(model)
        _plain_rows(model)
        prefill.settle(model)
        return CausalLM(
            name=name,
            space=canonical(name),
            model=model,
            tokenizer=open_tokenizer(tokenizer_folder(folder)),
            text=text_tokenizer(name),
            window=_window(model),
            dimensions=int(model.get_input_embeddings().weight.shape[1]),
            device=device,
            dtype=str(number).removeprefix("torch."),
            folder=folder,
        )

    if own:
        return load()
    found: CausalLM = kept(("causal_lm", canonical(name), *state(*files), str(number), device), load)
    return found


def keeps_keys(model: Any) -> bool:
    """Whether all that a model keeps of what it read are keys and values, for each position its own.

    Recurrent layers and convolutions keep a state of everything they read, which cannot be cut, shared or put together.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return False
    try:
        layers = DynamicCache(config=model.config).layers
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def reach(model: Any) -> int | None:
    """How many positions the layers that look back least attend to; None where all attend to everything.

    Configs may name a window that no layer has.
    """
    text = model.config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None)
    if kinds and all(kind == "full_attention" for kind in kinds):
        return None
    found = [getattr(text, key, None) for key in ("sliding_window", "attention_chunk_size")]
    return min((value for value in found if isinstance(value, int) and value > 0), default=None)


def check_keys(lm: CausalLM) -> None:
    """Refuses a model that keeps something else than keys and values, for those who make its cache smaller.

    Raises:
        ModelError: It does.
    """
    if not keeps_keys(lm.model):
        raise ModelError(
            f"{lm.name!r} has layers that keep something else than keys and values", hint="Use it without kv."
        )


def _forget_defaults(model: Any) -> None:
    """Leaves the special tokens of ``generation_config.json`` and drops its taste in sampling and penalties.

    How to decode is said by the generator's options, and by nothing that comes with the weights.
    """
    import transformers

    kept_ids = {key: getattr(model.generation_config, key, None) for key in _SPECIAL_IDS}
    model.generation_config = transformers.GenerationConfig(**kept_ids)


def _plain_rows(model: Any) -> None:
    """Gives the output layer rows with strides of their own.

    The last position, sliced out of a whole prompt, keeps the prompt's strides; with those, the bf16 product with a
    vocabulary of 49,152 words took 79 ms in place of 2. A copy of one row changes no value.
    """
    head = model.get_output_embeddings()
    if head is None:
        return

    def plain(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        import torch

        rows, *rest = inputs
        if rows.dim() == 3 and rows.shape[1] == 1:
            rows = rows.clone(memory_format=torch.contiguous_format)
        return (rows, *rest)

    head.register_forward_pre_hook(plain)


def _window(model: Any) -> int:
    config = model.config.get_text_config(decoder=True)
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return 1 << 20
