"""Request bodies with prompt embeddings, read as vLLM's server reads them."""

from __future__ import annotations

import base64
import io
import json

import pytest
import torch

from ragzip.errors import ConfigError, GenerationError
from ragzip.generators.huggingface import HuggingFace
from ragzip.generators.prompt_embeds import completion_requests
from ragzip.models import load_causal_lm
from ragzip.models.chat import encode_prompt
from ragzip.types import Message, SoftSegment


@pytest.fixture
def generator(tiny_lm_path):
    return HuggingFace(model=tiny_lm_path, dtype="fp32", device="cpu", max_new_tokens=7, stop=("\n",))


def served(body, width):
    """What the server does: base64, ``torch.load`` of weights only, then its checks of kind, format and shape."""
    assert body["prompt"] == ""
    data = base64.b64decode(body["prompt_embeds"], validate=True)
    tensor = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
    assert tensor.dim() == 2
    assert tensor.shape[1] == width
    assert len(data) < tensor.numel() * tensor.element_size() + 4096
    return tensor


def prompt_of(lm, rows=5):
    soft = SoftSegment(torch.randn(rows, lm.dimensions, generator=torch.Generator().manual_seed(2)), lm.space)
    return [
        Message("system", ("Be brief.",)),
        Message("user", ("Read: ", soft, " Why?")),
        Message("assistant", ('It is "',)),
    ]


def test_the_body_is_plain_json_with_the_documented_keys(generator, tiny_lm_path):
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")
    (body,) = completion_requests(generator, [prompt_of(lm)], served_model="served")
    assert json.loads(json.dumps(body)) == body
    assert set(body) == {"model", "prompt", "prompt_embeds", "max_tokens", "temperature", "stop", "repetition_penalty"}
    assert body["model"] == "served"
    assert body["max_tokens"] == 7
    assert body["temperature"] == 0.0
    assert body["repetition_penalty"] == 1.0  # servers would take the one of generation_config.json
    assert body["stop"] == ["\n", '"']


@pytest.mark.parametrize("number", ["float32", "bfloat16", "float16"])
def test_the_rows_are_those_of_the_whole_templated_prompt(generator, tiny_lm_path, number):
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")
    messages = prompt_of(lm)
    (body,) = completion_requests(generator, [messages], number=number)
    tensor = served(body, lm.dimensions)
    pieces = encode_prompt(lm, messages).pieces
    expected = torch.cat([lm.embed(piece) if isinstance(piece, list) else piece for piece in pieces])
    assert tensor.dtype == getattr(torch, number)
    torch.testing.assert_close(tensor.float(), expected, rtol=1e-2, atol=1e-2)


def test_a_server_that_reads_them_gives_the_generators_answer(generator, tiny_lm_path):
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")
    messages = prompt_of(lm)
    (body,) = completion_requests(generator, [messages], number="float32")
    written = lm.model.generate(
        inputs_embeds=served(body, lm.dimensions)[None], max_new_tokens=body["max_tokens"], do_sample=False
    )
    text = lm.text.tokenizer.decode(written[0].tolist(), skip_special_tokens=True)
    for stop in body["stop"]:
        text = text.partition(stop)[0]
    assert text.strip() == generator.generate([messages])[0].text


def test_sampling_is_asked_for_as_it_is_set(generator):
    warm = HuggingFace(model=generator.model, dtype="fp32", device="cpu", temperature=0.7, top_p=0.9, seed=5)
    (body,) = completion_requests(warm, [[Message("user", ("Why?",))]])
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.7, 0.9, 5)
    assert (body["top_k"], body["min_p"]) == (-1, 0.0)
    assert "stop" not in body


def test_rows_of_another_model_and_unknown_formats_are_refused(generator):
    soft = SoftSegment(torch.zeros(1, 32), "another")
    with pytest.raises(GenerationError, match="another"):
        completion_requests(generator, [[Message("user", (soft,))]])
    with pytest.raises(ConfigError, match="number"):
        completion_requests(generator, [[Message("user", ("a",))]], number="int8")
