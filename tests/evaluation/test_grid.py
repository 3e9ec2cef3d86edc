"""The grid keeps every pixel of a small picture, puts captions under it, and is written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from mmalign.errors import ConfigError, ShapeError
from mmalign.evaluation import grid
from mmalign.evaluation.grid import save_grid
from mmalign.media import Image
from mmalign.worlds import shapes

GAP = grid.GAP_PX


def drawn(count: int, side_px: int = 64) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return shapes.render([shapes.random_scene(random) for _ in range(count)], random, side_px=side_px)


def tiles(pictures: Sequence[torch.Tensor] | torch.Tensor) -> list[PIL.Image.Image]:
    return [grid.resized(Image(picture).to_pil()) for picture in pictures]


def saved(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as picture:
        return np.array(picture)


def test_small_pictures_are_doubled_pixel_for_pixel_in_reading_order(tmp_path: Path) -> None:
    pictures = drawn(5)
    save_grid(tiles(pictures), ["one line"] * 5, tmp_path / "grid.png", columns=3)
    array = saved(tmp_path / "grid.png")
    cell_height = 128 + grid.LINE_PX + 4 + GAP
    assert array.shape == (GAP + 2 * cell_height, GAP + 3 * (128 + GAP), 3)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, 3)
        top, left = GAP + row * cell_height, GAP + column * (128 + GAP)
        expected = np.array(Image(picture).to_pil()).repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(array[top : top + 128, left : left + 128], expected)
        text = array[top + 128 : top + 128 + grid.LINE_PX + 4, left : left + 128]
        assert text.min() < 128, "a caption is under each picture"


def test_sizes_between_and_above(tmp_path: Path) -> None:
    assert grid.resized(PIL.Image.new("RGB", (40, 20))).size == (120, 60)
    assert grid.resized(PIL.Image.new("RGB", (200, 300))).size == (200, 300)
    assert grid.resized(PIL.Image.new("RGB", (1536, 768))).size == (384, 192)
    mixed = tiles([torch.rand(3, 64, 32), torch.rand(3, 20, 700)])
    save_grid(mixed, ["a", "b"], tmp_path / "mixed.png")
    assert saved(tmp_path / "mixed.png").shape[1] == GAP + 2 * (384 + GAP)


def test_captions_wrap_to_the_width_and_lose_only_their_end() -> None:
    font = grid._font()
    text = "a picture of a small yellow triangle in the bottom right corner"
    lines = grid.wrapped(text, font, 128)
    assert " ".join(lines) == text
    assert 1 < len(lines) <= grid.MOST_LINES
    assert all(font.getlength(line) <= 128 for line in lines)
    long = grid.wrapped(text + " and " + "x" * 300, font, 128)
    assert len(long) == grid.MOST_LINES
    assert long[-1].endswith("…")
    assert all(font.getlength(line) <= 128 for line in long)
    assert grid.wrapped("", font, 128) == [""]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "grid.png"
    save_grid(tiles(drawn(1)), ["old"], path)
    before = path.read_bytes()

    def half_written(self: PIL.Image.Image, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(PIL.Image.Image, "save", half_written)
    with pytest.raises(OSError, match="disk full"):
        save_grid(tiles(drawn(2)), ["new", "new"], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="one for each of 2 pictures"):
        save_grid(tiles(drawn(2)), ["only one"], tmp_path / "grid.png")
    with pytest.raises(ShapeError, match="at least one"):
        save_grid([], [], tmp_path / "grid.png")
    with pytest.raises(ConfigError, match="columns = 0"):
        save_grid(tiles(drawn(1)), ["a"], tmp_path / "grid.png", columns=0)
    assert list(tmp_path.iterdir()) == []
