"""How fast a CLIP reward is beside the same model one picture at a time, and beside torchmetrics' CLIPScore.

A CLIP of the size of ViT-B/32 with random weights, the same for all sides, scores the same pictures under the same
prompts. They run in turns in one process, in another order each round, with nothing remembered from the round before;
a ratio is the median of those of the rounds. Processor time, of all threads together, is printed beside it: where other
work shares the cores, it says more than the clock.

    uv run python benchmarks/clip_speed.py        # bars: 1.3 times the loop on two cores, not slower than torchmetrics
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from torch import Tensor
from torchmetrics.multimodal import CLIPScore
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from mmalign.media import Image, Sample
from mmalign.rewards.cards import find_card
from mmalign.rewards.clip import ClipReward
from mmalign.worlds import shapes

BARS = {"one at a time": 1.3, "torchmetrics": 1.0}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    pictures: int = 256
    side_px: int = 512
    batch_size: int = 32
    rounds: int = 5
    threads: int = 2
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


class OlderClip(CLIPModel):
    """Returns features as tensors, which torchmetrics 1.9 expects and transformers 5 no longer does."""

    def get_image_features(self, *args: Any, **options: Any) -> Tensor:
        """[B, D]."""
        features: Tensor = super().get_image_features(*args, **options).pooler_output
        return features

    def get_text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, D]."""
        features: Tensor = super().get_text_features(ids, attention_mask=mask).pooler_output
        return features


def save(folder: Path) -> None:
    """A CLIP of ViT-B/32's size, its words letter by letter, in the layout of openai/clip-vit-base-patch32."""
    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]).save_pretrained(folder)
    preprocessor = {"size": 224, "crop_size": 224, "resample": 3, "image_mean": MEAN, "image_std": STD}
    kind = {"image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps({**preprocessor, **kind}))
    torch.manual_seed(0)
    text = {"eos_token_id": len(pieces) - 1}  # or transformers reads the first token of every prompt
    CLIPModel(CLIPConfig(text_config=text)).save_pretrained(folder)  # the other defaults are ViT-B/32's


def draw(settings: Settings) -> list[tuple[str, Tensor]]:
    """Scenes under their captions, in 8 bits."""
    random = torch.Generator().manual_seed(0)
    pairs: list[tuple[str, Tensor]] = []
    while len(pairs) < settings.pictures:
        scene = shapes.random_scene(random)
        (picture,) = shapes.render([scene], random, side_px=settings.side_px)
        pairs.append((shapes.caption(scene), (picture * 255).round().byte()))
    return pairs


def one_at_a_time(folder: Path, pairs: list[tuple[str, Tensor]], settings: Settings) -> Callable[[], Tensor]:
    """The loop that scripts have: a picture, its prompt, the cosine."""
    model = CLIPModel.from_pretrained(folder).to(settings.device).eval()
    processor = CLIPProcessor.from_pretrained(folder)

    @torch.no_grad()
    def run() -> Tensor:
        scores = []
        for prompt, picture in pairs:
            inputs = processor(text=[prompt], images=[picture], return_tensors="pt").to(settings.device)
            output = model(**inputs)
            scores.append(100 * (output.image_embeds * output.text_embeds).sum().cpu())
        return torch.stack(scores).clamp(min=0)

    return run


def torchmetrics(folder: Path, pairs: list[tuple[str, Tensor]], settings: Settings) -> Callable[[], Tensor]:
    """CLIPScore on batches; it gives their mean only."""
    model, processor = OlderClip.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    metric = CLIPScore(model_name_or_path=lambda: (model, processor)).to(settings.device)

    @torch.no_grad()
    def run() -> Tensor:
        metric.reset()
        for start in range(0, len(pairs), settings.batch_size):
            prompts, pictures = zip(*pairs[start : start + settings.batch_size], strict=True)
            metric.update([picture.to(settings.device) for picture in pictures], list(prompts))
        mean: Tensor = metric.compute().cpu()
        return mean

    return run


def ours(folder: Path, pairs: list[tuple[str, Tensor]], settings: Settings) -> Callable[[], Tensor]:
    """The card of this very score."""
    card = replace(find_card("clipscore-vit-l-14"), weights=str(folder))
    reward = ClipReward(card, device=settings.device, batch_size=settings.batch_size, **card.options)

    def run() -> Tensor:
        reward.encoder.text.kept.clear()
        return reward.score([Sample(prompt, Image(picture / 255)) for prompt, picture in pairs]).value

    return run


def main(settings: Settings) -> int:
    """Measure, print, and fail below a bar."""
    torch.set_num_threads(settings.threads)
    pairs = draw(settings)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        sides = {
            "mmalign": ours(Path(folder), pairs, settings),
            "one at a time": one_at_a_time(Path(folder), pairs, settings),
            "torchmetrics": torchmetrics(Path(folder), pairs, settings),
        }
        scores = {name: run() for name, run in sides.items()}  # warms up, too
        gap = float((scores["mmalign"] - scores["one at a time"]).abs().max())
        mean_gap = float((scores["mmalign"].mean() - scores["torchmetrics"]).abs())
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        worked: dict[str, list[float]] = {name: [] for name in sides}
        for round_ in range(settings.rounds):
            names = list(sides)
            for name in names[round_ % 3 :] + names[: round_ % 3]:
                started, worked_before = time.perf_counter(), time.process_time()
                sides[name]()
                seconds[name].append(time.perf_counter() - started)
                worked[name].append(time.process_time() - worked_before)
            rates = [f"{name} {len(pairs) / taken[-1]:.1f}/s" for name, taken in seconds.items()]
            console.print(f"round {round_ + 1}: {', '.join(rates)}")
    passed = True
    for name, bar in BARS.items():
        ratio, by_processor = (
            statistics.median(theirs / mine for theirs, mine in zip(of[name], of["mmalign"], strict=True))
            for of in (seconds, worked)
        )
        passed &= ratio >= bar
        print(f"{ratio:.2f} times as fast as {name} (bar {bar}), {by_processor:.2f} in processor time")
    print(
        f"{len(pairs)} pictures of {settings.side_px} px in batches of {settings.batch_size}, {settings.threads} "
        f"threads, {settings.device}; largest difference of a score from the loop's {gap:.3f}, of the mean "
        f"from torchmetrics' {mean_gap:.3f}"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Settings)))
