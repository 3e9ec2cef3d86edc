"""Small models of random weights, saved in the layouts in which their authors publish the large ones."""

import json
from pathlib import Path
from typing import Any, TypeVar

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGE_PX = 32
CLIP_CONTEXT, CLIP_VOCABULARY = 128, 2 * 256 + 2
MLP_SIZES = (20, 12, 8, 6, 1)
"""Of the heads' layers, where the large ones have 1024, 128, 64, 16, 1."""
MLP_PLACES = (0, 2, 4, 6, 7)
"""Of the linear layers among the dropouts."""
HPS_ARCHITECTURE = "small-hps"
CLAP_RATE_HZ, CLAP_WINDOW_S = 8_000, 1


def draw(model: Model, seed: int = 0) -> Model:
    """Weights large enough that every input matters: of variance 1 / fan in, biases a tenth of that."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                fan_in = parameter[0].numel() if "embed" not in name else 4
                parameter.normal_(0, fan_in**-0.5, generator=random)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=random)
    return model.eval()


def open_clip_config() -> dict[str, Any]:
    return {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": IMAGE_PX,
            "patch_size": 8,
            "width": 24,
            "layers": 2,
            "head_width": 12,
        },
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
    }


def save_open_clip(folder: Path, *, preprocess: dict[str, Any] | None = None) -> Path:
    """As open_clip publishes its own: a folder of its configuration and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": open_clip_config(),
        "preprocess_cfg": {"mean": CLIP_MEAN, "std": CLIP_STD, **(preprocess or {})},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(draw(open_clip.CLIP(**open_clip_config())).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def save_hps(folder: Path, file: str) -> Path:
    """As HPS v2 is published: one file in half precision, under "state_dict", of an architecture known by name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{HPS_ARCHITECTURE}.json").write_text(json.dumps(open_clip_config()))
    open_clip.add_model_config(folder / f"{HPS_ARCHITECTURE}.json")
    model = draw(open_clip.CLIP(**open_clip_config()))
    torch.save({"state_dict": model.half().state_dict(), "epoch": 1}, folder / file)
    return folder


def save_clip_processor(folder: Path) -> None:
    """CLIP's tokenizer with letters and no longer pieces, and a preprocessor in the words of its first release."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder.mkdir(parents=True, exist_ok=True)
    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    assert len(pieces) == CLIP_VOCABULARY
    tokenizer = CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    tokenizer.save_pretrained(folder)
    preprocessor = {
        "crop_size": IMAGE_PX,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "size": IMAGE_PX,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))


def save_clip(folder: Path, *, processor: Path | None = None) -> Path:
    """As OpenAI's CLIPs and PickScore are published: a ``CLIPModel``, and its processor there or elsewhere."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16}
    config = CLIPConfig(
        text_config={
            **tower,
            "hidden_size": 16,
            "intermediate_size": 24,
            "vocab_size": CLIP_VOCABULARY,
            "max_position_embeddings": CLIP_CONTEXT,
            "bos_token_id": 0,  # these three as in the first release, where the last token has the highest number
            "eos_token_id": 2,
            "pad_token_id": 1,
        },
        vision_config={
            **tower,
            "hidden_size": 24,
            "intermediate_size": 32,
            "image_size": IMAGE_PX,
            "patch_size": 8,
        },
        projection_dim=16,
    )
    model = draw(CLIPModel(config))
    with torch.no_grad():
        # Both towers lean towards one direction, so that cosines are above 0, as trained ones are, and nothing is cut.
        seen, read = model.vision_model.post_layernorm, model.text_model.final_layer_norm
        direction = model.visual_projection.weight @ seen.bias.fill_(1.0)
        read.bias.copy_(torch.linalg.lstsq(model.text_projection.weight, direction[:, None]).solution[:, 0])
        seen.weight.fill_(0.5)
        read.weight.fill_(0.5)
    model.save_pretrained(folder)
    save_clip_processor(processor or folder)
    return folder


def linear_head(width: int, *, prefix: str = "", seed: int = 1) -> dict[str, Tensor]:
    """The state of ImageReward's and the aesthetic predictor's head, whose dropouts take numbers in between."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for place, (before, after) in zip(
        MLP_PLACES, zip((width, *MLP_SIZES), MLP_SIZES, strict=False), strict=True
    ):
        state[f"{prefix}layers.{place}.weight"] = (
            torch.randn(after, before, generator=random) / before**0.5 * 1.5
        )
        state[f"{prefix}layers.{place}.bias"] = 0.1 * torch.randn(after, generator=random)
    return state


def save_bert_tokenizer(folder: Path) -> None:
    """A tokenizer as that of bert-base-uncased, of few words, letters and their continuations."""
    from transformers import BertTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    words += ["a", "red", "blue", "circle", "square", "on", "the", "left", "right", "small", "large"][1:]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)


def imagereward_state(*, vocabulary: int = 128, layers: int = 2, patch_px: int = 8) -> dict[str, Tensor]:
    """The tensors of ImageReward.pt by its authors' names: BLIP of two layers, 128 and 64 wide, and the head."""
    random = torch.Generator().manual_seed(2)
    vision, text, hidden = 128, 64, 96
    state: dict[str, Tensor] = {}

    def linear(name: str, inside: int, outside: int) -> None:
        state[f"{name}.weight"] = torch.randn(outside, inside, generator=random) * 1.5 / inside**0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(outside, generator=random)

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(size, generator=random)
        state[f"{name}.bias"] = 0.1 * torch.randn(size, generator=random)

    tower = "blip.visual_encoder"
    state[f"{tower}.cls_token"] = torch.randn(1, 1, vision, generator=random)
    state[f"{tower}.pos_embed"] = torch.randn(1, 1 + (IMAGE_PX // patch_px) ** 2, vision, generator=random)
    linear(f"{tower}.patch_embed.proj", 3 * patch_px**2, vision)
    weight = state[f"{tower}.patch_embed.proj.weight"]
    state[f"{tower}.patch_embed.proj.weight"] = weight.reshape(vision, 3, patch_px, patch_px)
    for i in range(layers):
        block = f"{tower}.blocks.{i}"
        norm(f"{block}.norm1", vision)
        linear(f"{block}.attn.qkv", vision, 3 * vision)
        linear(f"{block}.attn.proj", vision, vision)
        norm(f"{block}.norm2", vision)
        linear(f"{block}.mlp.fc1", vision, hidden)
        linear(f"{block}.mlp.fc2", hidden, vision)
    norm(f"{tower}.norm", vision)

    tower = "blip.text_encoder"
    state[f"{tower}.embeddings.position_ids"] = torch.arange(40)[None]
    state[f"{tower}.embeddings.word_embeddings.weight"] = torch.randn(vocabulary, text, generator=random)
    state[f"{tower}.embeddings.position_embeddings.weight"] = torch.randn(40, text, generator=random)
    norm(f"{tower}.embeddings.LayerNorm", text)
    for i in range(layers):
        layer = f"{tower}.encoder.layer.{i}"
        for kind, width in (("attention", text), ("crossattention", vision)):
            linear(f"{layer}.{kind}.self.query", text, text)
            linear(f"{layer}.{kind}.self.key", width, text)
            linear(f"{layer}.{kind}.self.value", width, text)
            linear(f"{layer}.{kind}.output.dense", text, text)
            norm(f"{layer}.{kind}.output.LayerNorm", text)
        linear(f"{layer}.intermediate.dense", text, hidden)
        linear(f"{layer}.output.dense", hidden, text)
        norm(f"{layer}.output.LayerNorm", text)

    linear("blip.vision_proj", vision, 10)  # of BLIP's pretraining; the score does not use them
    linear("blip.text_proj", text, 10)
    return {**state, **linear_head(text, prefix="mlp.")}


def save_imagereward(folder: Path) -> Path:
    """As ImageReward is published: one file, and BERT's tokenizer elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(imagereward_state(), folder / "ImageReward.pt")
    save_bert_tokenizer(folder / "tokenizer")
    return folder


def save_clap(folder: Path, *, fusion: bool = False) -> Path:
    """As LAION's CLAP is published for transformers, for sounds of one second at 8 kHz."""
    from transformers import ClapConfig, ClapModel, RobertaTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = [*specials, *bytes_to_unicode().values()]
    text = {
        "vocab_size": len(letters),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 130,
        "pad_token_id": 1,
    }
    audio = {
        "num_mel_bins": 16,
        "spec_size": 32,
        "patch_size": 4,
        "patch_stride": (4, 4),
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "window_size": 4,
        "enable_fusion": fusion,
    }
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=12)
    draw(ClapModel(config)).save_pretrained(folder)
    RobertaTokenizer(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]).save_pretrained(folder)
    extractor = {
        "feature_extractor_type": "ClapFeatureExtractor",
        "feature_size": 16,
        "fft_window_size": 256,
        "frequency_max": 3_500,
        "frequency_min": 50,
        "hop_length": 160,
        "max_length_s": CLAP_WINDOW_S,
        "padding": "repeatpad",
        "padding_value": 0.0,
        "sampling_rate": CLAP_RATE_HZ,
        "top_db": None,
        "truncation": "rand_trunc",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    return folder
