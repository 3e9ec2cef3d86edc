"""Whether speech says its words: how likely a CTC recogniser finds them, a number that moves before a word changes."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from mmalign.errors import ConfigError
from mmalign.media import Audio, Sample
from mmalign.remote_code import remote_code
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip_encoder import freeze
from mmalign.rewards.measured import MeasuredReward, Measurement, Unmeasurable
from mmalign.rewards.weights import complete, obtain
from mmalign.rewards.word_errors import wanted_words
from mmalign.texts import words

FILES = ("config.json", "model.safetensors", "processor_config.json", "tokenizer_config.json", "vocab.json")
FLOOR = -10.0
"""Nats per character; what a sound gets that is too short for its words, or anything but them."""
LONGEST_S, SHORTEST_S = 30.0, 0.1
"""Sounds are judged up to this length, and filled up with silence to this one."""


def words_to_say(sample: Sample, *, english: bool = True) -> str:
    """What was to be said, as plain words: ``transcript`` in the context, or what the prompt quotes, or the prompt.

    >>> words_to_say(Sample("say 'Open 2 windows!' in a deep voice"))
    'open two windows'
    """
    return " ".join(words(wanted_words(sample, own=False) or "", english=english, fold=False))


def log_prob_per_character(logits: Tensor, characters: Tensor, *, blank: int) -> float:
    """How likely a CTC model finds a text, over all its alignments.

        max(floor, 1/N log sum_{paths of the text} prod_t softmax(logits[t])[path[t]])

    Args:
        logits: [T, V].
        characters: [N] of the vocabulary.
        blank: index of the empty symbol.

    Returns:
        Nats per character, from ``FLOOR`` = -10 to 0; the floor also where T frames are too few for the text.

    Source: Graves et al. 2006, Connectionist Temporal Classification, equation 3.

    >>> log_prob_per_character(torch.zeros(1, 2), torch.tensor([1]), blank=0)  # the one path: -log 2
    -0.6931471824645996
    """
    nats = ctc_loss(
        logits.float().log_softmax(-1)[:, None],
        characters[None],
        torch.tensor([len(logits)]),
        torch.tensor([len(characters)]),
        blank=blank,
        reduction="sum",
    )
    return max(FLOOR, -float(nats) / len(characters))


class CTCReward(MeasuredReward):
    """The log-probability, per character, that a CTC recogniser gives the words to be said.

    What is to be said is ``transcript`` in the sample's context, or else all that the prompt has between quotation
    marks, or else the prompt. Range: [-10, 0] nats per character, higher is better; ``Score.text`` is what is heard, by
    the likeliest symbol of every frame. Silence, and a sound too short for its words, gets what the recogniser says of
    it, at least the floor.

    Args:
        card: its weights are a folder of any CTC model of transformers with its processor.
        device: where the model runs.
        english: whether numbers are spelt out in English; otherwise they are left as digits.

    Raises:
        ConfigError: the weights are not there, or not such a model.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu", english: bool = True) -> None:
        from transformers import AutoModelForCTC, AutoProcessor

        super().__init__(card, device=device)
        self.english = english
        folder = obtain(card, files=FILES)
        try:
            model, loading = AutoModelForCTC.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=remote_code(),
            )
            self.processor: Any = AutoProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=remote_code()
            )
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"reward '{card.name}': transformers could not load '{folder}' ({reason}); it takes a folder with "
                f"{', '.join(FILES)}"
            ) from error
        complete(loading, origin=folder)
        self.model = freeze(model, device)
        self.sample_rate_hz = int(self.processor.feature_extractor.sampling_rate)

    @cached_property
    def _upper(self) -> bool:
        """Whether its letters are capitals."""
        return "a" not in self.processor.tokenizer.get_vocab()

    def measure(self, sample: Sample) -> Measurement:
        """Listen to one sound."""
        assert isinstance(sample.media, Audio)
        text, tokenizer = words_to_say(sample, english=self.english), self.processor.tokenizer
        characters = tokenizer(text.upper() if self._upper else text).input_ids
        if not characters or tokenizer.unk_token_id in characters:
            raise Unmeasurable(f"no words that this recogniser can spell: '{text}'")
        logits = self.logits(sample.media)
        heard = tokenizer.decode(logits.argmax(-1).tolist()).lower()
        value = log_prob_per_character(logits, torch.tensor(characters), blank=self.model.config.pad_token_id)
        return Measurement(value, text=heard)

    @torch.no_grad()
    def logits(self, sound: Audio) -> Tensor:
        """[T, V] on the CPU, what the model says of every frame of a sound."""
        if sound.duration_s > LONGEST_S:
            raise Unmeasurable(f"the sound is {sound.duration_s:.0f} s long, above {LONGEST_S:g} s")
        try:
            wave = sound.mono().resampled(self.sample_rate_hz).waveform[0].detach().float().cpu()
        except ConfigError as error:
            raise Unmeasurable(str(error)) from None
        missing = round(SHORTEST_S * self.sample_rate_hz) - len(wave)
        wave = torch.nn.functional.pad(wave, (0, max(0, missing)))
        inputs = self.processor(
            audio=wave.numpy(), sampling_rate=self.sample_rate_hz, return_tensors="pt"
        ).to(self.device)
        said: Tensor = self.model(**inputs).logits[0].cpu()
        return said
