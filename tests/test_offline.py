"""The suite's own guard: tests cannot reach the network without anyone noticing."""

import socket

import pytest
from hypothesis import settings


def test_a_connection_beyond_this_machine_fails_the_test() -> None:
    with socket.socket() as outside, pytest.raises(pytest.fail.Exception, match=r"reached for 192\.0\.2\.1"):
        outside.connect(("192.0.2.1", 443))  # an address reserved for documentation


def test_a_name_lookup_beyond_this_machine_fails_the_test() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"reached for example\.org"):
        socket.create_connection(("example.org", 443))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_stays_reachable(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection((host, server.getsockname()[1]), timeout=5).close()


def test_examples_are_the_same_in_every_run() -> None:
    assert settings().derandomize
    assert settings().deadline is None
