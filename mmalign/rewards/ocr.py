"""Whether a picture shows the text that its prompt quotes, as an OCR model reads it."""

import itertools
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mmalign.media import Image, Sample
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.measured import MeasuredReward, Measurement, Unmeasurable, needed
from mmalign.rewards.text_distance import edit_distance
from mmalign.texts import letters, quoted_texts

MOST_ORDERS = 4
"""Texts of which every order is tried; more are compared in the prompt's own."""


def text_match(wanted: str | Sequence[str], read: str, *, anywhere: bool = False) -> float:
    """The share of texts that is read right, compared as :func:`mmalign.texts.letters`: no case, spaces, curls.

        1 - min(d, |wanted|) / |wanted|,   d = edit distance in letters

    >>> text_match("Open Late", "OPEN LATF"), text_match("open", "open open")
    (0.875, 0.0)
    >>> text_match("open", "xxopenyy", anywhere=True), text_match(["Open", "Late"], "LATE open")
    (1.0, 1.0)

    Args:
        wanted: at least one letter. Several texts may be read in any order, of which the nearest counts; more than
            ``MOST_ORDERS`` of them in their own.
        read: all that is read, in order.
        anywhere: a text that ``read`` contains costs nothing, and only the others are compared, with what is left of
            ``read``. Then whatever else is written costs nothing where all is shown, and a picture that is full of
            texts wins; otherwise each letter too many costs as much as one too few.

    Returns:
        In [0, 1].

    Source: Liu et al. 2025, Flow-GRPO, appendix (arXiv:2505.05470), whose rule is ``anywhere=True`` of one text.
    """
    texts = [letters(text) for text in ([wanted] if isinstance(wanted, str) else wanted)]
    length, found = sum(map(len, texts)), letters(read)
    if anywhere:
        missing = []
        for text in sorted(texts, key=len, reverse=True):  # the longest first, which may contain others
            if text in found:
                found = found.replace(text, "", 1)
            else:
                missing.append(text)
        texts = sorted(missing, key=texts.index)  # in the prompt's order again
    orders = itertools.permutations(texts) if len(texts) <= MOST_ORDERS else [texts]
    distance = min(edit_distance("".join(order), found) for order in orders) if texts else 0
    return 1 - min(distance, length) / length


class OcrText(MeasuredReward):
    """The share of its text that can be read in a picture; see :func:`text_match`.

    The text is ``text`` in the sample's context, or else all that the prompt has between quotation marks, see
    :func:`mmalign.texts.quoted_texts`; without either there is no score. ``Score.text`` is what was read. Range: [0,
    1], higher is better. A picture without writing has 0, which is what it deserves.

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
        given = sample.context.get("text")
        wanted = [given] if isinstance(given, str) else quoted_texts(sample.prompt)
        if not wanted:
            raise Unmeasurable('the prompt quotes no text; write "…" in it')
        if not any(map(letters, wanted)):
            raise Unmeasurable("the quoted text is empty")
        read = self.read(sample.media)
        return Measurement(text_match(wanted, read, anywhere=self.anywhere), text=read)
