"""Who may ask: tokens that callers show, and whether only this machine can reach an address."""

import base64
import binascii
import hmac
import ipaddress
import os

from mmalign.errors import ConfigError

TOKEN_VARIABLE = "MMALIGN_TOKEN"
SHORTEST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "127.example.org")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def chosen_token(given: str | None) -> str | None:
    """The token, if somebody chose one: an option's, or that of the environment, which no list of processes shows."""
    return given or os.environ.get(TOKEN_VARIABLE)


def check_address(host: str, port: int, given: str | None) -> None:
    """Refuse an address that others reach without a token.

    Raises:
        ConfigError: that, or a port that cannot be.
    """
    if not 0 <= port <= 65_535:
        raise ConfigError(f"--port {port}: expected 0 to 65535")
    if chosen_token(given) is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached by others, so say what they have to show: set {TOKEN_VARIABLE}, or "
            "add --token TEXT"
        )


def check_token(token: str) -> None:
    """Refuse a token that could be guessed, or that no header can carry.

    Raises:
        ConfigError: that.
    """
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token: expected at least {SHORTEST_TOKEN} printable characters without spaces"
        )


def is_token(given: str, token: str) -> bool:
    """Compare in a time that says nothing of where they differ."""
    return hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())


def token_of(authorization: str) -> str:
    """What a header shows: a bearer, or the password of a user of any name, for callers that only know addresses.

    >>> token_of("Bearer abc"), token_of("Basic " + base64.b64encode(b"any:abc").decode()), token_of("abc")
    ('abc', 'abc', '')
    """
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
