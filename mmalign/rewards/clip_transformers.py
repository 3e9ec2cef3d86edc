"""CLIP checkpoints in transformers' format: OpenAI's own, PickScore, and whatever was tuned from them."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmalign.errors import ConfigError
from mmalign.remote_code import remote_code
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip_encoder import ClipEncoder, freeze
from mmalign.rewards.clip_towers import picture_vectors, prompt_vectors, use_less_memory
from mmalign.rewards.preprocessing import Preprocessing
from mmalign.rewards.prompts import HuggingFaceTokenizer, PromptEmbeddings
from mmalign.rewards.weights import complete, obtain

FILES = ("config.json", "model.safetensors")
PROCESSOR_FILES = ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


def load(
    card: RewardCard,
    *,
    device: str = "cpu",
    part: str = "",
    processor: str | None = None,
    preprocess: Mapping[str, Any] | None = None,
) -> ClipEncoder:
    """A card's CLIP by transformers.

    Args:
        card: its weights are a folder of a ``CLIPModel``.
        device: where it runs.
        part: of the card's weights that the model is.
        processor: the part that tokenizer and preprocessing are; None where they lie with the model.
        preprocess: settings that the authors of the checkpoint chose otherwise than the processor.

    Raises:
        ConfigError: the weights are not there, are no ``CLIPModel``, or the processor prepares otherwise than CLIP's.
    """
    from transformers import AutoTokenizer, CLIPModel

    folder = obtain(card, part, files=(*FILES, *(() if processor else PROCESSOR_FILES)))
    beside = obtain(card, processor, files=PROCESSOR_FILES) if processor else folder
    try:
        model, loading = CLIPModel.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            beside, local_files_only=True, trust_remote_code=remote_code()
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"reward '{card.name}': transformers could not load '{folder}' ({reason}); it takes a folder with "
            f"{', '.join((*FILES, *PROCESSOR_FILES))}"
        ) from error
    complete(loading, origin=folder)
    model = freeze(model, device)
    use_less_memory(model)
    tokenize = HuggingFaceTokenizer(
        tokenizer, context=model.config.text_config.max_position_embeddings, name=card.name
    )
    return ClipEncoder(
        model=model,
        preprocessing=read_preprocessing(beside, **(preprocess or {})),
        image=partial(picture_vectors, model),
        text=PromptEmbeddings(tokenize, partial(prompt_vectors, model), device=device),
        logit_scale=float(model.logit_scale.exp()),
    )


def read_preprocessing(folder: Path, **changes: Any) -> Preprocessing:
    """What a ``CLIPImageProcessor`` does, from its preprocessor_config.json.

    Args:
        folder: of the processor.
        changes: settings in the place of the processor's.

    Raises:
        ConfigError: no such file, or a processor that does something else.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise ConfigError(f"there is no preprocessor_config.json in '{folder}'; it comes with the checkpoint")
    values = json.loads(path.read_text(encoding="utf-8"))
    size, crop = values.get("size", 224), values.get("crop_size", 224)
    crop = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
    if isinstance(size, int):
        size = {"shortest_edge": size}
    shortest = size.get("shortest_edge")
    exact = (size.get("height"), size.get("width"))
    missing = [step for step in ("do_resize", "do_rescale", "do_normalize") if not values.get(step, True)]
    if missing or (shortest is None and exact != crop) or (shortest is not None and crop != (shortest,) * 2):
        raise ConfigError(
            f"'{path}' does not prepare pictures as CLIP does (size {size}, crop {crop}, without {missing}): expected "
            "the shortest side, or both, resized to the size of the crop"
        )
    if values.get("resample", 3) not in (2, 3):
        raise ConfigError(f"'{path}': resample = {values['resample']}, expected 2 (bilinear) or 3 (bicubic)")
    settings = {
        "size": crop,
        "resize_mode": "squash" if shortest is None else "shortest",
        "interpolation": "bilinear" if values.get("resample", 3) == 2 else "bicubic",
        "crop": "down",
        "mean": values.get("image_mean"),
        "std": values.get("image_std"),
    }
    return Preprocessing.of(settings, **changes)
