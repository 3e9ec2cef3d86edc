"""A small run folder as a run leaves it, with real pictures, for the tests of what shows it."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.media import Image
from mmalign.worlds import shapes

MakeRun = Callable[..., Path]

SUMMARY: dict[str, Any] = {
    "recipe": "image/flow_dpo",
    "modality": "image",
    "method": "flow_dpo",
    "model": "embedded/shapes-flow",
    "seed": 3,
    "steps": 40,
    "train_reward": {"name": "embedded/shapes-clip", "before": 21.31, "after": 23.92},
    "heldout_reward": {
        "name": "shapes-truth",
        "before": 0.651,
        "after": 0.727,
        "gain": 0.076,
        "ci95": [0.052, 0.101],
        "n": 512,
        "prompts": 256,
        "aspects": {"kind": {"before": 0.611, "after": 0.713}, "colour": {"before": 0.702, "after": 0.698}},
    },
    "sampling": {
        "before": {"sampler": "FlowMatchEulerDiscreteScheduler", "steps": 16, "guidance": 3.0},
        "after": {"sampler": "FlowMatchEulerDiscreteScheduler", "steps": 16, "guidance": 3.0},
    },
    "guards": {
        "sharpness": {"before": 0.0102, "after": 0.0101},
        "diversity": {"before": 0.211, "after": 0.148},
    },
    "denoiser_passes": 51840,
    "wall_s": 352.4,
    "peak_rss_mb": 2310.5,
    "versions": {"torch": "2.13.0", "mmalign": "0.1.0"},
}
PROMPTS = (
    "a small red circle on the left",
    'a "large" <b>star</b> & a $square',
    "one blue triangle, small, 日本",
)


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(**summary: Any) -> Path:
        folder = tmp_path / "runs" / "image-flow_dpo-1"
        (folder / "lora").mkdir(parents=True)
        (folder / "lora" / "pytorch_lora_weights.safetensors").touch()
        (folder / "summary.json").write_text(json.dumps({**SUMMARY, **summary}), encoding="utf-8")
        (folder / "recipe.yaml").write_text("recipe: image/flow_dpo\nmethod:\n  beta: 500.0  # <high>\n")
        rows: list[dict[str, Any]] = [
            {"step": step, "loss": 0.7 - step / 400, "accuracy": 0.5 + step / 200, "margin": step / 10}
            for step in range(1, 41)
        ]
        rows[19]["heldout_reward"], rows[39]["heldout_reward"] = 0.68, 0.73
        rows[7]["loss"] = None
        (folder / "metrics.jsonl").write_text(lines(rows))
        random = torch.Generator().manual_seed(0)
        for side, scores in (("before", [0.25, 0.875, None]), ("after", [0.75, 0.375, 0.5])):
            samples = folder / "samples" / side
            samples.mkdir(parents=True)
            drawn = shapes.render([shapes.random_scene(random) for _ in PROMPTS], random, side_px=32)
            names = [f"{i:05d}.png" for i in range(len(PROMPTS))]
            for name, pixels in zip(names, drawn, strict=True):
                Image(pixels).save(samples / name)
            options = {"num_inference_steps": 16, "guidance_scale": 3.0}
            (samples / "metadata.jsonl").write_text(
                lines(
                    {"file_name": name, "prompt": prompt, "seed": 1_000 + i, **options}
                    for i, (name, prompt) in enumerate(zip(names, PROMPTS, strict=True))
                ),
                encoding="utf-8",
            )
            (samples / "scores.jsonl").write_text(
                lines(
                    {"file_name": name, "reward": "shapes-truth", "score": score}
                    for name, score in zip(names, scores, strict=True)
                )
            )
        return folder

    return make
