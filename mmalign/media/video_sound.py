"""The sound of a video file, by FFmpeg (PyAV)."""

from pathlib import Path

import numpy as np
import torch

from mmalign.errors import ConfigError, ShapeError
from mmalign.media.audio import Audio
from mmalign.media.checks import MAX_SOUND_VALUES, check_size
from mmalign.media.decoding import BYTES_PER_SOUND_VALUE, Growing
from mmalign.media.reading import reading
from mmalign.media.video_files import container


def read_sound(path: Path, *, max_samples: int = MAX_SOUND_VALUES) -> Audio:
    """Read the first sound track of a video whole, all its channels, at its own rate.

    Args:
        path: the content names the format, not the suffix.
        max_samples: C x N above which a file is refused.

    Raises:
        DataError: the file is missing, is no video, has no sound, is damaged or too long.
    """
    with reading(path, "video"):
        form = container(path)
        if form is None:
            raise ConfigError("has no sound")  # animated pictures have no place for one
        import av

        blocks: list[np.ndarray] = []
        values, taken = 0, Growing()
        with path.open("rb") as file, av.open(file, "r", format=form) as opened:
            if not opened.streams.audio:
                raise ConfigError("has no sound")
            stream = opened.streams.audio[0]
            rate = int(stream.rate or 0)
            # Planar floats, whatever the codec gives; the rate and the channels stay.
            resampler = av.AudioResampler(format="fltp")
            for packet in opened.demux(stream):
                if packet.is_corrupt:
                    raise ShapeError("its sound is damaged or ends too early")
                for frame in packet.decode():
                    for part in resampler.resample(frame):
                        block = part.to_ndarray()
                        values += block.size
                        check_size(values, max_samples, "samples", "max_samples")
                        taken.reach(BYTES_PER_SOUND_VALUE * values)
                        blocks.append(block)
            blocks += [part.to_ndarray() for part in resampler.resample(None)]
        if not blocks:
            raise ShapeError("its sound is empty")
        waveform = torch.from_numpy(np.concatenate(blocks, 1).astype(np.float32))
        return Audio(waveform.clamp_(-1, 1), rate)
