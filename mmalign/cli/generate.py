"""``mmalign generate``: draw samples of a model, with or without a LoRA."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from mmalign.cli.options import parse
from mmalign.errors import ConfigError
from mmalign.ranges import COUNT, GUIDANCE, NOT_NEGATIVE, POSITIVE, SEED, Range, check_ranges
from mmalign.rewards.cards import find_card, parse_weighted
from mmalign.training.base_model import STEPS, default_guidance, read_base_model
from mmalign.training.places import check_new_folder
from mmalign.training.preflight_rewards import check_card


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateCommand:
    """Draw samples of prompts; metadata.jsonl beside them says how to draw each again in plain diffusers."""

    model: Positional[str]
    """Embedded name, folder or hub id."""
    out: Path
    """A new folder."""
    prompt: str | None = None
    """One prompt."""
    prompts: str | None = None
    """A text file with one prompt a line, or an embedded list."""
    n: Annotated[int, COUNT] = 1
    """Samples of each prompt."""
    seed: Annotated[int, SEED] = 0
    """Of the first sample; each further one has the next."""
    lora: Path | None = None
    """A run's lora folder."""
    steps: Annotated[int | None, COUNT] = None
    """Denoising steps; by default 28. Of dream_fl, steps of the distillation, 150 or more. A model that draws token by
    token has none."""
    guidance: Annotated[float | None, GUIDANCE] = None
    """Guidance scale, 1 is none; by default 4.5, and 1 of a model that draws token by token."""
    temperature: Annotated[float | None, POSITIVE] = None
    """Of a model that draws token by token; by default 1."""
    top_k: Annotated[int | None, COUNT] = None
    """Likewise: only the k likeliest tokens are drawn."""
    top_p: Annotated[float | None, Range(above=0, most=1)] = None
    """Likewise: only the fewest tokens that hold this share of the probability are drawn."""
    height: Annotated[int | None, COUNT] = None
    """In pixels; by default the model's own."""
    width: Annotated[int | None, COUNT] = None
    frames: Annotated[int | None, COUNT] = None
    """Of a video; by default the model's own number."""
    fps: Annotated[float | None, POSITIVE] = None
    """Frames per second, in pipelines that are told."""
    duration_s: Annotated[float | None, POSITIVE] = None
    """Of a sound; by default the model's own length."""
    max_sequence_length: Annotated[int | None, COUNT] = None
    """Prompt tokens of the long text encoder, in pipelines that have one."""
    batch_size: Annotated[int, COUNT] = 32
    guide: Literal["none", "best_of_n", "reward", "dynamic", "dream_fl"] = "none"
    """Steer with rewards while drawing: keep the best of several samples; follow the gradient of differentiable rewards
    at every step; choose the guidance scale of every step by what the rewards like; or, in 3D, distil each scene from
    the generator of views and the rewards, a mesh beside its views."""
    reward: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME[:WEIGHT]")] = ()
    """For --guide: a reward, once or more, with your weights."""
    guide_n: Annotated[int, COUNT] = 8
    """Samples per prompt of best_of_n."""
    guide_scales: Annotated[tuple[float, ...], NOT_NEGATIVE] = (1.0, 2.0, 4.0, 7.5)
    """Guidance scales that dynamic chooses from."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        if (self.prompt is None) == (self.prompts is None):
            raise ConfigError("give either --prompt TEXT or --prompts FILE")
        if (self.guide == "none") != (not self.reward):
            raise ConfigError("--guide and --reward go together: what steers, and by which rewards")


def check_parts(command: GenerateCommand) -> None:
    """Refuse a model, a LoRA or rewards that are not there or do not belong together, before one is loaded.

    Raises:
        MmalignError: with the way out.
    """
    model = read_base_model(command.model)
    if command.lora is not None and not command.lora.is_dir():
        raise ConfigError(f"--lora {command.lora}: no such folder; a run has one, RUN/lora")
    for text in command.reward:
        card = find_card(parse_weighted(text)[0])
        if model.modality is not None:
            check_card(card, modality=model.modality, who=f"model '{command.model}'")


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign generate``; the folder is the last line of standard output."""
    command = parse(GenerateCommand, arguments, prog="mmalign generate")
    check_new_folder(command.out)
    from mmalign.data.prompts import read_prompts

    texts = [command.prompt] if command.prompt is not None else read_prompts(str(command.prompts))
    check_parts(command)
    from mmalign.adapters.loading import load_adapter
    from mmalign.generators.denoising import DenoisingGenerator
    from mmalign.training.recipe import SamplingConfig
    from mmalign.training.samples import write_samples

    prompts = [text for text in texts for _ in range(command.n)]
    sampling = SamplingConfig(
        steps=command.steps,
        guidance=1.0 if command.guidance is None else command.guidance,
        height=command.height,
        width=command.width,
        frames=command.frames,
        fps=command.fps,
        duration_s=command.duration_s,
        max_sequence_length=command.max_sequence_length,
        temperature=command.temperature,
        top_k=command.top_k,
        top_p=command.top_p,
        batch_size=command.batch_size,
    )
    adapter = load_adapter(command.model, **sampling.pipeline_options())
    if isinstance(adapter.generator, DenoisingGenerator):
        sampling = replace(
            sampling,
            steps=STEPS if command.steps is None else command.steps,
            guidance=default_guidance(adapter.generator) if command.guidance is None else command.guidance,
        )
    if command.lora is not None:
        adapter.load_lora(command.lora)
    # The candidates of best_of_n take the seeds between.
    apart = command.guide_n if command.guide == "best_of_n" else 1
    seeds = [command.seed + i * apart for i in range(len(prompts))]
    draw = None
    if command.guide != "none":
        from mmalign.inference.drawing import guided_drawing

        draw = guided_drawing(
            adapter,
            command.guide,
            rewards=command.reward,
            sampling=sampling.options(),
            n=command.guide_n,
            scales=command.guide_scales,
            batch_size=command.batch_size,
        )
    write_samples(adapter, command.out, prompts, seeds, sampling, title="samples", draw=draw)
    print(command.out, file=sys.stdout)
    return 0
