"""Whether speech says its words: the word error rate that a recogniser hears."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.media import Audio, Sample, Speech
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.measured import MeasuredReward, Measurement, Unmeasurable, needed
from mmalign.rewards.text_distance import edit_distance
from mmalign.rewards.voice_activity import RATE_HZ, samples_16k
from mmalign.texts import quoted_texts, words

NOISE_DB = 25.0
"""How far under the sound its added noise lies: a recogniser of recorded speech is confused by exact zeros."""


def word_error_rate(wanted: str, heard: str) -> float:
    """Words to insert, delete and replace, per word that was to be said.

    >>> word_error_rate("a b c", "a x c d")  # one replaced, one too many: 2 / 3
    0.6666666666666666

    Args:
        wanted: at least one word, after :func:`mmalign.texts.words`: no case, punctuation or curls, numbers as English
            words.
        heard: may be empty, which is a rate of 1.

    Returns:
        At least 0; above 1 where more is heard than was to be said.
    """
    return edit_distance(words(wanted), words(heard)) / len(words(wanted))


def wanted_words(sample: Sample, *, own: bool = True) -> str | None:
    """What was to be said; None where nothing says it.

    The first that has a word: ``transcript`` in the context, the speech's own, all that the prompt has between
    quotation marks, the prompt itself. A speech's own transcript that is the prompt, as a generator gives it, says no
    more.

    >>> wanted_words(Sample("say 'Open the window!' in a deep voice"))
    'Open the window!'

    Args:
        sample: whose words are wanted.
        own: whether the speech's own transcript counts.
    """
    said = sample.media.transcript if own and isinstance(sample.media, Speech) else None
    said = None if said == sample.prompt else said
    quoted = " ".join(quoted_texts(sample.prompt))
    for text in (sample.context.get("transcript"), said, quoted, sample.prompt):
        if isinstance(text, str) and words(text):
            return text
    return None


def dithered(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """A sound [N] at a peak of 1/2, with seeded white noise 25 dB under its mean power; silence stays silent."""
    peak = np.abs(waveform).max(initial=0.0)
    if peak < 1e-4:
        return np.zeros_like(waveform)
    level = waveform * np.float32(0.5 / peak)
    noise = np.random.default_rng(0).standard_normal(len(level)).astype(np.float32)
    strength = np.sqrt(np.mean(level**2)) * 10 ** (-NOISE_DB / 20)
    return np.clip(level + np.float32(strength) * noise, -1, 1)


class WordErrorRate(MeasuredReward):
    """The word error rate of speech, as PocketSphinx hears it; see :func:`word_error_rate`.

    What was to be said: see :func:`wanted_words`. Range: [0, inf), lower is better; silence has 1. ``Score.text`` is
    what was heard. The recogniser is small: with its own language model it mishears a third of clean synthetic words,
    so compare rates and do not read them as absolute. With a grammar of the sentences that may occur it is far better,
    but hears one of them in any other speech.

    Args:
        card: says what it takes.
        device: ignored, the recogniser runs on the CPU.
        grammar: in JSGF, "#JSGF V1.0; ..."; None for English at large.

    Raises:
        MissingExtraError: pocketsphinx is not installed.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu", grammar: str | None = None) -> None:
        super().__init__(card, device=device)
        self.grammar = grammar
        self._pocketsphinx = needed("pocketsphinx", extra="speech")

    @cached_property
    def _decoder(self) -> Any:
        if self.grammar is None:
            return self._pocketsphinx.Decoder(samprate=RATE_HZ, loglevel="FATAL")
        decoder = self._pocketsphinx.Decoder(samprate=RATE_HZ, loglevel="FATAL", lm=None)
        decoder.add_jsgf_string("grammar", self.grammar)
        decoder.activate_search("grammar")
        return decoder

    def hear(self, sound: Audio) -> str:
        """The words that are heard, none in silence."""
        waveform = dithered(samples_16k(sound))
        if not waveform.any():
            return ""
        # Its running estimate of the channel would carry over from one sound to the next.
        decoder = self._decoder
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw((waveform * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        heard = decoder.hyp()
        return heard.hypstr if heard else ""

    def measure(self, sample: Sample) -> Measurement:
        """Listen to one sound."""
        assert isinstance(sample.media, Audio)
        wanted = wanted_words(sample)
        if wanted is None:
            raise Unmeasurable("no transcript: nothing says which words were to be said")
        heard = self.hear(sample.media)
        return Measurement(word_error_rate(wanted, heard), text=heard)
