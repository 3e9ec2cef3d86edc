"""Whether a picture shows the text that its prompt quotes, as an OCR model reads it."""

import logging
import re
from functools import cached_property
from typing import Any

import numpy as np

from mmalign.media import Image, Sample
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.measured import MeasuredReward, Measurement, Unmeasurable, needed
from mmalign.rewards.text_distance import edit_distance

QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”|„([^“”]*)[“”]|«([^»]*)»')


def quoted_text(prompt: str) -> str | None:
    """The first text in double quotes, straight or curled; None where there is none.

    >>> quoted_text('a neon sign that says "Open Late" above a door')
    'Open Late'
    """
    found = QUOTED.search(prompt)
    return None if found is None else next(group for group in found.groups() if group is not None)


def text_match(wanted: str, read: str, *, anywhere: bool = False) -> float:
    """The share of a text that is read right, without regard to case and spaces.

        1 - min(d, |wanted|) / |wanted|,   d = edit distance in letters

    >>> text_match("Open Late", "OPEN LATF"), text_match("open", "open open")
    (0.875, 0.0)
    >>> text_match("open", "xxopenyy", anywhere=True)
    1.0

    Args:
        wanted: at least one letter.
        read: all that is read, in order.
        anywhere: d is 0 where ``read`` contains ``wanted``. Then whatever else is written costs nothing, and a picture
            that is full of texts wins; otherwise each letter too many costs as much as one too few.

    Returns:
        In [0, 1].

    Source: Liu et al. 2025, Flow-GRPO, appendix (arXiv:2505.05470), whose rule is ``anywhere=True``.
    """
    target, found = letters(wanted), letters(read)
    distance = 0 if anywhere and target in found else min(edit_distance(target, found), len(target))
    return 1 - distance / len(target)


def letters(text: str) -> str:
    """A text without case and spaces, which no OCR tells apart reliably."""
    return "".join(text.casefold().split())


class OcrText(MeasuredReward):
    """The share of a text that can be read in a picture; see :func:`text_match`.

    The text is ``text`` in the sample's context, or else the first one that the prompt puts in double quotes; without
    either there is no score. ``Score.text`` is what was read. Range: [0, 1], higher is better. A picture without
    writing has 0, which is what it deserves.

    Args:
        card: says what it takes.
        device: ignored, the reader runs on the CPU.
        anywhere: as in :func:`text_match`.
        side_px: the longer side at which writing is looked for. 256 takes a tenth of a second; more finds smaller
        letters.

    Raises:
        MissingExtraError: rapidocr is not installed.
    """

    def __init__(
        self, card: RewardCard, *, device: str = "cpu", anywhere: bool = False, side_px: int = 256
    ) -> None:
        super().__init__(card, device=device)
        self.anywhere, self.side_px = anywhere, side_px
        self._rapidocr = needed("rapidocr", extra="ocr")
        needed("onnxruntime", extra="ocr")

    @cached_property
    def _reader(self) -> Any:
        """Its weights come with the package; it would log every call, and takes all cores unless told."""
        options = {
            "Global.log_level": "critical",
            "Det.limit_side_len": self.side_px,
            "Det.limit_type": "max",
        }
        reader = self._rapidocr.RapidOCR(params=options)
        logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
        return reader

    def read(self, picture: Image) -> str:
        """All lines that are found, in the reader's order, with spaces between."""
        pixels = np.asarray(picture.to_pil())[:, :, ::-1]  # the reader takes blue first, as OpenCV does
        lines = self._reader(np.ascontiguousarray(pixels), use_cls=False).txts
        return " ".join(lines or ())

    def measure(self, sample: Sample) -> Measurement:
        """Read one picture."""
        assert isinstance(sample.media, Image)
        wanted = sample.context.get("text", quoted_text(sample.prompt))
        if not isinstance(wanted, str):
            raise Unmeasurable('the prompt quotes no text; write "…" in it')
        if not letters(wanted):
            raise Unmeasurable("the quoted text is empty")
        read = self.read(sample.media)
        return Measurement(text_match(wanted, read, anywhere=self.anywhere), text=read)
