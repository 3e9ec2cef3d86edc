"""The client of a served reward: equal to the reward at the other end, patient, and honest about what fails."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.cli import rewards as listing
from mmalign.cli import score as command
from mmalign.errors import ConfigError
from mmalign.media import Audio, Image, Sample
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.remote import RemoteReward, fetch_card
from mmalign.web.handler import Limits, public_card
from mmalign.web.server import RewardServer

TOKEN = "correct-horse-battery"


def samples(count: int = 3) -> list[Sample]:
    return [Sample(f"prompt {i}", Image(torch.full((3, 4, 4), i / 255))) for i in range(count)]


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def odd_server(
    answer: Callable[[int, dict[str, Any]], Answer | None],
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server whose n-th answer is ``answer(n, body)``; None hangs up."""
    seen: list[dict[str, Any]] = []

    class Odd(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
            seen.append({"authorization": self.headers.get("Authorization"), **sent})
            found = answer(len(seen) - 1, sent)
            if found is None:
                return
            status, headers, data = found
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None: ...

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None: ...

    with running(Quiet(("127.0.0.1", 0), Odd)) as place:
        yield f"http://{place}", seen


def scores(sent: dict[str, Any]) -> Answer:
    return 200, {}, json.dumps({"scores": [{"score": 2.5, "status": "ok"} for _ in sent["samples"]]}).encode()


def remote(url: str, **options: Any) -> RemoteReward:
    card = find_card("placebo")
    return RemoteReward(card, url=url, **{"backoff_s": 0.0, "token": TOKEN, **options})


def test_a_served_reward_is_that_reward() -> None:
    local = load_reward("placebo")
    with running(RewardServer(local, token=TOKEN)) as place:
        reward = load_reward(f"http://any:{TOKEN}@{place}")
        assert reward.card.name == f"placebo@{place}"
        for name in ("unit", "modalities", "needs", "higher_is_better", "range"):
            assert getattr(reward.card, name) == getattr(local.card, name)
        mixed = [*samples(), Sample("nothing"), Sample("a tone", Audio(torch.zeros(1, 80), 8_000))]
        mine, theirs = reward.score(mixed), local.score(mixed)
    assert mine.status == theirs.status
    torch.testing.assert_close(mine.value, theirs.value, equal_nan=True)


def test_mmalign_score_takes_an_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, sample in enumerate(samples()):
        assert isinstance(sample.media, Image)
        sample.media.save(tmp_path / f"{i}.png")
    with running(RewardServer(load_reward("placebo"), token=TOKEN)) as place:
        url = f"http://any:{TOKEN}@{place}/:2"
        assert command.main([str(tmp_path), "--prompt", "x", "--reward", url, "--format", "jsonl"]) == 0
        found = capsys.readouterr()
        card = listing.describe(find_card(f"http://any:{TOKEN}@{place}"))
    assert command.main([str(tmp_path), "--prompt", "x", "--reward", "placebo:2", "--format", "jsonl"]) == 0
    here = [json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()]
    assert [json.loads(line)["score"] for line in found.out.splitlines()] == pytest.approx(here)
    assert TOKEN not in found.out + found.err + card


def test_what_fails_for_a_while_is_tried_again() -> None:
    def answer(n: int, sent: dict[str, Any]) -> Answer | None:
        return (None, (503, {}, b"busy"), (429, {"Retry-After": "0"}, b"{}"), scores(sent))[n]

    with odd_server(answer) as (url, seen):
        found = remote(url, retries=3).score(samples())
    assert found.value.tolist() == [2.5] * 3
    assert len(seen) == 4
    assert {entry["authorization"] for entry in seen} == {f"Bearer {TOKEN}"}


def test_what_fails_too_often_is_a_status_and_no_number() -> None:
    with odd_server(lambda *_: (502, {}, b"<html>")) as (url, seen):
        found = remote(url, retries=2).score(samples(2))
        assert len(seen) == 3
    assert found.value.isnan().all()
    assert found.status == [f"remote: {url} answered HTTP 502 (Bad Gateway), tried 3 times"] * 2
    down = remote(url, retries=1).score(samples(1))  # nothing listens there any more
    assert "no answer from" in down.status[0]
    assert "tried 2 times" in down.status[0]
    assert math.isnan(down.value[0])


def test_a_server_that_is_slow_is_not_waited_for_without_end() -> None:
    def slow(n: int, sent: dict[str, Any]) -> Answer:
        time.sleep(0.5)
        return scores(sent)

    with odd_server(slow) as (url, _):
        started = time.monotonic()
        found = remote(url, retries=0, timeout_s=0.1).score(samples(1))
        assert time.monotonic() - started < 0.4
    assert "did not answer within 0.1 s" in found.status[0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 415])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    said = json.dumps({"error": {"code": "x", "message": "because\nof this"}}).encode()
    with odd_server(lambda *_: (status, {}, said)) as (url, seen):
        found = remote(url).score(samples(1))
    assert len(seen) == 1
    assert "because of this" in found.status[0]
    assert TOKEN not in found.status[0]


def test_the_waits_grow_and_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("mmalign.rewards.http_client.time.sleep", waits.append)
    with odd_server(lambda *_: (503, {}, b"")) as (url, _):
        for seed in (0, 0, 1):
            remote(url, retries=4, backoff_s=0.5, seed=seed).score(samples(1))
    first, again, other = waits[:4], waits[4:8], waits[8:]
    assert first == again
    assert first != other
    for n, wait in enumerate(first):
        assert 0.5 * 2**n * 0.5 <= wait <= 0.5 * 2**n * 1.5


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello", "did not answer with JSON"),
        (b"[1]", "did not answer with JSON"),
        (b"{}", "expected 2 scores, got None"),
        (b'{"scores": [{"score": 1, "status": "ok"}]}', "expected 2 scores, got 1"),
        (b'{"scores": [{"score": NaN, "status": "ok"}, {"score": null, "status": "ok"}]}', "no score: "),
    ],
)
def test_an_answer_that_is_none_is_a_status(data: bytes, status: str) -> None:
    with odd_server(lambda *_: (200, {}, data)) as (url, _):
        found = remote(url).score(samples(2))
    assert found.value.isnan().all()
    assert all(status in said for said in found.status)


def test_a_request_that_is_too_large_goes_in_halves() -> None:
    with running(RewardServer(load_reward("placebo"), token=TOKEN, limits=Limits(samples=2))) as place:
        found = remote(f"http://{place}").score(samples(7))
    torch.testing.assert_close(found.value, load_reward("placebo").score(samples(7)).value)
    with running(RewardServer(load_reward("placebo"), token=TOKEN, limits=Limits(body_bytes=50))) as place:
        found = remote(f"http://{place}").score(samples(2))
    assert all("the limit is 50" in status for status in found.status)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_does_not_follow_a_redirection(status: int) -> None:
    with (
        odd_server(lambda *_: (200, {}, b"{}")) as (thief, stolen),
        odd_server(lambda *_: (status, {"Location": f"{thief}/v1/score"}, b"")) as (url, _),
    ):
        found = remote(url).score(samples(1))
    assert stolen == []
    assert str(status) in found.status[0]


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with odd_server(lambda n, sent: scores(sent)) as (url, seen):
        monkeypatch.setenv("OTHER", "one")
        remote(url, token="$OTHER").score(samples(1))
        monkeypatch.setenv("MMALIGN_TOKEN", "two")
        remote(url, token=None).score(samples(1))
        with pytest.raises(ConfigError, match="in the variable MISSING, which is not set"):
            remote(url, token="$MISSING")
    assert [entry["authorization"] for entry in seen] == ["Bearer one", "Bearer two"]


def test_a_card_that_is_none_is_a_sentence() -> None:
    card = {**public_card(find_card("placebo"))}
    for answer, message in (
        ({**card, "version": 2}, "speaks version 2"),
        ({**card, "modalities": None}, "did not answer with the card of a reward"),
    ):

        class Cards(BaseHTTPRequestHandler):
            found = json.dumps(answer).encode()

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(self.found)))
                self.end_headers()
                self.wfile.write(self.found)

            def log_message(self, *_: Any) -> None: ...

        with (
            running(ThreadingHTTPServer(("127.0.0.1", 0), Cards)) as place,
            pytest.raises(ConfigError, match=message),
        ):
            fetch_card(f"http://{place}")
    with pytest.raises(ConfigError, match="no address of a reward"):
        fetch_card("http://")


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"retries": -1}, {"backoff_s": -1}, {"batch_size": 0}])
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected timeout_s > 0"):
        remote("http://127.0.0.1:9", **options)


def test_a_card_names_its_server() -> None:
    with running(RewardServer(load_reward("placebo"), token=TOKEN)) as place:
        options = {"url": f"http://{place}", "token": TOKEN}
        card = replace(
            find_card("placebo"), name="far-v1", target="mmalign.rewards.remote:RemoteReward", options=options
        )
        assert TOKEN not in listing.describe(card)
        found = RemoteReward(card, **card.options).score(samples(2))
    torch.testing.assert_close(found.value, load_reward("placebo").score(samples(2)).value)
