"""ImageReward against BLIP written out layer by layer on the authors' tensors."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear
from torchvision import transforms

from mmalign.errors import ConfigError
from mmalign.rewards.imagereward import ImageReward, imagereward_normalise
from tests.rewards import small_models
from tests.rewards.factories import FACTORIES, load_small
from tests.rewards.photographs import crops, samples

PROMPTS = ("a red circle", "the small blue square on the left", "a cat")
PICTURES = ((97, 61), (120, 200), (32, 32))
HEAD_WIDTH, LAYERS = 64, 2


class Written:
    """The authors' forward pass, with their names."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def affine(self, name: str, x: Tensor) -> Tensor:
        return linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        q, k, v = (x.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for x in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / HEAD_WIDTH**0.5 + bias).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    def see(self, pixels: Tensor) -> Tensor:
        tower = "blip.visual_encoder"
        weight, bias = (self.state[f"{tower}.patch_embed.proj.{kind}"] for kind in ("weight", "bias"))
        patches = conv2d(pixels, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
        first = self.state[f"{tower}.cls_token"].expand(len(pixels), -1, -1)
        x = torch.cat([first, patches], 1) + self.state[f"{tower}.pos_embed"]
        for i in range(LAYERS):
            block = f"{tower}.blocks.{i}"
            mixed = self.affine(f"{block}.attn.qkv", self.norm(f"{block}.norm1", x, 1e-6)).chunk(3, -1)
            x = x + self.affine(f"{block}.attn.proj", self.attend(*mixed))
            inner = gelu(self.affine(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x, 1e-6)))
            x = x + self.affine(f"{block}.mlp.fc2", inner)
        return self.norm(f"{tower}.norm", x, 1e-6)

    def read(self, ids: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
        tower = "blip.text_encoder"
        x = self.state[f"{tower}.embeddings.word_embeddings.weight"][ids]
        x = x + self.state[f"{tower}.embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self.norm(f"{tower}.embeddings.LayerNorm", x, 1e-12)
        hidden = (1.0 - mask[:, None, None]) * -1e9
        for i in range(LAYERS):
            layer = f"{tower}.encoder.layer.{i}"
            for kind, other, bias in (("attention", None, hidden), ("crossattention", seen, 0.0)):
                key = x if other is None else other
                q = self.affine(f"{layer}.{kind}.self.query", x)
                k, v = (self.affine(f"{layer}.{kind}.self.{part}", key) for part in ("key", "value"))
                out = self.affine(f"{layer}.{kind}.output.dense", self.attend(q, k, v, bias))
                x = self.norm(f"{layer}.{kind}.output.LayerNorm", out + x, 1e-12)
            out = self.affine(f"{layer}.output.dense", gelu(self.affine(f"{layer}.intermediate.dense", x)))
            x = self.norm(f"{layer}.output.LayerNorm", out + x, 1e-12)
        return x[:, 0]

    def score(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.read(ids, mask, self.see(pixels))
        for place in small_models.MLP_PLACES:
            h = self.affine(f"mlp.layers.{place}", h)
        return (h[:, 0] - 0.16717362830052426) / 1.0333394966054072


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> ImageReward:
    loaded = FACTORIES["imagereward-v1.0"](tmp_path_factory.mktemp("imagereward"))
    assert isinstance(loaded, ImageReward)
    return loaded


def test_the_score_is_the_authors_forward_pass(reward: ImageReward) -> None:
    from transformers import BertTokenizer

    steps = transforms.Compose(
        [
            transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(small_models.CLIP_MEAN, small_models.CLIP_STD),
        ]
    )
    folder = reward.card.weights_folder()
    assert folder is not None
    tokenizer = BertTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    # To 35 tokens each, as the authors pad; ours are padded to the longest prompt only.
    tokens = tokenizer(
        list(PROMPTS), padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    pixels = torch.stack([steps(picture) for picture in crops(*PICTURES)])
    written = Written(small_models.imagereward_state())
    expected = written.score(pixels, tokens["input_ids"], tokens["attention_mask"].float())
    found = reward.score(samples(PROMPTS, crops(*PICTURES))).value
    assert expected.std() > 0.5
    torch.testing.assert_close(found[2], expected[2], atol=1e-4, rtol=0)
    torch.testing.assert_close(found, expected, atol=0.15, rtol=0)


def test_the_normalisation_by_hand() -> None:
    raw = torch.tensor([0.16717362830052426, 1.2005131, -0.8661658683], dtype=torch.float64)
    expected = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(imagereward_normalise(raw), expected, atol=1e-6, rtol=0)


def test_a_long_prompt_scores_as_its_first_35_tokens(reward: ImageReward) -> None:
    words = ["red", "blue", "circle", "square"] * 15
    (picture,) = crops((32, 32))
    with pytest.warns(UserWarning, match=r"imagereward-v1\.0 reads 35 tokens"):
        cut = reward.score(samples([" ".join(words), " ".join(words[:33])], [picture] * 2)).value
    torch.testing.assert_close(cut[0], cut[1])


def test_one_sample_has_a_score_of_one_dimension(reward: ImageReward) -> None:
    assert reward.score(samples(["a cat"], crops((32, 32)))).value.shape == (1,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "blip.text_encoder.encoder.layer.1.crossattention.self.key.weight",
            "1 tensors differ, first: no encoder",
        ),
        ("blip.visual_encoder.pos_embed", "is no BLIP"),
        ("mlp.layers.7.weight", "no linear layers that end in one number"),
    ],
)
def test_a_checkpoint_that_lacks_a_tensor_is_refused(
    reward: ImageReward, tmp_path: Path, name: str, message: str
) -> None:
    from dataclasses import replace

    small_models.save_imagereward(tmp_path)
    state = small_models.imagereward_state()
    del state[name]
    torch.save(state, tmp_path / "ImageReward.pt")
    with pytest.raises(ConfigError, match=message):
        load_small(replace(reward.card, weights=str(tmp_path)))
