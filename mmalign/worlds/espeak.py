"""Speech by eSpeak NG, through its library: what the commands world is spoken with.

The library comes with ``espeakng-loader`` (GPL-3), which only development installs; nothing that ships needs it.
"""

import ctypes
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError

# Of speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARACTERS_UTF8 = 1
POSITION_CHARACTER = 1
RATE, PITCH, RANGE = 1, 3, 4

# Of malloc.h in the GNU C library.
M_PERTURB = -6

_heard: list[Tensor] = []


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
def _collect(wave: Any, count: int, events: Any) -> int:
    if wave and count > 0:
        data = bytearray(ctypes.string_at(wave, 2 * count))
        _heard.append(torch.frombuffer(data, dtype=torch.int16).float() / 32768)
    return 0


@contextmanager
def _cleared_memory() -> Iterator[None]:
    """Inside, allocated memory is zero, where the C library can do that: eSpeak NG reads some before it writes it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(M_PERTURB, 255)  # allocated bytes are filled with the complement
    try:
        yield
    finally:
        mallopt(M_PERTURB, 0)


class Synthesiser:
    """A fresh eSpeak NG: from here on, the same calls in the same order give the same sounds.

    The library keeps phases and random numbers from one sentence to the next, and starting it anew does not reset them,
    so each synthesiser loads a copy of its own (half a megabyte, which stays until the process ends).

    Raises:
        ConfigError: eSpeak NG is not installed, or does not start.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise ConfigError(
                "speech is synthesised by eSpeak NG, which is not installed: pip install espeakng-loader"
            ) from None
        source = Path(espeakng_loader.get_library_path())
        with tempfile.TemporaryDirectory() as folder:
            self._library = ctypes.CDLL(str(shutil.copy(source, Path(folder) / source.name)))
        data = espeakng_loader.get_data_path()
        with _cleared_memory():
            self.sample_rate_hz: int = self._library.espeak_Initialize(
                AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), 0
            )
        if self.sample_rate_hz <= 0:
            raise ConfigError(f"eSpeak NG does not start from {data}: error {self.sample_rate_hz}")
        self._library.espeak_SetSynthCallback(_collect)

    def speak(
        self,
        text: str,
        *,
        voice: str = "en-us",
        pitch: int = 50,
        pitch_range: int = 20,
        words_per_minute: int = 130,
    ) -> Tensor:
        """Speak a text.

        Args:
            text: a sentence.
            voice: of eSpeak NG, with its variant: "en-us+f3".
            pitch: 0 to 99; what that means in Hz depends on the voice.
            pitch_range: 0 (monotone) to 99.
            words_per_minute: 80 to 450.

        Returns:
            The waveform [N] in [-1, 1], at ``sample_rate_hz``.

        Raises:
            ConfigError: eSpeak NG does not know the voice, or says nothing.
        """
        with _cleared_memory():
            if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise ConfigError(f"eSpeak NG has no voice '{voice}'")
            for parameter, value in ((RATE, words_per_minute), (PITCH, pitch), (RANGE, pitch_range)):
                self._library.espeak_SetParameter(parameter, value, 0)
            _heard.clear()
            data = text.encode()
            self._library.espeak_Synth(
                data, len(data) + 1, 0, POSITION_CHARACTER, 0, CHARACTERS_UTF8, None, None
            )
            self._library.espeak_Synchronize()
        if not _heard:
            raise ConfigError(f"eSpeak NG said nothing for '{text}'")
        return torch.cat(_heard)
