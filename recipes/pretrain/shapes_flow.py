"""Make ``embedded/shapes-flow``: a small StableDiffusion3Pipeline that draws the shapes world, with a stated flaw.

The flaw is random caption noise: it first learns true captions, then captions of which each attribute is drawn anew
with probability 0.3. So it knows what words mean and draws clean shapes, but believes a prompt only so far: as often as
its captions lied it draws another shape than the one asked for, and alignment has something to mend.

    uv run python recipes/pretrain/shapes_flow.py        # about 30 minutes on two cores; resumes where it stopped
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from common import OTHER_WORDS, clip_tokenizer, console, fit, generator, write_options
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from diffusers.utils.logging import set_verbosity_error
from tokenizers import Regex, Tokenizer, models, normalizers, processors
from torch import Tensor, nn
from torchvision.utils import save_image
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from mmalign.worlds import shapes

TOKENS = 24
"""Length of prompts in the CLIP encoders."""
LONG_TOKENS = 1
"""Of the third encoder, which is silent here; give the pipeline ``max_sequence_length=1``."""

TWO_SHAPES = 0.1
"""Share of the pictures that show two shapes."""
MOST_TEXTS = 10_000
"""Embedded captions that are kept, about 130 MB."""


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """What the generators of the embedded worlds share."""

    work: Path
    """Checkpoints and pictures of the progress."""
    pictures: int = 24_000
    caption_noise: float = 0.3
    caption_dropout: float = 0.1
    bf16: bool = False
    """Train under autocast; about a third faster on processors that know bf16."""
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Settings(WorldSettings):
    """Everything that decides the result."""

    out: Path = Path("assets/shapes-flow")
    work: Path = Path("runs/pretrain/shapes-flow")
    vae_steps: int = 1_200
    vae_batch: int = 32
    vae: Path | None = None
    """A pipeline whose VAE is taken instead of training one."""
    text_steps: int = 400
    flow_steps: int = 4_000
    clean_steps: int = 1_000
    """Of these, the first are on true captions."""
    flow_batch: int = 64


def draw_world(settings: WorldSettings) -> tuple[list[shapes.Scene], Tensor]:
    """The training pictures, as bytes to keep them small: [N, 3, 64, 64]."""
    random = generator(settings.seed, 1)
    scenes = [
        shapes.random_scene(random, split=None, two_shapes=TWO_SHAPES) for _ in range(settings.pictures)
    ]
    pictures = [
        (shapes.render(scenes[i : i + 250], random) * 255).round().byte() for i in range(0, len(scenes), 250)
    ]
    return scenes, torch.cat(pictures)


def to_model(pictures: Tensor, settings: WorldSettings) -> Tensor:
    """Bytes to [-1, 1]."""
    return (pictures.to(settings.device).float() / 127.5 - 1).contiguous(memory_format=order(settings))


def order(settings: WorldSettings) -> torch.memory_format:
    """Of pixels in memory; on a CPU each precision has the other's faster one."""
    return torch.contiguous_format if settings.bf16 else torch.channels_last


def train_vae(settings: Settings, pictures: Tensor, *, start: AutoencoderKL | None = None) -> AutoencoderKL:
    """64x64x3 pictures to 8x8x8 latents and back; from ``start`` on, if another world's is given."""
    channels = (16, 32, 48, 48)
    torch.manual_seed(settings.seed)
    vae = start or AutoencoderKL(
        sample_size=64,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=8,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0,
    )
    vae = vae.to(settings.device, memory_format=order(settings))

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 2, step)
        rows = torch.randint(len(pictures), (settings.vae_batch,), generator=random)
        clean = to_model(pictures[rows], settings)
        posterior = vae.encode(clean).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=random).to(settings.device)
        error = vae.decode(posterior.mean + posterior.std * noise).sample - clean
        return (
            error.abs().mean() + 4 * error.square().mean() + 1e-4 * posterior.kl().mean() / noise[0].numel()
        )

    fit(
        "vae",
        nn.ModuleDict({"vae": vae}),
        loss,
        steps=settings.vae_steps,
        learning_rate=2e-3,
        folder=settings.work,
        bf16=settings.bf16,
    )
    return vae


@torch.no_grad()
def encode_world(
    settings: WorldSettings, vae: AutoencoderKL, pictures: Tensor, *, centred: bool = True
) -> Tensor:
    """Latents [N, 8, 8, 8] of unit variance and, if ``centred``, zero mean; the VAE's config takes both numbers."""
    latents = torch.cat([vae.encode(to_model(p, settings)).latent_dist.mean for p in pictures.split(250)])
    shift, scale = float(latents.mean()) if centred else 0.0, float(1 / latents.std())
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    sample = pictures[:64]
    again = vae.decode(latents[:64]).sample.clamp(-1, 1)
    error = (again - to_model(sample, settings)).square().mean() / 4
    console.print(f"vae: shift {shift:.4f}, scale {scale:.4f}, PSNR {-10 * error.log10():.1f} dB")
    save_image(torch.cat([sample / 255, again.cpu() / 2 + 0.5]), settings.work / "vae.png", nrow=16)
    return (latents - shift) * scale


def build_pipeline(
    settings: WorldSettings, vae: AutoencoderKL, texts: list[str], *, tokens: int = TOKENS, layers: int = 5
) -> StableDiffusion3Pipeline:
    """Untrained text encoders, which know every word of ``texts``, and transformer around the trained VAE."""
    tokenizers = [
        clip_tokenizer([*texts, OTHER_WORDS], length=tokens, folder=settings.work / name)
        for name in ("tokenizer", "tokenizer_2")
    ]
    torch.manual_seed(settings.seed + 1)
    encoders = [
        CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=tokens,
                projection_dim=64,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        for tokenizer in tokenizers
    ]
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=layers,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        caption_projection_dim=128,
        pooled_projection_dim=128,
        pos_embed_max_size=4,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=tokenizers[0],
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizers[1],
        text_encoder_3=silent_t5(),
        tokenizer_3=silent_tokenizer(),
    ).to(settings.device)


def silent_tokenizer() -> PreTrainedTokenizerFast:
    """Any text becomes the end token alone, so that the pipeline has nothing to cut and to warn of."""
    tokenizer = Tokenizer(models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)], 2))
    tokenizer.normalizer = normalizers.Replace(Regex(r"[\s\S]+"), "")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=LONG_TOKENS,
    )


def silent_t5() -> T5EncoderModel:
    """The smallest T5, whose output is zero: SD3's loader insists on a third encoder, this model does without."""
    encoder = T5EncoderModel(T5Config(vocab_size=3, d_model=128, d_kv=8, d_ff=8, num_layers=1, num_heads=1))
    nn.init.zeros_(encoder.encoder.final_layer_norm.weight)
    return encoder


NoisyCaptions = Callable[..., Iterable[str]]
"""A world's ``noisy_captions(scenes, random, noise=...)``."""


def training_captions(
    scenes: Sequence[Any],
    random: torch.Generator,
    *,
    noise: float,
    dropout: float,
    captions: NoisyCaptions = shapes.noisy_captions,
) -> list[str]:
    """Noisy captions, some of them empty so that guidance has an unconditional branch."""
    texts = list(captions(scenes, random, noise=noise))
    dropped = torch.rand(len(scenes), generator=random) < dropout
    return ["" if drop else text for drop, text in zip(dropped, texts, strict=True)]


Tokenize = Callable[[str, list[str]], Tensor]
"""An encoder's name and texts to its token ids [B, L]."""


def token_ids(tokenizer: CLIPTokenizer, texts: list[str], device: str) -> Tensor:
    """[B, L], L the most that the tokenizer's encoder takes."""
    ids: Tensor = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.to(device)


def described_shapes(random: torch.Generator) -> tuple[list[str], Tensor]:
    """128 captions and, [128, 8], the index of every attribute of their shapes."""
    scenes = [shapes.random_scene(random, split=None, two_shapes=0.3) for _ in range(128)]
    return list(shapes.noisy_captions(scenes, random, noise=0.0)), attribute_indices(scenes)


_ONE = [len(values) for values in (shapes.KINDS, shapes.COLOURS, shapes.SIZES, shapes.PLACES)]
SHAPE_CHOICES = (*_ONE, *(n + 1 for n in _ONE))
"""Values of each attribute of ``attribute_indices``; the second shape of a caption may be none."""


def train_text(
    settings: WorldSettings,
    encoders: dict[str, nn.Module],
    tokenize: Tokenize,
    *,
    steps: int,
    described: Callable[[torch.Generator], tuple[list[str], Tensor]] = described_shapes,
    choices: Sequence[int] = SHAPE_CHOICES,
) -> None:
    """Teach text encoders to say every attribute of a caption from their pooled output, as CLIP's would.

    Seconds where the denoiser takes an hour, and it then learns from words that mean something.

    Args:
        settings: where and with which seed.
        encoders: by the name of the pipeline's component.
        tokenize: texts to what an encoder takes.
        steps: of the optimiser.
        described: draws captions, and [B, A], the index of each attribute that they say.
        choices: A numbers, of the values that each attribute has.
    """
    torch.manual_seed(settings.seed + 2)
    heads = nn.ModuleDict({name: nn.LazyLinear(sum(choices)) for name in encoders})
    modules = nn.ModuleDict({"encoders": nn.ModuleDict(encoders), "heads": heads}).to(settings.device)

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 5, step)
        texts, indices = described(random)
        wanted = indices.to(settings.device)
        total = torch.zeros((), device=settings.device)
        for name, encoder in encoders.items():
            logits = heads[name](pooled(encoder, tokenize(name, texts)))
            for part, target in zip(logits.split(list(choices), 1), wanted.T, strict=True):
                total = total + nn.functional.cross_entropy(part, target)
        return total

    loss(0)  # gives the lazy heads their size
    fit("text", modules, loss, steps=steps, learning_rate=2e-3, folder=settings.work)


def attribute_indices(scenes: list[shapes.Scene]) -> Tensor:
    """[B, 8], the index of every attribute of the first and the second shape; one past the last where there is none."""
    tables = (shapes.KINDS, tuple(shapes.COLOURS), tuple(shapes.SIZES), tuple(shapes.PLACES))

    def row(scene: shapes.Scene) -> list[int]:
        found = [
            table.index(getattr(scene[0], n)) for n, table in zip(shapes.ATTRIBUTES, tables, strict=True)
        ]
        if len(scene) == 1:
            return found + [len(table) for table in tables]
        return found + [
            table.index(getattr(scene[1], n)) for n, table in zip(shapes.ATTRIBUTES, tables, strict=True)
        ]

    return torch.tensor([row(scene) for scene in scenes])


def pooled(encoder: nn.Module, tokens: Tensor) -> Tensor:
    """The one vector [B, D] of a text."""
    output = encoder(tokens)
    found: Tensor = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    return found


def train_flow(
    settings: Settings,
    pipeline: StableDiffusion3Pipeline,
    scenes: Sequence[Any],
    latents: Tensor,
    *,
    captions: NoisyCaptions = shapes.noisy_captions,
) -> None:
    """Conditional flow matching on noisily captioned pictures; sigma is logit-normal, as SD3 was trained."""
    known: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def embedded(texts: list[str]) -> tuple[Tensor, Tensor]:
        """Each text once: the encoders are frozen."""
        if len(known) > MOST_TEXTS:
            known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in known]
        for start in range(0, len(new), 64):
            some = new[start : start + 64]
            embeds, _, pooled_embeds, _ = pipeline.encode_prompt(
                some, some, some, do_classifier_free_guidance=False, max_sequence_length=LONG_TOKENS
            )
            known.update(zip(some, zip(embeds, pooled_embeds, strict=True), strict=True))
        pairs = [known[text] for text in texts]
        return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 3, step)
        rows = torch.randint(len(latents), (settings.flow_batch,), generator=random).tolist()
        noise = settings.caption_noise if step >= settings.clean_steps else 0.0
        texts = training_captions(
            [scenes[i] for i in rows],
            random,
            noise=noise,
            dropout=settings.caption_dropout,
            captions=captions,
        )
        embeds, pooled_embeds = embedded(texts)
        clean = latents[rows]
        gaussian = torch.randn(clean.shape, generator=random).to(settings.device)
        sigma = torch.randn(len(rows), generator=random).sigmoid().to(settings.device)
        mix = sigma[:, None, None, None]
        velocity = pipeline.transformer(
            (1 - mix) * clean + mix * gaussian,
            timestep=1000 * sigma,
            encoder_hidden_states=embeds,
            pooled_projections=pooled_embeds,
        ).sample
        return (velocity - (gaussian - clean)).square().mean()

    modules = nn.ModuleDict({"transformer": pipeline.transformer})
    fit(
        "flow",
        modules,
        loss,
        steps=settings.flow_steps,
        learning_rate=1.5e-3,
        folder=settings.work,
        bf16=settings.bf16,
    )


def shapes_truth(pictures: Tensor, prompts: list[str]) -> dict[str, Tensor]:
    """The true reward of pictures [B, 3, 64, 64] and its parts, each [B]."""
    return shapes.measure(pictures, [scene for scene in map(shapes.parse, prompts) if scene is not None])


@torch.no_grad()
def report(
    settings: WorldSettings,
    pipeline: DiffusionPipeline,
    *,
    prompts: list[str] | None = None,
    truth: Callable[[Tensor, list[str]], dict[str, Tensor]] = shapes_truth,
    **options: int,
) -> None:
    """Pictures and the true reward on held-out prompts, with and without guidance; ``options`` are the pipeline's."""
    prompts = prompts or shapes.captions("heldout")[::5]
    pipeline.set_progress_bar_config(disable=True)
    for guidance in (1.0, 1.5, 2.0, 3.0):
        pictures = pipeline(
            prompts,
            num_inference_steps=16,
            guidance_scale=guidance,
            height=64,
            width=64,
            **options,
            generator=[generator(i) for i in range(len(prompts))],
            output_type="pt",
        ).images.cpu()
        means = {k: round(float(v.mean()), 3) for k, v in truth(pictures, prompts).items()}
        console.print(f"guidance {guidance}: {means}")
        save_image(pictures[:64], settings.work / f"guidance-{guidance}.png", nrow=16)


def save(pipeline: StableDiffusion3Pipeline, folder: Path) -> None:
    """Write transformer and VAE in fp16; plain ``from_pretrained`` gives them back in fp32.

    The text encoders are small and stay in fp32: transformers loads what it finds, and the dtypes must agree.
    """
    pipeline.to("cpu")
    pipeline.transformer.half()
    pipeline.vae.half()
    pipeline.save_pretrained(folder)
    write_options(folder, max_sequence_length=LONG_TOKENS)


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, then save the pipeline in fp16."""
    set_verbosity_error()
    settings.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    scenes, pictures = draw_world(settings)
    console.print(f"{len(scenes)} pictures drawn in {time.monotonic() - started:.0f} s")
    if settings.vae is None:
        vae = train_vae(settings, pictures)
    else:
        vae = AutoencoderKL.from_pretrained(settings.vae, subfolder="vae").to(settings.device)
    latents = encode_world(settings, vae, pictures)
    pipeline = build_pipeline(settings, vae, shapes.captions("train") + shapes.captions("heldout"))
    tokenizers = {"text_encoder": pipeline.tokenizer, "text_encoder_2": pipeline.tokenizer_2}
    train_text(
        settings,
        {name: getattr(pipeline, name) for name in tokenizers},
        lambda name, texts: token_ids(tokenizers[name], texts, settings.device),
        steps=settings.text_steps,
    )
    train_flow(settings, pipeline, scenes, latents)
    report(settings, pipeline, max_sequence_length=LONG_TOKENS)
    save(pipeline, settings.out)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Settings))
