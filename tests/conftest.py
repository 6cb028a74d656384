"""What every test gets: no network but this machine's own, a cache of its own, and tiny models."""

from __future__ import annotations

import os

# Before anything loads OpenMP: waiting threads must sleep. Spinning ones slow a busy machine down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # one of as many as there are cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ragzip",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("ragzip")

_USERS_CACHE = os.environ.get("RAGZIP_TEST_CACHE") or os.environ.get("RAGZIP_CACHE")


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine."""


def _is_here(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost", "0.0.0.0", "::"):
        return True
    name = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Connections and name look-ups beyond this machine fail at once, and so does the test."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse_unless_here(family, host):
        if family in (socket.AF_INET, socket.AF_INET6) and not _is_here(host):
            raise NetworkBlocked(f"tests have no network: {host}")

    def guarded_connect(self, address):
        refuse_unless_here(self.family, address[0])
        return connect(self, address)

    def guarded_connect_ex(self, address):
        refuse_unless_here(self.family, address[0])
        return connect_ex(self, address)

    def guarded_look_up(host, *args, **kwargs):
        refuse_unless_here(socket.AF_INET, host)
        return look_up(host, *args, **kwargs)

    # for each test anew: the pytest-socket plugin puts the originals back after every test
    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # for child processes, which these patches do not reach


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory) -> Path:
    """The cache folder of all tests that do not use the real models."""
    return tmp_path_factory.mktemp("ragzip-cache")


@pytest.fixture(autouse=True)
def cache(request, monkeypatch, session_cache):
    """``RAGZIP_CACHE``: the real one for tests marked ``models``, one of this session for all others."""
    if request.node.get_closest_marker("models") is None:
        monkeypatch.setenv("RAGZIP_CACHE", str(session_cache))
        return
    if _USERS_CACHE:
        monkeypatch.setenv("RAGZIP_CACHE", _USERS_CACHE)
    else:
        monkeypatch.delenv("RAGZIP_CACHE", raising=False)
    from ragzip import models

    for spec in models.all_models():
        if not models.status(spec.name):
            pytest.fail(f"the built-in model {spec.name} is not here; run: ragzip models fetch {spec.name}")


@pytest.fixture(scope="session")
def tiny_encoder_path(tmp_path_factory) -> str:
    """A random embedding model, as a name for every ``model`` option."""
    from ragzip.testing.models import tiny_encoder

    return str(tiny_encoder(tmp_path_factory.mktemp("models") / "tiny-encoder"))


@pytest.fixture(scope="session")
def tiny_lm_path(tmp_path_factory) -> str:
    """A random language model with a chat template, as a name for every ``model`` option."""
    from ragzip.testing.models import tiny_causal_lm

    return str(tiny_causal_lm(tmp_path_factory.mktemp("models") / "tiny-lm"))


@pytest.fixture(scope="session")
def tiny_seq2seq_path(tmp_path_factory) -> str:
    """A random encoder-decoder, as a name for every ``model`` option."""
    from ragzip.testing.seq2seq import tiny_seq2seq

    return str(tiny_seq2seq(tmp_path_factory.mktemp("models") / "tiny-seq2seq"))
