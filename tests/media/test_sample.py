"""A sample's file becomes the medium that its suffix or its modality names, and nothing outside its root is opened."""

import os
from pathlib import Path

import PIL.Image
import pytest
import torch

from mmalign.errors import DataError, UnknownNameError
from mmalign.media import (
    MEDIA,
    MEDIA_SUFFIXES,
    Audio,
    Image,
    Mesh,
    Sample,
    SampleFile,
    Scene3D,
    Speech,
    Video,
    load_media,
)

PICTURE = Image(torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0)))
SOUND = Audio(torch.zeros(1, 800), 8_000)
NOBODY = 65_534
"""A user who may read what everybody may."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    folder = tmp_path / "in"
    video = Video(torch.linspace(0, 1, 4)[:, None, None, None].expand(4, 3, 16, 16), 8.0)
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    for name in ("a.mp4", "a.webm", "moving.gif", "moving.webp"):
        video.save(folder / name)
    for name in ("a.png", "a.JPG", "still.gif", "still.webp", "a.tiff"):
        PICTURE.save(folder / name)
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        SOUND.save(folder / name)
    Scene3D(video.frames).save(folder / "a.views.png")
    for name in ("a.glb", "a.obj", "a.ply", "a.stl"):
        triangle.save(folder / name)
    PICTURE.save(tmp_path / "outside.png")
    return folder


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Image, ["a.png", "a.JPG", "still.gif", "still.webp", "a.tiff"]),
        (Video, ["a.mp4", "a.webm", "moving.gif", "moving.webp"]),
        (Audio, ["a.wav", "a.flac", "a.ogg", "a.mp3"]),
        (Scene3D, ["a.views.png", "a.glb", "a.obj", "a.ply", "a.stl"]),
    ],
)
def test_the_suffix_names_the_medium(folder: Path, kind: type, names: list[str]) -> None:
    for name in names:
        assert type(load_media(folder / name)) is kind, name
        assert (folder / name).suffix.lower() in MEDIA_SUFFIXES


def test_a_declared_modality_wins(folder: Path) -> None:
    def loaded(name: str, modality: str) -> object:
        return SampleFile("0", folder / name, "go", "here", modality).load().media  # type: ignore[arg-type]

    assert isinstance(loaded("a.wav", "speech"), Speech)
    assert isinstance(loaded("still.gif", "video"), Video)
    assert isinstance(loaded("a.views.png", "image"), Image)
    with pytest.raises(DataError, match="moves: it holds 4 frames"):
        loaded("moving.gif", "image")
    with pytest.raises(DataError, match="not a readable sound"):
        loaded("a.png", "audio")
    with pytest.raises(UnknownNameError, match="no modality is called 'picture'"):
        loaded("a.png", "picture")


def test_each_modality_is_that_of_its_class() -> None:
    assert {name: kind.modality for name, kind in MEDIA.items()} == {name: name for name in MEDIA}


def test_an_unknown_suffix_is_refused(folder: Path) -> None:
    (folder / "notes.txt").write_text("words")
    with pytest.raises(DataError, match=r"notes\.txt: no medium has this suffix; known: \.png, "):
        load_media(folder / "notes.txt")


def test_a_sample_file_carries_its_prompt_and_place(folder: Path) -> None:
    sample = SampleFile("7", folder / "a.mp4", "a red circle", "somewhere").load()
    assert (sample.prompt, sample.meta) == ("a red circle", {"id": "7", "path": str(folder / "a.mp4")})
    assert isinstance(sample.media, Video)
    assert SampleFile("7", folder / "a.mp4", None, "somewhere").load().prompt == ""


def test_a_missing_file_is_named_with_the_place_that_named_it(folder: Path) -> None:
    file = SampleFile("0", folder / "gone.png", "a dog", "pairs.csv, row 3, column 'media'")
    with pytest.raises(DataError, match=r"^pairs\.csv, row 3, column 'media': .*gone\.png: no such file$"):
        file.load()


def test_what_lies_outside_the_root_is_not_opened(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "inner.png").symlink_to(folder / "a.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")

    def load(name: str | Path, root: Path | None = folder) -> Sample:
        return SampleFile("0", folder / name, "p", "rows.csv, row 1", None, root).load()

    for name in (
        "../outside.png",
        folder.parent / "outside.png",
        "link.png",
        "../in/../outside.png",
        "/etc/hostname",
    ):
        with pytest.raises(
            DataError,
            match=r"^rows\.csv, row 1: .* lies outside '.*in' and is not opened; name a folder that holds",
        ):
            load(name)
        with pytest.raises(DataError, match="lies outside"):  # whether it is there is not told either
            load(f"{name}.missing.png" if name != "link.png" else "../none.png")
    for name in ("a.png", "../in/a.png", "inner.png", folder / "a.png"):
        assert isinstance(load(name).media, Image)
    for name in ("loop.png", "a\0.png", "x" * 5000 + ".png"):
        with pytest.raises(DataError):
            load(name)
    assert isinstance(load("../outside.png", folder.parent).media, Image)
    assert isinstance(load("../outside.png", None).media, Image)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="not a file"):
        load_media(tmp_path / "a.png")


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)  # root may read everything
    try:
        with pytest.raises(DataError, match="Permission denied"):
            load_media(tmp_path / "a.png")
    finally:
        os.seteuid(user)
