"""One batch through ``model.generate``: padding, sampling without global random state, streaming, stop strings."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ragzip.errors import GenerationError, PromptTooLong
from ragzip.models.causal_lm import CausalLM
from ragzip.models.chat import EncodedPrompt
from ragzip.models.stream import AnswerText
from ragzip.types import Generation

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

_NO_MASKS = ("rwkv", "recurrent_gemma")
_RELATIVE = ("bloom", "mpt", "mamba", "mamba2", "falcon_mamba", "xlstm")
_COLD = 1e-6  # temperatures from here down take the likeliest token; divided by much less, logits would overflow


def decode_batch(
    lm: CausalLM,
    prompts: Sequence[EncodedPrompt],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    stop: Sequence[tuple[str, ...]],
    on_text: Sequence[Callable[[str], None] | None],
    start: float,
    unless: Unless | None = None,
    cache: Any = None,
) -> list[Generation]:
    """Answers of prompts that run together.

    Args:
        lm: The model.
        prompts: Its prompts; shorter ones are padded on the left and the padding is masked.
        max_new_tokens: Most tokens of each answer.
        temperature: 0, or next to nothing, takes the likeliest token; otherwise the logits are divided by it.
        top_p: Share of the probability that is sampled from.
        seed: Of the random numbers of every prompt, each from a generator of its own.
        stop: For each prompt, strings that end its answer.
        on_text: For each prompt, who is told its text as it grows.
        start: ``time.perf_counter()`` that times count from.
        unless: What they may begin with only where the model is sure of it; it takes note of how sure it was.
        cache: An empty cache of ``transformers`` to read the prompts into; None for the usual one.

    Raises:
        PromptTooLong: No memory for the batch.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    ends = end_tokens(lm.model, lm.tokenizer)
    inputs: dict[str, Any] = dict(_inputs(lm, prompts))
    if cache is not None:
        inputs["past_key_values"] = cache
    tap = Tap(lm.text.tokenizer, ends, stop, on_text)
    processors: list[Any] = []
    if temperature > _COLD:
        processors = _sampling(lm, len(prompts), temperature, top_p, seed)
    if unless is not None:
        processors.insert(0, unless)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        use_cache=True,
        repetition_penalty=1.0,
        eos_token_id=ends or None,
        pad_token_id=_pad(lm),
        return_dict_in_generate=False,
    )
    try:
        with torch.inference_mode():
            lm.model.generate(
                **inputs,
                generation_config=config,
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=StoppingCriteriaList([tap]),
            )
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise no_memory(lm.device, [prompt.length for prompt in prompts]) from error
    return tap.results([prompt.length for prompt in prompts], start)


def check_embeds(lm: CausalLM, prompt: EncodedPrompt) -> None:
    """Refuses soft rows for a model that reads ids alone.

    Raises:
        GenerationError: It does, and the prompt has some.
    """
    if prompt.ids is None and not reads_embeds(lm):
        raise GenerationError(
            f"{lm.name!r} reads token ids only, not embeddings (its forward or generate takes no inputs_embeds)",
            hint="Use another generator, or no soft compressor.",
        )


def reads_embeds(lm: CausalLM) -> bool:
    """Whether the model reads and generates behind embeddings: ``generate`` asks what prepares its inputs, too."""
    methods = (lm.model.forward, lm.model.prepare_inputs_for_generation)
    return all("inputs_embeds" in inspect.signature(method).parameters for method in methods)


def heeds_masks(lm: CausalLM) -> bool:
    """Whether padding changes nothing of what the model reads; else prompts run one by one.

    Some models take masks and drop them. Others count positions themselves, padding included.
    """
    return getattr(lm.model.config, "model_type", "") not in _NO_MASKS and takes_places(lm)


def takes_places(lm: CausalLM) -> bool:
    """Whether the model is told where each token stands, or needs no places at all, only distances or an order."""
    known = "position_ids" in inspect.signature(lm.model.forward).parameters
    return known or getattr(lm.model.config, "model_type", "") in _RELATIVE


def _inputs(lm: CausalLM, prompts: Sequence[EncodedPrompt]) -> dict[str, Tensor]:
    """Left-padded ids, or left-padded input embeddings where any prompt has soft rows."""
    import torch

    width = max(prompt.length for prompt in prompts)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        mask[row, width - prompt.length :] = 1
    ids = [prompt.ids for prompt in prompts]
    if all(found is not None for found in ids):
        tokens = torch.full((len(prompts), width), _pad(lm), dtype=torch.long)
        for row, found in enumerate(ids):
            tokens[row, width - len(found or ()) :] = torch.tensor(found, dtype=torch.long)
        return {"input_ids": tokens.to(lm.device), "attention_mask": mask.to(lm.device)}
    for prompt in prompts:
        check_embeds(lm, prompt)
    rows = torch.zeros(len(prompts), width, lm.dimensions, dtype=lm.model.dtype, device=lm.device)
    for row, prompt in enumerate(prompts):
        pieces = [lm.embed(piece) if isinstance(piece, list) else piece for piece in prompt.pieces]
        rows[row, width - prompt.length :] = torch.cat(pieces)
    return {"inputs_embeds": rows, "attention_mask": mask.to(lm.device)}


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer, as the ``transformers`` model and its tokenizer say."""
    found = getattr(model.generation_config, "eos_token_id", None)
    ends = list(found) if isinstance(found, (list, tuple)) else [found]
    return sorted({int(end) for end in (*ends, tokenizer.eos_token_id) if end is not None})


def _pad(lm: CausalLM) -> int:
    rows = int(lm.model.get_input_embeddings().weight.shape[0])
    own = [] if lm.tokenizer.pad_token_id is None else [int(lm.tokenizer.pad_token_id)]
    # one that was added to a tokenizer, and to no model, has no embedding
    return next((token for token in (*own, *end_tokens(lm.model, lm.tokenizer)) if 0 <= token < rows), 0)


def out_of_memory(error: Exception) -> bool:
    """Whether an error of a forward pass says that memory ran out."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def no_memory(device: str, lengths: Sequence[int]) -> PromptTooLong:
    """What to raise for it."""
    return PromptTooLong(
        f"not enough memory on {device} for {len(lengths)} prompts of up to {max(lengths)} tokens",
        hint="Lower batch_size or the budget.",
    )


class Tap:
    """A stopping criterion that sees every token as it is chosen, and so knows times, texts and ends."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        ends: Sequence[int],
        stop: Sequence[tuple[str, ...]],
        on_text: Sequence[Callable[[str], None] | None],
    ) -> None:
        size = len(stop)
        self._ends = frozenset(ends)
        self._answers = [
            AnswerText(lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True), stop=stops, on_text=tell)
            for stops, tell in zip(stop, on_text, strict=True)
        ]
        self._tokens = [0] * size
        self._passes = [0] * size
        self._stopped = [False] * size
        self._first = [0.0] * size
        self._last = [0.0] * size

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each answer of the batch is complete: ``[batch]``."""
        import torch

        now = time.perf_counter()
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self._stopped[row]:
                continue  # what follows is padding
            self._passes[row] += 1
            self._first[row] = self._first[row] or now
            self._last[row] = now
            if token in self._ends:
                self._stopped[row] = True
                self._answers[row].finish()
                continue
            self._tokens[row] += 1
            self._stopped[row] = self._answers[row].feed(token)
        return torch.tensor(self._stopped, dtype=torch.bool, device=input_ids.device)

    def results(self, lengths: Sequence[int], start: float) -> list[Generation]:
        """What came of every prompt, given how many tokens it has."""
        return [
            Generation(
                text=answer.finish(),
                prompt_tokens=length,
                new_tokens=self._tokens[row],
                first_token_seconds=self._first[row] - start,
                seconds=self._last[row] - start,
                stopped=self._stopped[row],
                passes=self._passes[row],
            )
            for row, (answer, length) in enumerate(zip(self._answers, lengths, strict=True))
        ]


class Unless:
    """Takes a token out of the choice of the first one where it is less probable than asked; for one batch.

    Args:
        token: Its id.
        least: The least probability with which it may begin an answer; 1 never lets it.
    """

    def __init__(self, token: int, least: float) -> None:
        self._token, self._least = token, least
        self.probabilities: list[float] = []
        """Of the token as the first one, for each prompt; empty until it was asked for."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores of a step, ``[batch, n_vocab]``, changed in the first one."""
        if self.probabilities:
            return scores
        found = scores.float().softmax(-1)[:, self._token]
        self.probabilities = found.tolist()
        unsure = (found < self._least) | (self._least >= 1)  # a probability can be rounded to 1
        changed = scores.clone()
        changed[unsure, self._token] = float("-inf")
        return changed


def _sampling(lm: CausalLM, size: int, temperature: float, top_p: float, seed: int) -> list[Any]:
    """Sampling as a choice of the greatest: logits plus Gumbel noise, from one random generator for each prompt.

    It draws from exactly the softmax distribution, without the process's random state, and what a prompt draws does
    not depend on the others in its batch.
    """
    import torch
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    generators = [torch.Generator(device="cpu").manual_seed(seed) for _ in range(size)]

    def add_noise(input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack(
            [torch.rand(scores.shape[1], generator=g, dtype=torch.float64) for g in generators]
        ).clamp_(1e-300, 1 - 1e-16)
        noise = -torch.log(-torch.log(uniform))
        if scores.device.type == "mps":  # which has no float64
            return (scores.cpu().double() + noise).float().to(scores.device)
        return scores.double() + noise.to(scores.device)

    warpers: list[Any] = [TemperatureLogitsWarper(float(temperature))]
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p=top_p))
    return [*warpers, add_noise]
