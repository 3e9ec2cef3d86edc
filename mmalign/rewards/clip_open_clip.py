"""CLIP checkpoints in open_clip's format: a folder of its own, or one file of a known architecture."""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.remote_code import remote_code
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip_encoder import ClipEncoder, freeze
from mmalign.rewards.preprocessing import Preprocessing
from mmalign.rewards.prompts import CutReport, PromptEmbeddings, Tokens
from mmalign.rewards.weights import checkpoint, fill, obtain, read_state

FILES = ("open_clip_config.json", "open_clip_model.safetensors")
"""What a folder in open_clip's format has."""


def load(
    card: RewardCard,
    *,
    device: str = "cpu",
    part: str = "",
    architecture: str | None = None,
    file: str | None = None,
    preprocess: Mapping[str, Any] | None = None,
) -> ClipEncoder:
    """A card's CLIP by open_clip.

    Args:
        card: its weights are a folder with open_clip_config.json, or with ``file``.
        device: where it runs.
        part: of the card's weights.
        architecture: open_clip's name of the model that ``file`` holds; None where the folder says it.
        file: a state dict, alone or under "state_dict".
        preprocess: settings that the authors of the checkpoint chose otherwise than open_clip.

    Raises:
        ConfigError: the weights are not there, or not a model of open_clip's.
    """
    if (architecture is None) != (file is None):
        raise ConfigError(f"reward '{card.name}': architecture and file of its encoder go together")
    if architecture is not None and file is not None:
        model, tokenizer = _of_file(card, architecture, file)
    else:
        model, tokenizer = _of_folder(card, part)
    model = freeze(model, device)
    tokenize = OpenClipTokenizer(tokenizer, name=card.name)

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        encoded: Tensor = model.encode_text(ids)
        return encoded

    return ClipEncoder(
        model=model,
        preprocessing=Preprocessing.of(open_clip.get_model_preprocess_cfg(model), **(preprocess or {})),
        image=model.encode_image,
        text=PromptEmbeddings(tokenize, encode, device=device),
        logit_scale=float(model.logit_scale.exp()),
    )


class OpenClipTokenizer:
    """An open_clip tokenizer, its own or a transformers one, that says which prompts it cut.

    Args:
        tokenizer: texts to [B, context] token ids; cuts so that the end token stays.
        name: of the reward, for the report.
    """

    def __init__(self, tokenizer: Any, *, name: str) -> None:
        self.tokenizer = tokenizer
        self.padding = int(tokenizer([""])[0].mode().values)
        self.report = CutReport(name, context=tokenizer([""]).shape[1])

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Tokens of prompts, padded to the model's context."""
        ids: Tensor = self.tokenizer(list(prompts))
        # With room for one more, only a prompt that was cut has one more token that is no padding.
        roomier = self.tokenizer(list(prompts), context_length=ids.shape[1] + 1)
        cut = (roomier != self.padding).sum(1) > (ids != self.padding).sum(1)
        # open_clip's models read all of their context, padding too.
        tokens = Tokens(ids, torch.ones_like(ids), cut.tolist())
        self.report(prompts, tokens)
        return tokens


def _of_folder(card: RewardCard, part: str) -> tuple[Any, Any]:
    folder = obtain(card, part, files=FILES)
    try:
        with _quiet():
            told = _of_tokenizer(folder)
            model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)
            return model, open_clip.get_tokenizer(f"local-dir:{folder}", **told)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"reward '{card.name}': open_clip could not load '{folder}' ({reason}); it takes a folder with "
            "open_clip_config.json and weights"
        ) from error


def _of_tokenizer(folder: Path) -> dict[str, bool]:
    """What a tokenizer of transformers is told, in the place of what the folder's own settings ask for."""
    settings = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    code = remote_code()  # also keeps a text tower of transformers from asking
    return {"trust_remote_code": code} if settings["model_cfg"]["text_cfg"].get("hf_tokenizer_name") else {}


def _of_file(card: RewardCard, architecture: str, file: str) -> tuple[Any, Any]:
    if open_clip.get_model_config(architecture) is None:
        raise ConfigError(f"reward '{card.name}': open_clip knows no architecture '{architecture}'")
    path = checkpoint(card, file)
    with _quiet(), torch.device("cpu"):
        model = open_clip.create_model(architecture, load_weights=False)
    state = read_state(path)
    state.pop("attn_mask", None)  # older open_clip saved what newer ones compute
    fill(model, state, origin=path)
    return model, open_clip.get_tokenizer(architecture)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's log lines: what matters of them is raised."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
