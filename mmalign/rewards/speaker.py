"""Whether two sounds have the same speaker: a small LSTM's embedding of a voice, with gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from torchaudio.transforms import MelSpectrogram

from mmalign.errors import ShapeError
from mmalign.media import Audio, Sample
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.measured import TensorReward, Unmeasurable, file_of

RATE_HZ = 16_000
LEVEL_DBFS = -30.0
SILENT_PEAK = 1e-3
FRAMES = 160
"""Of 10 ms: what the network was trained on, 1.6 s."""
STEP = 77
"""Frames from one window to the next, 1.3 windows a second."""
LEAST_COVERAGE = 0.75
"""The share of the last window that has to be sound for it to count."""


class VoiceEncoder(nn.Module):
    """Embeds voices: a mel spectrogram, three LSTM layers, and the mean over windows of 1.6 s.

        e = normalise(mean over windows of normalise(relu(linear(last state))))

    Source: Wan et al. 2018, Generalized end-to-end loss for speaker verification (arXiv:1710.10467), as trained by
    Resemblyzer 0.1.4. We bring every sound to -30 dBFS, where its authors only make quiet ones louder, so that volume
    does not count, and cut no silence out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.mel = MelSpectrogram(
            RATE_HZ,
            n_fft=400,
            hop_length=160,
            n_mels=40,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        )

    def forward(self, waveform: Tensor) -> Tensor:
        """Embed sounds of one length.

        Args:
            waveform: [B, N] at 16 kHz.

        Returns:
            [B, 256], of length 1, no entry negative.
        """
        level = waveform.square().mean(1, keepdim=True).clamp_min(1e-12).sqrt()
        mels = self.mel(waveform * (10 ** (LEVEL_DBFS / 20) / level)).transpose(1, 2)  # [B, frames, 40]
        count = window_count(mels.shape[1])
        mels = pad(mels, (0, 0, 0, max(0, (count - 1) * STEP + FRAMES - mels.shape[1])))
        parts = mels.unfold(1, FRAMES, STEP)[:, :count].transpose(2, 3)  # [B, count, FRAMES, 40]
        _, (state, _) = self.lstm(parts.flatten(0, 1))
        embeddings = normalize(self.linear(state[-1]).relu(), dim=1)
        return normalize(embeddings.unflatten(0, (len(waveform), count)).mean(1), dim=1)


def window_count(frames: int) -> int:
    """How many windows a sound of so many frames is seen in; the last one counts if it is three quarters full.

    >>> [window_count(frames) for frames in (10, 160, 196, 197, 237)]
    [1, 1, 1, 2, 2]
    """
    return max(1, 1 + int((frames - LEAST_COVERAGE * FRAMES) // STEP))


def load_voice_encoder() -> VoiceEncoder:
    """The trained encoder, from the file in the package resemblyzer, which is not imported.

    Raises:
        MissingExtraError: the package is not installed.
    """
    path = file_of("resemblyzer", "pretrained.pt", extra="speaker")
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    encoder = VoiceEncoder()
    # The file also holds the two numbers of its training loss.
    known = {name: values for name, values in state.items() if name.startswith(("lstm.", "linear."))}
    missing, _ = encoder.load_state_dict(known, strict=False)
    assert all(name.startswith("mel.") for name in missing), missing
    return encoder.eval().requires_grad_(False)


class SpeakerSimilarity(TensorReward):
    """Cosine of a sound's voice and that of the sound ``reference`` in its context.

        value = <e(sound), e(reference)>,   e of :class:`VoiceEncoder`

    Range: [0, 1], higher is better; one speaker has about 0.9, two have 0.5 to 0.9, and noise lowers it. Channels
    are mixed down; media for ``score_with_grad`` are at the rate of their reference. Silence has no score.

    Raises:
        MissingExtraError: the extra ``speaker`` is not installed.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu") -> None:
        super().__init__(card, device=device)
        self.encoder = load_voice_encoder().to(device)

    def tensor(self, sample: Sample) -> Tensor:
        """[1, N], at the rate of the reference."""
        sound, reference = sample.media, sample.context["reference"]
        assert isinstance(sound, Audio)
        if not isinstance(reference, Audio):
            raise Unmeasurable("the reference is no sound")
        for name, one in (("sound", sound), ("reference", reference)):
            if float(one.waveform.detach().abs().max()) < SILENT_PEAK:
                raise Unmeasurable(f"the {name} is silent")
        return sound.mono().resampled(reference.sample_rate_hz).waveform

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Cosines [B] of sounds [B, C, N] and the references of ``samples``.

        Raises:
            ShapeError: ``media`` is not [B, C, N], or a sample has no reference.
        """
        found = [sample.context.get("reference") for sample in samples]
        sounds = [sound for sound in found if isinstance(sound, Audio)]
        if media.ndim != 3 or len(media) != len(sounds):
            raise ShapeError(
                f"media: expected [B, C, N] with a reference for each, got {list(media.shape)} and {len(sounds)}"
            )
        values = []
        for waveform, reference in zip(media, sounds, strict=True):
            sound = Audio(waveform.float(), reference.sample_rate_hz).mono().resampled(RATE_HZ).waveform
            with torch.no_grad():
                voice = reference.mono().resampled(RATE_HZ).waveform.to(sound)
                wanted = self.encoder(voice)
            values.append((self.encoder(sound) * wanted).sum())
        return torch.stack(values)
