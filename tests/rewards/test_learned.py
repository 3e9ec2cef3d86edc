"""A trained reward's folder: a reward name like any other, with gradient, that refuses what it was not trained on."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from mmalign.errors import ConfigError, DataError
from mmalign.media import Image, Sample
from mmalign.rewards.base import DifferentiableReward
from mmalign.rewards.cards import find_card, has_weight, load_reward, parse_weighted
from mmalign.rewards.learned import HEAD, LearnedReward, fingerprint, load_backbone
from mmalign.rewards.learned_heads import HeadOptions, Heads

BACKBONE = "embedded/shapes-clip"
PROMPT = "a small red circle on the left"


def write(folder: Path, options: HeadOptions, **changes: object) -> Path:
    heads = Heads(128, options, generator=torch.Generator().manual_seed(0))
    folder.mkdir(parents=True)
    save_file(heads.state_dict(), folder / HEAD)
    card = {
        "target": "mmalign.rewards.learned:LearnedReward",
        "weights": ".",
        "files": [HEAD],
        "modalities": ["image"],
        "unit": "one",
        "higher_is_better": True,
        "differentiable": True,
        "source": "test",
        "options": {"backbone": BACKBONE, "head": options.plain(), **changes},
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder


def pictures(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def samples() -> list[Sample]:
    return [Sample(PROMPT, Image(picture)) for picture in pictures()]


def test_a_folder_is_a_reward_name_wherever_it_is_moved(tmp_path: Path) -> None:
    folder = write(tmp_path / "my-reward", HeadOptions(members=3))
    score = load_reward(str(folder)).score([*samples(), Sample(PROMPT)])
    assert score.status == ["ok"] * 3 + ["no media"]
    assert score.std is not None
    assert bool((score.std[:3] > 0).all())
    assert bool(score.std[3].isnan())
    moved = folder.rename(tmp_path / "elsewhere")
    torch.testing.assert_close(load_reward(f"{moved}/").score(samples()).value, score.value[:3])


def test_value_and_std_are_the_members_mean_and_spread(tmp_path: Path) -> None:
    reward = load_reward(str(write(tmp_path / "r", HeadOptions(members=3, hidden=(6,)))))
    assert isinstance(reward, LearnedReward)
    backbone = load_backbone(BACKBONE)
    media, prompt = backbone.media_vectors(samples()), backbone.prompt_vectors([PROMPT] * 3)
    members = reward.heads(torch.cat([media, prompt, media * prompt], 1))[0][..., 0].detach()
    score = reward.score(samples())
    torch.testing.assert_close(score.value, members.mean(0), atol=1e-5, rtol=1e-4)
    assert score.std is not None
    torch.testing.assert_close(score.std, members.std(0), atol=1e-5, rtol=1e-3)


def test_the_gradient_reaches_the_pixels(tmp_path: Path) -> None:
    reward = load_reward(str(write(tmp_path / "r", HeadOptions(members=2))))
    assert isinstance(reward, DifferentiableReward)
    media = pictures().requires_grad_()
    values = reward.score_with_grad(media, samples())
    torch.testing.assert_close(values.detach(), reward.score(samples()).value, atol=1e-5, rtol=1e-4)
    values.sum().backward()
    assert media.grad is not None
    direction = media.grad / media.grad.norm()
    step = 1e-2
    with torch.no_grad():
        up, down = (reward.score_with_grad(media + s * direction, samples()).sum() for s in (step, -step))
    assert abs((up - down) / (2 * step) / media.grad.norm() - 1) < 0.05


def test_one_head_has_no_std_and_aspects_are_named(tmp_path: Path) -> None:
    one = load_reward(str(write(tmp_path / "one", HeadOptions()))).score(samples())
    assert one.std is None
    assert one.aspects == {}
    several = load_reward(str(write(tmp_path / "n", HeadOptions(aspects=("colour", "kind"))))).score(
        samples()
    )
    torch.testing.assert_close(several.value, (several.aspects["colour"] + several.aspects["kind"]) / 2)


def test_weights_of_folders_whose_name_has_a_colon(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "a:2", HeadOptions()))
    assert parse_weighted(folder) == (folder, 1.0)
    assert parse_weighted(f"{folder}:0.5") == (folder, 0.5)
    assert has_weight(f"{folder}:0.5")
    assert not has_weight(folder)


def test_a_name_of_the_table_is_never_hidden_by_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "placebo", HeadOptions())
    monkeypatch.chdir(tmp_path)
    assert find_card("placebo").unit != "one"
    assert find_card("./placebo").unit == "one"


def test_other_backbone_weights_and_other_folders_are_refused(tmp_path: Path) -> None:
    right = fingerprint(load_backbone(BACKBONE))
    load_reward(str(write(tmp_path / "right", HeadOptions(), weights_of=right)))
    with pytest.raises(ConfigError, match="trained on other weights"):
        load_reward(str(write(tmp_path / "wrong", HeadOptions(), weights_of="0123456789abcdef")))
    with pytest.raises(ConfigError, match="is another model"):
        load_reward(str(write(tmp_path / "head", HeadOptions(), head={"hidden": [3]})))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"it has no card\.yaml"):
        find_card(str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="has no vectors"):
        load_backbone("placebo")


def test_a_damaged_head_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", HeadOptions())
    whole = (folder / HEAD).read_bytes()
    (folder / HEAD).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="no checkpoint that can be read"):
        load_reward(str(folder))
