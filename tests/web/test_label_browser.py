"""The labelling page in a real Chromium: every medium and mode by keyboard, undo, a killed server, two people."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmalign.data.label_items import list_samples
from mmalign.data.label_log import read_labels
from mmalign.data.label_store import LabelSettings
from mmalign.web.label_server import LabelServer
from tests.web.browser import WAIT_MS, Person, browser
from tests.web.label_samples import MEDIUMS, write_samples

KEYS = {
    "ArrowLeft": ("left", 0.5),
    "ArrowRight": ("right", 0.5),
    "ArrowUp": ("tie", None),
    "Shift+ArrowRight": ("right", 1.0),
    "ArrowDown": ("both_bad", None),
    "Shift+ArrowLeft": ("left", 1.0),
}
"""What each key says of a pair."""


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as found:
        yield found


@contextmanager
def serving(folder: Path, out: Path, **options: Any) -> Iterator[LabelServer]:
    token = options.pop("token", None)
    settings = LabelSettings(**{"repeat": 0.0, **options})
    server = LabelServer(folder, list_samples(folder), out, settings, token=token)
    thread = server.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        server.close()


@contextmanager
def person(chrome: Any, url: str, name: str = "ann", *, begun: bool = True) -> Iterator[Person]:
    context = chrome.new_context(viewport={"width": 1200, "height": 860})
    context.set_default_timeout(WAIT_MS)
    found = Person(context.new_page(), url, name)
    try:
        if begun:
            found.open()
        yield found
    finally:
        context.close()
    assert found.errors == []


def said(row: dict[str, Any]) -> tuple[str, Any]:
    return row["choice"], row["strength"]


def keys_of(rows: Any) -> list[str]:
    return [row["item"] + ("-again" if row["repeat"] else "") for row in rows]


def test_pairs_by_keyboard_with_undo_a_second_page_and_nothing_from_elsewhere(
    chrome: Any, tmp_path: Path
) -> None:
    evil = ["a ${1+1} {{7*7}} <b>bold</b> {x} circle", "second", "third", "fourth"]
    folder = write_samples(tmp_path / "hidden-run", "image", prompts=4, captions=evil)
    out = tmp_path / "labels.jsonl"
    with serving(folder, out, token="correct-horse-battery") as server, person(chrome, server.url) as ann:
        assert "token" not in ann.page.url
        made = {}
        for key in ("ArrowLeft", "Shift+ArrowRight", "ArrowUp"):
            made[ann.shown] = KEYS[key]
            ann.say(key)
        again = list(made)[-1]
        ann.say("u")
        assert ann.shown == again
        assert "2 of 4" in ann.progress
        # The same person's other page is behind, is told so, and shows what this one shows.
        with person(chrome, server.url) as other:
            assert other.shown == again
            made[again] = KEYS["ArrowDown"]
            ann.say("ArrowDown")
            other.say("ArrowLeft")
            assert "answered already" in other.progress
            assert other.shown == ann.shown
        prompts = {ann.page.inner_text(".prompt")}
        made[ann.shown] = KEYS["ArrowRight"]
        # A key that is hit twice before the answer is there counts once.
        before = ann.turn
        ann.page.evaluate(
            "for (let i = 0; i < 5; i++) document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
        )
        ann.page.wait_for_selector(f'#stage:not([data-turn="{before}"])')
        assert ann.shown == ""
        assert "That was all" in ann.page.inner_text("#stage")
        ann.say("u")
        prompts.add(ann.page.inner_text(".prompt"))
        assert len(prompts) == 1
        ann.say("ArrowRight")
        elsewhere = [
            url for url in ann.asked if not url.startswith((server.url.split("?")[0], "data:", "blob:"))
        ]
        assert elsewhere == []
        assert "hidden-run" not in ann.page.content()
        assert ".png" not in ann.page.inner_html("#work")
    rows = read_labels(out).choices
    assert dict(zip(keys_of(rows), map(said, rows), strict=True)) == made
    assert len(rows) == 4


def test_a_prompt_is_shown_letter_by_letter(chrome: Any, tmp_path: Path) -> None:
    evil = 'a ${1+1} {{7*7}} <b>bold</b> {x} & "circle"'
    folder = write_samples(tmp_path / "s", "image", prompts=1, captions=[evil])
    with serving(folder, tmp_path / "l.jsonl") as server, person(chrome, server.url) as ann:
        assert ann.page.inner_text(".prompt") == evil


def test_a_name_with_path_characters_begins_nothing(chrome: Any, tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "s", "image", prompts=1)
    with serving(folder, tmp_path / "l.jsonl") as server, person(chrome, server.url, begun=False) as ann:
        ann.page.goto(server.url + "?annotator=../ann")
        ann.page.wait_for_selector("text=is no name here")
        assert not ann.page.is_visible("#stage")


def test_the_other_modes_by_keyboard(chrome: Any, tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "s", "image", prompts=2, each=3)
    say: dict[str, tuple[dict[str, Any], list[list[str]], list[dict[str, Any]]]] = {
        "ranking": (
            {"group_size": 3},
            [["2", "t", "3", "1", "Enter"], ["ArrowRight", "ArrowUp", "1", "Backspace", "3", "1", "Enter"]],
            [{"ranks": [2, 1, 1]}, {"ranks": [3, 1, 2]}],
        ),
        "rating": (
            {"aspects": ("look", "fit")},
            [["4", "2", "r", "s", "o", "Escape", "Enter"], ["ArrowLeft", "ArrowDown", "1", "Enter"]],
            [
                {"scores": {"look": 4, "fit": 2}, "rationale": "so"},
                {"scores": {"look": 3, "fit": 1}, "rationale": None},
            ],
        ),
        "binary": ({}, [["ArrowRight"], ["ArrowLeft"]], [{"label": True}, {"label": False}]),
        "marks": (
            {},
            [["Enter"], ["ArrowRight", "ArrowDown", "x", "w", "ArrowRight", "x", "Enter"], ["s"]],
            [
                {"regions": [], "words": []},
                {"regions": [[0.125, 0.125, 0.25, 0.25]], "words": [1]},
                {"skipped": True},
            ],
        ),
    }
    for mode, (options, steps, wanted) in say.items():
        out = tmp_path / f"{mode}.jsonl"
        with serving(folder, out, mode=mode, **options) as server, person(chrome, server.url) as ann:
            for keys in steps:
                ann.say(*keys)
            if mode == "marks":  # with the mouse: a box, and a word
                box = ann.page.locator(".board").bounding_box()
                assert box["width"] == pytest.approx(box["height"], rel=0.01), "the board is not the picture"
                ann.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
                ann.page.mouse.down()
                ann.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 3 / 4, steps=3)
                ann.page.mouse.up()
                ann.page.click(".word >> nth=2")
                ann.say("Enter")
        rows = list(read_labels(out).choices)
        for row, columns in zip(rows, wanted, strict=False):
            assert {name: row[name] for name in columns} == columns
        assert len(rows) == len(wanted) + (mode == "marks")
        if mode == "marks":
            (region,) = rows[-1]["regions"]
            assert region == pytest.approx([0.25, 0.5, 0.5, 0.75], abs=0.01)
            assert rows[-1]["words"] == [2]


def test_what_is_unfinished_is_not_sent(chrome: Any, tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "s", "image", prompts=1, each=3)
    out = tmp_path / "l.jsonl"
    with serving(folder, out, mode="ranking", group_size=3) as server, person(chrome, server.url) as ann:
        ann.press("1", "Enter")
        assert "2 have no rank yet" in ann.progress
    assert read_labels(out).choices == ()


# Slow: every medium through the command, with a server that is killed, and two people at once


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Command:
    """``mmalign label`` in a process of its own, which may be killed and begun again at the same address."""

    def __init__(self, folder: Path, out: Path, *options: str) -> None:
        port = str(free_port())
        self.arguments = [str(folder), "--out", str(out), "--port", port, *options]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mmalign", "label", *self.arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, how: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, how)
        self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("medium", MEDIUMS)
def test_twenty_items_are_labelled_undone_and_gone_on_with_after_sigkill(
    medium: str, chrome: Any, tmp_path: Path
) -> None:
    folder, out = write_samples(tmp_path / "s", medium, prompts=18), tmp_path / "labels.jsonl"
    command = Command(folder, out, "--repeat", "0.1")
    url = command.start()
    made: dict[str, tuple[str, Any]] = {}
    try:
        with person(chrome, url) as ann:
            check_playing(ann, medium)
            for number in range(20):
                key = list(KEYS)[number % len(KEYS)]
                shown = ann.shown
                if number == 8:  # killed while an answer is on its way: it was kept, or is asked for again
                    ann.press(key)
                    command.end(signal.SIGKILL)
                    assert command.start() == url
                    ann.reload()
                    if ann.shown != shown:
                        made[shown] = KEYS[key]
                        continue
                made[shown] = KEYS[key]
                ann.say(key)
                if number % 5 == 4:
                    ann.say("u")
                    assert ann.shown == shown
                    other = "ArrowUp" if key != "ArrowUp" else "ArrowDown"
                    made[shown] = KEYS[other]
                    ann.say(other)
            assert "That was all" in ann.page.inner_text("#stage")
    finally:
        command.end(signal.SIGTERM)
    found = read_labels(out)
    assert len(made) == 20
    assert dict(zip(keys_of(found.choices), map(said, found.choices), strict=True)) == made
    assert (found.undone, found.faults) == (4, ())
    assert sum(row["repeat"] for row in found.choices) == 2


def check_playing(ann: Person, medium: str) -> None:
    """What moves or sounds does, together or in turn, and space begins anew."""
    page = ann.page
    if medium == "video":
        times = "[...document.querySelectorAll('#stage video')].map(v => v.currentTime)"
        page.wait_for_function(f"{times}.every(t => t > 0.05)")
        first, second = page.evaluate(times)
        assert abs(first - second) < 0.15
        page.evaluate(
            "document.querySelectorAll('#stage video').forEach(v => { v.pause(); v.currentTime = 0.5; })"
        )
        ann.press(" ")
        page.wait_for_function("[...document.querySelectorAll('#stage video')].every(v => !v.paused)")
    elif medium in ("audio", "speech"):
        ann.press(" ")
        for slot in (0, 1):
            page.wait_for_selector(f'.sample.playing[data-slot="{slot}"]')
        ann.press("1")
        page.wait_for_selector('.sample.playing[data-slot="0"]')
        sizes = page.evaluate("[...document.querySelectorAll('#stage .medium img')].map(i => i.naturalWidth)")
        assert sizes == [480, 480]
    elif medium == "scene3d":
        page.wait_for_selector("canvas[data-turned]")
        turned = "document.querySelector('#stage canvas').dataset.turned"
        before = page.evaluate(turned)
        ann.press("d")
        assert page.evaluate(turned) != before
        box = page.locator("#stage canvas >> nth=0").bounding_box()
        keyed = page.evaluate(turned)
        page.mouse.move(box["x"] + 50, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 110, box["y"] + 60, steps=4)
        page.mouse.up()
        assert page.evaluate(turned) != keyed
        ann.press(" ")
        page.wait_for_function(f"{turned} === {json.dumps(before)}")
    else:
        sizes = page.evaluate("[...document.querySelectorAll('#stage .medium img')].map(i => i.naturalWidth)")
        assert sizes == [64, 64]


@pytest.mark.slow
def test_two_people_at_once_with_500_choices_each_lose_and_double_none(tmp_path: Path) -> None:
    """By script over HTTP, as the page sends them; every tenth choice is sent twice."""
    import urllib.request

    folder, out = (
        write_samples(tmp_path / "s", "image", prompts=500, side_px=8, numbered=True),
        tmp_path / "labels.jsonl",
    )
    failed: list[str] = []
    made: dict[str, dict[str, str]] = {"ann": {}, "bob": {}}
    with serving(folder, out) as server:

        def call(name: str, data: str) -> str:
            request = urllib.request.Request(
                f"{server.url}gradio_api/run/{name}",
                json.dumps({"data": [data]}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return " ".join(str(part) for part in json.loads(answer.read())["data"])

        def shown_in(stage: str) -> str:
            return stage.split('data-shown="')[1].split('"')[0]

        def work(name: str) -> None:
            try:
                shown = shown_in(call("begin", name))
                for number in range(500):
                    side = list(KEYS.values())[number % len(KEYS)]
                    choice = {"choice": side[0], "strength": side[1]}
                    asked = json.dumps({"annotator": name, "shown": shown, "choice": choice})
                    made[name][shown] = side[0]
                    answer = call("send", asked)
                    if number % 10 == 0:
                        assert "answered already" in call("send", asked)
                    shown = shown_in(answer)
                assert shown == ""
            except Exception as error:
                failed.append(f"{name}: {error!r}")

        people = [threading.Thread(target=work, args=(name,)) for name in made]
        for one in people:
            one.start()
        for one in people:
            one.join()
    assert failed == []
    rows = read_labels(out).choices
    assert Counter(row["annotator"] for row in rows) == {"ann": 500, "bob": 500}
    for name, choices in made.items():
        mine = [row for row in rows if row["annotator"] == name]
        assert {row["item"]: row["choice"] for row in mine} == choices
        assert len(choices) == 500
