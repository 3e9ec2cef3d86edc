"""What a token or region head is trained from: pictures with captions, right words and wrong ones, and where."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mmalign.data.faults import Fault
from mmalign.data.ratings import Rating
from mmalign.data.schemas import read_what_can_be
from mmalign.errors import ConfigError, DataError
from mmalign.media import Image
from mmalign.rewards.preprocessing import Preprocessing
from mmalign.texts import plain_prompt


@dataclass(frozen=True)
class DenseExample:
    """One picture with a caption.

    Args:
        prompt: the caption.
        medium: index of the picture's file.
        right: whether the picture shows each word.
        region: a file, where somebody said what is wrong; None where nobody did.
        row: of the table, from 1.
    """

    prompt: str
    medium: int
    right: tuple[bool, ...]
    region: Path | None
    row: int

    @property
    def sound(self) -> bool:
        """Whether all of the caption is right, so that a wrong one can be made of it."""
        return all(self.right)


@dataclass(frozen=True, eq=False)
class DenseExamples:
    """N examples, and the rows of their table that are none: rows = N + rejected."""

    examples: tuple[DenseExample, ...]
    media: tuple[Path, ...]
    rows: int
    rejected: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def without_media(self, status: Sequence[str], path: Path) -> "DenseExamples":
        """Those whose picture could be read.

        Args:
            status: for each of ``media`` "ok", or what is wrong with it.
            path: of the table.

        Raises:
            DataError: none is left.
        """
        bad = [e for e in self.examples if status[e.medium] != "ok"]
        reasons = tuple(f"{path}, row {e.row}: {self.media[e.medium]}: {status[e.medium]}" for e in bad)
        rows = {e.row for e in bad}
        left = tuple(e for e in self.examples if e.row not in rows)
        if not left:
            raise DataError(f"none of its {self.rows} rows can be used; first: {reasons[0]}", file=path)
        return replace(self, examples=left, rejected=(*self.rejected, *reasons))


def read_dense(path: Path, *, regions: bool) -> DenseExamples:
    """The rows of a table that a head on words or regions can learn from.

    Args:
        path: demonstrations (prompt, sample), each caption right; or faults (prompt, sample, marked, and region).
        regions: whether regions are needed: then of faults, and a wrong caption without one is rejected.

    Raises:
        DataError: no such file, another kind of table, or nothing in it that can be used.
    """
    if not path.is_file():
        raise DataError("no such file", file=path)
    schema, used, errors = read_what_can_be(path)
    wanted = ("faults",) if regions else ("faults", "demonstrations")
    if schema.name not in wanted:
        kinds = {
            "faults": "faults (prompt, sample, marked: the prompt with _0 behind wrong words; region)",
            "demonstrations": "demonstrations (prompt, sample)",
        }
        raise DataError(
            f"{schema.name} do not say what of a picture is wrong; this head is trained from "
            f"{' or '.join(kinds[name] for name in wanted)}",
            file=path,
        )
    rejected = [str(error) for error in errors]
    media: dict[Path, int] = {}
    examples = []
    for number, _, entry in used:
        right = entry.right if isinstance(entry, Fault) else (True,) * len(entry.prompt.split())
        region = entry.region if isinstance(entry, Fault) else None
        assert isinstance(entry, Fault | Rating)
        if regions and region is None and not all(right):
            rejected.append(f"{path}, row {number}: a wrong word, and no region says where it shows")
            continue
        index = media.setdefault(entry.sample, len(media))
        examples.append(DenseExample(entry.prompt, index, right, region, number))
    if not examples:
        raise DataError(f"none of its {len(used) + len(errors)} rows can be used; {rejected[0]}", file=path)
    return DenseExamples(tuple(examples), tuple(media), len(used) + len(errors), tuple(rejected))


def read_region(path: Path, preprocessing: Preprocessing, grid: tuple[int, int]) -> Tensor:
    """The share of each patch that a marked region covers, [P] row by row, as the model sees the picture.

    Raises:
        DataError: the file cannot be read.
    """
    pixels = Image.load(path).pixels[None]
    seen = preprocessing.resize(pixels).mean(1, keepdim=True)
    return adaptive_avg_pool2d(seen, grid).flatten().clamp(0, 1)


@dataclass(frozen=True, eq=False)
class DenseSplit:
    """Indices of examples by their prompts, in normal form: none is in two parts."""

    train: Tensor
    stopping: Tensor
    heldout: Tensor


def split_dense(
    examples: Sequence[DenseExample], *, heldout: float, generator: torch.Generator
) -> DenseSplit:
    """Hold out a share of the prompts, half of them for stopping.

    Raises:
        ConfigError: fewer prompts than parts, or a share that leaves a part empty.
    """
    if not 0 < heldout < 1:
        raise ConfigError(f"heldout = {heldout}, but it is a share of the prompts in (0, 1); 0.2 is usual")
    plain = [plain_prompt(e.prompt) for e in examples]
    names = {prompt: i for i, prompt in enumerate(dict.fromkeys(plain))}
    half = max(1, round(heldout * len(names) / 2))
    if 2 * half >= len(names):
        raise ConfigError(
            f"{len(names)} prompts with heldout = {heldout}: none is left to train on, after those to stop by and to "
            "judge by"
        )
    place = torch.randperm(len(names), generator=generator)
    of = place[torch.tensor([names[prompt] for prompt in plain])]
    parts = (of >= 2 * half, of < half, (of >= half) & (of < 2 * half))
    return DenseSplit(*(part.nonzero()[:, 0] for part in parts))
