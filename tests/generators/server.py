"""A server of OpenAI's kind, small enough to misbehave on command."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers with what the server's ``plan`` says next, by default with the question in capitals, as a stream."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        with server.lock:
            said = {"path": self.path, "key": self.headers["Authorization"], "headers": dict(self.headers)}
            server.requests.append({**said, "body": body})
            step = server.plan.pop(0) if server.plan else {}
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            self.answer(body, **step)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with server.lock:
                server.running -= 1

    def answer(
        self,
        body: dict[str, Any],
        status: int = 200,
        error: Any = None,
        pieces: list[str] | None = None,
        usage: bool = True,
        wait: float = 0.0,
        pause: float = 0.0,
        finish: str = "stop",
        raw: bytes | None = None,
        cut: bool = False,
    ) -> None:
        time.sleep(wait)
        if status != 200 or raw is not None:
            data = raw if raw is not None else json.dumps({"error": {"message": error or "no"}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(data)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for piece in pieces if pieces is not None else [body["messages"][-1]["content"].upper()]:
            self.event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            time.sleep(pause)
        if cut:
            self.wfile.write(b"data: {")
            return
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if usage:
            counts = {"prompt_tokens": 123, "completion_tokens": 45, "total_tokens": 168}
            self.event({"choices": [], "usage": counts})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, value: dict[str, Any]) -> None:
        full = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", **value}
        self.wfile.write(f"data: {json.dumps(full)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running():
    """The server on a free port, with ``url``, ``requests``, ``plan`` and ``most_running``."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.lock, server.plan, server.requests = threading.Lock(), [], []
    server.running = server.most_running = 0
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
