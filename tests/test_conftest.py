"""The fixtures that protect everything else must work."""

import os
import socket
import threading

import pytest


def test_connections_beyond_this_machine_fail():
    with socket.socket() as s, pytest.raises(RuntimeError, match="no network"):
        s.connect(("93.184.216.34", 80))
    with socket.socket() as s, pytest.raises(RuntimeError, match="no network"):
        s.connect_ex(("93.184.216.34", 80))
    with socket.socket(socket.AF_INET6) as s, pytest.raises(RuntimeError, match="no network"):
        s.connect(("2606:2800:220:1::", 80))


def test_names_are_not_looked_up():
    with pytest.raises(RuntimeError, match="no network"):
        socket.getaddrinfo("example.org", 80)


def test_loopback_works():
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = threading.Thread(target=lambda: server.accept()[0].close())
        accepted.start()
        socket.create_connection(("localhost", server.getsockname()[1])).close()
        accepted.join()


def test_the_users_cache_is_out_of_reach(session_cache):
    from ragzip.models import cache_dir

    assert cache_dir() == session_cache
    assert os.environ["RAGZIP_CACHE"] == str(session_cache)


@pytest.mark.models
def test_real_models_come_from_the_real_cache(session_cache):
    from ragzip.models import cache_dir

    assert cache_dir() != session_cache
