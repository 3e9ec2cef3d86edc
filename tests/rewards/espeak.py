"""Speech for tests: eSpeak NG, a synthesiser that comes as a package, called through ctypes."""

import ctypes
import sys
from functools import cache

import numpy as np
import pytest
import torch

from mmalign.media import Speech

SYNCHRONOUS, CHARS_UTF8 = 2, 1
RATE, PITCH = 1, 3


@cache
def _library() -> ctypes.CDLL:
    loader = pytest.importorskip(
        "espeakng_loader", reason="eSpeak NG, which speaks in these tests, is not installed"
    )
    if sys.platform == "win32":
        pytest.skip("the callback below is written for Linux and macOS")
    return ctypes.CDLL(loader.get_library_path())


@cache
def _rate_hz() -> int:
    import espeakng_loader

    return int(_library().espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0))


@cache
def spoken(
    text: str, *, voice: str = "en-us", words_per_minute: int = 130, padding_s: float = 0.25
) -> Speech:
    """A sentence in one of its voices, such as en-us, en-us+f3 or en-gb+m7, with silence around it."""
    library, rate_hz = _library(), _rate_hz()
    chunks: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def keep(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: int | None) -> int:
        if count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(keep)
    assert library.espeak_SetVoiceByName(voice.encode()) == 0, voice
    library.espeak_SetParameter(RATE, words_per_minute, 0)
    data = text.encode() + b"\0"
    library.espeak_Synth(data, len(data), 0, 0, 0, CHARS_UTF8, None, None)
    waveform = torch.tensor(np.frombuffer(b"".join(chunks), dtype=np.int16).astype(np.float32) / 32768)
    silence = torch.zeros(round(padding_s * rate_hz))
    whole = torch.cat([silence, waveform, silence])[None]
    return Speech(whole, rate_hz, transcript=text, voice=voice)
