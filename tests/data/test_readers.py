"""Rows in, rows out; and every fault named by file, row and column."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from mmalign.data.readers import read_records, read_sample_files
from mmalign.errors import DataError
from mmalign.media import Audio, Image, Mesh, SampleFile, Scene3D, Speech, Video, turntable

Write = Callable[[Path, list[dict[str, Any]]], Path]
ROWS = [
    {"id": "first", "media": "a.png", "prompt": "a “red” circle, on\u2028the left"},
    {"id": "second", "media": "deep/b.jpg", "prompt": "ein grüner Stern"},
    {"id": "third", "media": "a.png", "prompt": "a, b\nand c"},
]


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n", encoding="utf-8")
    return path


def write_csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    import csv

    path = folder / "rows.csv"
    # With the mark that spreadsheet programs put before UTF-8, and their ends of lines.
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=2)
    return folder / "rows.parquet"


every_format = pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one of them deeper, and a file that is none."""
    (tmp_path / "deep").mkdir()
    Image(torch.zeros(3, 4, 4)).save(tmp_path / "a.png")
    Image(torch.ones(3, 4, 4)).save(tmp_path / "deep" / "b.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@every_format
def test_all_formats_say_the_same(folder: Path, write: Write) -> None:
    files = read_sample_files([write(folder, ROWS)])
    assert [file.id for file in files] == ["first", "second", "third"]
    assert [file.path for file in files] == [folder / row["media"] for row in ROWS]
    assert [file.prompt for file in files] == [row["prompt"] for row in ROWS]
    assert [file.load().prompt for file in files] == [row["prompt"] for row in ROWS]


@every_format
def test_an_empty_cell_keeps_its_row(folder: Path, write: Write) -> None:
    rows: list[dict[str, Any]] = [
        {"media": "a.png", "prompt": None},
        {"media": None, "prompt": "b"},
        {"media": "a.png", "prompt": "c"},
    ]
    path = write(folder, rows)
    files = read_sample_files([path])
    assert [(file.id, file.path, file.prompt) for file in files] == [
        ("0", folder / "a.png", None),
        ("1", None, "b"),
        ("2", folder / "a.png", "c"),
    ]
    with pytest.raises(DataError, match=r"row 2, column 'media': no file is named") as caught:
        files[1].load()
    assert str(path) in str(caught.value)


@every_format
def test_columns_of_the_context_go_with_their_media(folder: Path, write: Write) -> None:
    rows: list[dict[str, Any]] = [
        {"media": "a.png", "reference": "deep/b.jpg", "transcript": "stop", "other": "x"},
        {"media": "a.png", "reference": None, "transcript": None, "other": "x"},
    ]
    files = read_sample_files(
        [write(folder, rows)], needs_prompt=False, context={"reference": True, "transcript": False}
    )
    full, empty = (file.load().context for file in files)
    assert set(full) == {"reference", "transcript"}
    assert not empty
    assert full["transcript"] == "stop"
    reference = full["reference"]
    assert isinstance(reference, Image)
    assert reference.pixels.min() > 0.9


@every_format
def test_a_missing_column_is_named(folder: Path, write: Write) -> None:
    path = write(folder, [{"image": "a.png", "prompt": "a"}])
    with pytest.raises(
        DataError, match=r"row 1, column 'media': the column is missing; there are: image, prompt"
    ):
        read_sample_files([path])


@every_format
def test_a_row_whose_picture_is_missing_says_so_when_it_is_loaded(folder: Path, write: Write) -> None:
    path = write(folder, [{"media": "a.png", "prompt": "a"}, {"media": "gone.png", "prompt": "b"}])
    files = read_sample_files([path])
    assert len(files) == 2
    with pytest.raises(DataError) as caught:
        files[1].load()
    assert str(caught.value) == f"{path}, row 2, column 'media': {folder / 'gone.png'}: no such file"


def test_a_plain_folder_gives_every_picture_below_it_in_order(folder: Path) -> None:
    files = read_sample_files([folder], prompt="a shape")
    assert files == [
        SampleFile("0", folder / "a.png", "a shape", str(folder / "a.png")),
        SampleFile("1", folder / "deep" / "b.jpg", "a shape", str(folder / "deep" / "b.jpg")),
    ]


def test_a_folder_with_metadata_takes_its_names_and_prompts(folder: Path) -> None:
    rows = [
        {"file_name": "deep/b.jpg", "prompt": "b", "seed": 7},
        {"file_name": "a.png", "prompt": "a", "seed": 8},
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = read_sample_files([folder])
    assert [(file.path, file.prompt) for file in files] == [
        (folder / "deep/b.jpg", "b"),
        (folder / "a.png", "a"),
    ]


def test_pictures_that_metadata_leaves_out_are_mentioned(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "prompt": "a"}\n')
    with pytest.warns(UserWarning, match="leaves out 1 media, the first is b.jpg"):
        assert len(read_sample_files([folder])) == 1


def test_several_sources_are_numbered_through(folder: Path) -> None:
    manifest = write_jsonl(folder, [{"media": "a.png"}, {"media": "deep/b.jpg"}])
    files = read_sample_files([folder / "a.png", manifest, folder / "deep"], prompt="x")
    assert [file.id for file in files] == ["0", "1", "2", "3"]
    assert {file.prompt for file in files} == {"x"}


def test_prompts_twice_or_not_at_all_are_refused(folder: Path) -> None:
    manifest = write_jsonl(folder, ROWS)
    with pytest.raises(DataError, match="has prompts of its own; leave --prompt out"):
        read_sample_files([manifest], prompt="another")
    with pytest.raises(DataError, match="has no prompts; add --prompt TEXT"):
        read_sample_files([folder / "a.png"])
    assert read_sample_files([folder / "a.png"], needs_prompt=False)[0].prompt is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'{"media": "a.png"}\n\n{"media": \n', r"rows.jsonl, row 2: not JSON"),
        ("rows.jsonl", b'["a.png"]\n', r"rows.jsonl, row 1: expected an object, got '\[\"a.png\"\]'"),
        (
            "rows.jsonl",
            b'{"media": 3, "prompt": "a"}\n',
            r"rows.jsonl, row 1, column 'media': expected text, got 3",
        ),
        (
            "rows.jsonl",
            b'{"media": "a.png", "prompt": ["a"]}',
            r"row 1, column 'prompt': expected text, got \['a'\]",
        ),
        (
            "rows.jsonl",
            '{"media": "ä.png"}\n'.encode("latin-1"),
            r"rows.jsonl: not UTF-8 at byte 11; save it as UTF-8",
        ),
        ("rows.csv", "media,prompt\nä.png,a\n".encode("latin-1"), r"rows.csv: not UTF-8 at byte 13"),
        ("rows.csv", b"media,prompt\na.png,a\nb.png,a,b\n", r"rows.csv, row 2: 3 values under 2 columns"),
        ("rows.csv", b'media,prompt\na.png,"a\n', r"rows.csv, row 1: not CSV"),
        ("rows.csv", b"media,prompt\n", r"rows.csv: no rows in this file"),
        ("rows.jsonl", b"", r"rows.jsonl: no rows in this file"),
        ("rows.parquet", b"PAR1 but no more", r"rows.parquet: not a readable parquet file"),
        (
            "rows.xlsx",
            b"",
            r"rows.xlsx: not a kind of file that can be scored; known: .*\.jsonl, \.csv, \.parquet",
        ),
    ],
)
def test_a_faulty_table_is_one_sentence_with_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_sample_files([tmp_path / name], prompt="p")
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no media in this folder"):
        read_sample_files([tmp_path], prompt="p")


def test_an_unknown_path_is_refused_with_the_nearest_name(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no such file or folder. Did you mean '.*notes.txt'"):
        read_sample_files([folder / "note.txt"], prompt="p")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """One file of each medium below a folder, and a picture beside it."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    frames = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for name in ("a.mp4", "b.webm", "c.gif"):
        Video(frames, 8.0).save(folder / name)
    for name in ("d.wav", "e.flac", "f.mp3"):
        Audio(torch.zeros(1, 900), 8_000).save(folder / name)
    Scene3D(frames, turntable(4)).save(folder / "g.views.png")
    Scene3D(mesh=Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))).save(folder / "h.glb")
    Image(frames[0]).save(folder / "i.png")
    Image(frames[1]).save(tmp_path / "outside.png")
    (folder / "j.txt").write_text("no medium")
    return folder


EXPECTED = [Video] * 3 + [Audio] * 3 + [Scene3D] * 2 + [Image]


def test_a_folder_gives_media_of_every_kind(mixed: Path) -> None:
    files = read_sample_files([mixed], prompt="p")
    assert [file.path.name[0] for file in files if file.path] == list("abcdefghi")
    assert [type(file.load().media) for file in files] == EXPECTED


@every_format
def test_a_manifest_lists_media_of_every_kind(mixed: Path, write: Write) -> None:
    names = sorted(path.name for path in mixed.iterdir() if path.suffix != ".txt")
    files = read_sample_files([write(mixed, [{"media": name, "prompt": name} for name in names])])
    assert [type(file.load().media) for file in files] == EXPECTED


def test_a_table_or_the_caller_says_what_suffixes_do_not(mixed: Path) -> None:
    rows = [
        {"media": "d.wav", "modality": "speech"},
        {"media": "g.views.png", "modality": "image"},
        {"media": "d.wav"},
    ]
    manifest = write_jsonl(mixed, rows)
    files = read_sample_files([manifest], needs_prompt=False)
    assert [type(file.load().media) for file in files] == [Speech, Image, Audio]
    files = read_sample_files([manifest, mixed / "d.wav"], needs_prompt=False, modality="speech")
    assert [type(file.load().media) for file in files] == [Speech, Image, Speech, Speech]
    manifest = write_jsonl(mixed, [{"media": "d.wav"}, {"media": "d.wav", "modality": "sound"}])
    with pytest.raises(DataError, match=r"row 2, column 'modality': no modality is called 'sound'"):
        read_sample_files([manifest], needs_prompt=False)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Names of the files that Python opens, while the test runs."""
    names: list[str] = []
    listening = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and listening:
            names.append(str(arguments[0]))

    sys.addaudithook(hook)  # there is no way to take a hook away
    yield names
    listening = False


@every_format
def test_rows_that_lead_out_of_the_manifests_folder_are_kept_and_not_opened(
    mixed: Path, write: Write, opened: list[str]
) -> None:
    outside = mixed.parent / "outside.png"
    (mixed / "link.png").symlink_to(outside)
    (mixed / "folder").symlink_to(mixed.parent, target_is_directory=True)
    names = [
        "../outside.png",
        str(outside),
        "link.png",
        "folder/outside.png",
        "i.png",
        "../mixed/i.png",
        "../none.png",
    ]
    manifest = write(mixed, [{"media": name, "prompt": "p"} for name in names])
    files = read_sample_files([manifest])
    assert len(files) == len(names)
    for row, (file, name) in enumerate(zip(files, names, strict=True), 1):
        if name.endswith("i.png"):
            assert isinstance(file.load().media, Image)
        else:
            with pytest.raises(
                DataError, match=rf"row {row}, column 'media': .* lies outside .* and is not opened"
            ):
                file.load()
    assert any(name.endswith("i.png") for name in opened), "the hook hears what is opened"
    assert not [name for name in opened if name.endswith(("outside.png", "link.png", "none.png"))]
    allowed = read_sample_files([manifest], root=mixed.parent)
    assert [isinstance(file.load().media, Image) for file in allowed[:6]] == [True] * 6
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        allowed[6].load()


def test_a_root_holds_for_metadata_and_folders_and_not_for_files_that_were_named(mixed: Path) -> None:
    (mixed / "link.png").symlink_to(mixed.parent / "outside.png")
    [linked] = [
        file
        for file in read_sample_files([mixed], prompt="p", root=mixed)
        if str(file.path).endswith("link.png")
    ]
    with pytest.raises(DataError, match="lies outside"):
        linked.load()
    (mixed / "metadata.jsonl").write_text('{"file_name": "../outside.png", "prompt": "a"}\n')
    with pytest.warns(UserWarning, match="leaves out 10 media"):
        [file] = read_sample_files([mixed])
    with pytest.raises(DataError, match=r"metadata\.jsonl, row 1, column 'file_name': .* lies outside"):
        file.load()
    [file] = read_sample_files([mixed.parent / "outside.png"], prompt="p", root=mixed)
    assert isinstance(file.load().media, Image)
    with pytest.raises(DataError, match="the root of media is no folder"):
        read_sample_files([mixed], root=mixed / "gone")


def test_records_keep_every_field(folder: Path) -> None:
    assert list(read_records(write_jsonl(folder, ROWS))) == ROWS
