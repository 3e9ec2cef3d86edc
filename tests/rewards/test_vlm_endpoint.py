"""Judges behind an endpoint, against a small local server that checks what it is asked and answers as it is told."""

import base64
import io
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import PIL.Image
import pytest
import soundfile
import torch

from mmalign.errors import ConfigError
from mmalign.media import Audio, Image, Sample, Video
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.vlm import DigitJudge, VqaScore, YesNo
from mmalign.rewards.vlm_endpoint import ChatEndpoint
from mmalign.rewards.vlm_judge import Question
from mmalign.rewards.vlm_pair import GoalJudge, PairJudge
from mmalign.rewards.vlm_principles import PrincipleJudge
from mmalign.rewards.vlm_written import CritiqueJudge, LikertJudge, NumericJudge

CARD = RewardCard(
    name="a-judge",
    target="mmalign.rewards.vlm:VqaScore",
    modalities=("image", "video", "audio"),
    unit="u",
    higher_is_better=True,
    differentiable=False,
    source="s",
)
Reply = tuple[int, dict[str, Any] | str, dict[str, str]]


class Server:
    """A chat-completions server on this machine; ``reply`` decides from the request and how often it was seen."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    seen = sum(body == other for other in outer.requests)
                    outer.requests.append(body)
                    outer.headers.append({**dict(self.headers), "path": self.path})
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                code, answer, headers = reply(body, seen)
                with lock:
                    outer.at_once -= 1
                data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                try:
                    self.send_response(code)
                    for name, value in {**headers, "Content-Length": str(len(data))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client has given up

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[dict[str, Any], int], Reply]], Server]]:
    servers: list[Server] = []

    def start(reply: Callable[[dict[str, Any], int], Reply]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


Serve = Callable[[Callable[[dict[str, Any], int], Reply]], Server]


def says(text: str) -> Reply:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}, {}


def chooses(**probabilities: float) -> Reply:
    """These words and, for what they leave of all probability, another."""
    return names(
        {re.sub("^_", "", w).replace("_", " "): p for w, p in probabilities.items()} | rest(probabilities)
    )


def rest(probabilities: dict[str, float]) -> dict[str, float]:
    left = 1 - sum(probabilities.values())
    return {"Well": left} if left > 1e-9 else {}


def names(probabilities: dict[str, float]) -> Reply:
    top = [{"token": word, "logprob": math.log(p)} for word, p in probabilities.items()]
    first = {"token": "x", "logprob": 0.0, "top_logprobs": top}
    return 200, {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [first]}}]}, {}


def text_of(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"][-1]["text"])


def endpoint(server: Server, **options: Any) -> ChatEndpoint:
    return ChatEndpoint(base_url=server.url, model="m", **{"sleep": lambda _: None, **options})


def picture(seed: int = 0) -> Image:
    return Image(torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(seed)))


def samples(*prompts: str) -> list[Sample]:
    return [Sample(prompt, picture(i)) for i, prompt in enumerate(prompts)]


def test_a_request_is_what_the_protocol_says_and_pictures_lose_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda body, seen: says("Score: 4"))
    monkeypatch.setenv("JUDGE_KEY", "secret")
    options = {"base_url": server.url, "model": "m", "key_from": "JUDGE_KEY", "extra": {"top_p": 1}}
    score = NumericJudge(CARD, endpoint=options).score(samples("a red star"))
    assert score.value.tolist() == [4.0]
    assert score.text == ["Score: 4"]
    (body,), (headers,) = server.requests, server.headers
    assert headers["Authorization"] == "Bearer secret"
    assert headers["path"] == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("m", 0, 1, 16)
    assert '"a red star"' in text_of(body)
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    sent = PIL.Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert sent.tobytes() == picture().to_pil().tobytes()


def test_videos_go_as_frames_and_sounds_as_wav(serve: Serve) -> None:
    server = serve(lambda body, seen: says("3"))
    video = Video(torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 5.0)
    sound = Audio(torch.linspace(-0.5, 0.5, 160)[None], 8_000)
    judge = endpoint(server, frames=4, concurrency=1)
    judge.write([Question((video,), "?"), Question((sound,), "?")], max_new_tokens=4)
    parts = [[part["type"] for part in body["messages"][0]["content"]] for body in server.requests]
    assert parts == [["image_url"] * 4 + ["text"], ["input_audio", "text"]]
    data = server.requests[1]["messages"][0]["content"][0]["input_audio"]["data"]
    waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
    assert rate == 8_000
    torch.testing.assert_close(torch.from_numpy(waveform), sound.waveform[0], atol=1 / 32_000, rtol=0)


def test_forms_of_probability_are_sums_over_spellings(serve: Serve) -> None:
    server = serve(lambda body, seen: chooses(Yes=0.5, yes=0.1, _No=0.2, other=0.1))
    judge = endpoint(server)
    assert VqaScore(CARD, judge=judge).score(samples("a")).value.item() == pytest.approx(0.5)
    assert YesNo(CARD, judge=judge).score(samples("a")).value.item() == pytest.approx(0.6 / 0.8)
    assert YesNo(CARD, logit=True, judge=judge).score(samples("a")).value.item() == pytest.approx(math.log(3))
    assert server.requests[0]["logprobs"] is True
    assert server.requests[0]["top_logprobs"] == 20


def test_digits_are_averaged_and_an_unlikely_one_counts_nothing(serve: Serve) -> None:
    server = serve(lambda body, seen: chooses(_4=0.6, _5=0.2, what=0.2))
    score = DigitJudge(CARD, judge=endpoint(server)).score(samples("a"))
    # p(4) = 0.75 and p(5) = 0.25: mean 4.25, variance 0.75 * 0.25
    assert score.value.item() == pytest.approx(4.25)
    assert score.aspects["spread"].item() == pytest.approx(math.sqrt(0.1875))
    assert score.aspects["mass"].item() == pytest.approx(0.8)


def test_a_judge_that_says_something_else_gives_no_number(serve: Serve) -> None:
    server = serve(lambda body, seen: chooses(The=0.9, _4=0.05))
    score = DigitJudge(CARD, judge=endpoint(server)).score(samples("a"))
    assert score.value.isnan().all()
    assert score.status == ["the judge says something else: 1, 2, 3, 4, 5 hold 0.05 of its answer"]


@pytest.mark.parametrize("space", ["Ġ", "▁", " ", "Ċ"])
def test_a_space_as_a_tokenizer_writes_it_is_no_part_of_an_answer(serve: Serve, space: str) -> None:
    judge = endpoint(serve(lambda body, seen: names({f"{space}Yes": 0.8, f"{space}No": 0.2})))
    assert VqaScore(CARD, judge=judge).score(samples("a")).value.item() == pytest.approx(0.8)


@pytest.mark.parametrize("first", ["<think>", "", "\n", "Well", "token_id:9"])
def test_a_judge_that_does_not_answer_has_no_score_and_is_not_sure_of_no(serve: Serve, first: str) -> None:
    judge = endpoint(serve(lambda body, seen: names({first: 0.999, "I": 0.001})))
    for reward in (VqaScore(CARD, judge=judge), YesNo(CARD, judge=judge)):
        score = reward.score(samples("a"))
        assert score.value.isnan().all()
        assert score.status == ["the judge says something else: Yes, No hold 0.00 of its answer"]


def test_the_best_sample_is_kept_where_no_is_too_improbable_to_be_named(serve: Serve) -> None:
    """Yes 0.9989, nothing else above 0.001: No has 0.0001 at most, which is what is left."""
    judge = endpoint(serve(lambda body, seen: names({"Yes": 0.9989, "Sure": 0.001})))
    assert YesNo(CARD, judge=judge).score(samples("a")).value.item() == pytest.approx(0.9999, abs=1e-5)
    logit = YesNo(CARD, logit=True, judge=judge).score(samples("a"))
    assert logit.value.item() == pytest.approx(math.log(0.9989 / 0.0001), rel=1e-3)
    assert logit.status == ["ok"]
    denied = endpoint(serve(lambda body, seen: names({"No": 0.9989, "Never": 0.001})))
    assert VqaScore(CARD, judge=denied).score(samples("a")).value.item() == pytest.approx(0.0001, rel=1e-3)


def test_alternatives_that_leave_the_answer_open_are_a_status(serve: Serve) -> None:
    score = YesNo(CARD, judge=endpoint(serve(lambda body, seen: names({"Yes": 0.6, "no": 0.2})))).score(
        samples("a")
    )
    assert score.value.isnan().all()
    assert score.status[0].startswith("the 2 words that the judge's server names hold 0.80 of its answer")


@pytest.mark.parametrize("log_probs", [[0.5, 0.5], [math.nan, -1.0], [7.0]])
def test_what_is_no_log_probability_is_a_status(serve: Serve, log_probs: list[float]) -> None:
    top = [{"token": "Yes", "logprob": log_prob} for log_prob in log_probs]
    answer = {"choices": [{"logprobs": {"content": [{"token": "Yes", "top_logprobs": top}]}}]}
    score = VqaScore(CARD, judge=endpoint(serve(lambda body, seen: (200, answer, {})))).score(samples("a"))
    assert "log-probabilities are none" in score.status[0]
    assert score.value.isnan().all()


@pytest.mark.parametrize(
    ("kind", "answer", "value"),
    [
        (LikertJudge, "Extremely poor.", 1.0),
        (LikertJudge, "good", 4.0),
        (NumericJudge, "2", 2.0),
        (CritiqueJudge, "There are 3 stars, none red.\nScore: 2", 2.0),
    ],
)
def test_written_answers_are_read(serve: Serve, kind: Any, answer: str, value: float) -> None:
    score = kind(CARD, judge=endpoint(serve(lambda body, seen: says(answer)))).score(samples("a"))
    assert (score.value.tolist(), score.status, score.text) == ([value], ["ok"], [answer])


@pytest.mark.parametrize("kind", [LikertJudge, NumericJudge, CritiqueJudge])
def test_an_answer_that_cannot_be_read_fails_its_sample_and_no_other(serve: Serve, kind: Any) -> None:
    server = serve(lambda body, seen: says("lovely" if '"b"' in text_of(body) else "good, score: 4"))
    score = kind(CARD, judge=endpoint(server)).score(samples("a", "b", "c"))
    assert score.value.isnan().tolist() == [False, True, False]
    assert score.status == ["ok", "no score in the judge's answer: 'lovely'", "ok"]


def test_answers_come_in_the_order_of_the_samples_whatever_the_servers(serve: Serve) -> None:
    def reply(body: dict[str, Any], seen: int) -> Reply:
        number = int(text_of(body).split('"')[1])
        time.sleep(0.01 * (5 - number))
        return says(str(number))

    server = serve(reply)
    score = NumericJudge(CARD, judge=endpoint(server, concurrency=3)).score(samples(*"12345"))
    assert score.value.tolist() == [1, 2, 3, 4, 5]
    assert 1 < server.most_at_once <= 3


def test_a_busy_server_is_asked_again_with_growing_waits_from_the_seed(serve: Serve) -> None:
    waits: list[float] = []

    def run(seed: int) -> list[float]:
        waits.clear()
        server = serve(lambda body, seen: (503, "busy", {}) if seen < 3 else says("2"))
        judge = endpoint(server, sleep=waits.append, backoff_s=0.5, seed=seed)
        assert judge.write([Question((), "?")], max_new_tokens=2)[0].text == "2"
        return list(waits)

    first = run(0)
    assert [0.5 * 2**i <= wait <= 2 * 0.5 * 2**i for i, wait in enumerate(first)] == [True] * 3
    assert run(0) == first
    assert run(1) != first


def test_the_servers_own_wait_is_kept_up_to_the_longest(serve: Serve) -> None:
    waits: list[float] = []
    replies = [
        (429, "slow down", {"Retry-After": "3"}),
        (429, "slow down", {"Retry-After": "300"}),
        says("2"),
    ]
    server = serve(lambda body, seen: replies[seen])
    endpoint(server, sleep=waits.append, longest_wait_s=20).write([Question((), "?")], max_new_tokens=2)
    assert waits == [3.0, 20.0]


@pytest.mark.parametrize(
    ("reply", "message", "requests"),
    [
        ((500, "down", {}), "the judge answered 500: down; tried 3 times", 3),
        ((400, {"error": {"message": "no such model"}}, {}), "the judge answered 400: no such model", 1),
        ((401, "", {}), "the judge answered 401: no reason given", 1),
        ((200, "<html>", {}), "the judge's answer is not JSON; tried 3 times", 3),
        ((200, {"choices": []}, {}), "the judge's answer has no text", 1),
        ((200, {"choices": [{"message": {"content": None}}]}, {}), "the judge's answer has no text", 1),
    ],
)
def test_what_fails_for_good_is_a_status(serve: Serve, reply: Reply, message: str, requests: int) -> None:
    server = serve(lambda body, seen: reply)
    score = NumericJudge(CARD, judge=endpoint(server, retries=2)).score(samples("a"))
    assert score.status == [message]
    assert score.value.isnan().all()
    assert len(server.requests) == requests


def test_a_server_without_log_probabilities_says_so(serve: Serve) -> None:
    score = YesNo(CARD, judge=endpoint(serve(lambda body, seen: says("Yes")))).score(samples("a"))
    assert "no log-probabilities" in score.status[0]
    assert score.value.isnan().all()


def test_a_silent_server_and_none_at_all_are_statuses(serve: Serve) -> None:
    server = serve(lambda body, seen: time.sleep(0.5) or says("1"))  # type: ignore[func-returns-value]
    judge = endpoint(server, timeout_s=0.1, retries=1)
    assert judge.write([Question((), "?")], max_new_tokens=1)[0].status == (
        "the judge did not answer within 0.1 s; tried 2 times"
    )
    nobody = ChatEndpoint(base_url="http://127.0.0.1:9", model="m", retries=0)
    assert nobody.write([Question((), "?")], max_new_tokens=1)[0].status.startswith(
        "no connection to the judge"
    )


def test_principles_are_weighted_and_a_missing_answer_names_its_principle(serve: Serve) -> None:
    def reply(body: dict[str, Any], seen: int) -> Reply:
        text = text_of(body)
        if "b?" in text:
            return chooses(Maybe=1.0)
        return chooses(Yes=0.8, No=0.2) if "sharp" in text else chooses(Yes=0.3, No=0.6)

    principles = {"sharp": "Is it sharp?", "true": "Is it {prompt}?"}
    judge = PrincipleJudge(CARD, principles=principles, weights={"sharp": 3}, judge=endpoint(serve(reply)))
    score = judge.score(samples("a", "b"))
    # (3 * 0.8 + 1 * 0.3 / 0.9) / 4
    assert score.value[0].item() == pytest.approx((2.4 + 1 / 3) / 4)
    assert score.aspects["true"][0].item() == pytest.approx(1 / 3)
    assert score.status == ["ok", "true: the judge says something else: Yes, No hold 0.00 of its answer"]


@pytest.mark.parametrize(
    ("principles", "weights"), [({}, {}), ({"a": "?"}, {"b": 1.0}), ({"a": "?"}, {"a": 0.0})]
)
def test_principles_that_cannot_be_weighed_are_refused(principles: Any, weights: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected (principles|positive)"):
        PrincipleJudge(CARD, principles=principles, weights=weights, endpoint={})


def brightness(body: dict[str, Any]) -> list[float]:
    parts = [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    urls = [part["image_url"]["url"].split(",")[1] for part in parts]
    return [sum(PIL.Image.open(io.BytesIO(base64.b64decode(url))).convert("L").tobytes()) for url in urls]


def test_a_judge_that_takes_the_first_prefers_neither_in_both_kinds(serve: Serve) -> None:
    a, b = samples("x", "x")
    always = endpoint(serve(lambda body, seen: chooses(_1=0.7, _2=0.2, _0=0.1)))
    found = PairJudge(CARD, judge=always).compare([a], [b])
    assert found.wins.tolist() == pytest.approx([0.5])
    assert found.tie.tolist() == pytest.approx([0.1])
    assert found.consistency == 0.0
    writes = endpoint(serve(lambda body, seen: says("1")))
    found = GoalJudge(CARD, goal="x", judge=writes).compare([a], [b])
    assert (found.first.item(), found.tie.item(), found.consistency) == (0.0, 1.0, 0.0)


def test_goal_judges_decide_from_their_own_words_and_swap_with_the_media(serve: Serve) -> None:
    dark, light = Sample("", Image(torch.full((3, 8, 8), 0.1))), Sample("", Image(torch.full((3, 8, 8), 0.9)))

    def reply(body: dict[str, Any], seen: int) -> Reply:
        shown = brightness(body)
        if shown:
            return says("the first is lighter" if shown[0] > shown[1] else "the other is lighter")
        return says("1" if "the first is lighter" in text_of(body) else "2")

    server = serve(reply)
    judge = GoalJudge(replace(CARD, needs=()), goal="a bright day", judge=endpoint(server))
    found = judge.compare([light, dark], [dark, light])
    assert found.first.tolist() == [1.0, 0.0]
    assert found.second.tolist() == [0.0, 1.0]
    assert found.consistency == 1.0
    assert found.text == ["the first is lighter", "the other is lighter"]
    assert all('"a bright day"' in text_of(body) for body in server.requests)


def test_a_pair_without_a_verdict_has_a_status(serve: Serve) -> None:
    server = serve(lambda body, seen: says("both are fine"))
    a, b = samples("x", "x")
    found = GoalJudge(CARD, judge=endpoint(server)).compare([a, a], [b, Sample("x")])
    assert found.status == ["no score in the judge's answer: 'both are fine'", "second: no media"]
    assert found.first.isnan().all()
    different = GoalJudge(CARD, judge=endpoint(server)).compare([a], [replace(b, prompt="y")])
    assert different.status == ["first: the two have different prompts"]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://"])
def test_an_address_is_one(url: str) -> None:
    with pytest.raises(ConfigError, match="expected an address such as"):
        ChatEndpoint(base_url=url, model="m")


def test_a_key_that_is_not_set_and_a_gradient_through_the_wire_are_refused() -> None:
    with pytest.raises(ConfigError, match="set the environment variable NOBODY_SET_THIS"):
        ChatEndpoint(base_url="http://x/v1", model="m", key_from="NOBODY_SET_THIS")
    with pytest.raises(ConfigError, match="no gradient comes through an endpoint"):
        VqaScore(replace(CARD, differentiable=True), endpoint={"base_url": "http://x/v1", "model": "m"})
