"""Sound files whose header does not say how long they are, by FFmpeg (PyAV): frame by frame to the end of the file."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.media.checks import check_size
from mmalign.media.decoding import BYTES_PER_SOUND_VALUE, Growing


def read(path: Path, form: str, *, max_samples: int) -> tuple[Tensor, int]:
    """Waveform [C, N] in fp32 and rate in Hz.

    Args:
        path: the file.
        form: FFmpeg's name for the format, which is not left to FFmpeg to find.
        max_samples: C x N above which it is refused.

    Raises:
        ShapeError: it is empty or changes its rate.
        ConfigError: it is longer than ``max_samples`` values.
    """
    import av

    blocks: list[np.ndarray] = []
    values, rate, taken = 0, 0, Growing()
    with path.open("rb") as file, av.open(file, "r", format=form) as opened:
        if not opened.streams.audio:
            raise ShapeError("there is no sound in it")
        resampler = av.AudioResampler(format="fltp")
        for frame in opened.decode(opened.streams.audio[0]):
            if rate not in (0, frame.sample_rate):
                raise ShapeError(f"changes its rate from {rate} to {frame.sample_rate} Hz")
            rate = frame.sample_rate
            for part in resampler.resample(frame):
                block = part.to_ndarray()
                values += block.size
                check_size(values, max_samples, "samples", "max_samples")
                taken.reach(BYTES_PER_SOUND_VALUE * values)
                blocks.append(block)
        if blocks:
            blocks += [part.to_ndarray() for part in resampler.resample(None)]
    if not blocks:
        raise ShapeError("the sound is empty")
    return torch.from_numpy(np.concatenate(blocks, 1).astype(np.float32)), rate
