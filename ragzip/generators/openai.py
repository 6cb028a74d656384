"""Any server that speaks OpenAI's chat protocol: OpenAI itself, vLLM, llama.cpp, Ollama and many more."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ragzip.errors import ConfigError, GenerationError
from ragzip.generators import _options
from ragzip.generators._request import check_key, create, foreign_headers
from ragzip.generators._server_errors import explain
from ragzip.generators._thoughts import Thoughts, said
from ragzip.models import GENERATOR, CountTokens
from ragzip.models.stream import AnswerText
from ragzip.models.tokenizer import well_formed
from ragzip.protocols import OnText
from ragzip.text import opens_quotation
from ragzip.types import Generation, Message, TextSegment

if TYPE_CHECKING:
    import openai

_OFFICIAL = "https://api.openai.com/v1"
_MOST_CLIENTS = 8
_clients: OrderedDict[tuple[Any, ...], openai.OpenAI] = OrderedDict()  # building one takes 20 ms
_users: Counter[int] = Counter()  # by the id of a client
_lock = threading.Lock()


@dataclass(frozen=True)
class OpenAI:
    """A language model behind an API. It reads text only: soft segments need a local generator.

    The key is read from the environment when it is needed. It stands in no config, log or error.

    Attributes:
        model: What the server calls it.
        base_url: Where the server is; mostly ends in ``/v1``.
        api_key_env: The environment variable with the key. Its name must end in ``API_KEY``, so that a pipeline file
            from elsewhere cannot have another secret sent to a server of its choice. A server other than OpenAI's is
            asked without a key where the variable is not set, and gets no other header of OpenAI's variables.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time; None leaves it to the server (some models want that).
        stop: Texts that end an answer and are not part of it.
        timeout: Seconds without any sign from the server before it counts as stuck.
        retries: How often a request is sent again after an error that may pass: no connection, too many requests,
            a failing server.
        concurrency: Requests under way at the same time.
        tokenizer: The model whose tokenizer counts tokens before they are sent. The built-in one counts those of
            other models to within some 20 % for English text.
    """

    model: str = "gpt-4o-mini"
    base_url: str = _OFFICIAL
    api_key_env: str = "OPENAI_API_KEY"
    max_new_tokens: int = 64
    temperature: float | None = 0.0
    stop: tuple[str, ...] = ()
    timeout: float = 60.0
    retries: int = 2
    concurrency: int = 4
    tokenizer: str = GENERATOR

    def __post_init__(self) -> None:
        _options.text("model", self.model)
        _options.text("tokenizer", self.tokenizer)
        _options.whole("max_new_tokens", self.max_new_tokens, 1)
        _options.whole("retries", self.retries, 0)
        _options.whole("concurrency", self.concurrency, 1)
        _options.number("timeout", self.timeout, 0, open_below=True)
        _options.stops("stop", self.stop)
        if self.temperature is not None:
            _options.number("temperature", self.temperature, 0)
        if not isinstance(self.base_url, str) or not re.match(r"https?://[^/\s@]+(/\S*)?$", self.base_url):
            raise ConfigError("base_url", f"must be like http://localhost:8000/v1, not {self.base_url!r}")
        if not isinstance(self.api_key_env, str) or not re.fullmatch(r"(?:\w*_)?API_KEY", self.api_key_env):
            raise ConfigError(
                "api_key_env",
                "must be the name of an environment variable that ends in API_KEY, never the key itself",
            )

    def counting(self) -> Callable[[Sequence[str]], list[int]]:
        """``count_tokens`` with its tokenizer at hand, for those who count many times: see ``SupportsCounting``."""
        return CountTokens(self.tokenizer).ready()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the chosen tokenizer cuts it; the server's own may differ."""
        return CountTokens(self.tokenizer)(texts)

    def load(self) -> None:
        """Imports the client and prepares it, so that no answer's time holds that; asks the server nothing."""
        if self._is_official and not os.environ.get(self.api_key_env, "").strip():
            return  # said when it is used
        self._client()

    def generate(
        self, prompts: Sequence[Sequence[Message[TextSegment]]], *, on_text: OnText | None = None
    ) -> list[Generation]:
        """One answer a prompt, at most ``concurrency`` requests at a time.

        Args:
            prompts: Chat turns each.
            on_text: Told the prompt's index and the next piece of its answer. Called from several threads, one call
                at a time.

        Raises:
            GenerationError: The server cannot be reached, refuses the key, model or prompt, or fails; or a prompt
                has a soft segment.
        """
        start = time.perf_counter()
        turns = [_turns(messages, number) for number, messages in enumerate(prompts)]
        if not turns:
            return []
        one_at_a_time, over = threading.Lock(), threading.Event()

        def tell(number: int) -> Callable[[str], None] | None:
            if on_text is None:
                return None
            call: OnText = on_text

            def told(piece: str) -> None:
                with one_at_a_time:
                    if not over.is_set():
                        call(number, piece)

            return told

        client = self._client(use=True)
        answers: list[Future[Generation]] = [Future() for _ in turns]
        todo = deque(range(len(turns)))

        def work() -> None:
            while todo and not over.is_set():
                try:
                    number = todo.popleft()
                except IndexError:  # another one was faster
                    return
                try:
                    answers[number].set_result(self._answer(client, turns[number], tell(number), start))
                except BaseException as error:  # noqa: BLE001 - raised where the answers are awaited
                    answers[number].set_exception(error)

        try:
            # daemons, which nobody waits for: neither Ctrl-C nor one error has to wait for a silent server
            for _ in range(min(self.concurrency, len(turns))):
                threading.Thread(target=work, daemon=True, name="ragzip-openai").start()
            wait(answers, return_when=FIRST_EXCEPTION)
            failed = [answer for answer in answers if answer.done() and answer.exception()]
            found = [answer.result() for answer in failed or answers]
        except BaseException:
            over.set()
            _release(client, broken=True)  # requests may be under way
            raise
        else:
            _release(client)
        finally:
            over.set()
            with one_at_a_time:  # the listener may be in the middle of a word
                pass
        return found

    def _answer(
        self, client: openai.OpenAI, turns: list[dict[str, str]], tell: Callable[[str], None] | None, start: float
    ) -> Generation:
        answer = AnswerText(lambda _: "", stop=self.stop, on_text=tell)
        first, usage, reason, thoughts = 0.0, None, None, Thoughts()
        for chunk in self._chunks(client, turns):
            usage = getattr(chunk, "usage", None) or usage
            for choice in (getattr(chunk, "choices", None) or ())[:1]:
                reason = choice.finish_reason or reason
                piece = thoughts.rest(said(getattr(choice.delta, "content", None)))
                if piece:
                    first = first or time.perf_counter()
                    answer.add(piece)
        if reason is None:  # a connection that closes early looks like an end to the client
            raise GenerationError(
                f"the server at {self.base_url} broke off in the middle of an answer", hint="Look at its log."
            )
        answer.add(thoughts.rest("", final=True))
        text, end = answer.finish(), time.perf_counter()
        prompt_tokens = getattr(usage, "prompt_tokens", None)
        new_tokens = getattr(usage, "completion_tokens", None)
        if prompt_tokens is None:
            prompt_tokens = sum(self.count_tokens([turn["content"] for turn in turns]))
        if new_tokens is None:
            new_tokens = self.count_tokens([text])[0] if text else 0
        return Generation(text, prompt_tokens, new_tokens, (first or end) - start, end - start, reason != "length")

    def _chunks(self, client: openai.OpenAI, turns: list[dict[str, str]]) -> Iterator[Any]:
        """The server's stream. Its errors are explained here, so that those of a callback are not mistaken for it."""
        try:
            got_any = False
            with self._open(client, turns) as stream:
                for chunk in stream:
                    got_any = True
                    yield chunk
        except Exception as error:  # the client lets errors of its own and of its HTTP library through
            raise explain(error, self.model, self.base_url, self.api_key_env, self.timeout) from error
        if not got_any:
            raise GenerationError(
                f"the server at {self.base_url} sent no answer as a stream", hint="Check base_url; is it an API?"
            )

    def _open(self, client: openai.OpenAI, turns: list[dict[str, str]]) -> Any:
        limit = "max_completion_tokens" if self._is_official else "max_tokens"
        options: dict[str, Any] = {"model": self.model, "messages": turns, "stream": True, limit: self.max_new_tokens}
        if self.temperature is not None:
            options["temperature"] = self.temperature
        if self.stop:
            options["stop"] = list(self.stop)
        return create(client.chat.completions.create, {**options, "stream_options": {"include_usage": True}})

    def _client(self, *, use: bool = False) -> openai.OpenAI:
        """The client for this server, kept for all that ask it; ``use`` until it is released."""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and self._is_official:
            raise GenerationError(
                f"no API key for {self.base_url}: the environment variable {self.api_key_env} is not set",
                hint=f"Set {self.api_key_env}, or point base_url at a server of your own.",
            )
        check_key(key, self.api_key_env)
        headers = None if self._is_official else foreign_headers(key or "none")
        lines = sorted(headers or ())  # other headers, another client
        known = (hashlib.sha256(key.encode()).hexdigest(), self.base_url, self.timeout, self.retries, *lines)
        with _lock:
            client = _clients.get(known)
            if client is None:
                import openai

                _clients[known] = client = openai.OpenAI(
                    api_key=key or "none",
                    base_url=self.base_url,
                    timeout=self.timeout,
                    max_retries=self.retries,
                    default_headers=headers,
                )
            while len(_clients) > _MOST_CLIENTS:
                _clients.popitem(last=False)  # whoever uses it goes on
            if use:
                _users[id(client)] += 1
        return client

    @property
    def _is_official(self) -> bool:
        return urlsplit(self.base_url).hostname == urlsplit(_OFFICIAL).hostname


def _release(client: openai.OpenAI, *, broken: bool = False) -> None:
    """Ends a use of a client. After what broke, the next answer gets another one, and nobody waits for this one."""
    with _lock:
        _users[id(client)] -= 1
        last = _users[id(client)] <= 0
        if last:
            del _users[id(client)]
        if broken:
            for known in [known for known, one in _clients.items() if one is client]:
                del _clients[known]
    if broken and last:  # else others are in the middle of their answers
        client.close()


def _turns(messages: Sequence[Message[TextSegment]], number: int) -> list[dict[str, str]]:
    if not messages:
        raise GenerationError(f"prompt {number} has no messages", hint="Give at least a user's turn.")
    for message in messages:
        for piece in message.pieces:
            if not isinstance(piece, (str, TextSegment)):
                raise GenerationError(
                    f"prompt {number} has a soft segment, but an API reads text only",
                    hint="Use the huggingface generator, or leave the soft compressor out.",
                )
    return _complete([{"role": message.role, "content": well_formed(str(message))} for message in messages])


def _complete(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without a begun turn of the assistant: servers answer in a turn of their own, and some refuse the request.

    Where earlier turns of the assistant begin in the same way, that goes too, with the quotation marks it opens; else
    the answer would repeat it.
    """
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        return turns
    *whole, begun = turns
    return [
        {**turn, "content": _bare(turn["content"], begun["content"])} if turn["role"] == "assistant" else turn
        for turn in whole
    ]


def _bare(answer: str, lead: str) -> str:
    if not answer.startswith(lead):
        return answer
    rest = answer.removeprefix(lead)
    return (rest.rpartition('"')[0] if opens_quotation(lead) else rest).strip() or answer
