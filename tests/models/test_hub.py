"""The Hugging Face hub, played by a small server on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models import hub
from ragzip.models.cache import cache_dir

COMMIT = "a" * 40
REPO = "someone/tiny"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as fetching a public model takes."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        path = urlsplit(self.path).path
        server.asked.append((self.command, path))
        files = server.files
        if server.status != 200:
            return self.reply(server.status, b"{}", {"X-Error-Code": server.code} if server.code else {})
        if path in (f"/api/models/{REPO}", f"/api/models/{REPO}/revision/main"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            return self.json({"id": REPO, "sha": COMMIT, "siblings": siblings})
        if path == f"/api/models/{REPO}/tree/{COMMIT}":
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self.json(entries)
        prefix = f"/{REPO}/resolve/{COMMIT}/"
        if path.startswith(prefix) and path.removeprefix(prefix) in files:
            data = files[path.removeprefix(prefix)]
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self.reply(200, data, headers)
        return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def json(self, value):
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, status, data, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(own_cache, monkeypatch, tiny_encoder_path):
    """A hub with one model, and the client pointed at it."""
    source = Path(tiny_encoder_path)
    fake = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    fake.files = {p.relative_to(source).as_posix(): p.read_bytes() for p in source.rglob("*") if p.is_file()}
    fake.files |= {"pytorch_model.bin": b"pickle", "evil.pkl": b"pickle", "README.md": b"x", "onnx/model.onnx": b"x"}
    fake.asked, fake.status, fake.code = [], 200, ""
    thread = threading.Thread(target=fake.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    import huggingface_hub

    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{fake.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield fake
    fake.shutdown()
    fake.server_close()
    thread.join()


def test_fetches_what_is_needed_and_never_a_pickle(server, tiny_encoder_path, capfd):
    seen = []
    folder = models.fetch(REPO, on_progress=lambda *a: seen.append(a))
    got = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert "model.safetensors" in got
    assert "1_Pooling/config.json" in got
    assert not got & {"pytorch_model.bin", "evil.pkl", "README.md", "onnx/model.onnx"}
    assert not any("pytorch_model.bin" in path or "evil.pkl" in path for _, path in server.asked)
    assert models.fingerprint(REPO) == models.fingerprint(tiny_encoder_path)
    total = seen[-1][1]
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert capfd.readouterr() == ("", "")


def test_what_was_fetched_needs_no_network(server):
    assert models.status(REPO) == ""
    folder = models.resolve(REPO)
    assert models.status(REPO) == "cache"
    server.asked.clear()
    assert models.resolve(REPO) == folder
    assert server.asked == []


def test_half_a_snapshot_is_not_used(server):
    folder = models.resolve(REPO)
    (folder / "model.safetensors").unlink()
    assert models.status(REPO) == ""
    assert models.resolve(REPO) == folder
    assert (folder / "model.safetensors").is_file()


def test_pickled_weights_are_refused_before_anything_is_fetched(server):
    del server.files["model.safetensors"]
    with pytest.raises(ModelError, match="no safetensors weights"):
        models.resolve(REPO)
    assert not any("resolve" in path for _, path in server.asked)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (404, "RepoNotFound", "is not on the Hugging Face hub, or is private"),
        (401, "RepoNotFound", "is not on the Hugging Face hub, or is private"),
        (403, "GatedRepo", "is behind a gate"),
        (503, "", "cannot be reached"),
    ],
)
def test_refusals_are_one_clear_line(server, status, code, says, monkeypatch):
    server.status, server.code = status, code
    with pytest.raises(ModelError, match=says) as caught:
        models.resolve(REPO)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_no_network_is_one_clear_line_at_once(own_cache, monkeypatch):
    import time

    import huggingface_hub

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        models.resolve(REPO)
    assert time.monotonic() - start < 15
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/b/../c", "-bad-/x y", "a/b@"])
def test_bad_ids_are_model_errors(server, name):
    with pytest.raises(ModelError):
        models.resolve(name)


def test_the_hubs_cache_is_found_where_its_library_keeps_it(monkeypatch, tmp_path):
    for variable in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert hub.hub_cache() == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert hub.hub_cache() == tmp_path / "x/huggingface/hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "h"))
    assert hub.hub_cache() == tmp_path / "h/hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "c"))
    assert hub.hub_cache() == tmp_path / "c"


def test_what_another_program_fetched_in_part_is_completed(server, monkeypatch):
    """transformers fetches a config, weights and a tokenizer, and not how vectors are pooled."""
    folder = hub.download(REPO)
    whole = {path.name for path in folder.iterdir()}
    for mark in (cache_dir() / "hub").iterdir():
        mark.unlink()
    (folder / "modules.json").unlink()
    assert hub.fetched(REPO) == folder
    said = []
    server.status = 500
    assert hub.download(REPO, on_status=said.append) == folder
    assert "as another program left it" in said[-1]
    assert not (folder / "modules.json").exists()
    server.asked.clear()
    assert hub.download(REPO) == folder
    assert server.asked == []  # once in a process
    hub._unasked.clear()
    server.status = 200
    assert {path.name for path in hub.download(REPO).iterdir()} == whole
    server.asked.clear()
    assert hub.download(REPO) == folder
    assert server.asked == []
