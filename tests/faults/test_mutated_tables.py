"""Tables of every layout and format with something wrong in them: a row is used or rejected, or the file refused.

Each mutant goes through the readers that take such a table. Whatever is raised is one sentence of ours, rows in are
rows used and rejected, and files outside the folder are not opened. MMALIGN_MUTANTS says how many the slow test makes.
"""

import copy
import json
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from mmalign.data.check import check_preferences, leaked_prompts
from mmalign.data.convert import convert
from mmalign.data.grouping import read_scores
from mmalign.data.label_log import read_labels
from mmalign.data.label_tables import tables_of
from mmalign.data.pairs import read_preferences
from mmalign.data.prompts import read_prompts
from mmalign.data.ratings import read_demonstrations, read_ratings
from mmalign.data.readers import read_sample_files
from mmalign.data.unlabelled import read_pool
from mmalign.errors import MmalignError
from mmalign.evaluation.judge_data import read_judge_data
from mmalign.media import Image
from mmalign.rewards.cards import load_reward
from mmalign.rewards.scoring import score_files
from mmalign.training.dense_data import read_dense
from mmalign.training.reward_data import read_examples

MUTANTS = int(os.environ.get("MMALIGN_MUTANTS", "2000"))
OUTSIDE = "outside.png"
"""Beside the folder of the table, and no business of its readers."""
Rows = list[dict[str, Any]]
Table = tuple[str, bytes]
"""Suffix and content."""


# --- sound tables ---------------------------------------------------------------------------------------------------


def choices(mode: str, shown: int, *said: dict[str, Any]) -> Rows:
    rows = [
        {
            "annotator": name,
            "number": number,
            "mode": mode,
            "item": f"i{number}",
            "prompt": f"a {number}",
            "shown": ["a.png", "b.png", "c.png"][:shown],
            "repeat": False,
            **what,
        }
        for name in ("ann", "bob")
        for number, what in enumerate(said, 1)
    ]
    return [{"labels": 1, "mode": mode, "samples": "."}, *rows, {"annotator": "ann", "undo": 1}]


@cache
def picture() -> bytes:
    import io

    buffer = io.BytesIO()
    Image(torch.zeros(3, 2, 2)).to_pil().save(buffer, "PNG")
    return buffer.getvalue()


def layouts() -> dict[str, Rows]:
    """Four rows or so of every kind of table."""

    def pair(a: str, b: str, **more: Any) -> dict[str, Any]:
        return {"prompt": f"a {a}", "chosen": f"{a}.png", "rejected": f"{b}.png", **more}

    def single(a: str, **more: Any) -> dict[str, Any]:
        return {"prompt": f"a {a}", "sample": f"{a}.png", **more}

    who = {"annotator": "Ann", "source": "x", "aspect": "look"}
    return {
        "pairs": [
            pair("a", "b", margin=1.5, strength=0.5, verdict=None, **who),
            pair("b", "c", margin=0.0, strength=1.0, verdict="tie", **who),
            pair("c", "a", margin=None, strength=None, verdict="chosen", **who),
            pair("a", "c", margin=3.0, strength=0.25, verdict=None, **who),
        ],
        "rankings": [
            {"prompt": f"a {i}", "samples": ["a.png", "b.png", "c.png"], "ranks": [1.0, 2.0, 2.0], **who}
            for i in range(4)
        ],
        "ratings": [single(name, score=float(i), rationale="why", **who) for i, name in enumerate("abca")],
        "binary": [single(name, label=i % 2 == 0, **who) for i, name in enumerate("abca")],
        "faults": [single(name, marked=f"a {name}_0", region="b.png") for name in "abca"],
        "demonstrations": [single(name) for name in "abca"],
        "manifest": [
            {
                "media": f"{name}.png",
                "prompt": f"a {i}",
                "id": str(i),
                "modality": "image",
                "reference": "c.png",
            }
            for i, name in enumerate("abca")
        ],
        "scores": [
            {
                "media": f"{name}.png",
                "prompt": f"a {i % 2}",
                "reward": "r",
                "score": float(i),
                "status": "ok",
                "step": i,
            }
            for i, name in enumerate("abca")
        ],
        "prompts": [{"id": i, "prompt": f"a red circle, on\u2028the left {i}"} for i in range(4)],
        "tangoflux": [{"captions": f"a {a}", "chosen": f"{a}.png", "reject": "b.png"} for a in "acac"],
        "verl-omni": [
            {
                "prompt": [{"role": "user", "content": f"a {i}"}],
                "img_win": "a.png",
                "img_lose": "b.png",
                "win_score": 2.0,
                "lose_score": 1.0,
                "extra_info": {"raw_prompt": f"a {i}"},
            }
            for i in range(4)
        ],
        "videoalign": [
            {
                "prompt": f"a {i}",
                "path_A": "a.png",
                "path_B": "b.png",
                "VQ": v,
                "MQ": "same",
                "TA": "A",
                "Overall": v,
            }
            for i, v in enumerate(("A", "B", "same", "A"))
        ],
        "imagefolder": [{"file_name": f"{a}.png", "text": f"a {a}"} for a in "abca"],
        "pickapic": [
            {
                "caption": f"a {i}",
                "jpg_0": picture(),
                "jpg_1": picture() + bytes(i),
                "label_0": first,
                "label_1": 1 - first,
                "image_0_uid": "u0",
                "image_1_uid": "u1",
                "has_label": True,
                "user_id": 7,
            }
            for i, first in enumerate((1.0, 0.0, 0.5, 1.0))
        ],
        "labels-pairs": choices(
            "pairs", 2, {"choice": "left", "strength": 0.5}, {"choice": "tie", "strength": None}
        ),
        "labels-ranking": choices("ranking", 3, {"ranks": [1, 2, 2]}, {"ranks": [1, 1, 1]}),
        "labels-rating": choices(
            "rating", 1, {"scores": {"look": 3, "fit": 1}, "rationale": "x"}, {"skipped": True}
        ),
        "labels-binary": choices("binary", 1, {"label": True}, {"label": False}),
        "labels-marks": choices(
            "marks", 1, {"regions": [[0.5, 0, 1, 0.25]], "words": [1]}, {"regions": [], "words": []}
        ),
    }


# --- what can be wrong ------------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    None, "", " ", "\t\n", 0, -1, 1e308, 10**400, -(10**5_000), float("nan"), float("inf"), True, False, [], {}, [[]],
    [None], ["a.png"], {"path": "a.png"}, {"bytes": None, "path": None}, "a\0b", "\ud800", "\udcff.png", "x" * 300,
    "y" * 5_000 + ".png", "a\u2028b", "\u0085", "1_000", "1,5", "٣", "nan", "Infinity", "1e999", "-0", "0x10",
    f"../{OUTSIDE}", "../../..", "/etc/passwd", "/dev/zero", "/dev/stdin", "link.png", ".", "..", "~", "gone.png",
    "C:\\a.png", "file:///a.png", "http://x.invalid/a.png", "hf:nobody/nothing", "a.png\n", "<script>", "=1+1",
    "chosen", "tie", "both_bad", "draw", 0.5, 2, -0.5, "0.5", "look", "fit", "ok", "failed", [1, 2], [1, "2", None],
    "[1, 2", "[" * 3_000, '["a.png", "b.png"]', [0, 0, 1, 1], [["a"]], {"a": {"b": {"c": 1}}}, "a.png", "b.png",
)  # fmt: skip
RAW: tuple[bytes, ...] = (
    b"\0",
    b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", "\u2028".encode(), b"\x85", b"\x0b", b"\r", b"\n", b"\n\n", b'"',
    b",", b";", b"\t", b"{", b"}", b"[", b"]", b"[" * 20_000, b'{"a":' * 20_000, b"9" * 5_000, b"1e99999", b"NaN",
    b"\\ud800", b"\\u0000", b"\\", b"null", b"true", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa9", b"PAR1",
    b"{}", b"[]", b"\n{}\n",
)  # fmt: skip


def changed_cells(rows: Rows, draw: random.Random) -> Rows:
    """Rows with one to three cells, rows or columns that are odd."""
    rows = copy.deepcopy(rows)
    for _ in range(draw.randint(1, 3)):
        row = draw.choice(rows)
        names = list(row) or ["prompt"]
        name = draw.choice(names)
        match draw.randrange(8):
            case 0:
                row.pop(name, None)
            case 1:
                row[draw.choice(["extra", f" {name}", name.upper(), "", "media", "score"])] = draw.choice(ODD)
            case 2:
                row[draw.choice(names)] = row.get(name)
            case 3:
                rows.insert(draw.randrange(len(rows) + 1), copy.deepcopy(row))
            case 4 if isinstance(row.get(name), list | dict) and row[name]:
                inside = row[name]
                key = draw.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
                inside[key] = draw.choice(ODD)
            case _:
                row[name] = draw.choice(ODD)
    return rows


def changed_bytes(data: bytes, draw: random.Random) -> bytes:
    """A file with one to three places that are cut, flipped, doubled or filled with something odd."""
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(data) + 1)
        to = min(len(data), at + draw.randint(1, 40))
        match draw.randrange(6):
            case 0:
                data = data[:at]
            case 1 if data:
                place = draw.randrange(len(data))
                data = data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]
            case 2:
                data = data[:at] + data[to:]
            case 3:
                data = data[:to] + data[at:]
            case _:
                data = data[:at] + draw.choice(RAW) + data[at:]
    return data


# --- files ------------------------------------------------------------------------------------------------------------


def as_json(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


def as_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=as_json)


def separated(rows: Rows, mark: str) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines: list[list[Any]] = [names, *([row.get(name) for name in names] for row in rows)]
    quoted = [['"' + as_cell(cell).replace('"', '""') + '"' for cell in line] for line in lines]
    return "\n".join(mark.join(line) for line in quoted).encode("utf-8", "surrogatepass")


def parquet(rows: Rows, folder: Path) -> bytes:
    """Where a column mixes what parquet does not mix, its values are texts."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError, ValueError):
            texts = [
                None if v is None else as_cell(v)[:9_999].encode("utf-8", "replace").decode() for v in values
            ]
            columns[name] = pyarrow.array(texts, pyarrow.string())
    path = folder / "made.parquet"
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    except pyarrow.ArrowException:  # an empty struct
        return b"PAR1"
    data = path.read_bytes()
    path.unlink()
    return data


def as_file(rows: Rows, suffix: str, folder: Path) -> bytes:
    sys.set_int_max_str_digits(0)  # that the mutants may have more than readers take
    try:
        match suffix:
            case ".parquet":
                return parquet(rows, folder)
            case ".csv" | ".tsv":
                return separated(rows, "," if suffix == ".csv" else "\t")
            case ".json":
                return json.dumps(rows, default=as_json).encode()
            case _:
                return "\n".join(json.dumps(row, default=as_json) for row in rows).encode()
    finally:
        sys.set_int_max_str_digits(4300)


# --- readers ----------------------------------------------------------------------------------------------------------


def counted(rows: int, used: int, rejected: int) -> int:
    assert rows == used + rejected
    return rows


def check(path: Path) -> int:
    found = check_preferences(path)
    return counted(found.rows, found.used, len(found.rejected))


def scored(path: Path) -> int:
    files = read_sample_files([path], needs_prompt=False, context={"reference": False})
    found = list(score_files(files, [load_reward("placebo")], batch_size=4, threads=1))
    assert len(found) == len(files)
    assert all((row.score is None) != (row.status == "ok") and "\n" not in row.status for row in found)
    return len(files)


def trained(path: Path) -> int:
    found = read_examples(path, ties=True)
    counted(found.rows, found.used, len(found.rejected))
    found = read_examples(path, ties=False)
    return counted(found.rows, found.used, len(found.rejected))


def dense(path: Path) -> int:
    found = read_dense(path, regions=False)
    return counted(found.rows, len(found), len(found.rejected))


def aligned(path: Path) -> int:
    found = read_preferences(path)
    return counted(found.rows, len(found.pairs), len(found.rejected))


def converted(layout: str) -> Callable[[Path], int]:
    def run(path: Path) -> int:
        found = convert(path, layout, path.parent / "out" / "out.parquet", aspect=None)
        return counted(found.rows, found.used, len(found.rejected))

    return run


def labelled(path: Path) -> int:
    read_labels(path)
    found = tables_of(path, masks=path.parent / "out")
    assert len(found.rejected) <= found.rows
    return converted("labels")(path)


def prompts(path: Path) -> int:
    found = read_prompts(str(path))
    assert all(prompt.strip() == prompt and prompt for prompt in found)
    leaked_prompts(path, path)
    return len(found)


Reader = Callable[[Path], Any]
READERS: dict[str, dict[str, Reader]] = {
    "pairs": {"check": check, "align": aligned, "train": trained, "judge": lambda p: read_judge_data([p])},
    "rankings": {"check": check, "train": trained},
    "ratings": {"check": check, "train": trained, "align": read_ratings},
    "binary": {"check": check, "train": trained},
    "faults": {"check": check, "dense": dense},
    "demonstrations": {"check": check, "dense": dense, "align": read_demonstrations},
    "manifest": {"score": scored, "pool": read_pool},
    "scores": {
        "grouping": lambda p: read_scores(p, root=p.parent),
        "pool": lambda p: read_pool(p, root=p.parent),
    },
    "prompts": {"prompts": prompts},
    **{name: {"convert": converted(name)} for name in ("tangoflux", "verl-omni", "imagefolder", "pickapic")},
    "videoalign": {"convert": converted("videoalign"), "judge": lambda p: read_judge_data([p])},
    **{f"labels-{mode}": {"labels": labelled} for mode in ("pairs", "ranking", "rating", "binary", "marks")},
}
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def formats_of(layout: str) -> tuple[str, ...]:
    if layout.startswith("labels"):
        return (".jsonl",)
    return (".parquet",) if layout == "pickapic" else FORMATS


# --- the run ----------------------------------------------------------------------------------------------------------

_OPENED: list[str] = []
_LISTENING = [False]


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _LISTENING[0] and event == "open" and isinstance(arguments[0], str):
        _OPENED.append(arguments[0])


sys.addaudithook(_hear)


@contextmanager
def listening() -> Iterator[list[str]]:
    _OPENED.clear()
    _LISTENING[0] = True
    try:
        yield _OPENED
    finally:
        _LISTENING[0] = False


def folder_of_media(folder: Path) -> Path:
    root = folder / "root"
    root.mkdir()
    for name in "abc":
        (root / f"{name}.png").write_bytes(picture())
    (folder / OUTSIDE).write_bytes(picture())
    (root / "link.png").symlink_to(folder / OUTSIDE)
    return root


def wrong_with(read: Reader, path: Path, told: Counter[str]) -> str | None:
    """What a reader does with a mutant that it must not do; None where it uses or refuses it as it should."""
    try:
        read(path)
    except MmalignError as error:
        told["refused"] += 1
        return "a message of many lines" if "\n" in str(error) or len(str(error)) > 3_000 else None
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(last.filename).name}, {last.name}: {str(error)[:200]}"
    return None


def run_mutants(folder: Path, count: int, seed: int) -> tuple[Counter[str], dict[str, str]]:
    """Make ``count`` mutants and read each: how many were new and how many refused, and each fault with a file."""
    root, draw, seen = folder_of_media(folder), random.Random(seed), set[bytes]()
    sound = layouts()
    told: Counter[str] = Counter()
    faults: dict[str, str] = {}
    while told["mutants"] < count:
        layout = draw.choice(list(sound))
        suffix = draw.choice(formats_of(layout))
        whole = as_file(sound[layout], suffix, root)
        cells = draw.random() < 0.6
        data = (
            as_file(changed_cells(sound[layout], draw), suffix, root) if cells else changed_bytes(whole, draw)
        )
        if data in seen or data == whole:
            told["alike"] += 1
            continue
        seen.add(data)
        told["mutants"] += 1
        in_folder = layout == "imagefolder" and draw.random() < 0.3
        path = root / (f"metadata{suffix}" if in_folder else f"table{suffix}")
        path.write_bytes(data)
        for name, read in READERS[layout].items():
            told["read"] += 1
            with listening() as opened:
                fault = wrong_with(read, root if in_folder else path, told)
                names = set(opened)
            if any(Path(n).name == OUTSIDE or n.startswith("/etc/pass") for n in names):
                fault = "a file outside was opened"
            if fault is not None and f"{name}: {fault}" not in faults:
                kept = folder / f"{len(faults)}-{layout}{suffix}"
                kept.write_bytes(data)
                faults[f"{name}: {fault}"] = str(kept)
        path.unlink()
    return told, faults


@pytest.mark.filterwarnings("ignore")
def test_some_mutated_tables_are_read_row_by_row_or_refused(tmp_path: Path) -> None:
    told, faults = run_mutants(tmp_path, 150, seed=0)
    assert not faults
    assert told["mutants"] == 150
    assert 20 < told["refused"] < told["read"] - 20  # some are whole, and some are not


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_mutated_tables_are_read_row_by_row_or_refused(tmp_path: Path) -> None:
    start = time.monotonic()
    told, faults = run_mutants(tmp_path, MUTANTS, seed=1)
    print(dict(told), f"{time.monotonic() - start:.0f} s")
    assert not faults
    assert told["mutants"] == MUTANTS


@pytest.mark.parametrize("layout", READERS)
def test_every_layout_is_sound_before_it_is_changed(tmp_path: Path, layout: str) -> None:
    root = folder_of_media(tmp_path)
    nested = layout in ("verl-omni",)
    for suffix in formats_of(layout):
        path = root / f"table{suffix}"
        path.write_bytes(as_file(layouts()[layout], suffix, root))
        for read in READERS[layout].values():
            if nested and suffix in (".csv", ".tsv"):
                continue  # its prompts are lists, for which csv has no word
            read(path)
