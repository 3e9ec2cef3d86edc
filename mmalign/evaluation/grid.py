"""One picture of many: a grid for people to look at, each picture with its caption under it."""

import math
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
from PIL import ImageDraw, ImageFont

from mmalign.errors import ConfigError, ShapeError
from mmalign.files import whole_file

SMALLEST_PX, LARGEST_PX = 128, 384
"""Longer side of a picture in the grid: smaller ones are enlarged by a whole number, larger ones reduced."""
GAP_PX = 10
FONT_PX = 11
LINE_PX = 14
MOST_LINES = 4
INK, EDGE, PAPER = (40, 40, 40), (215, 215, 215), (255, 255, 255)


def save_grid(
    tiles: Sequence[PIL.Image.Image],
    captions: Sequence[str],
    path: Path | str,
    *,
    columns: int | None = None,
) -> None:
    """Write a grid of pictures with short captions, row by row from the top left.

    A caption is wrapped to its picture's width and ends in "…" after four lines.

    Args:
        tiles: B pictures at the size that they are shown in, see :func:`resized`.
        captions: B texts, each shown under its picture.
        path: where to write; the suffix names the format. An existing file is replaced, whole or not at all.
        columns: pictures in a row; None for a grid about three wide to two high, and at most eight.

    Raises:
        ShapeError: there is no tile, or ``captions`` has another length.
        ConfigError: ``columns`` is not positive.
    """
    if not tiles or len(captions) != len(tiles):
        raise ShapeError(
            f"captions: one for each of {len(tiles)} pictures, at least one; got {len(captions)}"
        )
    if columns is None:
        columns = min(8, math.ceil(math.sqrt(1.5 * len(tiles))))
    if columns < 1:
        raise ConfigError(f"columns = {columns}, but a row holds at least one picture")
    grid = draw_grid(tiles, captions, columns)
    with whole_file(path) as unfinished:
        grid.save(unfinished)


def resized(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A picture at a size that people can look at, see ``SMALLEST_PX``; its sides keep their ratio.

    Small ones are enlarged by a whole number with nearest neighbour, so that each pixel stays what was drawn.
    """
    longer = max(picture.size)
    if longer < SMALLEST_PX:
        return picture.resize(
            [side * (SMALLEST_PX // longer) for side in picture.size], PIL.Image.Resampling.NEAREST
        )
    if longer > LARGEST_PX:
        return picture.resize(
            [max(1, round(side * LARGEST_PX / longer)) for side in picture.size], PIL.Image.Resampling.LANCZOS
        )
    return picture


def draw_grid(tiles: Sequence[PIL.Image.Image], captions: Sequence[str], columns: int) -> PIL.Image.Image:
    """Lay tiles out in equal cells, as high as the highest tile and the longest caption."""
    font = _font()
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    texts = [wrapped(text, font, width) for text in captions]
    text_px = LINE_PX * max(map(len, texts)) + 4
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    size = (GAP_PX + columns * (width + GAP_PX), GAP_PX + rows * (height + text_px + GAP_PX))
    grid = PIL.Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(grid)
    for index, (tile, lines) in enumerate(zip(tiles, texts, strict=True)):
        row, column = divmod(index, columns)
        left, top = GAP_PX + column * (width + GAP_PX), GAP_PX + row * (height + text_px + GAP_PX)
        x, y = left + (width - tile.width) // 2, top + height - tile.height
        pen.rectangle(
            (x - 1, y - 1, x + tile.width, y + tile.height), outline=EDGE
        )  # white pictures end somewhere
        grid.paste(tile, (x, y))
        for number, line in enumerate(lines):
            pen.text((left, top + height + 4 + number * LINE_PX), line, fill=INK, font=font)
    return grid


def wrapped(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> list[str]:
    """Break a text into at most ``MOST_LINES`` lines that fit, words whole where they can be."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if font.getlength(joined) <= width_px:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width_px:
                lines.append("")
            lines[-1] += letter
    if len(lines) > MOST_LINES:
        last = lines[MOST_LINES - 1]
        while last and font.getlength(last + "…") > width_px:
            last = last[:-1]
        lines = [*lines[: MOST_LINES - 1], last.rstrip() + "…"]
    return lines


def _font() -> ImageFont.FreeTypeFont:
    import matplotlib  # heavy; it brings a font that knows more alphabets than Pillow's own

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", FONT_PX)
