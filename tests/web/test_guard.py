"""Nobody passes who may not, no address opens that the page does not need, and nothing is loaded from elsewhere."""

import asyncio
from typing import Any

import pytest

from mmalign.web.guard import Guard

TOKEN = "correct-horse-battery"
LOCAL = {"host": "127.0.0.1:8001"}
Answer = tuple[int, dict[str, str], str]


async def behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"behind"})


def ask(
    path: str = "/", query: str = "", *, token: str | None = None, method: str = "GET", **headers: str
) -> Answer:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "query_string": query.encode(), "method": method, "headers": pairs}
    asyncio.run(Guard(behind, token=token)(scope, None, send))
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], head, sent[1]["body"].decode()


def test_the_page_passes_and_is_told_to_load_nothing_from_elsewhere() -> None:
    status, head, text = ask(**LOCAL)
    assert (status, text) == (200, "behind")
    policy = head["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy
    assert head["content-type"] == "text/plain"


@pytest.mark.parametrize("host", ["localhost", "[::1]:80", "127.0.0.1:9"])
def test_this_machine_s_names_are_answered_to(host: str) -> None:
    assert ask(host=host)[0] == 200


@pytest.mark.parametrize("host", ["", "example.org", "localhost.example.org", "192.0.2.1:8001"])
def test_another_name_is_not_without_a_token(host: str) -> None:
    assert ask(host=host)[0] == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/assets/index.js", 200),
        ("/media/abc", 200),
        ("/gradio_api/run/predict", 200),
        ("/gradio_api/file=/etc/passwd", 404),
        ("/gradio_api/upload", 404),
        ("/gradio_api/proxy=http://example.org", 404),
        ("/file=/etc/passwd", 404),
        ("/media/../gradio_api/file=/etc/passwd", 404),
        ("/assets/..\\..\\x", 404),
        ("/runs", 404),
        ("/login", 404),
    ],
)
def test_addresses_that_the_page_does_not_need_are_none(path: str, status: int) -> None:
    assert ask(path, **LOCAL)[0] == status


def test_another_site_s_page_cannot_send() -> None:
    for origin, status in (("http://127.0.0.1:8001", 200), ("http://example.org", 403), ("null", 403)):
        assert ask("/gradio_api/run/predict", method="POST", origin=origin, **LOCAL)[0] == status
    assert ask("/gradio_api/run/predict", method="POST", **LOCAL)[0] == 200


def test_a_token_is_shown_once_and_kept_in_a_cookie() -> None:
    anywhere = {"host": "192.0.2.1:8001"}
    assert ask(token=TOKEN, **anywhere)[0] == 401
    assert ask("/", "token=wrong", token=TOKEN, **anywhere)[0] == 401
    assert ask("/media/abc", f"token={TOKEN}", token=TOKEN, **anywhere)[0] == 401
    status, head, _ = ask("/", f"token={TOKEN}&annotator=ann", token=TOKEN, **anywhere)
    assert (status, head["location"]) == (303, "/?annotator=ann")
    assert "HttpOnly" in head["set-cookie"]
    cookie = head["set-cookie"].split(";")[0]
    assert ask("/media/abc", token=TOKEN, cookie=cookie, **anywhere)[0] == 200
    assert ask(token=TOKEN, cookie=f"{cookie}x", **anywhere)[0] == 401
    assert ask(token=TOKEN, authorization=f"Bearer {TOKEN}", **anywhere)[0] == 200


def test_sockets_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(behind, token=None)({"type": "websocket", "path": "/"}, None, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
