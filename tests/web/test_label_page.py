"""What the page says, without a browser: blind, escaped, one folder's media, and no choice lost in silence."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.cli.label import LabelCommand
from mmalign.cli.main import main
from mmalign.data.label_items import list_samples
from mmalign.data.label_log import read_labels
from mmalign.data.label_store import LabelSettings, LabelStore
from mmalign.errors import ConfigError
from mmalign.media import Image
from mmalign.web.label_media import LabelMedia
from mmalign.web.label_page import LabelPage
from tests.web.label_samples import MEDIUMS, write_samples

LEFT = {"choice": "left", "strength": 0.5}


def opened(tmp_path: Path, folder: Path, **options: Any) -> LabelPage:
    settings = LabelSettings(**{"repeat": 0.0, **options})
    store = LabelStore(tmp_path / "labels.jsonl", list_samples(folder).samples, settings, folder=folder)
    return LabelPage(store, LabelMedia(folder))


@pytest.fixture
def page(tmp_path: Path) -> Iterator[LabelPage]:
    found = opened(tmp_path, write_samples(tmp_path / "secret-run", "image", prompts=3))
    yield found
    found.close()
    found.store.close()


def shown_in(stage: str) -> str:
    found = re.search('data-shown="([^"]*)"', stage)
    assert found is not None
    return found[1]


def send(page: LabelPage, stage: str, name: str = "ann", **content: Any) -> tuple[str, str]:
    return page.send(json.dumps({"annotator": name, "shown": shown_in(stage), **content}))


def test_a_person_goes_through_undoes_and_ends(page: LabelPage, tmp_path: Path) -> None:
    stage, said = page.begin(" ann ")
    assert "ann: 0 of 3" in said
    keys = []
    for _ in range(3):
        keys.append(shown_in(stage))
        stage, said = send(page, stage, choice=LEFT)
    assert "That was all" in stage
    assert "3 of 3" in said
    stage, said = send(page, stage, undo=True)
    assert shown_in(stage) == keys[-1]
    stage, said = send(page, stage, choice={"choice": "tie"})
    rows = read_labels(tmp_path / "labels.jsonl").choices
    assert [row["choice"] for row in rows] == ["left", "left", "tie"]
    assert [row["item"] for row in rows] == keys


def test_a_second_page_of_one_person_is_told_and_shown_what_comes_now(page: LabelPage) -> None:
    first, _ = page.begin("ann")
    second, _ = page.begin("ann")
    assert shown_in(first) == shown_in(second)
    now, said = send(page, first, choice=LEFT)
    again, said = send(page, second, choice=LEFT)
    assert "answered already" in said
    assert shown_in(again) == shown_in(now)
    assert "1 of 3" in said
    back, said = send(page, second, undo=True)
    assert "behind" in said
    assert shown_in(back) == shown_in(now)


def test_nothing_on_the_page_says_whose_a_sample_is(page: LabelPage) -> None:
    stage, said = page.begin("ann")
    assert ".png" not in stage + said
    assert "secret" not in stage + said
    keys = re.findall('src="/media/([^"]+)"', stage)
    assert len(set(keys)) == 2
    files = {page.media.path(key) for key in keys}
    showing = page.store.current("ann")
    assert showing is not None
    assert files == {page.media.folder / file for file in showing.order}


def test_a_key_that_was_not_given_out_opens_nothing(page: LabelPage, tmp_path: Path) -> None:
    page.begin("ann")
    assert page.media.path("../labels.jsonl") is None
    assert page.media.path("00000.png") is None
    key = page.media.key("../labels.jsonl")
    assert (page.media.folder / "../labels.jsonl").is_file()
    assert page.media.path(key) is None, "a file outside the folder"
    inside = page.media.key("00000.png")
    assert page.media.path(inside) is not None
    (page.media.folder / "00000.png").unlink()
    os.symlink(tmp_path / "labels.jsonl", page.media.folder / "00000.png")
    assert page.media.path(inside) is None, "a link that was put in its place"


@pytest.mark.parametrize("name", ["../ann", "a/b", "", None, 3])
def test_a_name_that_nobody_can_have_begins_nothing(page: LabelPage, name: Any) -> None:
    stage, said = page.begin(name)
    assert stage == ""
    assert ("is no name here" in said) == bool(name)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"annotator": "../x", "shown": ""}', None])
def test_what_is_no_choice_of_the_page_changes_nothing(page: LabelPage, text: Any) -> None:
    assert page.send(text) == ("", "this is no choice of the page")


def test_a_choice_that_cannot_be_is_told(page: LabelPage) -> None:
    stage, _ = page.begin("ann")
    again, said = send(page, stage, choice={"choice": "up"})
    assert "not kept: choice: expected one of" in said
    assert shown_in(again) == shown_in(stage)


def test_a_full_disk_is_told_and_the_item_stays(page: LabelPage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, _ = page.begin("ann")

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    again, said = send(page, stage, choice=LEFT)
    assert "NOT KEPT" in said
    assert "No space left" in said
    assert shown_in(again) == shown_in(stage)
    monkeypatch.undo()
    _, said = send(page, stage, choice=LEFT)
    assert "1 of 3" in said


def test_a_prompt_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> \"quoted\" & 'so'"
    folder = write_samples(tmp_path / "s", "image", prompts=1, captions=[evil])
    for mode in ("pairs", "marks"):
        page = opened(tmp_path / mode, folder, mode=mode)
        stage, _ = page.begin("ann")
        assert "<script" not in stage
        assert "&lt;script&gt;" in stage
        page.close()
        page.store.close()


@pytest.mark.parametrize("medium", MEDIUMS)
def test_each_medium_has_its_element(medium: str, tmp_path: Path) -> None:
    side: dict[str, Any] = {"side_px": 32} if medium in ("image", "video", "scene3d") else {}
    folder = write_samples(tmp_path / "s", medium, prompts=1, **side)
    page = opened(tmp_path, folder)
    stage, _ = page.begin("ann")
    wanted = {
        "image": '<img class="small" src="/media/',
        "video": '<video src="/media/',
        "scene3d": '<canvas class="orbit"',
        "audio": '<audio src="/media/',
        "speech": '<audio src="/media/',
    }[medium]
    assert stage.count(wanted) == 2
    if medium == "scene3d":
        key = re.findall('data-mesh="/media/([^/]+)/mesh"', stage)[0]
        mesh = page.media.mesh(key)
        assert mesh is not None
        vertices = torch.tensor(mesh["vertices"])
        assert float(vertices.norm(dim=1).max()) == pytest.approx(1, abs=1e-3)
        assert len(mesh["colours"]) == len(vertices) > max(map(max, mesh["faces"]))
        assert page.media.mesh("unknown") is None
    if medium in ("audio", "speech"):
        assert stage.count("waveform above spectrogram") == 2
    page.close()
    page.store.close()


def test_a_medium_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "s", "image", prompts=1)
    (folder / "00001.png").write_bytes(b"no picture")
    page = opened(tmp_path, folder)
    stage, _ = page.begin("ann")
    assert stage.count("not readable") == 1
    page.close()
    page.store.close()


def test_formats_that_browsers_do_not_have_are_turned_into_ones_they_have(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    for i in range(2):
        Image(torch.rand(3, 8, 8)).to_pil().save(folder / f"{i}.tiff")
    rows = [json.dumps({"file_name": f"{i}.tiff", "prompt": "p"}) for i in range(2)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    page = opened(tmp_path, folder)
    stage, _ = page.begin("ann")
    assert stage.count("data:image/jpeg;base64,") == 2
    page.close()
    page.store.close()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"host": "0.0.0.0"}, "can be reached by others"),
        ({"port": 70_000}, "0 to 65535"),
        ({"group_size": 3}, "for --mode ranking"),
        ({"mode": "binary", "per_prompt": 2}, "shows every sample"),
        ({"scale": 7}, "for --mode rating"),
    ],
)
def test_wrong_usage_is_refused(
    options: dict[str, Any], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MMALIGN_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=word):
        LabelCommand(samples=tmp_path, out=tmp_path / "l.jsonl", **options)
    LabelCommand(samples=tmp_path, out=tmp_path / "l.jsonl", host="0.0.0.0", token="auto")


def test_a_folder_with_nothing_to_show_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", str(tmp_path), "--out", str(tmp_path / "l.jsonl")]) == 2
    assert "has no metadata.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "l.jsonl").exists()
