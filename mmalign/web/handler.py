"""One connection to a reward server: who asks, what for, and how it is refused."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol, cast

from mmalign.errors import DataError
from mmalign.media import Sample
from mmalign.rewards.base import OK, Reward, Score
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.rows import place
from mmalign.rewards.wire import VERSION, decode_sample
from mmalign.rewards.wire_scores import encode_scores
from mmalign.web.batching import Batcher, BusyError
from mmalign.web.compute import computed, failed, samples_of
from mmalign.web.tokens import is_token, token_of

RETRY_AFTER_S = 1
PATHS = ("/health", "/v1/card", "/v1/score", "/compute")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a server takes before it says no."""

    body_bytes: int = 64 * 2**20
    """Of one request."""
    samples: int = 256
    """Of one request."""
    requests: int = 32
    """At a time; each holds its body in memory."""
    idle_s: float = 30.0
    """Without a byte from the caller, after which its connection is closed."""


class Served(Protocol):
    """What a connection needs of its server."""

    reward: Reward
    token: str
    root: Path | None
    limits: Limits
    batcher: Batcher
    places: threading.BoundedSemaphore


class _RefusedError(Exception):
    """Ends a request with a status, a word for programs and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server_version, sys_version = "mmalign", ""
    protocol_version = "HTTP/1.1"

    @property
    def served(self) -> Served:
        """The server of this connection."""
        return cast(Served, self.server)

    def setup(self) -> None:
        """Give up on callers that say nothing."""
        super().setup()
        self.connection.settimeout(self.served.limits.idle_s)

    def do_GET(self) -> None:
        """Health and card."""
        self._answer({"/health": self._health, "/v1/card": self._card})

    def do_POST(self) -> None:
        """Scores."""
        self._answer({"/v1/score": self._score, "/compute": self._compute})

    def _health(self) -> dict[str, Any]:
        return {"status": "ok"}

    def _card(self) -> dict[str, Any]:
        self._check_token()
        return public_card(self.served.reward.card)

    def _score(self) -> dict[str, Any]:
        body = self._body()
        version = body.get("version", VERSION)
        if version != VERSION:
            raise _RefusedError(
                400, "version", f"version {version!r} is not spoken here; this is version {VERSION}"
            )
        unknown = body.keys() - {"version", "samples"}
        if unknown:
            raise _RefusedError(
                400, "bad_request", f"unknown field '{min(unknown)}'; known: samples, version"
            )
        entries = body.get("samples")
        if not isinstance(entries, list):
            raise _RefusedError(400, "bad_request", "expected a list of samples")
        self._check_count(len(entries))
        samples, status = [], []
        for number, entry in enumerate(entries):
            try:
                samples.append(decode_sample(entry, name=f"sample {number}", root=self.served.root))
                status.append(OK)
            except DataError as error:
                status.append(str(error))
        scores = encode_scores(self._scored(samples, status))
        return {"version": VERSION, "reward": self.served.reward.card.name, "scores": scores}

    def _compute(self) -> dict[str, Any]:
        try:
            samples = samples_of(self._body())
        except DataError as error:
            return failed(str(error))
        self._check_count(len(samples))
        return computed(self._scored(samples, [OK] * len(samples)), self.served.reward.card)

    def _scored(self, samples: list[Sample], status: list[str]) -> Score:
        try:
            return place(status, self.served.batcher.score(samples))
        except BusyError as error:
            raise _RefusedError(503, "busy", str(error)) from None

    def _check_count(self, count: int) -> None:
        most = self.served.limits.samples
        if count > most:
            raise _RefusedError(
                413, "too_large", f"{count} samples in one request, the limit is {most}; send fewer"
            )

    def _check_token(self) -> None:
        """Accept what :func:`mmalign.web.tokens.token_of` finds."""
        if not is_token(token_of(self.headers.get("Authorization", "")), self.served.token):
            raise _RefusedError(
                401, "unauthorized", "expected the header 'Authorization: Bearer TOKEN' with the token"
            )

    def _body(self) -> dict[str, Any]:
        """The JSON of a request whose caller may ask."""
        self._check_token()
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            raise _RefusedError(411, "length_required", "expected a Content-Length, got a body in chunks")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _RefusedError(411, "length_required", "expected a Content-Length")
        most = self.served.limits.body_bytes
        if len(length) > 15 or int(length) > most:
            raise _RefusedError(
                413, "too_large", f"{length[:15]} bytes in one request, the limit is {most}; send fewer"
            )
        kind = self.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise _RefusedError(415, "media_type", f"expected application/json, got {kind[:40]!r}")
        data = self.rfile.read(int(length))
        self._unread = int(length) - len(data)
        try:
            found = json.loads(data, parse_constant=_no_such_number)
        except (ValueError, RecursionError) as error:
            raise _RefusedError(
                400, "bad_request", f"not JSON ({' '.join(str(error).split())[:100]})"
            ) from None
        if not isinstance(found, dict):
            raise _RefusedError(400, "bad_request", f"expected an object, got {type(found).__name__}")
        return found

    def _answer(self, routes: Mapping[str, Any]) -> None:
        """Do what a path asks for, and say what went wrong if something did."""
        path = self.path.partition("?")[0]
        # What was not read of a refused request would be taken for the next one, so the connection ends with it.
        self._unread = 1
        if not self.served.places.acquire(blocking=False):
            self._send(503, _error("busy", "too many requests at a time; try again in a moment"))
            return
        try:
            if path not in routes:
                status, code = (405, "method") if path in PATHS else (404, "not_found")
                raise _RefusedError(status, code, f"nothing answers {self.command} {path[:80]}")
            answer = routes[path]()
            if self.command == "GET" and self.headers.get("Content-Length", "0") == "0":
                self._unread = 0
            self._send(200, answer)
        except _RefusedError as refusal:
            self._send(refusal.status, _error(refusal.code, str(refusal)))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            self.log_error("%s: %s", type(error).__name__, error)
            self._send(500, _error("internal", f"the server failed ({type(error).__name__})"))
        finally:
            self.served.places.release()

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer, allow_nan=False).encode()
        if self._unread:
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if status == 503:
            self.send_header("Retry-After", str(RETRY_AFTER_S))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, form: str, *values: Any) -> None:
        """Only errors are worth a line; a request's path may hold anything."""

    def log_error(self, form: str, *values: Any) -> None:
        """One line on standard error."""
        BaseHTTPRequestHandler.log_message(self, form, *values)


def public_card(card: RewardCard) -> dict[str, Any]:
    """What a caller needs to know of a reward, without where its weights lie."""
    return {
        "version": VERSION,
        "name": card.name,
        "modalities": list(card.modalities),
        "needs": list(card.needs),
        "reads": list(card.reads),
        "unit": card.unit,
        "range": None if card.range is None else list(card.range),
        "higher_is_better": card.higher_is_better,
        "licence": dict(card.licence),
        "source": card.source,
    }


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _no_such_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")
