"""Our servers and bytes that no library would send: one answer, in our own words, and the next caller is served."""

import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.media import Image, Sample
from mmalign.rewards.base import Score
from mmalign.rewards.cards import find_card
from mmalign.rewards.wire import encode_sample
from mmalign.web.address import TokenServer
from mmalign.web.handler import Limits
from mmalign.web.live import LiveServer
from mmalign.web.server import RewardServer

TOKEN = "correct-horse-battery"
BEARER = f"Authorization: Bearer {TOKEN}\r\n"
HOST = "Host: x\r\n"
SMUGGLED = "GET /v1/card HTTP/1.1\r\nHost: x\r\n" + BEARER + "\r\n"


class Slow:
    """Scores nothing until it is let."""

    def __init__(self) -> None:
        self.card = replace(find_card("placebo"), name="slow-v1", modalities=("image",), needs=())
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.prompts: list[str] = []

    def score(self, samples: Sequence[Sample]) -> Score:
        self.begun.set()
        assert self.go.wait(60)
        self.prompts += [sample.prompt for sample in samples]
        return Score(torch.zeros(len(samples)), ["ok"] * len(samples))


@contextmanager
def running(server: TokenServer) -> Iterator[TokenServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving(reward: Any = None, **limits: Any) -> Iterator[RewardServer]:
    server = RewardServer(reward or Slow(), token=TOKEN, limits=Limits(**limits))
    with running(server):
        yield server


def connected(server: TokenServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=20)


def answers(connection: socket.socket) -> list[tuple[int, str]]:
    """Status and body of all that comes until the server closes; interim answers are passed over."""
    data = b""
    try:
        while part := connection.recv(2**16):
            data += part
    except ConnectionResetError:
        pass
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        length = re.search(rb"content-length: (\d+)", head.lower())
        size = int(length[1]) if length else 0
        if status >= 200:
            found.append((status, rest[:size].decode()))
        data = rest[size:]
    return found


def sent(server: TokenServer, text: str | bytes) -> list[tuple[int, str]]:
    with connected(server) as connection:
        connection.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))
        return answers(connection)


def post(body: str, *headers: str) -> str:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"POST /v1/score HTTP/1.1\r\n{HOST}{BEARER}{lines}\r\n{body}"


def scored(*prompts: str) -> str:
    medium = Image(torch.zeros(3, 2, 2))
    body = json.dumps({"samples": [encode_sample(Sample(prompt, medium)) for prompt in prompts]})
    return post(body, f"Content-Length: {len(body)}")


def healthy(server: TokenServer) -> bool:
    return sent(server, f"GET /health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n") == [
        (200, '{"status": "ok"}')
    ]


ODD: dict[str, tuple[str | bytes, int]] = {
    "chunks, in another case": (post("0\r\n\r\n" + SMUGGLED, "Transfer-Encoding: Chunked"), 411),
    "chunks, and a length": (
        post("0\r\n\r\n" + SMUGGLED, "Content-Length: 5", "Transfer-Encoding: chunked"),
        411,
    ),
    "another encoding": (post(SMUGGLED, "Transfer-Encoding: xchunked"), 411),
    "two lengths": (post("{}" + SMUGGLED, "Content-Length: 2", "Content-Length: 200"), 400),
    "two equal lengths": (post("{}" + SMUGGLED, "Content-Length: 2", "Content-Length: 2"), 400),
    "a list of lengths": (post("{}" + SMUGGLED, "Content-Length: 2, 2"), 400),
    "a signed length": (post("{}" + SMUGGLED, "Content-Length: +2"), 400),
    "a negative length": (post(SMUGGLED, "Content-Length: -1"), 400),
    "a length in other digits": (post("{}" + SMUGGLED, "Content-Length: \u00b2"), 400),
    "no length": (post(SMUGGLED), 411),
    "a space before the colon": (post("{}" + SMUGGLED, "Content-Length : 2"), 400),
    "a line that is none": (post("{}" + SMUGGLED, "no colon here", "Content-Length: 2"), 400),
    "a folded line": (post("{}" + SMUGGLED, "X: a", " Content-Length: 2"), 400),
    "a return inside a line": (post("{}" + SMUGGLED, "X: a\rContent-Length: 2"), 400),
    "a zero byte": (post("{}" + SMUGGLED, "X: a\0b", "Content-Length: 2"), 400),
    "two hosts": (post("{}" + SMUGGLED, "Host: y", "Content-Length: 2"), 400),
    "many headers": (post("", *["X: y"] * 200), 431),
    "a long header": (post("", "X: " + "y" * 70_000), 431),
    "a long address": (f"GET /{'y' * 70_000} HTTP/1.1\r\n\r\n", 414),
    "no version": ("GET /health\r\n\r\n", 505),
    "a version of its own": ("GET /health HTTP/9.9\r\n\r\n", 505),
    "no words": ("\0\1\2\3\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "another method": (f"BREW /health HTTP/1.1\r\n{HOST}\r\n", 405),
    "a method of HTML pages": (f"OPTIONS /v1/score HTTP/1.1\r\n{HOST}\r\n", 405),
    "a body where none belongs": (
        f"GET /health HTTP/1.1\r\n{HOST}Content-Length: 100\r\n\r\n{SMUGGLED}",
        200,
    ),
    "a wrong token before more": (
        f"POST /v1/score HTTP/1.1\r\n{HOST}Content-Length: 100\r\nAuthorization: Bearer no\r\n\r\n{SMUGGLED}",
        401,
    ),
    "too long a body": (post(SMUGGLED, "Content-Length: 999999999999"), 413),
    "an endless length": (post(SMUGGLED, "Content-Length: " + "9" * 4_400), 413),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RewardServer]:
    with serving() as found:
        yield found


@pytest.mark.parametrize("case", ODD)
def test_what_can_be_read_in_two_ways_is_answered_once_and_the_connection_ends(
    case: str, server: RewardServer
) -> None:
    text, status = ODD[case]
    found = sent(server, text)
    assert [code for code, _ in found] == [status], "and nothing of it was taken for a request of its own"
    assert status == 200 or json.loads(found[0][1])["error"]["message"]
    assert healthy(server)


def test_head_has_no_body(server: RewardServer) -> None:
    with connected(server) as connection:
        connection.sendall(f"HEAD /health HTTP/1.1\r\n{HOST}\r\n".encode())
        data = b""
        while part := connection.recv(2**16):
            data += part
    assert data.startswith(b"HTTP/1.1 405")
    assert b"Allow: GET, POST" in data
    assert data.endswith(b"\r\n\r\n")


def test_requests_in_one_breath_are_answered_in_turn(server: RewardServer) -> None:
    last = f"GET /health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"
    found = sent(server, scored("a") + scored("b", "c") + SMUGGLED + last)
    assert [status for status, _ in found] == [200] * 4
    assert [len(json.loads(text)["scores"]) for _, text in found[:2]] == [1, 2]


def test_one_that_will_send_no_more_is_still_answered(server: RewardServer) -> None:
    with connected(server) as connection:
        connection.sendall(scored("a").encode())
        connection.shutdown(socket.SHUT_WR)
        assert [status for status, _ in answers(connection)] == [200]


def test_bodies_that_do_not_come_keep_nobody_out() -> None:
    with serving(idle_s=2.0, requests=4) as server:
        stalled = [connected(server) for _ in range(40)]
        for connection in stalled:
            connection.sendall(post('{"samples"', "Content-Length: 1000").encode())
        begun = time.monotonic()
        assert healthy(server)
        assert [
            status for status, _ in sent(server, scored("a").replace("Host: x", "Connection: close"))
        ] == [200]
        assert time.monotonic() - begun < 2.0, "nobody waited for them"
        for connection in stalled:
            assert answers(connection) == []
            connection.close()


@pytest.mark.parametrize("text", [f"GET /health HTTP/1.1\r\n{HOST}X: y", post("", "Content-Length: 1000")])
def test_one_that_sends_a_byte_now_and_then_is_hung_up_on(text: str) -> None:
    with serving(idle_s=0.3) as server, connected(server) as connection:
        connection.sendall(text.encode())
        begun = time.monotonic()
        try:
            while not select.select([connection], [], [], 0.05)[0]:
                assert time.monotonic() - begun < 5
                connection.sendall(b"y")
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert healthy(server)


def test_what_a_caller_who_left_asked_for_is_not_done() -> None:
    reward = Slow()
    reward.go.clear()
    with serving(reward) as server:
        first = connected(server)
        first.sendall(scored("first").encode())
        assert reward.begun.wait(20)
        with connected(server) as second:
            second.sendall(scored("second").encode())
            until(lambda: server.batcher.waiting == 2)
        until(lambda: server.batcher.waiting == 1)  # noticed while it waits in line
        reward.go.set()
        first.sendall(f"GET /health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n".encode())
        assert [status for status, _ in answers(first)] == [200, 200]
        first.close()
        assert healthy(server)
    assert reward.prompts == ["first"]
    assert (server.media.held, server.bodies.held) == (0, 0)


def until(true: Any) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


@pytest.mark.parametrize("case", [case for case, (_, status) in ODD.items() if status not in (401, 411, 200)])
def test_the_live_page_refuses_the_same(case: str, tmp_path: Path) -> None:
    with running(LiveServer(tmp_path, token=TOKEN)) as server:
        found = sent(server, ODD[case][0])
        assert len(found) == 1
        assert 400 <= found[0][0] < 506
        assert "<" not in found[0][1], "and no page of somebody else's"
        assert [status for status, _ in sent(server, "GET / HTTP/1.0\r\n\r\n")] == [401]


@pytest.mark.slow
def test_the_labelling_page_is_no_way_around_its_token(tmp_path: Path) -> None:
    from mmalign.data.label_items import list_samples
    from mmalign.data.label_store import LabelSettings
    from mmalign.web.label_server import LabelServer
    from tests.web.label_samples import write_samples

    folder = write_samples(tmp_path / "samples", "image", prompts=2)
    label = LabelServer(
        folder, list_samples(folder), tmp_path / "labels.jsonl", LabelSettings(repeat=0.0), token=TOKEN
    )
    thread = label.start()
    address = label._socket.getsockname()[:2]
    try:
        for case, (text, _) in ODD.items():
            with socket.create_connection(address, timeout=20) as connection:
                connection.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))
                connection.shutdown(socket.SHUT_WR)
                found = answers(connection)
            # A whole request that follows may have its own answer; without the token nothing has one.
            assert all(status >= 400 for status, _ in found), (case, found)
    finally:
        label.stop()
        thread.join(20)
        label.close()
