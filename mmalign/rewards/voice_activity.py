"""Where in a sound somebody speaks, by the silero model: what keeps silence from winning a speech quality score."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.media import Audio
from mmalign.rewards.measured import file_of, needed

RATE_HZ = 16_000
FRAME, CONTEXT = 512, 64
"""Samples that the model judges at once, and those before them that it sees."""
SPOKEN = 0.5
"""The probability above which a frame is speech, as the model's authors set it."""


def onnx_model(package: str, path: str, *, extra: str) -> Any:
    """An onnxruntime session, on one CPU thread, of a file that a package carries; the package is not imported.

    Raises:
        MissingExtraError: onnxruntime or the package is not installed.
    """
    runtime = needed("onnxruntime", extra=extra)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    file = file_of(package, path, extra=extra)
    return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


@cache
def _model() -> Any:
    # Its package would set the threads of torch to one for the whole process, which a training run would notice.
    return onnx_model("silero_vad", "data/silero_vad.onnx", extra="speech")


def samples_16k(sound: Audio) -> NDArray[np.float32]:
    """A sound as [N] at 16 kHz, its channels mixed down."""
    waveform = sound.mono().resampled(RATE_HZ).waveform[0]
    return waveform.detach().float().cpu().numpy()


def speech_probability(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """How likely each 32 ms are speech.

    Args:
        waveform: [N] in [-1, 1] at 16 kHz; the last frame is filled up with silence.

    Returns:
        [ceil(N / 512)] in [0, 1].

    Raises:
        MissingExtraError: the extra ``speech`` is not installed.

    Source: Silero VAD version 6, the model file of its package, one sound from a fresh state.
    """
    frames = -(-len(waveform) // FRAME)
    padded = np.zeros(CONTEXT + frames * FRAME, dtype=np.float32)
    padded[CONTEXT : CONTEXT + len(waveform)] = waveform
    model, state, rate = _model(), np.zeros((2, 1, 128), dtype=np.float32), np.array(RATE_HZ, dtype=np.int64)
    found = np.zeros(frames, dtype=np.float32)
    for frame in range(frames):
        window = padded[None, frame * FRAME : (frame + 1) * FRAME + CONTEXT]
        probability, state = model.run(None, {"input": window, "state": state, "sr": rate})
        found[frame] = probability[0, 0]
    return found


def spoken_s(waveform: NDArray[np.float32]) -> float:
    """Seconds of speech in a sound [N] at 16 kHz: the frames that are speech more likely than not."""
    return float((speech_probability(waveform) > SPOKEN).sum()) * FRAME / RATE_HZ
