"""What a reward says beside its number, as files that people can look at."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mmalign.errors import ShapeError
from mmalign.evaluation.page import Html, page, paragraph
from mmalign.files import whole_file
from mmalign.media import Image, Sample
from mmalign.rewards.base import OK, Score, TokenScores

STRONGEST = 0.7
"""Share of the colour where a region counts most, so that the picture is still seen below it."""
RED = (0.90, 0.10, 0.10)
LONGEST_NAME = 120


def explain(folder: Path, name: str, load: Callable[[], Sample], score: Score, i: int) -> list[Path]:
    """Write the maps of one sample: regions over its picture (.png), coloured words (.html), reasons (.txt).

    Args:
        folder: made if it is not there.
        name: of the files, without their suffix; whatever a path could be made of becomes "_".
        load: reads the sample again; only called where there are regions.
        score: of a batch.
        i: the sample's place in it. Without a score it has no maps.

    Returns:
        The files that were written; none where the reward gives only numbers.
    """
    if score.status[i] != OK:
        return []
    stem = re.sub(r"[^\w.-]+", "_", name)[:LONGEST_NAME].lstrip(".")
    written = []
    if score.regions is not None:
        media = load().media
        picture = media.pixels if isinstance(media, Image) else None
        written.append(folder / f"{stem}.png")
        Image(overlay(score.regions[i], picture)).save(written[-1])
    if score.tokens is not None and score.tokens[i].text:
        written.append(folder / f"{stem}.html")
        _write(written[-1], page(stem, [coloured_words(score.tokens[i])]))
    if score.text is not None and score.text[i]:
        written.append(folder / f"{stem}.txt")
        _write(written[-1], score.text[i] + "\n")
    return written


def overlay(region: Tensor, pixels: Tensor | None) -> Tensor:
    """A map of faults over a picture, red where the fault is.

        (1 - a) * pixels + a * red,   a = 0.7 * region

    Args:
        region: [H', W'] in [0, 1], stretched to the picture.
        pixels: [3, H, W] in [0, 1]; None for the map alone, on black.

    Returns:
        [3, H, W] in [0, 1].

    Raises:
        ShapeError: ``region`` is not [H', W'].

    >>> overlay(torch.ones(1, 1), torch.zeros(3, 1, 1)).flatten()
    tensor([0.6300, 0.0700, 0.0700])
    """
    if region.ndim != 2:
        raise ShapeError(f"region: expected [H, W], got {list(region.shape)}")
    region = region.detach().float().cpu().clamp(0, 1)
    if pixels is None:
        return region.expand(3, -1, -1)
    stretched = interpolate(region[None, None], pixels.shape[-2:], mode="bilinear", align_corners=False)[0]
    share = STRONGEST * stretched
    return (1 - share) * pixels.clamp(0, 1) + share * torch.tensor(RED)[:, None, None]


def coloured_words(tokens: TokenScores) -> Html:
    """The text of tokens, blue where they raise the score and red where they lower it, the strongest fully.

    >>> coloured_words(TokenScores(("a", " <dog>"), (0.0, -2.0)))
    '<p><span style="background:rgba(200,40,40,0.00)" title="0">a</span><span
    style="background:rgba(200,40,40,1.00)" title="-2"> &lt;dog&gt;</span></p>'
    """
    most = max(map(abs, tokens.score), default=0.0) or 1.0
    spans = []
    for text, score in zip(tokens.text, tokens.score, strict=True):
        colour = "60,110,220" if score > 0 else "200,40,40"
        style = f"background:rgba({colour},{abs(score) / most:.2f})"
        spans.append(f'<span style="{style}" title="{score:g}">{html.escape(text)}</span>')
    return paragraph(Html("".join(spans)))


def _write(path: Path, text: str) -> None:
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
