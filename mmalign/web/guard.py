"""What stands before a page: who may open it, which addresses exist, and that it loads nothing from elsewhere."""

from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from mmalign.web.tokens import is_loopback, is_token, token_of

COOKIE = "mmalign_token"
OPEN = ("/assets/", "/static/", "/media/", "/gradio_api/run/")
"""Beginnings of addresses that the page asks for."""
OPEN_EXACTLY = ("/", "/theme.css", "/favicon.ico")
# What gradio's page names elsewhere, pictures of itself for social media and the like, is never asked for.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """An ASGI application before another.

    - With a token: it is shown once as ``?token=``, kept in a cookie, or sent with every request as a bearer.
    - Without one: only this machine's own names are answered to, so that no page of another site can pose as ours.
    - Requests that another site's page sends are refused, and so is every address that our page does not need, among
      them gradio's for files and uploads.

    Args:
        app: what is behind it.
        token: None for a page that only this machine can reach.
    """

    def __init__(self, app: Any, *, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or let the application answer."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        status, text, more = self._refusal(scope, headers)
        if status is None:
            await self.app(scope, receive, _with_headers(send))
            return
        await _answer(send, status, text, more)

    def _refusal(
        self, scope: Any, headers: dict[str, str]
    ) -> tuple[int | None, str, list[tuple[bytes, bytes]]]:
        """Status, text and headers of a refusal; no status for what may pass."""
        path, host = scope["path"], headers.get("host", "")
        if self.token is None:
            if not is_loopback(urlsplit(f"//{host}").hostname or ""):
                return 403, "this page answers to this machine's own names alone", []
        else:
            query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            shown = dict(query).get("token")
            if shown is not None and path == "/" and is_token(shown, self.token):
                rest = urlencode([(name, value) for name, value in query if name != "token"])
                cookie = f"{COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Lax"
                to = ("/?" + rest) if rest else "/"
                return 303, "", [(b"location", to.encode()), (b"set-cookie", cookie.encode())]
            if not is_token(_cookie(headers) or token_of(headers.get("authorization", "")), self.token):
                return 401, "this page wants its token: open it as http://HOST:PORT/?token=TOKEN", []
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != host:
            return 403, "this came from the page of another site", []
        # An address such as /media/../gradio_api/file=... begins rightly and means something else.
        known = path in OPEN_EXACTLY or (path.startswith(OPEN) and ".." not in path and "\\" not in path)
        if not known:
            return 404, "there is nothing at this address", []
        return None, "", []


def _cookie(headers: dict[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _with_headers(send: Any) -> Any:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *HEADERS]}
        await send(message)

    return sent


async def _answer(send: Any, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = text.encode()
    length = (b"content-length", str(len(body)).encode())
    plain = (b"content-type", b"text/plain; charset=utf-8")
    head = [plain, length, (b"cache-control", b"no-store"), *HEADERS, *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
