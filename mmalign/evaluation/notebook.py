"""Media inside a notebook: pictures are seen, sounds are heard, videos play and scenes turn."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mmalign.errors import ShapeError
from mmalign.evaluation.page import escaped
from mmalign.evaluation.players import player
from mmalign.media import WRITTEN_SUFFIX, Media


class Shown:
    """A row of figures that a notebook draws by itself; its text is HTML with all data in it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text


def show(media: Sequence[Media], captions: Sequence[str] = ()) -> Shown:
    """Figures of media, as the last expression of a notebook's cell.

    Args:
        media: of any kind.
        captions: one for each, or none.

    Raises:
        ShapeError: another number of captions.
    """
    captions = captions or [""] * len(media)
    if len(captions) != len(media):
        raise ShapeError(f"captions: expected one for each of {len(media)} media, got {len(captions)}")
    figures = []
    with TemporaryDirectory() as folder:
        for index, (medium, caption) in enumerate(zip(media, captions, strict=True)):
            path = Path(folder) / f"{index}{WRITTEN_SUFFIX[medium.modality]}"
            medium.save(path)
            figures.append(
                f'<figure style="margin:0;max-width:16rem">{player(path, caption or medium.modality)}'
                f"<figcaption>{escaped(caption)}</figcaption></figure>"
            )
    return Shown(f'<div style="display:flex;flex-wrap:wrap;gap:1rem">{"".join(figures)}</div>')
