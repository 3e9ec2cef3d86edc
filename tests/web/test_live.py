"""The address of a run's page: for who holds the token, the page alone, and what is there now."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmalign.errors import ConfigError
from mmalign.web.live import LiveServer

TOKEN = "correct-horse-battery"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    (tmp_path / "recipe.yaml").write_text("name: image/d3po\n")
    made = LiveServer(tmp_path, token=TOKEN)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_page_is_what_the_folder_is_now(server: LiveServer) -> None:
    assert "has not said yet" in ask(server.url)[1]
    (server.folder / "progress.json").write_text(
        '{"stage": "training", "done": 3, "total": 9, "per_s": null, "at": 0}'
    )
    status, page = ask(server.url)
    assert status == 200
    assert "Training: 3 of 9." in page


def test_only_who_holds_the_token_sees_it(server: LiveServer) -> None:
    plain = server.url.partition("?")[0]
    assert ask(plain)[0] == 401
    assert ask(f"{plain}?token=wrong")[0] == 401
    assert ask(plain, Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(f"{plain}recipe.yaml?token={TOKEN}")[0] == 404
    assert ask(f"{plain}recipe.yaml")[0] == 401


def test_a_file_in_the_middle_of_being_written_is_no_crash(server: LiveServer) -> None:
    (server.folder / "summary.json").write_text("{")
    assert ask(server.url)[0] == 503
    (server.folder / "summary.json").unlink()
    assert ask(server.url)[0] == 200


def test_a_token_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 16"):
        LiveServer(tmp_path, token="short")
