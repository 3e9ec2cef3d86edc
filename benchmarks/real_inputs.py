"""Rewards on input that nobody drew for them: scikit-image's photographs, and sentences spoken by eSpeak NG.

Each line is an order that has to hold (a photograph above its blurred copy, clean speech above noisy, one voice nearer
to itself than to another) with the scores on both sides and how often it held. Twelve sentences are spoken, in four
voices; noise is white, at the stated ratio of powers.

    uv run python benchmarks/real_inputs.py
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from skimage import data
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from mmalign.media import Audio, Image, Sample, Speech
from mmalign.rewards.base import Score
from mmalign.rewards.cards import find_card, load_reward
from mmalign.worlds import commands
from mmalign.worlds.espeak import Synthesiser

PHOTOGRAPHS = ("astronaut", "camera", "cat", "coffee", "coins", "moon", "page", "rocket", "brick", "grass")
# The first words on scikit-image's photograph of a page, as a person reads them.
PAGE = "Region-based segmentation"
VOICES = ("en-us", "en-us+f2", "en-us+f3", "en-us+m7")
SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "open the window and close the door",
    "we need four more chairs in this room",
    "please call me back on monday morning",
    "the train leaves the station at noon",
    "she reads a new book every week",
    "there is some milk left in the kitchen",
    "my brother works in a small town",
    "turn off the light when you leave",
    "the weather was cold and very dry",
    "he wrote a letter to his old friend",
    "they walked along the river after dinner",
)


@dataclass(frozen=True)
class Line:
    """An order between two sides of a reward, sample by sample; a tie does not hold."""

    reward: str
    better: str
    worse: str
    first: Tensor
    second: Tensor

    def __str__(self) -> str:
        pairs = [(a, b) for a, b in zip(self.first.tolist(), self.second.tolist(), strict=True)]
        low_wins = not find_card(self.reward).higher_is_better
        held = sum((a < b) if low_wins else (a > b) for a, b in pairs)
        means = self.first.nanmean(), self.second.nanmean()
        return (
            f"| `{self.reward}` | {self.better} | {means[0]:.3g} | {self.worse} | {means[1]:.3g} | "
            f"{held} of {len(pairs)} |"
        )


def photograph(name: str) -> Image:
    """A picture of scikit-image; grey ones in three equal channels."""
    array: np.ndarray = getattr(data, name)()
    pixels = torch.from_numpy(np.ascontiguousarray(array)).float() / 255
    return Image(pixels.expand(3, -1, -1).clone() if pixels.ndim == 2 else pixels.permute(2, 0, 1))


def blurred(picture: Image, sigma: float) -> Image:
    """A Gaussian blur of so many pixels."""
    return Image(gaussian_blur(picture.pixels, 2 * math.ceil(3 * sigma) + 1, sigma))


def noisy(sound: Audio, ratio_db: float, random: torch.Generator) -> Audio:
    """White noise at a ratio of powers."""
    noise = torch.randn(sound.waveform.shape, generator=random)
    level = (sound.waveform.square().mean() / 10 ** (ratio_db / 10)).sqrt()
    return replace(sound, waveform=(sound.waveform + level * noise).clamp(-1, 1))


def score(name: str, samples: Sequence[Sample]) -> Score:
    """Scores of a reward by its card."""
    return load_reward(name).score(samples)


def pictures() -> list[Line]:
    """Lines of pictures."""
    shown = [photograph(name) for name in PHOTOGRAPHS]
    sharp = [Sample("", picture) for picture in shown]
    soft = [Sample("", blurred(picture, 3)) for picture in shown]
    lines = [
        Line(
            "sharpness",
            "photograph",
            "blurred",
            score("sharpness", sharp).value,
            score("sharpness", soft).value,
        )
    ]
    page = photograph("page")
    texts = [f'a page that says "{PAGE}"', 'a page that says "Fresh bread every morning"']
    read = score("ocr-anywhere-ppocr-v6", [Sample(text, page) for text in texts]).value
    lines.append(Line("ocr-anywhere-ppocr-v6", "what the page says", "other words", read[:1], read[1:]))
    gone = score("ocr-anywhere-ppocr-v6", [Sample(texts[0], blurred(page, 6))]).value
    lines.append(Line("ocr-anywhere-ppocr-v6", "the page", "blurred beyond reading", read[:1], gone))
    # Photographs are far from what the embedded rewards saw; a number of their unit is all that is asked of them.
    for name in ("embedded/shapes-clip", "embedded/shapes-vlm-digits"):
        found = score(name, [Sample("a large red circle", picture) for picture in shown])
        low, high = find_card(name).range or (-math.inf, math.inf)
        inside = ((found.value >= low) & (found.value <= high)).sum()
        print(
            f"{name}: {int(inside)} of {len(shown)} photographs have a score in its range, "
            f"{found.value.min():.3g} to {found.value.max():.3g}"
        )
    return lines


def speech() -> list[Line]:
    """Lines of speech."""
    speaker, random = Synthesiser(), torch.Generator().manual_seed(0)
    spoken = {
        (voice, text): Audio(speaker.speak(text, voice=voice)[None], speaker.sample_rate_hz)
        for voice in VOICES
        for text in SENTENCES
    }
    told = [(VOICES[i % len(VOICES)], text) for i, text in enumerate(SENTENCES)]
    clean = [Sample(text, spoken[voice, text], {"transcript": text}) for voice, text in told]
    lines = []
    # Of the commands world, whose recogniser knows no other words.
    orders = [
        Sample(commands.caption(c), Speech(speaker.speak(c.text)[None], speaker.sample_rate_hz))
        for c in commands.all_commands("heldout")[:12]
    ]
    for name, better in (("dnsmos-p835", clean), ("wer-pocketsphinx-v5", clean), ("commands-wer", orders)):
        first = score(name, better).value
        for ratio_db in (20, 10, 0):
            worse = [
                replace(s, media=noisy(s.media, ratio_db, random))
                for s in better
                if isinstance(s.media, Audio)
            ]
            lines.append(Line(name, "clean", f"noise at {ratio_db} dB", first, score(name, worse).value))
    silence = Sample("", Audio(torch.zeros(1, 2 * speaker.sample_rate_hz), speaker.sample_rate_hz))
    gated = score("dnsmos-p835", [silence])
    print(f"dnsmos-p835 of silence: {gated.value.tolist()[0]} ({gated.status[0]})")
    others = [VOICES[(VOICES.index(voice) + 1) % len(VOICES)] for voice, _ in spoken]
    same, other = (
        [
            Sample(
                "", sound, {"reference": spoken[who, SENTENCES[(SENTENCES.index(text) + 1) % len(SENTENCES)]]}
            )
            for ((voice, text), sound), who in zip(spoken.items(), whose, strict=True)
        ]
        for whose in ([voice for voice, _ in spoken], others)
    )
    name = "speaker-ge2e-v0.1.4"
    lines.append(
        Line(
            name,
            "another sentence, same voice",
            "other voice",
            score(name, same).value,
            score(name, other).value,
        )
    )
    return lines


def main() -> int:
    """Print the table."""
    lines = [*pictures(), *speech()]
    print("| reward | better | mean | worse | mean | held |\n| --- | --- | --- | --- | --- | --- |")
    print("\n".join(map(str, lines)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
