"""The servers that tests rely on: each alone, each killable, none left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import RedisServer, ServerError

PROGRAM = """
import time
from tests.servers import RedisServer
server = RedisServer()
server.start()
print(server.pid, server.directory, flush=True)
time.sleep(60)
"""


def test_servers_live_side_by_side() -> None:
    """Tests of several workers run at the same time."""
    with RedisServer() as one, RedisServer() as two:
        assert one.port != two.port
        with one.client() as first, two.client() as second:
            first.set("a", 1)
            assert second.get("a") is None


def test_a_killed_server_comes_back_with_what_it_acknowledged() -> None:
    """On the same port, so that clients find it again."""
    with RedisServer(appendonly=True) as server:
        url = server.url
        with server.client() as client:
            client.set("a", 1)
        server.kill()
        assert not server.alive
        with pytest.raises(ServerError):
            server.freeze()
        server.restart()
        server.restart()

        assert server.url == url
        with server.client() as client:
            assert client.get("a") == b"1"


def test_a_frozen_server_is_silent_until_it_is_thawed() -> None:
    """Its port stays open: this is how a half-dead machine looks."""
    with RedisServer() as server, server.client(socket_timeout=0.1) as client:
        client.set("a", 1)
        server.freeze()
        with pytest.raises(redis.TimeoutError):
            client.get("a")
        server.thaw()

        assert client.get("a") == b"1"


def test_a_frozen_server_can_be_stopped() -> None:
    """A test that fails in between must still leave nothing behind."""
    with RedisServer() as server:
        server.freeze()

    assert not server.alive
    assert not server.directory.exists()


def test_a_server_can_ask_for_a_password_and_know_users() -> None:
    """Characters that mean something in an address are no problem."""
    with (
        RedisServer(password="a b/c@d:e") as server,
        redis.Redis.from_url(server.url) as client,
        redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as stranger,
    ):
        assert client.ping()
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_flushing_makes_a_server_as_good_as_new() -> None:
    """Scripts are state as well: a server that knows them has not just started."""
    with RedisServer() as server, server.client() as client:
        sha = client.script_load("return 1")
        client.set("a", 1)
        server.flush()

        assert client.keys() == []
        assert client.script_exists(sha) == [False]


def test_a_server_that_cannot_start_says_why() -> None:
    """The reason stands in its log, which is gone with its directory."""
    with pytest.raises(ServerError, match="ended at once"), RedisServer(config={"nonsense": "1"}):
        pass


def test_a_server_started_in_a_thread_outlives_the_thread() -> None:
    """The kernel ends children with the thread that started them, not with the process."""
    server = RedisServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        with server.client() as client:
            assert client.ping()
    finally:
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux keeps this promise")
def test_no_server_outlives_a_killed_test_process() -> None:
    """A run that is killed must not leave a hundred servers behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert process.stdout
    pid, directory = process.stdout.readline().split()
    child = psutil.Process(int(pid))
    assert child.is_running()

    process.kill()
    process.communicate()

    child.wait(timeout=10)
    assert not child.is_running()
    shutil.rmtree(directory)
