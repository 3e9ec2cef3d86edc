"""A reward over HTTP: who may ask, what is answered, how much is taken, and that no failure is a number."""

import base64
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.cli.serve import ServeCommand
from mmalign.errors import ConfigError
from mmalign.media import Image, Sample, Video
from mmalign.rewards.base import Reward, Score
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.wire import encode_media, encode_sample
from mmalign.web.handler import Limits
from mmalign.web.server import RewardServer

TOKEN = "correct-horse-battery"


class Brightness:
    """The mean of a picture or of all frames, less is better; remembers its batches, and may be slow or fail."""

    def __init__(self, *, wait_s: float = 0.0, higher_is_better: bool = False) -> None:
        self.card = replace(
            find_card("placebo"),
            name="dark-v1",
            higher_is_better=higher_is_better,
            modalities=("image", "video"),
        )
        self.batches: list[int] = []
        self.wait_s = wait_s
        self.begun = threading.Event()

    def score(self, samples: Sequence[Sample]) -> Score:
        self.batches.append(len(samples))
        self.begun.set()
        time.sleep(self.wait_s)
        if any(sample.prompt == "explode" for sample in samples):
            raise ValueError("boom")
        found = [
            s.media.pixels.mean() if isinstance(s.media, Image) else s.media.frames.mean()
            for s in samples
            if isinstance(s.media, Image | Video)
        ]
        return Score(torch.stack(found), ["ok"] * len(samples))


@contextmanager
def serving(reward: Reward, **options: Any) -> Iterator[RewardServer]:
    server = RewardServer(reward, token=TOKEN, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(
    server: RewardServer,
    path: str,
    body: Any = None,
    *,
    token: str | None = f"Bearer {TOKEN}",
    **headers: str,
) -> tuple[int, Any]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {
        "Content-Type": "application/json",
        **({} if token is None else {"Authorization": token}),
        **headers,
    }
    request = urllib.request.Request(server.url + path, data, sent)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def picture(level: float, prompt: str = "x") -> Sample:
    return Sample(prompt, Image(torch.full((3, 4, 4), round(255 * level) / 255)))


def body(*samples: Sample) -> dict[str, Any]:
    return {"version": 1, "samples": [encode_sample(sample) for sample in samples]}


def png(level: float) -> str:
    media = picture(level).media
    assert media is not None
    return str(encode_media(media)["data"])


def test_what_is_answered_is_what_the_reward_says() -> None:
    reward = load_reward("placebo")
    samples = [picture(i / 10, f"prompt {i}") for i in range(5)]
    with serving(reward) as server:
        status, answer = ask(server, "/v1/score", body(*samples))
    assert status == 200
    assert answer["reward"] == "placebo"
    expected = reward.score(samples).value.tolist()
    assert [entry["score"] for entry in answer["scores"]] == pytest.approx(expected)
    assert {entry["status"] for entry in answer["scores"]} == {"ok"}


def test_card_and_health() -> None:
    with serving(Brightness()) as server:
        assert ask(server, "/health", token=None) == (200, {"status": "ok"})
        status, card = ask(server, "/v1/card")
    assert status == 200
    assert (card["name"], card["higher_is_better"], card["version"]) == ("dark-v1", False, 1)
    assert "weights" not in card


@pytest.mark.parametrize(
    ("token", "allowed"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        ("Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode(), True),
        (None, False),
        ("Bearer wrong", False),
        (f"Bearer {TOKEN}x", False),
        ("Basic ***", False),
        ("Basic " + base64.b64encode(b"any:wrong").decode(), False),
        (TOKEN, False),
        (f"Digest {TOKEN}", False),
        ("Bearer \u00ff", False),
    ],
)
def test_only_who_holds_the_token_is_answered(token: str | None, allowed: bool) -> None:
    reward = Brightness()
    with serving(reward) as server:
        found = [
            ask(server, path, sent, token=token)[0]
            for path, sent in (
                ("/v1/card", None),
                ("/v1/score", body(picture(0.2))),
                ("/compute", {"prompt": []}),
            )
        ]
    assert found == ([200] * 3 if allowed else [401] * 3)
    assert bool(reward.batches) == allowed


def test_a_sample_that_cannot_be_read_keeps_its_place(tmp_path: Path) -> None:
    Image(torch.ones(3, 2, 2)).save(tmp_path / "white.png")
    entries = [
        encode_sample(picture(0.2)),
        {"prompt": "x", "media": {"type": "image/png", "data": "AAAA"}},
        {"prompt": "x", "media": {"path": "white.png"}},
        {"prompt": "x", "media": {"path": "../white.png"}},
        encode_sample(picture(0.4)),
    ]
    with serving(Brightness(), root=tmp_path) as server:
        status, answer = ask(server, "/v1/score", {"samples": entries})
    assert status == 200
    scores = [entry["score"] for entry in answer["scores"]]
    assert scores == [pytest.approx(0.2), None, pytest.approx(1.0), None, pytest.approx(0.4)]
    assert "sample 1, media: " in answer["scores"][1]["status"]
    assert "lies outside" in answer["scores"][3]["status"]
    assert str(tmp_path) not in json.dumps(answer)


def test_a_reward_that_fails_gives_a_status_and_others_their_score() -> None:
    with serving(Brightness()) as server:
        status, answer = ask(server, "/v1/score", body(picture(0.2), picture(0.6, "explode"), picture(0.8)))
    assert status == 200
    assert [entry["score"] for entry in answer["scores"]] == [pytest.approx(0.2), None, pytest.approx(0.8)]
    assert answer["scores"][1]["status"] == "the reward failed (ValueError: boom)"


@pytest.mark.parametrize(
    ("path", "sent", "headers", "status", "message"),
    [
        ("/v1/score", b"{", {}, 400, "not JSON"),
        ("/v1/score", b'{"samples": [NaN]}', {}, 400, "NaN is no number in JSON"),
        ("/v1/score", b"[" * 19_000, {}, 400, "not JSON"),
        ("/v1/score", [1], {}, 400, "expected an object, got list"),
        ("/v1/score", {}, {}, 400, "expected a list of samples"),
        ("/v1/score", {"samples": [], "smaples": []}, {}, 400, "unknown field 'smaples'"),
        ("/v1/score", {"samples": [], "version": 2}, {}, 400, "version 2 is not spoken here"),
        ("/v1/score", {"samples": [{}] * 9}, {}, 413, "9 samples in one request, the limit is 8"),
        ("/v1/score", b" " * 20_001, {}, 413, "the limit is 20000"),
        ("/v1/score", {}, {"Content-Type": "text/plain"}, 415, "expected application/json"),
        ("/v1/score", None, {}, 405, "nothing answers GET /v1/score"),
        ("/v1/card", {}, {}, 405, "nothing answers POST /v1/card"),
        ("/v2/score", {}, {}, 404, "nothing answers POST /v2/score"),
    ],
)
def test_what_is_refused_is_said_and_the_server_goes_on(
    path: str, sent: Any, headers: dict[str, str], status: int, message: str
) -> None:
    with serving(Brightness(), limits=Limits(body_bytes=20_000, samples=8)) as server:
        found, answer = ask(server, path, sent, **headers)
        assert found == status
        assert message in answer["error"]["message"]
        assert ask(server, "/v1/score", body(picture(0.2)))[0] == 200


def test_callers_who_come_together_share_batches_and_get_their_own_scores() -> None:
    reward = Brightness(wait_s=0.05)
    levels = [i / 20 for i in range(16)]
    with serving(reward, batch_size=8, wait_s=0.05) as server, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda level: ask(server, "/v1/score", body(picture(level))), levels))
    found = [answer["scores"][0]["score"] for _, answer in answers]
    assert found == pytest.approx([round(255 * level) / 255 for level in levels])
    assert sum(reward.batches) == 16
    assert len(reward.batches) < 10
    assert max(reward.batches) <= 8


def test_too_many_at_a_time_are_told_to_come_back() -> None:
    reward = Brightness(wait_s=2.0)
    with serving(reward, limits=Limits(requests=1)) as server, ThreadPoolExecutor(2) as pool:
        slow = pool.submit(ask, server, "/v1/score", body(picture(0.2)))
        assert reward.begun.wait(60)
        status, answer = ask(server, "/v1/score", body(picture(0.2)))
        assert (status, answer["error"]["code"]) == (503, "busy")
        assert slow.result()[0] == 200
        assert ask(server, "/v1/score", body(picture(0.2)))[0] == 200


# The JSON of Flow-Factory's remote rewards


def test_a_trainer_that_speaks_flow_factory_gets_numbers_where_more_is_better() -> None:
    client: dict[str, Any] = {
        "prompt": ["x", "y"],
        "image": [png(0.2), png(0.4)],
        "video": None,
        "kwargs": {},
    }
    template: dict[str, Any] = {
        "prompts": ["x", "y"],
        "images": [png(0.2), png(0.4)],
        "videos": None,
        "extra": {},
    }
    video = {"prompt": ["x"], "video": [[png(0.2), png(0.6)]], "image": None}
    for higher, sign in ((True, 1), (False, -1)):
        with serving(Brightness(higher_is_better=higher)) as server:
            for sent in (client, template):
                status, answer = ask(server, "/compute", sent)
                assert (status, answer["rewards"]) == (200, pytest.approx([sign * 0.2, sign * 0.4]))
            assert ask(server, "/compute", video)[1]["rewards"] == pytest.approx([sign * 0.4])


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"prompt": ["x", "explode"], "image": [png(0.2)] * 2}, "sample 1: the reward failed"),
        ({"prompt": ["x"], "image": ["AAAA"]}, "image 0"),
        ({"prompt": ["x", "y"], "image": [png(0.2)]}, "expected a list of 2, one for each prompt"),
        ({"image": [png(0.2)]}, "prompt: expected a list of texts"),
        ({"prompt": ["x"], "image": [png(0.1)], "video": [[png(0.1)]]}, "expected image or video, got both"),
        ({"prompt": ["x"], "image": [png(0.1)], "condition_images": [[png(0.1)] * 2]}, "at most one picture"),
    ],
)
def test_no_failure_is_a_reward(sent: dict[str, Any], message: str) -> None:
    with serving(Brightness()) as server:
        status, answer = ask(server, "/compute", sent)
    assert status == 200
    assert answer["rewards"] is None
    assert message in answer["error"]


def test_condition_images_are_the_source_image() -> None:
    class Difference(Brightness):
        def score(self, samples: Sequence[Sample]) -> Score:
            values = []
            for sample in samples:
                source = sample.context["source_image"]
                assert isinstance(source, Image)
                assert isinstance(sample.media, Image)
                values.append(sample.media.pixels.mean() - source.pixels.mean())
            return Score(torch.stack(values), ["ok"] * len(values))

    with serving(Difference(higher_is_better=True)) as server:
        sent = {"prompt": ["x"], "image": [png(0.8)], "condition_images": [[png(0.2)]]}
        assert ask(server, "/compute", sent)[1]["rewards"] == pytest.approx([0.6])


# Where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_others_reach_it_only_with_a_token_that_somebody_chose(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MMALIGN_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="can be reached by others"):
        ServeCommand(reward="placebo", host=host)
    ServeCommand(reward="placebo", host=host, token=TOKEN)
    monkeypatch.setenv("MMALIGN_TOKEN", TOKEN)
    ServeCommand(reward="placebo", host=host)


def test_alone_on_loopback_by_default() -> None:
    with serving(Brightness()) as server:
        assert server.server_address[0] == "127.0.0.1"
    assert ServeCommand(reward="placebo").host == "127.0.0.1"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RewardServer(Brightness(), token="short"), "at least 16 printable characters"),
        (lambda: RewardServer(Brightness(), token="with a space in it"), "without spaces"),
        (
            lambda: RewardServer(Brightness(), token=TOKEN, host="256.0.0.1"),
            "nothing can listen at 256.0.0.1",
        ),
        (lambda: ServeCommand(reward="placebo", port=70_000), "expected 0 to 65535"),
        (lambda: ServeCommand(reward="placebo", max_samples=0), "--max-samples = 0: expected at least 1"),
        (lambda: ServeCommand(reward="placebo", root=Path("/nowhere")), "is no folder"),
    ],
)
def test_what_cannot_work_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_no_score_is_ever_sent_as_a_number() -> None:
    class Broken(Brightness):
        def score(self, samples: Sequence[Sample]) -> Score:
            return Score(torch.tensor([math.inf] * len(samples)), ["ok"] * len(samples))

    with serving(Broken()) as server:
        scored = ask(server, "/v1/score", body(picture(0.2)))[1]["scores"][0]
        assert (scored["score"], scored["status"]) == (None, "the score is not a finite number")
        assert ask(server, "/compute", {"prompt": ["x"], "image": [png(0.2)]})[1]["rewards"] is None


@pytest.mark.slow
def test_the_command_says_where_it_is_and_with_which_token() -> None:
    command = [sys.executable, "-m", "mmalign", "serve", "--reward", "placebo", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "MMALIGN_TOKEN"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        token = next(line for line in process.stderr if line.startswith("token: ")).split()[1]
        url = process.stdout.readline().strip()
        request = urllib.request.Request(url + "/v1/card", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert json.loads(answer.read())["name"] == "placebo"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "stopped" in process.stderr.read()
