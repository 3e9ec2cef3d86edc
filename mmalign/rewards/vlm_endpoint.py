"""A judge behind an endpoint that speaks OpenAI's chat completions, as most servers of open models do."""

import base64
import http.client
import io
import json
import math
import os
import random
import time
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import soundfile
import torch

from mmalign.errors import ConfigError
from mmalign.media import Audio, Image, Media, Scene3D, Video
from mmalign.rewards.base import OK
from mmalign.rewards.vlm_judge import Choices, Question, Words, Written

TRIED_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
"""HTTP statuses after which the same request may succeed."""
TOP_WORDS = 20
"""Alternatives that the protocol gives for each word at most."""
MOST_HIDDEN = 0.05
"""Of what the answers hold, what alternatives that the server does not name may hold at most."""
SPACES = "Ġ▁Ċ \t\n"
"""How tokenizers write the space before a word, where a server hands their entries on as they are."""


class EndpointError(Exception):
    """One request has failed for good; the message becomes the sample's status."""


class ChatEndpoint:
    """Asks a server at ``base_url + "/chat/completions"``; several requests at once, in the order of the questions.

    A request that fails in passing (connection, timeout, busy, server error) is repeated up to ``retries`` times:

        wait_s = min(longest_wait_s, backoff_s * 2^attempt) * (1 + jitter),   jitter uniform in [0, 1] from the seed,

    or as long as the server's Retry-After says. What fails then is the sample's status, never a number. Pictures go as
    PNG, so nothing is lost on the way; sounds as WAV; of a video, ``frames`` pictures.

    Args:
        base_url: such as "http://localhost:8000/v1".
        model: the name under which the server knows it.
        key_from: the environment variable that holds the API key; None for a server that wants none.
        timeout_s: for each attempt.
        retries: attempts after the first.
        backoff_s: the wait before the second attempt, without jitter.
        longest_wait_s: of one wait, Retry-After included.
        concurrency: requests at the same time.
        frames: shown of a video.
        seed: of the jitter.
        extra: further fields of every request.
        sleep: waits so many seconds.

    Raises:
        ConfigError: the address is no http or https address, or the variable is not set.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        key_from: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 4,
        backoff_s: float = 0.5,
        longest_wait_s: float = 30.0,
        concurrency: int = 8,
        frames: int = 8,
        seed: int = 0,
        extra: dict[str, Any] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = urllib.parse.urlsplit(base_url.rstrip("/") + "/chat/completions")
        if self.url.scheme not in ("http", "https") or not self.url.hostname:
            raise ConfigError(
                f"base_url = '{base_url}', expected an address such as http://localhost:8000/v1"
            )
        if key_from is not None and not os.environ.get(key_from):
            raise ConfigError(f"the judge at {base_url} wants a key: set the environment variable {key_from}")
        self.key = None if key_from is None else os.environ[key_from]
        self.model, self.timeout_s, self.retries = model, timeout_s, retries
        self.backoff_s, self.longest_wait_s, self.concurrency = backoff_s, longest_wait_s, concurrency
        self.frames, self.seed, self.extra, self.sleep = frames, seed, extra or {}, sleep

    def objection(self, text: str) -> str:
        """Always "ok": the server keeps words and control tokens apart."""
        return OK

    def choices(self, questions: Sequence[Question], words: Words, *, exact: bool = False) -> Choices:
        """How probable each answer is, from the alternatives that the server names for the first word.

        Spaces before a word, as the server's tokenizer writes them, do not count. What the server does not name is
        known up to a bound: the rest, 1 less all that are named, could be other spellings of any answer, so a rest
        above ``MOST_HIDDEN`` of what the answers hold is a status. An answer not named has the most that it can have,

            log min(rest, the least that is named),

        so that a difference of log-probabilities is finite, and nearer to undecided than the judge is.
        """
        options = {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP_WORDS}
        status, rows = [], []
        for answer, fault in self._ask(questions, options):
            try:
                rows.append(
                    grouped(_first_word(answer), words, exact=exact)
                    if fault == OK
                    else [math.nan] * len(words)
                )
            except EndpointError as error:
                rows.append([math.nan] * len(words))
                fault = str(error)
            status.append(fault)
        return Choices(torch.tensor(rows).reshape(len(questions), len(words)), status)

    def write(self, questions: Sequence[Question], *, max_new_tokens: int) -> list[Written]:
        """One answer to each question, at temperature 0."""
        written = []
        for answer, fault in self._ask(questions, {"max_tokens": max_new_tokens}):
            try:
                written.append(Written(_content(answer)) if fault == OK else Written("", fault))
            except EndpointError as error:
                written.append(Written("", str(error)))
        return written

    def _ask(self, questions: Sequence[Question], options: dict[str, Any]) -> list[tuple[Any, str]]:
        """Each question's decoded answer, or None and why."""

        def one(numbered: tuple[int, Question]) -> tuple[Any, str]:
            number, question = numbered
            try:
                return self._request(
                    self._body(question, options), random.Random(f"{self.seed}/{number}")
                ), OK
            except EndpointError as error:
                return None, str(error)

        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge") as pool:
            return list(pool.map(one, enumerate(questions)))

    def _body(self, question: Question, options: dict[str, Any]) -> bytes:
        parts = [part for media in question.media for part in _parts(media, self.frames)]
        content = [*parts, {"type": "text", "text": question.text}]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            **options,
            **self.extra,
        }
        return json.dumps(body).encode()

    def _request(self, body: bytes, jitter: random.Random) -> Any:
        """The decoded answer, after as many attempts as it takes.

        Raises:
            EndpointError: the last attempt failed, or there is no sense in another.
        """
        attempt = 0
        while True:
            asked_s = None
            try:
                code, headers, text = self._post(body)
                if code == 200:
                    return json.loads(text)
                fault = f"the judge answered {code}: {_message(text)}"
                again = code in TRIED_AGAIN
                asked_s = _seconds(headers.get("Retry-After"))
            except TimeoutError:
                fault, again = f"the judge did not answer within {self.timeout_s:g} s", True
            except (OSError, http.client.HTTPException) as error:
                fault, again = f"no connection to the judge ({str(error) or type(error).__name__})", True
            except ValueError:
                fault, again = "the judge's answer is not JSON", True
            if not again:
                raise EndpointError(fault)
            if attempt >= self.retries:
                raise EndpointError(f"{fault}; tried {attempt + 1} times")
            wait_s = self.backoff_s * 2**attempt * (1 + jitter.random()) if asked_s is None else asked_s
            self.sleep(min(self.longest_wait_s, wait_s))
            attempt += 1

    def _post(self, body: bytes) -> tuple[int, Any, bytes]:
        secure = self.url.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(str(self.url.hostname), self.url.port, timeout=self.timeout_s)
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            connection.request("POST", self.url.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


def _parts(media: Media, frames: int) -> list[dict[str, Any]]:
    """A medium as parts of a message."""
    if isinstance(media, Image):
        return [_picture(media)]
    if isinstance(media, Video):
        count = min(frames, len(media.frames))
        middles = ((torch.arange(count) + 0.5) * len(media.frames) / count).long()
        return [_picture(Image(frame)) for frame in media.frames[middles]]
    if isinstance(media, Scene3D) and media.views is not None:
        return [_picture(Image(view)) for view in media.views]
    if isinstance(media, Audio):
        file = io.BytesIO()
        soundfile.write(file, media.waveform.detach().cpu().T.numpy(), media.sample_rate_hz, format="WAV")
        data = base64.b64encode(file.getvalue()).decode()
        return [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]
    raise EndpointError("a scene without views cannot be shown to a judge; render some of its mesh")


def _picture(image: Image) -> dict[str, Any]:
    file = io.BytesIO()
    image.to_pil().save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def _content(answer: Any) -> str:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str):
        raise EndpointError("the judge's answer has no text")
    return text.strip()


def _first_word(answer: Any) -> list[tuple[str, float]]:
    """The alternatives for the first word, with their log-probabilities."""
    try:
        first = answer["choices"][0]["logprobs"]["content"][0]
        found = [(str(entry["token"]), float(entry["logprob"])) for entry in first["top_logprobs"]]
    except (KeyError, IndexError, TypeError, ValueError):
        found = []
    if not found:
        raise EndpointError(
            "the judge's answer has no log-probabilities (logprobs); ask this server for a written score"
        )
    return found


def grouped(alternatives: Sequence[tuple[str, float]], words: Words, *, exact: bool) -> list[float]:
    """The log-probability of each answer, all its spellings together; see :meth:`ChatEndpoint.choices`.

    >>> found = grouped([("ĠYes", -0.1), ("Maybe", -2.5)], [["Yes"], ["No"]], exact=True)
    >>> [round(math.exp(log_prob), 4) for log_prob in found]  # No: at most 1 - e^-0.1 - e^-2.5
    [0.9048, 0.0131]

    Raises:
        EndpointError: these are no log-probabilities, or alternatives that are not named could change the answer.
    """
    named = [(word, math.exp(log_prob) if log_prob < 1 else math.nan) for word, log_prob in alternatives]
    total = sum(probability for _, probability in named)
    if not total <= 1 + 1e-2:
        raise EndpointError(f"the judge's log-probabilities are none: they add up to {total:.3g}")

    def plain(word: str) -> str:
        word = word.strip(SPACES)
        return word if exact else word.lower()

    sums = []
    for group in words:
        names = {plain(word) for word in group}
        sums.append(sum(probability for word, probability in named if plain(word) in names))
    rest, held = max(1 - total, 1e-12), sum(sums)
    if held > 0 and rest > MOST_HIDDEN * held:
        raise EndpointError(
            f"the {len(named)} words that the judge's server names hold {total:.2f} of its answer, and the other "
            f"{rest:.2f} could be any; ask a server that names {TOP_WORDS}, or for a written score"
        )
    most = max(min(rest, *(probability for _, probability in named)), 1e-12)
    return [math.log(found or most) for found in sums]


def _message(text: bytes) -> str:
    """What a server says of a fault, in one line."""
    try:
        found = json.loads(text)["error"]
        found = found["message"] if isinstance(found, dict) else found
    except (ValueError, KeyError, TypeError):
        found = text.decode("utf-8", "replace")
    return " ".join(str(found).split())[:200] or "no reason given"


def _seconds(value: str | None) -> float | None:
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None
