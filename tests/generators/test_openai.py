import pickle
import threading
import time

import pytest
import torch

from ragzip.errors import ConfigError, GenerationError, PromptTooLong
from ragzip.generators import openai as openai_module
from ragzip.generators.openai import OpenAI
from ragzip.types import Message, SoftSegment, TextSegment
from tests.generators.server import running

SECRET = "very-secret-0123456789"


def user(*pieces):
    return [Message("user", pieces)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with running() as found:
        yield found


@pytest.fixture
def make(server, tiny_lm_path):
    def make(**options):
        options = {"model": "m", "base_url": server.url, "retries": 0, "tokenizer": tiny_lm_path, **options}
        return OpenAI(**options)

    return make


def fails(make, **options):
    """The error of one question, checked to be one line without the key."""
    with pytest.raises(GenerationError) as caught:
        make(**options).generate([user("q")])
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET not in text + repr(caught.value) + repr(caught.value.__dict__)
    return caught.value


def test_asks_as_the_protocol_wants(make, server):
    prompt = [Message("system", ("Be brief.",)), Message("user", ("Context: ", TextSegment("Paris."), " Where?"))]
    answer = make(max_new_tokens=7, temperature=0.5, stop=("END",)).generate([prompt])[0]
    assert answer.text == "CONTEXT: PARIS. WHERE?"
    request = server.requests[0]
    assert request["path"] == "/v1/chat/completions"
    assert request["key"] == f"Bearer {SECRET}"
    body = request["body"]
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Context: Paris. Where?"},
    ]
    assert (body["model"], body["max_tokens"], body["temperature"], body["stop"]) == ("m", 7, 0.5, ["END"])
    assert body["stream"] is True


@pytest.mark.parametrize(
    ("lead", "said", "sent"),
    [
        ("Answer:", "Answer: Oslo", "Oslo"),
        ('The answer is "', 'The answer is "Oslo "city"".', 'Oslo "city"'),
        ("Answer:", "Oslo", "Oslo"),
        ("Answer:", "Answer:", "Answer:"),
    ],
)
def test_a_begun_turn_stays_here_with_its_beginning_in_the_examples(make, server, lead, said, sent):
    examples = [Message("user", ("Where?",)), Message("assistant", (said,))]
    make().generate([[*examples, *user("Who?"), Message("assistant", (lead,))]])
    got = [(m["role"], m["content"]) for m in server.requests[0]["body"]["messages"]]
    assert got == [("user", "Where?"), ("assistant", sent), ("user", "Who?")]
    make().generate([[*examples, *user("Who?")]])
    assert server.requests[1]["body"]["messages"][1]["content"] == said


def test_temperature_can_be_left_to_the_server(make, server):
    make(temperature=None).generate([user("q")])
    assert "temperature" not in server.requests[0]["body"]
    assert "stop" not in server.requests[0]["body"]


def test_counts_are_the_servers_where_it_gives_them(make, server):
    answer = make().generate([user("q")])[0]
    assert (answer.prompt_tokens, answer.new_tokens) == (123, 45)
    server.plan = [{"usage": False, "pieces": ["one ", "two"]}]
    generator = make()
    answer = generator.generate([user("q and more")])[0]
    assert [answer.prompt_tokens, answer.new_tokens] == generator.count_tokens(["q and more", "one two"])


def test_stream_arrives_while_it_is_written(make, server):
    server.plan = [{"pieces": [" Hel", "lo ", "wor", "ld  "], "pause": 0.15}]
    start, told = time.perf_counter(), []
    answer = make().generate([user("q")], on_text=lambda i, t: told.append((i, t, time.perf_counter() - start)))[0]
    assert "".join(t for _, t, _ in told) == answer.text == "Hello world"
    assert told[0][2] < answer.seconds - 0.25
    assert answer.first_token_seconds < answer.seconds - 0.25


def test_answers_keep_their_order_and_run_together(make, server, monkeypatch):
    running, most, lock, real = [], [], threading.Lock(), OpenAI._answer

    def counted(self, *given):  # here: a server has not always ended with a request whose answer has arrived
        with lock:
            running.append(1)
            most.append(len(running))
        try:
            return real(self, *given)
        finally:
            with lock:
                running.pop()

    monkeypatch.setattr(OpenAI, "_answer", counted)
    server.plan = [{"wait": 0.3}] + [{"wait": 0.1}] * 7
    prompts = [user(f"question {i}") for i in range(8)]
    answers = make(concurrency=3).generate(prompts)
    assert [a.text for a in answers] == [f"QUESTION {i}" for i in range(8)]
    assert max(most) == 3


def test_listener_is_called_by_one_thread_at_a_time(make, server):
    server.plan = [{"pieces": ["a"] * 20} for _ in range(6)]
    inside, clashes, lock = [0], [], threading.Lock()

    def listen(*_):
        with lock:
            inside[0] += 1
            clashes.append(inside[0] > 1)
        time.sleep(0.001)
        with lock:
            inside[0] -= 1

    make(concurrency=6).generate([user("q")] * 6, on_text=listen)
    assert len(clashes) == 120
    assert not any(clashes)


def test_stop_and_length(make, server):
    server.plan = [{"pieces": ["a b EN", "D c"]}, {"pieces": ["a"], "finish": "length"}]
    generator = make(stop=("END",), concurrency=1)
    first, second = generator.generate([user("q"), user("q")])
    assert (first.text, first.stopped) == ("a b", True)
    assert (second.text, second.stopped) == ("a", False)


@pytest.mark.parametrize(
    ("step", "says", "hint"),
    [
        (
            {"status": 401, "error": f"Incorrect API key: {SECRET}"},
            "refuses the API key in OPENAI_API_KEY",
            "valid key",
        ),
        ({"status": 404}, "does not know the model 'm'", "ends in /v1"),
        ({"status": 429, "error": f"quota of {SECRET} used up"}, r"turned the request away: quota of \*\*\*", "Wait"),
        ({"status": 400, "error": "maximum context length is 8"}, r"refuses the request \(HTTP 400\)", "budget"),
        ({"status": 400, "error": "request (9 tokens) exceeds the available context size (4)"}, "exceeds", "budget"),
        ({"status": 500, "error": "Context size has been exceeded."}, "Context size", "budget"),
        ({"status": 400, "error": "bad key sk-proj-abc***789"}, r"bad key \*\*\*", "options"),
        ({"status": 422, "error": "no such option"}, "no such option", "options"),
        ({"status": 408, "error": "the request took too long"}, r"refuses the request \(HTTP 408\)", "options"),
        ({"status": 504, "error": "upstream request took too long"}, r"failed \(HTTP 504\)", "try again later"),
        ({"status": 500, "error": "out of luck"}, r"failed \(HTTP 500\): out of luck", "log"),
        ({"raw": b"{}"}, "sent no answer as a stream", "API"),
        ({"pieces": ["a"], "cut": True}, "broke off in the middle of an answer", "log"),
    ],
)
def test_errors_of_the_server_are_one_clear_line(make, server, step, says, hint):
    import re

    server.plan = [step]
    error = fails(make)
    assert re.search(says, error.message)
    assert hint in error.hint
    assert server.url in error.message


def test_no_server_is_one_clear_line(make):
    error = fails(make, base_url="http://127.0.0.1:9/v1")
    assert "http://127.0.0.1:9/v1 does not answer" in error.message
    assert "Is it running?" in error.hint


def test_silent_server_is_given_up_in_time(make, server):
    server.plan = [{"wait": 3}]
    start = time.perf_counter()
    error = fails(make, timeout=0.3)
    assert time.perf_counter() - start < 2
    assert "gave no sign for 0.3 s" in error.message


def test_server_that_falls_silent_in_the_middle_is_given_up(make, server):
    server.plan = [{"pieces": ["a", "b"], "pause": 3}]
    assert "gave no sign" in fails(make, timeout=0.3).message


def test_passing_failures_are_tried_again(make, server):
    server.plan = [{"status": 503}, {"status": 429}, {"pieces": ["at last"]}]
    assert make(retries=2).generate([user("q")])[0].text == "at last"
    assert len(server.requests) == 3
    server.plan = [{"status": 503}] * 3
    server.requests.clear()
    fails(make, retries=1)
    assert len(server.requests) == 2


def test_failures_that_do_not_pass_are_not_tried_again(make, server):
    server.plan = [{"status": 401}]
    fails(make, retries=3)
    assert len(server.requests) == 1


def test_older_servers_that_know_no_usage_are_asked_without(make, server):
    server.plan = [{"status": 400, "error": "unknown field stream_options"}, {"usage": False}]
    assert make().generate([user("q")])[0].text == "Q"
    assert "stream_options" in server.requests[0]["body"]
    assert "stream_options" not in server.requests[1]["body"]


def test_one_failure_ends_the_batch(make, server):
    server.plan = [{"status": 500}]
    with pytest.raises(GenerationError):
        make(concurrency=1).generate([user("q")] * 50)
    assert len(server.requests) < 50


def test_own_server_needs_no_key(make, server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert make().generate([user("q")])[0].text == "Q"
    assert SECRET not in str(server.requests)
    server.plan = [{"status": 401}]
    assert "wants an API key, and there is none in OPENAI_API_KEY" in fails(make).message


def test_openai_itself_needs_one(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(GenerationError, match="OPENAI_API_KEY is not set") as caught:
        OpenAI().generate([user("q")])
    assert "base_url" in caught.value.hint


def test_key_of_another_variable(make, server, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "other")
    make(api_key_env="MY_API_KEY").generate([user("q")])
    assert server.requests[0]["key"] == "Bearer other"


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HOME", SECRET, "", "X_API_KEY\n", None])
def test_no_other_secret_can_be_named(name):
    with pytest.raises(ConfigError, match="ends in API_KEY") as caught:
        OpenAI(api_key_env=name)
    assert SECRET not in str(caught.value)


def test_soft_segments_and_empty_prompts_are_refused_before_anything_is_sent(make, server):
    with pytest.raises(GenerationError, match="soft segment, but an API reads text only"):
        make().generate([user("fine"), user(SoftSegment(torch.zeros(2, 4), "m"))])
    with pytest.raises(GenerationError, match="prompt 0 has no messages"):
        make().generate([[]])
    assert server.requests == []
    assert make().generate([]) == []


def test_error_of_the_listener_is_the_callers(make):
    def fail(*_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        make().generate([user("q")], on_text=fail)


def test_it_is_plain_values_without_the_key(make):
    generator = make()
    assert pickle.loads(pickle.dumps(generator)) == generator
    assert SECRET not in repr(generator) + str(pickle.dumps(generator))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_url", "localhost:8000"),
        ("base_url", "ftp://x/v1"),
        ("base_url", "http://user:pass@host/v1"),
        ("base_url", ""),
        ("timeout", 0),
        ("retries", -1),
        ("concurrency", 0),
        ("max_new_tokens", 0),
        ("temperature", -1),
        ("model", ""),
        ("stop", ["a"]),
    ],
)
def test_bad_options_name_themselves(field, value):
    with pytest.raises(ConfigError, match=rf"^{field}: must be"):
        OpenAI(**{field: value})


def test_a_failure_and_ctrl_c_wait_for_no_silent_server(make, server):
    make().generate([user("q")])  # what the first call alone loads
    server.plan = [{"wait": 8}, {"status": 401}]
    start = time.perf_counter()
    with pytest.raises(GenerationError, match="refuses the API key"):
        make(concurrency=2, timeout=20).generate([user("q"), user("q")])
    assert time.perf_counter() - start < 6


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("can't start new thread")])
def test_nothing_is_sent_any_more_after_the_end(make, server, monkeypatch, error):
    started, start = [], threading.Thread.start

    def starting(thread):
        if thread.name == "ragzip-openai":
            started.append(thread)
            if len(started) == 2:
                raise error
        start(thread)

    server.plan = [{"wait": 0.2}] * 50
    monkeypatch.setattr(threading.Thread, "start", starting)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        make(concurrency=3).generate([user("q")] * 50)
    started[0].join(5)
    assert len(server.requests) <= 2


def test_nobody_is_told_of_answers_after_the_end(make, server):
    server.plan = [{"pieces": ["a"] * 40, "pause": 0.05}, {"status": 401}]
    told = []
    with pytest.raises(GenerationError):
        make(concurrency=2).generate([user("q"), user("q")], on_text=lambda number, piece: told.append(piece))
    count = len(told)
    time.sleep(0.3)
    assert len(told) == count


def test_the_client_is_kept_and_prepared(make, server):
    openai_module._clients.clear()
    made = make()
    made.load()
    assert len(openai_module._clients) == 1 and not server.requests
    (client,) = openai_module._clients.values()
    made.generate([user("q")])
    made.generate([user("q"), user("r")])
    assert list(openai_module._clients.values()) == [client]
    server.plan = [{"status": 401}]
    with pytest.raises(GenerationError):
        make().generate([user("q")])
    assert client not in openai_module._clients.values()  # what it had under way is broken off
    assert make().generate([user("q")])


def test_another_key_is_another_client(make, monkeypatch):
    openai_module._clients.clear()
    made = make()
    made.load()
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    made.load()
    assert len(openai_module._clients) == 2
    assert "another" not in repr(openai_module._clients.keys())


def test_what_fails_for_one_thread_breaks_nothing_of_another(make, server):
    server.plan = [{"pieces": ["hel", "lo"], "pause": 0.5}, {"status": 400, "error": "maximum context length is 8"}]
    found = []
    slow = threading.Thread(target=lambda: found.extend(make().generate([user("slow")])))
    slow.start()
    until = time.monotonic() + 20
    while not server.requests and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(PromptTooLong):
        make().generate([user("long")])
    slow.join()
    assert [answer.text for answer in found] == ["hello"]
    assert not openai_module._users
