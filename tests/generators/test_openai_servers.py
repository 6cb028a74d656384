"""What servers of several makes do otherwise than OpenAI's."""

from __future__ import annotations

import json

import pytest

from ragzip.errors import GenerationError, PromptTooLong
from ragzip.generators._thoughts import Thoughts
from ragzip.generators.openai import OpenAI
from ragzip.types import Message
from tests.generators.server import running

SECRET = "very-secret-0123456789"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with running() as found:
        yield found


@pytest.fixture
def make(server, tiny_lm_path):
    def make(**options):
        return OpenAI(**{"model": "m", "base_url": server.url, "retries": 0, "tokenizer": tiny_lm_path, **options})

    return make


def ask(generator, text="q"):
    return generator.generate([[Message("user", (text,))]])[0]


def refusal(status, body):
    return {"status": status, "raw": json.dumps(body).encode()}


UNKNOWN = [
    refusal(400, {"error": {"message": "unknown field stream_options", "type": "invalid_request_error"}}),
    refusal(422, {"object": "error", "message": {"detail": [{"loc": ["body", "stream_options"], "msg": "forbidden"}]}}),
    refusal(422, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}),
    refusal(400, {"detail": "stream_options is not supported"}),
    refusal(422, {"error": "Input validation error: stream_options"}),
]


@pytest.mark.parametrize("step", UNKNOWN)
def test_whoever_knows_no_stream_options_is_asked_without(make, server, step):
    server.plan = [step, {"usage": False}]
    assert ask(make()).text == "Q"
    assert ["stream_options" in request["body"] for request in server.requests] == [True, False]


def test_whoever_wants_the_other_limit_gets_it(make, server):
    say = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server.plan = [refusal(400, {"error": {"message": say}}), UNKNOWN[3], {"usage": False}]
    assert ask(make(max_new_tokens=7)).text == "Q"
    last = server.requests[-1]["body"]
    assert last["max_completion_tokens"] == 7
    assert not {"max_tokens", "stream_options"} & last.keys()


def test_a_refusal_that_names_neither_is_final(make, server):
    server.plan = [refusal(422, {"error": "Input validation error: `temperature` must be positive"})]
    with pytest.raises(GenerationError, match=r"HTTP 422.: Input validation error: `temperature` must"):
        ask(make())
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Please shorten it.", "code": "context_length_exceeded"}},
        {"error": {"message": "Please reduce the length of the messages or completion."}},
        {"message": "The decoder prompt (length 5000) is longer than the maximum model length of 2048"},
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096"},
        {"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}},
    ],
)
def test_a_prompt_that_is_too_long_is_told_as_such(make, server, body):
    server.plan = [refusal(400, body)]
    with pytest.raises(PromptTooLong):
        ask(make())


@pytest.mark.parametrize(
    "words",
    [
        "`max_new_tokens` must be strictly positive",
        "`max_new_tokens` must be <= 512. Given: 1000",
        "max_tokens (9000) is over the maximum number of tokens this model can write",
    ],
)
def test_a_wrong_setting_is_no_long_prompt(make, server, words):
    server.plan = [refusal(422, {"error": words})]
    with pytest.raises(GenerationError) as caught:
        ask(make())
    assert not isinstance(caught.value, PromptTooLong)


@pytest.mark.parametrize("custom", ["X-Foo: custom-secret", "authorization: Bearer other\nX-Foo: custom-secret"])
def test_no_server_but_openais_gets_what_else_the_environment_holds(make, server, monkeypatch, custom):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "whose-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", custom)
    assert ask(make()).text == "Q"
    (request,) = server.requests
    assert request["key"] == f"Bearer {SECRET}"
    heard = {name.lower() for name in request["headers"]}
    assert not heard & {"openai-organization", "openai-project", "x-foo"}
    assert "-secret" not in str({n: v for n, v in request["headers"].items() if n.lower() != "authorization"})


@pytest.mark.parametrize("key", [f"{SECRET}\nmore-of-it", f"{SECRET}\x00", "schlüssel-geheim-99"])
def test_what_is_no_key_is_named_and_not_shown(make, server, monkeypatch, key):
    if "\x00" in key:
        monkeypatch.setattr("os.environ", {**__import__("os").environ, "OPENAI_API_KEY": key})
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(GenerationError, match="OPENAI_API_KEY holds more than a key") as caught:
        ask(make())
    assert not any(part in str(caught.value) + repr(caught.value) for part in (SECRET, "more-of", "geheim"))
    assert not server.requests


def test_characters_that_no_encoding_carries_arrive_as_question_marks(make, server):
    assert ask(make(), "x \ud83d y").text == "X ? Y"


@pytest.mark.parametrize(
    ("pieces", "answer"),
    [
        (["<think>\nhm", "m\n</think>\n\nOslo", " it is"], "Oslo it is"),
        ([*"<think>a</think>Oslo"], "Oslo"),
        (["\n<thi", "nk></think> Oslo"], "Oslo"),
        (["<", "b>Oslo</b>"], "<b>Oslo</b>"),
        (["Oslo <think>no</think>"], "Oslo <think>no</think>"),
        (["<think>only this"], ""),
        (["<thin"], "<thin"),
    ],
)
def test_thoughts_are_no_part_of_the_answer(make, server, pieces, answer):
    server.plan = [{"pieces": pieces}]
    told: list[str] = []
    (made,) = make().generate([[Message("user", ("q",))]], on_text=lambda _, piece: told.append(piece))
    assert made.text == answer == "".join(told)
    thoughts = Thoughts()
    assert "".join([*map(thoughts.rest, pieces), thoughts.rest("", final=True)]).strip() == answer


def test_typed_parts_are_read_as_their_text(make, server):
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Os"}]
    server.plan = [{"pieces": [parts, "lo"]}]
    assert ask(make()).text == "Oslo"
