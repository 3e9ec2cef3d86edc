"""Scores sounds against prompts by the cosine of their CLAP vectors."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Audio, Sample
from mmalign.remote_code import remote_code
from mmalign.rewards.base import OK, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip import clip_cosine
from mmalign.rewards.clip_encoder import freeze
from mmalign.rewards.log_mel import LogMel
from mmalign.rewards.prompts import HuggingFaceTokenizer, PromptEmbeddings
from mmalign.rewards.weights import complete, obtain

FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def cut_into_windows(waveform: Tensor, *, length: int) -> tuple[Tensor, Tensor]:
    """A sound as windows of one length.

    A sound that does not fill a window is repeated as often as it fits, and the rest is silence, as in CLAP's training;
    a longer one is cut into windows that do not overlap, of which the last may be such a short one.

    Args:
        waveform: [B, N].
        length: of a window, in samples.

    Returns:
        [B, W, length], and [W], the share of the sound that each window has; they sum to 1.

    >>> windows, share = cut_into_windows(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]), length=5)
    >>> windows
    tensor([[[1., 2., 3., 4., 5.],
             [6., 7., 6., 7., 0.]]])
    >>> share
    tensor([0.7143, 0.2857])
    """
    parts = waveform.split(length, dim=-1)
    windows = []
    for part in parts:
        repeated = part.repeat(1, length // part.shape[-1])
        windows.append(torch.nn.functional.pad(repeated, (0, length - repeated.shape[-1])))
    sizes = torch.tensor([part.shape[-1] for part in parts], device=waveform.device)
    return torch.stack(windows, dim=1), sizes / sizes.sum()


class ClapReward:
    """How well a sound fits its prompt, by a CLAP checkpoint in transformers' format.

        score = sum_w share_w * cos(E_audio(window_w), E_text(prompt))

    over windows of 10 s that do not overlap, each counting for its share of the sound; a shorter sound is one window.
    The authors take a random 10 s instead, so that a long sound has another score each time. Their own package rounds
    to 16 bits first; nothing is rounded here, so that there is a gradient, as in transformers.

    Range: [-1, 1], higher is better; 0.2 to 0.6 for sounds that fit. Sounds at another rate are resampled; channels are
    averaged.

    Source: Wu et al. 2023, Large-scale Contrastive Language-Audio Pretraining, section 2 (arXiv:2211.06687).

    Args:
        card: its weights are a folder of a ``ClapModel`` without feature fusion, which needs random crops.
        device: where the model runs.
        batch_size: windows in one forward pass.

    Raises:
        ConfigError: the weights are not there, or not such a model.
    """

    def __init__(self, card: RewardCard, *, device: str = "cpu", batch_size: int = 16) -> None:
        from transformers import AutoTokenizer, ClapModel

        self.card, self.device, self.batch_size = card, device, batch_size
        folder = obtain(card, files=FILES)
        try:
            model, loading = ClapModel.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=remote_code()
            )
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"reward '{card.name}': transformers could not load '{folder}' ({reason}); it takes a folder with "
                f"{', '.join(FILES)}"
            ) from error
        complete(loading, origin=folder)
        if model.config.audio_config.enable_fusion:
            raise ConfigError(
                f"reward '{card.name}': '{folder}' fuses random crops of long sounds, so its score changes from call "
                "to call; take the checkpoint without fusion"
            )
        self.model = freeze(model, device)
        settings = read_settings(folder)
        self.sample_rate_hz = int(settings["sampling_rate"])
        self.window = int(settings["max_length_s"]) * self.sample_rate_hz
        self.log_mel = freeze(
            LogMel(
                sample_rate_hz=self.sample_rate_hz,
                window=settings["fft_window_size"],
                hop=settings["hop_length"],
                bands=settings["feature_size"],
                low_hz=settings["frequency_min"],
                high_hz=settings["frequency_max"],
            ),
            device,
        )
        text = model.config.text_config
        # RoBERTa counts positions from one after the padding token's.
        context = text.max_position_embeddings - text.pad_token_id - 1
        self.text = PromptEmbeddings(
            HuggingFaceTokenizer(tokenizer, context=context, name=card.name), self._encode_text, device=device
        )

    def prepare(self, sample: Sample) -> Sample:
        """The sample with its sound as one channel at the model's rate."""
        if not isinstance(sample.media, Audio):
            return sample
        try:
            return replace(sample, media=sample.media.mono().resampled(self.sample_rate_hz))
        except ConfigError:  # a rate that no filter converts; score() says so
            return sample

    @torch.no_grad()
    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sound; values on the CPU."""
        ready, status = [], []
        for sample in samples:
            entry = obstacle(sample, self.card)
            if entry == OK:
                sample = self.prepare(sample)
                entry = self._fault(sample)
            status.append(entry)
            ready += [sample] if entry == OK else []
        if not ready:
            return scatter(status, torch.zeros(0))
        audio, shares = self._windows(ready)
        text = self.text([sample.prompt for sample in ready])
        values = [
            (share * clip_cosine(vectors, prompt)).sum()
            for vectors, share, prompt in zip(audio, shares, text, strict=True)
        ]
        return scatter(status, torch.stack(values).cpu())

    def obstacle(self, sample: Sample) -> str:
        """ "ok", or why the sample cannot be scored."""
        entry = obstacle(sample, self.card)
        return self._fault(self.prepare(sample)) if entry == OK else entry

    def prompt_vectors(self, prompts: Sequence[str]) -> Tensor:
        """[B, D], of length 1."""
        return self.text(prompts)

    @torch.no_grad()
    def media_vectors(self, samples: Sequence[Sample]) -> Tensor:
        """[B, D], so that the score is their product with a prompt's vector: sum_w share_w * vector_w / |vector_w|."""
        audio, shares = self._windows([self.prepare(sample) for sample in samples])
        pairs = zip(audio, shares, strict=True)
        return torch.stack([share @ normalize(vectors, dim=-1) for vectors, share in pairs]).float().cpu()

    def media_vectors_with_grad(self, media: Tensor, *, sample_rate_hz: int | None = None) -> Tensor:
        """[B, D] of waveforms [B, C, N]; as ``score_with_grad``."""
        audio, share = self._windows_with_grad(media, sample_rate_hz)
        return torch.einsum("w,bwd->bd", share.to(audio.dtype), normalize(audio, dim=-1))

    def _windows(self, ready: Sequence[Sample]) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Of each prepared sample the vectors [W, D] of its windows, and their shares [W]."""
        windows, shares = [], []
        for sample in ready:
            assert isinstance(sample.media, Audio)
            waveform = sample.media.waveform.to(self.device, torch.float32)
            cut, share = cut_into_windows(waveform, length=self.window)
            windows.append(cut[0])
            shares.append(share)
        counts = [len(cut) for cut in windows]
        passes = torch.cat(windows).split(self.batch_size)
        return torch.cat([self._encode_audio(part) for part in passes]).split(counts), shares

    def score_with_grad(
        self, media: Tensor, samples: Sequence[Sample], *, sample_rate_hz: int | None = None
    ) -> Tensor:
        """Scores whose gradient reaches the waveforms.

        Args:
            media: [B, C, N] in [-1, 1].
            samples: B samples; only their prompts are read.
            sample_rate_hz: of ``media``; None for the model's own.

        Returns:
            [B], in the card's unit.

        Raises:
            ShapeError: ``media`` is not [B, C, N] with one sample for each.
        """
        if media.ndim != 3 or len(media) != len(samples) or 0 in media.shape:
            raise ShapeError(f"media: expected [B, C, N] with B = {len(samples)}, got {list(media.shape)}")
        audio, share = self._windows_with_grad(media, sample_rate_hz)
        text = self.text([sample.prompt for sample in samples])
        return clip_cosine(audio, text[:, None]) @ share.to(audio.dtype)

    def _windows_with_grad(self, media: Tensor, sample_rate_hz: int | None) -> tuple[Tensor, Tensor]:
        """Vectors [B, W, D] of the windows of waveforms [B, C, N], and their shares [W]."""
        mono = media.mean(1)
        if sample_rate_hz not in (None, self.sample_rate_hz):
            from torchaudio.functional import resample

            mono = resample(mono, sample_rate_hz, self.sample_rate_hz)
        windows, share = cut_into_windows(mono, length=self.window)
        return self._encode_audio(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]), share

    def _fault(self, prepared: Sample) -> str:
        rate = prepared.media.sample_rate_hz if isinstance(prepared.media, Audio) else self.sample_rate_hz
        if rate != self.sample_rate_hz:
            return f"a rate of {rate} Hz cannot become {self.sample_rate_hz} Hz"
        return OK

    def _encode_audio(self, windows: Tensor) -> Tensor:
        features = self.log_mel(windows)[:, None]
        encoded: Tensor = self.model.get_audio_features(features).pooler_output
        return encoded

    def _encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        encoded: Tensor = self.model.get_text_features(ids, attention_mask=mask).pooler_output
        return encoded


def read_settings(folder: Path) -> dict[str, Any]:
    """What a ``ClapFeatureExtractor`` does, from its preprocessor_config.json.

    Args:
        folder: of the checkpoint.

    Raises:
        ConfigError: no such file, or an extractor that fills short sounds in another way, or fuses long ones.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise ConfigError(f"there is no preprocessor_config.json in '{folder}'; it comes with the checkpoint")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    expected = {"truncation": "rand_trunc", "padding": "repeatpad", "top_db": None}
    other = [key for key, want in expected.items() if values.get(key, want) != want]
    if other:
        key = other[0]
        raise ConfigError(f"'{path}': {key} = {values[key]!r}, but only {expected[key]!r} is known here")
    return values
