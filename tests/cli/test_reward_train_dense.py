"""``mmalign reward train --head token`` and ``--head region``: from captions to coloured words and maps."""

import csv
import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mmalign.cli import reward, rewards, score
from mmalign.data.faults import Fault, parse_marked, write_faults
from mmalign.errors import ConfigError, DataError
from mmalign.media import Image, Sample
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.dense import DenseReward
from mmalign.worlds import shapes
from mmalign.worlds.shape_faults import Faults, draw_faults

N = 24
QUICK = ("--epochs", "2", "--batch-size", "12", "--heldout", "0.3")


@pytest.fixture(scope="module")
def drawn() -> Faults:
    return draw_faults(N, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def world(drawn: Faults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with faults.parquet, with regions, and right.jsonl, in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("faults")
    entries = []
    for i, marked in enumerate(drawn.marked):
        picture, region = folder / f"{i}.png", folder / f"{i}-region.png"
        Image(drawn.pictures[i]).save(picture)
        wrong = bool(drawn.regions[i].any())
        if wrong:
            Image(drawn.regions[i].expand(3, -1, -1)).save(region)
        entries.append(Fault(drawn.captions[i], picture, parse_marked(marked)[1], region if wrong else None))
    write_faults(folder / "faults.parquet", entries)
    write_right(folder / "right.jsonl", [shapes.caption(scene) for scene in drawn.scenes])
    return folder


def write_right(table: Path, captions: list[str]) -> None:
    """Demonstrations of pictures by their number."""
    rows = [{"prompt": text, "sample": f"{i}.png"} for i, text in enumerate(captions)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region head, hardly trained."""
    out = tmp_path_factory.mktemp("trained") / "region"
    assert train(world / "faults.parquet", out, "--head", "region", *QUICK) == 0
    return out


def train(data: Path, out: Path, *more: str) -> int:
    return reward.main(["train", "--data", str(data), "--out", str(out), *more])


def test_the_world_marks_one_wrong_word_and_the_shape_it_is_said_of(drawn: Faults) -> None:
    wrong = 0
    for i, marked in enumerate(drawn.marked):
        plain, right = parse_marked(marked)
        said = shapes.parse(plain)
        assert plain == drawn.captions[i]
        assert said is not None
        shown = {shape.place: shape for shape in drawn.scenes[i]}
        different = [shape.place for shape in said if shape != shown[shape.place]]
        assert len(different) == right.count(False) == int(drawn.regions[i].any())
        for place in different:
            wrong += 1
            rows, columns = drawn.regions[i].nonzero().double().mean(0).tolist()
            x, y = shapes.PLACES[place]
            assert abs(columns / 31.5 - 1 - 1.2 * x) < 0.1
            assert abs(rows / 31.5 - 1 - 1.2 * y) < 0.1
            inside = drawn.pictures[i][:, drawn.regions[i] == 1].mean(1)
            assert (inside - torch.tensor(shapes.COLOURS[shown[place].colour])).abs().max() < 0.06
    assert 0 < wrong < N


def test_the_folder_is_a_reward_with_words_and_regions(
    trained: Path, drawn: Faults, capsys: pytest.CaptureFixture[str]
) -> None:
    card = find_card(str(trained))
    assert {"heldout_word_auroc", "heldout_pointing"} <= set(card.calibration)
    assert rewards.main([str(trained)]) == 0
    assert "nats per word" in capsys.readouterr().out
    loaded = load_reward(str(trained))
    samples = [
        Sample(drawn.captions[0], Image(drawn.pictures[0])),
        Sample("a star"),
        Sample(drawn.captions[1], Image(drawn.pictures[1])),
    ]
    found = loaded.score(samples)
    assert found.status == ["ok", "no media", "ok"]
    assert found.tokens is not None
    assert found.regions is not None
    assert found.regions.shape == (3, 8, 8)
    assert found.tokens[1].text == ()
    for i in (0, 2):
        assert "".join(found.tokens[i].text) == samples[i].prompt
        assert_close(sum(found.tokens[i].score), float(found.value[i]), rtol=0, atol=1e-6)
        assert_close(found.aspects["fault_share"][i], found.regions[i].mean())
        assert 0 < found.aspects["least_right"][i] < 1
    assert_close(loaded.score(samples[2:]).value, found.value[2:], rtol=0, atol=1e-5)


def test_saved_again_it_scores_as_before_and_its_gradient_is_that_of_its_scores(
    trained: Path, drawn: Faults
) -> None:
    first, again = (load_reward(str(trained)) for _ in "ab")
    sample = Sample(drawn.captions[0], Image(drawn.pictures[0]))
    assert torch.equal(first.score([sample]).value, again.score([sample]).value)
    assert isinstance(first, DenseReward)
    pixels = drawn.pictures[:1].clone().requires_grad_()
    value = first.score_with_grad(pixels, [sample])
    assert_close(value.detach(), first.score([sample]).value, rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), pixels)
    step = 1e-3 * gradient / gradient.norm()
    up, down = (
        first.score_with_grad(pixels.detach() + sign * step, [sample]).double().item() for sign in (1, -1)
    )
    assert_close((up - down) / 2e-3, gradient.norm().double().item(), rtol=0.05, atol=1e-4)


def test_explain_draws_words_and_an_overlay(
    trained: Path, world: Path, drawn: Faults, tmp_path: Path
) -> None:
    out = tmp_path / "scores.jsonl"
    arguments = [str(world / "0.png"), "--prompt", drawn.captions[0], "--reward", str(trained)]
    assert score.main([*arguments, "--out", str(out), "--explain", str(tmp_path / "why")]) == 0
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["least_right"] < 1
    (page,) = (tmp_path / "why").glob("*.html")
    words = page.read_text()
    assert all(f">{piece}</span>" in words for piece in (" " + w for w in drawn.captions[0].split()[1:]))
    (picture,) = (tmp_path / "why").glob("*.png")
    shown = Image.load(picture).pixels
    assert shown.shape == (3, 64, 64)
    assert not torch.allclose(shown, drawn.pictures[0], atol=0.01)


def test_a_token_head_learns_from_right_captions_alone_and_from_a_trained_backbone(
    world: Path, tmp_path: Path, drawn: Faults
) -> None:
    data, cache = world / "right.jsonl", tmp_path / "features"
    options = ("--head", "token", "--epochs", "1", "--batch-size", "12", "--features", str(cache))
    for name in "ab":
        assert train(data, tmp_path / name, *options) == 0
    a, b = ((tmp_path / name / "head.safetensors").read_bytes() for name in "ab")
    assert a == b
    assert load_reward(str(tmp_path / "a")).score([Sample("a", Image(drawn.pictures[0]))]).regions is None
    assert train(data, tmp_path / "lora", *options, "--tune", "lora", "--lora-rank", "2") == 0
    assert (tmp_path / "lora" / "backbone.safetensors").is_file()
    tuned, frozen = (load_reward(str(tmp_path / name)) for name in ("lora", "a"))
    assert isinstance(tuned, DenseReward)
    assert isinstance(frozen, DenseReward)
    pixels = tuned.preprocessing(drawn.pictures[:1])
    assert not torch.allclose(tuned.dense.patches(pixels), frozen.dense.patches(pixels), atol=1e-5)


def test_what_cannot_be_learned_from_or_would_be_ignored_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="trained from faults"):
        train(world / "right.jsonl", tmp_path / "x", "--head", "region")
    with (tmp_path / "dull.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([("prompt", "sample"), *((f"thing {i}", world / f"{i}.png") for i in range(4))])
    with pytest.raises(DataError, match="--words FILE"):
        train(tmp_path / "dull.csv", tmp_path / "x", "--head", "token", "--root", str(world))
    for options, message in (
        (("--head", "token", "--members", "3"), "--members is for --head linear or deep"),
        (("--tune", "full"), "--tune is for --head token or region"),
        (("--head", "token", "--lora-rank", "4"), "--lora-rank is for --tune lora"),
        (("--head", "token", "--negatives", "1.0"), "expected above 0 and below 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(world / "right.jsonl", tmp_path / "x", *options)


@pytest.mark.slow
def test_wrong_words_are_found_after_a_few_minutes(tmp_path: Path) -> None:
    drawn = draw_faults(1_500, torch.Generator().manual_seed(0), two_shapes=0.0, wrong=0.0)
    for i, pixels in enumerate(drawn.pictures):
        Image(pixels).save(tmp_path / f"{i}.png")
    write_right(tmp_path / "right.jsonl", drawn.captions)
    assert train(tmp_path / "right.jsonl", tmp_path / "out", "--head", "token", "--epochs", "15") == 0
    assert find_card(str(tmp_path / "out")).calibration["heldout_word_auroc"] > 0.85
