"""One connection to a reward server: who asks, what for, and how it is refused."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from mmalign.errors import DataError
from mmalign.media import Sample
from mmalign.media.decoding import MOST_BYTES
from mmalign.media.room import Share
from mmalign.rewards.base import OK, PreparingReward, Reward, Score
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.rows import place
from mmalign.rewards.wire import VERSION, bounds, decode_sample
from mmalign.rewards.wire_scores import encode_scores
from mmalign.web.batching import Batcher, BusyError
from mmalign.web.compute import computed, failed, samples_of
from mmalign.web.request_room import RequestRoom
from mmalign.web.strict import RefusedError, StrictHandler
from mmalign.web.tokens import is_token, token_of

CHUNK = 2**16
RETRY_AFTER_S = 1
PATHS = ("/health", "/v1/card", "/v1/score", "/compute")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a server takes before it says no."""

    body_bytes: int = 64 * 2**20
    """Of one request."""
    samples: int = 256
    """Of one request."""
    requests: int = 1024
    """At a time, once their bodies are here."""
    bodies_bytes: int = 192 * 2**20
    """Of all bodies that are here and not read yet."""
    medium_bytes: int = MOST_BYTES
    """Memory that reading the media of one request may take, and those of all that wait to be scored."""
    connections: int = 2048
    """At a time."""
    idle_s: float = 30.0
    """Without a byte from the caller, or until its head is there, after which its connection is closed."""
    wait_s: float = 300.0
    """For room, after which a caller is told to come back; one that leaves before is noticed."""


class Served(Protocol):
    """What a connection needs of its server."""

    reward: Reward
    token: str
    root: Path | None
    limits: Limits
    batcher: Batcher
    places: threading.BoundedSemaphore
    bodies: Share
    media: Share
    reading: threading.Lock


class _GoneError(Exception):
    """The caller has left, so nothing is done for it any more."""


class Handler(StrictHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    @property
    def served(self) -> Served:
        """The server of this connection."""
        return cast(Served, self.server)

    def setup(self) -> None:
        """Give up on callers that say nothing."""
        self.idle_s = self.served.limits.idle_s
        super().setup()

    def do_GET(self) -> None:  # noqa: N802
        """Health and card."""
        self._answer({"/health": self._health, "/v1/card": self._card})

    def do_POST(self) -> None:  # noqa: N802
        """Scores."""
        self._answer({"/v1/score": self._score, "/compute": self._compute})

    def _health(self) -> dict[str, Any]:
        return {"status": "ok"}

    def _card(self) -> dict[str, Any]:
        self._check_token()
        return public_card(self.served.reward.card)

    def _score(self) -> dict[str, Any]:
        status: list[str] = []
        score = self._scored(self._entries, status)
        return {
            "version": VERSION,
            "reward": self.served.reward.card.name,
            "scores": encode_scores(place(status, score)),
        }

    def _entries(self, body: Mapping[str, Any]) -> list[Callable[[], Sample]]:
        version = body.get("version", VERSION)
        if version != VERSION:
            raise RefusedError(
                400, "version", f"version {version!r} is not spoken here; this is version {VERSION}"
            )
        unknown = body.keys() - {"version", "samples"}
        if unknown:
            raise RefusedError(400, "bad_request", f"unknown field '{min(unknown)}'; known: samples, version")
        entries = body.get("samples")
        if not isinstance(entries, list):
            raise RefusedError(400, "bad_request", "expected a list of samples")
        return [
            partial(decode_sample, entry, name=f"sample {number}", root=self.served.root)
            for number, entry in enumerate(entries)
        ]

    def _compute(self) -> dict[str, Any]:
        try:
            score = self._scored(samples_of)
        except DataError as error:
            return failed(str(error))
        return computed(score, self.served.reward.card)

    def _scored(
        self,
        entries_of: Callable[[Mapping[str, Any]], list[Callable[[], Sample]]],
        status: list[str] | None = None,
    ) -> Score:
        """The score of the samples of a request that can be read.

        Args:
            entries_of: the samples of its body, each read when it is called.
            status: is given an entry for each, with why it could not be read; None where that ends the request.
        """
        self._check_token()
        room = RequestRoom(self.served.media, self._may_wait)
        try:
            samples = self._read(entries_of, room, status)
            score = self.served.batcher.score(samples, is_gone=self.is_gone)
        except BusyError as error:
            raise RefusedError(503, "busy", str(error)) from None
        finally:
            room.give_back()
        if score is None:
            raise _GoneError
        return score

    def _read(
        self,
        entries_of: Callable[[Mapping[str, Any]], list[Callable[[], Sample]]],
        room: RequestRoom,
        status: list[str] | None,
    ) -> list[Sample]:
        """The samples of a request, made small where the reward can do that.

        One request is read at a time, so that what all hold stays below the limit; it may wait for those that are read
        already, which wait for nobody.
        """
        samples = []
        with self._body() as data, self._turn():
            entries = entries_of(_json(data))
            self._check_count(len(entries))
            for entry in entries:
                self._check_there()
                try:
                    with room.reading():
                        samples.append(room.keep(_prepared(entry(), self.served.reward)))
                except DataError as error:
                    if status is None:
                        raise
                    status.append(str(error))
                else:
                    if status is not None:
                        status.append(OK)
        return samples

    @contextmanager
    def _turn(self) -> Iterator[None]:
        may_wait = self._may_wait()
        while not self.served.reading.acquire(timeout=0.2):
            if not may_wait():
                raise RefusedError(503, "busy", "others are read just now; try again in a moment")
        try:
            yield
        finally:
            self.served.reading.release()

    def _check_there(self) -> None:
        if self.is_gone():
            raise _GoneError

    def _may_wait(self) -> Callable[[], bool]:
        """Whether to go on waiting, asked now and then; raises once the caller has left."""
        end = time.monotonic() + self.served.limits.wait_s

        def may_wait() -> bool:
            self._check_there()
            return time.monotonic() < end

        return may_wait

    def _check_count(self, count: int) -> None:
        most = self.served.limits.samples
        if count > most:
            raise RefusedError(
                413, "too_large", f"{count} samples in one request, the limit is {most}; send fewer"
            )

    def _check_token(self) -> None:
        """Accept what :func:`mmalign.web.tokens.token_of` finds."""
        if not is_token(token_of(self.headers.get("Authorization", "")), self.served.token):
            raise RefusedError(
                401, "unauthorized", "expected the header 'Authorization: Bearer TOKEN' with the token"
            )

    @contextmanager
    def _body(self) -> Iterator[bytearray]:
        """The body of a request, counted among all that are here as it arrives, and a place for the request."""
        length, most = self.body_length, self.served.limits.body_bytes
        if "Content-Length" not in self.headers:
            self.close_connection = True  # whatever follows
            raise RefusedError(411, "length_required", "expected a Content-Length")
        if length > most:
            raise RefusedError(
                413, "too_large", f"{length} bytes in one request, the limit is {most}; send fewer"
            )
        kind = self.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(415, "media_type", f"expected application/json, got {kind[:40]!r}")
        self.body_time(length)
        data, placed = bytearray(), False
        try:
            while len(data) < length:
                part = self.rfile.read1(min(CHUNK, length - len(data)))
                if not part:
                    raise ConnectionError("the caller left")
                # One that sends slowly holds room for what it sent, not for what it promised.
                if not self.served.bodies.take(len(part), may_wait=lambda: False):
                    raise RefusedError(503, "busy", "too many bodies at a time; try again in a moment")
                data += part
            self._unread = 0
            placed = self.served.places.acquire(blocking=False)
            if not placed:
                raise RefusedError(503, "busy", "too many requests at a time; try again in a moment")
            self._placed = True
            yield data
        finally:
            self.served.bodies.give(len(data))

    def _answer(self, routes: Mapping[str, Any]) -> None:
        """Do what a path asks for, and say what went wrong if something did."""
        path = self.path.partition("?")[0]
        # What was not read of a refused request would be taken for the next one, so the connection ends with it.
        self._unread, self._placed = self.body_length, False
        try:
            if path not in routes:
                status, code = (405, "method") if path in PATHS else (404, "not_found")
                raise RefusedError(status, code, f"nothing answers {self.command} {path[:80]}")
            self._send(200, routes[path]())
        except RefusedError as refusal:
            self.send_refusal(refusal)
        except (_GoneError, ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            self.log_error("%s: %s", type(error).__name__, error)
            self._send(500, _error("internal", f"the server failed ({type(error).__name__})"))
        finally:
            if self._placed:
                self.served.places.release()

    def send_refusal(self, refusal: RefusedError) -> None:
        """As JSON."""
        self._send(refusal.status, _error(refusal.code, str(refusal)))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer, allow_nan=False).encode()
        if getattr(self, "_unread", 0):
            self.close_connection = True
            self.linger()
        self.connection.settimeout(self.idle_s)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if status == 405:
            self.send_header("Allow", "GET, POST")
        if status == 503:
            self.send_header("Retry-After", str(RETRY_AFTER_S))
        self.finish_head()
        self.write(data)


def _json(data: bytearray) -> dict[str, Any]:
    try:
        found = json.loads(data, parse_constant=_no_such_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "bad_request", f"not JSON ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "bad_request", f"expected an object, got {type(found).__name__}")
    return found


def _prepared(sample: Sample, reward: Reward) -> Sample:
    try:
        return reward.prepare(sample) if isinstance(reward, PreparingReward) else sample
    except Exception:
        return sample  # the reward meets it whole, and what it raises then becomes a status


def public_card(card: RewardCard) -> dict[str, Any]:
    """What a caller needs to know of a reward, without where its weights lie."""
    return {
        "version": VERSION,
        "name": card.name,
        "modalities": list(card.modalities),
        "needs": list(card.needs),
        "reads": list(card.reads),
        "unit": card.unit,
        "range": bounds(card.range),
        "higher_is_better": card.higher_is_better,
        "licence": dict(card.licence),
        "source": card.source,
    }


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _no_such_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")
