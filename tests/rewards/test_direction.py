"""A reward's sign is one rule: whoever adds, compares or follows scores turns them in the same way."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
import torch
from torch.testing import assert_close

from mmalign.cli import pairs, score
from mmalign.errors import ConfigError
from mmalign.inference.dynamic_guidance import preferred
from mmalign.media import Image, Sample
from mmalign.methods.base import Task
from mmalign.rewards.caching import Cached
from mmalign.rewards.cards import cards, find_card, load_reward
from mmalign.rewards.combining import within_groups
from mmalign.rewards.compose import Gate, Minimum, load_weighted
from mmalign.rewards.direction import known_sign
from mmalign.rewards.lift import ImageLift
from mmalign.rewards.relative import WithinPrompt
from mmalign.training.labels import Question, by_reward

NAMES = ("jpeg-compressibility:1", "sharpness:0.5")
CARD = replace(find_card("placebo"), name="made-v1", needs=())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A flat picture, which a JPEG makes small, and noise, which it does not."""
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    Image(torch.full((3, 64, 64), 0.5)).save(tmp_path / "flat.png")
    Image(noise).save(tmp_path / "noise.png")
    return tmp_path


def samples(folder: Path) -> list[Sample]:
    return [Sample("x", Image.load(folder / f"{name}.png")) for name in ("flat", "noise")]


def scored(folder: Path, *options: str) -> Path:
    out = folder / "scores.jsonl"
    files = [str(folder / "flat.png"), str(folder / "noise.png")]
    rewards = [part for name in NAMES for part in ("--reward", name)]
    assert score.main([*files, *rewards, "--prompt", "x", "--out", str(out), *options]) == 0
    return out


def test_score_adds_what_align_adds_and_pairs_follows_it(pictures: Path, tmp_path: Path) -> None:
    out = scored(pictures)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    total = [row["score"] for row in rows if "+" in row["reward"]]
    assert total == pytest.approx(load_weighted(NAMES).score(samples(pictures)).value.tolist(), abs=1e-5)
    assert total[0] > total[1], "the flat picture is the better one"
    for name in ("jpeg-compressibility:1+sharpness:0.5", "jpeg-compressibility"):
        chosen = tmp_path / "pairs.parquet"
        assert pairs.main([str(out), "--reward", name, "--out", str(chosen)]) == 0
        (row,) = pyarrow.parquet.read_table(chosen).to_pylist()
        assert Path(row["chosen"]).name == "flat.png", name


def test_every_card_has_a_sign_that_its_names_in_tables_keep() -> None:
    assert len(cards()) > 40
    for name, card in cards().items():
        assert card.sign == (1.0 if card.higher_is_better else -1.0)
        # As --reward, as a careful one, and as `mmalign serve` names it.
        for known in (name, f"{name}@worst-case", f"{name}@127.0.0.1:8000"):
            assert known_sign(known) == card.sign
    for unknown in ("somebody's own", "http://127.0.0.1:1", "own@127.0.0.1:8000", "own@localhost:8000"):
        assert known_sign(unknown) is None
    assert known_sign("own@127.0.0.1:8000:0.5+placebo:1") == 1.0


def test_an_unknown_name_in_a_table_is_said(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scored(pictures)
    out.write_text(out.read_text().replace('"jpeg-compressibility"', '"mine"'))
    assert pairs.main([str(out), "--reward", "mine", "--out", str(tmp_path / "p.parquet")]) == 0
    assert "'mine' has no card here" in capsys.readouterr().err
    assert (
        pairs.main([str(out), "--reward", "mine", "--better", "lower", "--out", str(tmp_path / "q.parquet")])
        == 0
    )
    assert "no card" not in capsys.readouterr().err
    first, second = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").to_pylist()[0] for name in "pq")
    assert (first["chosen"], first["rejected"]) == (second["rejected"], second["chosen"])


def test_a_method_is_given_scores_where_more_is_better(pictures: Path) -> None:
    pixels = torch.stack([sample.media.pixels for sample in samples(pictures)])  # type: ignore[union-attr]
    adapter = SimpleNamespace(decode=lambda latents: [Image(one) for one in latents])
    lower, higher = (
        Task(adapter, reward=load_reward(f"jpeg-{name}")).score(pixels, ["x", "y"])
        for name in ("compressibility", "incompressibility")
    )
    assert lower[0] > lower[1]
    assert_close(lower, -higher)


def test_labels_and_guidance_prefer_what_is_better(pictures: Path) -> None:
    flat, noise = samples(pictures)
    reward = load_reward("jpeg-compressibility")
    (answer,) = by_reward(reward)([Question("0", flat, noise)])
    assert answer is not None
    assert answer.choice == "first"
    assert preferred([[noise.media], [flat.media]], [(reward, 1.0)], ["x"]).tolist() == [1]
    beside = WithinPrompt(CARD, reward)
    assert preferred([[noise.media], [flat.media]], [(beside, 1.0)], ["x"]).tolist() == [1]


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda card, of: Cached(card, of, folder=Path()), "higher_is_better: false"),
        (lambda card, of: Gate(card, of, [(of, 0.5)], otherwise=0.0), "higher_is_better: false"),
        (lambda card, of: ImageLift(replace(card, modalities=("video",)), of), "higher_is_better: false"),
        (lambda card, of: WithinPrompt(replace(card, higher_is_better=False), of), "higher_is_better: true"),
        (
            lambda card, of: Minimum(replace(card, higher_is_better=False), [of], scales=[(0.0, 1.0)]),
            "higher_is_better: true",
        ),
    ],
)
def test_a_wrapper_whose_card_says_the_opposite_is_refused(make: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=f"made-v1.*write {line}"):
        make(CARD, load_reward("jpeg-compressibility"))


# When groups stay whole


@pytest.mark.parametrize("draw_batch", [1, 5, 6, 8, 32])
@pytest.mark.parametrize("order", ["in turn", "mixed"])
def test_groups_of_six_stay_whole_in_any_drawing_batch(
    draw_batch: int, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    G, P = 6, 4
    prompts = [f"prompt {i // G}" if order == "in turn" else f"prompt {i % P}" for i in range(P * G)]
    pixels = torch.rand(P * G, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []

    def decode(latents: torch.Tensor) -> list[Image]:
        sizes.append(len(latents))
        return [Image(one) for one in latents]

    reward = load_reward("sharpness")
    raw = reward.score([Sample(p, Image(one)) for p, one in zip(prompts, pixels, strict=True)]).value
    task = Task(SimpleNamespace(decode=decode), reward=WithinPrompt(CARD, reward), draw_batch=draw_batch)
    found = task.score(pixels, prompts)
    assert_close(found, within_groups(raw, prompts, how="z"))

    # Two processes have whole groups each, whose scores are the whole when they are added.
    parts = []
    for rank in range(2):

        def share(total: int, rank: int = rank) -> range:
            return range(total * rank // 2, total * (rank + 1) // 2)

        processes = SimpleNamespace(rank=rank, count=2, sum=lambda values: values, share=share)
        for user in ("mmalign.methods.base", "mmalign.rewards.learning"):
            monkeypatch.setattr(f"{user}.Processes", lambda processes=processes: processes)
        parts.append(task.score(pixels, prompts))
    assert ((parts[0] != 0) & (parts[1] != 0)).sum() == 0
    assert_close(parts[0] + parts[1], found)
    assert found.isfinite().all()
    assert max(sizes) <= draw_batch
