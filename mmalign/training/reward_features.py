"""Features of media by a frozen backbone, kept on disk by content, so that an interrupted job goes on."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmalign.errors import DataError
from mmalign.media import Sample, content_hash, load_media
from mmalign.rewards.base import OK, EmbeddingReward
from mmalign.training.progress import stage
from mmalign.weights import write_tensors

VECTORS = "vectors"


class MediaEmbedder(Protocol):
    """What makes tensors of media, all of one shape; ``EmbeddingReward`` is one."""

    def obstacle(self, sample: Sample) -> str:
        """ "ok", or why there is none of this sample."""
        ...

    def prepare(self, sample: Sample) -> Sample:
        """The sample with its medium made small."""
        ...

    def media_vectors(self, samples: Sequence[Sample]) -> Tensor:
        """[B, ...], on the CPU."""
        ...


class FeatureCache:
    """Vectors, or tensors of any one shape, by the hash of a medium's content.

    They lie in files of a batch each, written whole or not at all.

    They are kept in 16 bits, and what was just computed is rounded alike, so that a job that went on equals one that
    did not stop. A file that is damaged counts as absent. Several processes may share the folder.

    Args:
        folder: where.
        key: of the backbone, its weights and its preprocessing; others have their own place in the folder.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder / key
        self._known: dict[str, Tensor] = {}
        for path in sorted(self._folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    names = json.loads(file.metadata()["names"])
                    self._known.update(zip(names, file.get_tensor(VECTORS), strict=True))
            except (OSError, SafetensorError, KeyError, TypeError, ValueError):
                continue

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str) -> Tensor | None:
        """[D] of a medium, or None."""
        return self._known.get(name)

    def add(self, names: Sequence[str], vectors: Tensor) -> None:
        """Keep vectors [B, D] of B media."""
        rounded = vectors.to(torch.float16).contiguous()
        self._known.update(zip(names, rounded, strict=True))
        digest = hashlib.sha256("".join(names).encode()).hexdigest()[:16]
        write_tensors(
            self._folder / f"{digest}.safetensors", {VECTORS: rounded}, {"names": json.dumps(list(names))}
        )


def embed_media(
    backbone: MediaEmbedder, media: Sequence[Path], cache: FeatureCache, *, batch_size: int = 256
) -> tuple[Tensor, list[str]]:
    """Vectors of media files; those that are known are read but not computed.

    Args:
        backbone: what makes them.
        media: M files.
        cache: where they are kept.
        batch_size: media that are held and written at once.

    Returns:
        [M, D], or [M, ...] as ``media_vectors`` gives them, zeros where there is none, and M times "ok" or why there is
        none.
    """
    rows: list[Tensor | None] = []
    status: list[str] = []
    with stage("reading and embedding", len(media)) as bar, ThreadPoolExecutor(2, "read") as readers:
        for start in range(0, len(media), batch_size):
            read = list(readers.map(lambda path: _read(path, backbone), media[start : start + batch_size]))
            new = {
                name: sample
                for name, sample, entry in read
                if sample is not None and entry == OK and cache.get(name) is None
            }
            if new:
                cache.add(list(new), backbone.media_vectors(list(new.values())))
            status += [entry for _, _, entry in read]
            rows += [cache.get(name) if entry == OK else None for name, _, entry in read]
            bar.advance(len(read))
    nothing = torch.zeros_like(next((row for row in rows if row is not None), torch.zeros(1))).float()
    return torch.stack([nothing if row is None else row.float() for row in rows]), status


def _read(path: Path, backbone: MediaEmbedder) -> tuple[str, Sample | None, str]:
    """A medium's hash, itself as the backbone wants it, and "ok" or what is wrong with it."""
    try:
        media = load_media(path)
    except DataError as error:
        return "", None, " ".join(str(error).splitlines())
    # The prompt belongs to the row, and the vector to the medium; any will do to ask for obstacles.
    entry = backbone.obstacle(Sample("a", media))
    if entry != OK:
        return "", None, entry
    return content_hash(Sample("", media)), backbone.prepare(Sample("", media)), OK


def embed_prompts(backbone: EmbeddingReward, prompts: Sequence[str]) -> Tensor:
    """[P, D] on the CPU; the backbone itself keeps them."""
    return backbone.prompt_vectors(prompts).float().cpu()
