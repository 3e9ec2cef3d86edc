"""Requests of JSON to one server: tried again while a failure may pass, and never with the token in a message."""

import http.client
import ipaddress
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmalign.errors import ConfigError

TOKEN_VARIABLE = "MMALIGN_TOKEN"
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that may be gone at the next try."""
TOO_LARGE = 413
LONGEST_WAIT_S = 30.0
LARGEST_ANSWER = 256 * 2**20
"""Bytes; an answer is numbers and, at most, maps."""


class TooLargeError(ConfigError):
    """The server takes no request of this size."""


class _PassingError(ConfigError):
    """Something that may be gone at the next try; ``after_s`` where the server said when."""

    def __init__(self, message: str, *, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Server:
    """Where a reward is served, without the token in what is printed."""

    address: str
    authorization: str | None
    timeout_s: float

    @classmethod
    def at(cls, url: str, *, token: str | None = None, timeout_s: float = 60.0) -> "Server":
        """From an address, which may hold the token in the place of a password.

        Raises:
            ConfigError: it is no http or https address, or the variable that a token names is not set.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"'{_bare(url)}' is no address of a reward; expected http://HOST:PORT")
        if token is not None and token.startswith("$"):
            name = token.removeprefix("$")
            if name not in os.environ:
                raise ConfigError(f"the token of {_bare(url)} is in the variable {name}, which is not set")
            token = os.environ[name]
        token = (
            token
            or (parts.password and urllib.parse.unquote(parts.password))
            or os.environ.get(TOKEN_VARIABLE)
        )
        return cls(_bare(url), None if token is None else f"Bearer {token}", timeout_s)

    def request(self, path: str, data: bytes | None = None) -> dict[str, Any]:
        """One try.

        Raises:
            ConfigError: the server refuses, or answers with something else than an object of JSON.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.authorization is not None:
            headers["Authorization"] = self.authorization
        request = urllib.request.Request(self.address + path, data=data, headers=headers)
        try:
            with _opener(self.address).open(request, timeout=self.timeout_s) as answer:
                text = answer.read(LARGEST_ANSWER + 1)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except TimeoutError:
            raise _PassingError(f"{self.address} did not answer within {self.timeout_s:g} s") from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                raise _PassingError(f"{self.address} did not answer within {self.timeout_s:g} s") from None
            raise _PassingError(f"no answer from {self.address} ({reason})") from None
        if len(text) > LARGEST_ANSWER:
            raise ConfigError(f"{self.address} answered with more than {LARGEST_ANSWER:,} bytes")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ConfigError(f"{self.address} did not answer with JSON; is it `mmalign serve`?")
        return found

    def _refusal(self, error: urllib.error.HTTPError) -> ConfigError:
        said = _reason(error)
        if error.code in (401, 403):
            return ConfigError(f"{self.address} wants another token ({said}); give it as {TOKEN_VARIABLE}")
        if error.code == TOO_LARGE:
            return TooLargeError(f"{self.address}: {said}")
        message = f"{self.address} answered HTTP {error.code} ({said})"
        if error.code not in TRY_AGAIN:
            return ConfigError(message)
        after = error.headers.get("Retry-After", "")
        return _PassingError(message, after_s=float(after) if after.isdecimal() else None)

    def patiently(
        self, ask: Callable[[], dict[str, Any]], *, retries: int, wait_s: Callable[[int], float]
    ) -> dict[str, Any]:
        """What ``ask`` returns, tried again while it fails in passing.

        Raises:
            ConfigError: it failed for good, or too often.
        """
        for attempt in range(retries + 1):
            try:
                return ask()
            except _PassingError as error:
                if attempt == retries:
                    raise ConfigError(f"{error}, tried {retries + 1} times") from None
                wait = wait_s(attempt) if error.after_s is None else error.after_s
                time.sleep(min(wait, LONGEST_WAIT_S))
        raise AssertionError("unreachable")


def _bare(url: str) -> str:
    """An address without user, password and the last slash."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server says of a refusal, in one line."""
    try:
        found = json.loads(error.read(65_536))["error"]
        text = found["message"] if isinstance(found, dict) else found
        return " ".join(str(text).split())[:200]
    except Exception:  # whatever stands before the server (a proxy, say) may answer anything
        return error.reason or "no reason given"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Does not follow: what a redirection leads to would be given the token too."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(address: str) -> urllib.request.OpenerDirector:
    """Goes through a proxy if the environment names one, but not to this machine itself."""
    host = urllib.parse.urlsplit(address).hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    proxies = [urllib.request.ProxyHandler({})] if local else []
    return urllib.request.build_opener(_NoRedirect, *proxies)
