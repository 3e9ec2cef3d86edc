"""``mmalign pairs --select``: what it asks people about, and that nobody takes its questions for answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.cli import data, pairs, reward
from mmalign.data.pairs import read_pairs, write_pairs
from mmalign.data.readers import read_records
from mmalign.errors import ConfigError, DataError, UnknownNameError
from mmalign.media import Image
from mmalign.rewards.cards import load_reward
from mmalign.roots import rooted
from mmalign.worlds import shapes

PROMPTS, EACH = 8, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A right picture and two wrong ones for each of eight prompts, a reward with three members, and machine labels."""
    folder = tmp_path_factory.mktemp("world")
    scenes = shapes.all_shapes("train")[::40][:PROMPTS]
    colours, kinds = list(shapes.COLOURS), list(shapes.KINDS)
    random = torch.Generator().manual_seed(0)
    sides = (
        scenes,
        [replace(s, colour=colours[(colours.index(s.colour) + 2) % len(colours)]) for s in scenes],
        [replace(s, kind=kinds[(kinds.index(s.kind) + 1) % len(kinds)]) for s in scenes],
    )
    rows: list[dict[str, Any]] = []
    for k, side in enumerate(sides):
        for i, picture in enumerate(shapes.render([(s,) for s in side], random)):
            Image(picture).save(folder / f"{i}-{k}.png")
            rows.append(
                {
                    "file_name": f"{i}-{k}.png",
                    "prompt": shapes.caption((scenes[i],)),
                    "step": 10 * k,
                    "seed": i,
                }
            )
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = [
        {
            "prompt": shapes.caption((scene,)),
            "chosen": f"{i}-{0 if i else 1}.png",  # of the first one the machine is wrong
            "rejected": f"{i}-{1 if i else 0}.png",
            "annotator": "machine",
            "hard": float(i == 3),
            "easy": float(i != 3),
        }
        for i, scene in enumerate(scenes)
    ]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    train = ["train", "--data", str(folder / "labels.jsonl"), "--out", str(folder / "mine"), "--members", "3"]
    assert reward.main([*train, "--epochs", "3"]) == 0
    return folder


def select(
    world: Path, out: Path, *more: str, count: int = 4, of: Path | None = None
) -> list[dict[str, Any]]:
    assert pairs.main([str(of or world), "--select", str(count), "--out", str(out), *more]) == 0
    return [dict(row) for row in read_records(out)]


def named(rows: list[dict[str, Any]]) -> set[frozenset[str]]:
    return {frozenset(Path(row[side]).name for side in ("chosen", "rejected")) for row in rows}


@pytest.mark.parametrize(
    "strategy", ["random", "thompson", "thompson-variance", "variance", "margin", "boltzmann"]
)
def test_every_strategy_asks_about_two_samples_of_one_prompt_without_a_verdict(
    world: Path, tmp_path: Path, strategy: str
) -> None:
    asks = [] if strategy == "random" else ["--reward", str(world / "mine")]
    rows = select(world, tmp_path / "asked.parquet", "--strategy", strategy, *asks)
    assert len(rows) == len(named(rows)) == 4
    for row in rows:
        first, second = ((tmp_path / row[side]).resolve() for side in ("chosen", "rejected"))
        assert first.parent == second.parent == world.resolve()
        assert first != second
        assert first.stem.split("-")[0] == second.stem.split("-")[0]  # of one prompt
        assert (row["strength"], row["margin"], row["annotator"]) == (0, None, None)
        assert row["source"].startswith(f"select {strategy}")


def test_disagreement_is_highest_where_it_says(world: Path, tmp_path: Path) -> None:
    """The chosen pair is the one of all 24 whose verdicts differ most between the members, by the plain formula."""
    from mmalign.media import Sample

    mine = load_reward(str(world / "mine"))
    asked = named(
        select(
            world,
            tmp_path / "a.parquet",
            "--strategy",
            "disagreement",
            "--reward",
            str(world / "mine"),
            count=1,
        )
    )
    scale = mine.card.calibration["log_odds_per_unit"]
    found = {}
    rows = [json.loads(line) for line in (world / "metadata.jsonl").read_text().splitlines()]
    for i in range(PROMPTS):
        samples = [Sample(rows[i]["prompt"], Image.load(world / f"{i}-{k}.png")) for k in range(EACH)]
        members = scale * mine.score_members(samples)[0].double()  # type: ignore[attr-defined]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            p = (members[:, a] - members[:, b]).sigmoid()
            entropy = torch.special.entr(p) + torch.special.entr(1 - p)
            mean = p.mean()
            whole = torch.special.entr(mean) + torch.special.entr(1 - mean)
            found[frozenset({f"{i}-{a}.png", f"{i}-{b}.png"})] = float(whole - entropy.mean())
    assert asked == {max(found, key=lambda pair: found[pair])}


def test_no_command_takes_a_question_for_an_answer(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "asked.parquet"
    select(world, out, "--strategy", "random")
    with pytest.raises(DataError, match=r"row 1.*nobody has labelled this pair yet"):
        read_pairs(out)
    with pytest.raises(DataError, match="none of its 4 rows can be used"):
        reward.main(["train", "--data", str(out), "--out", str(tmp_path / "r")])
    with pytest.raises(DataError, match="nobody has labelled"):
        reward.main(["evaluate", "shapes-truth", "--data", str(out)])
    capsys.readouterr()
    assert data.main(["check", str(out)]) == 1
    assert "4 = 0 used + 4 rejected" in capsys.readouterr().out


def test_the_same_seed_asks_the_same_and_what_is_known_is_not_asked_again(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = select(world, tmp_path / "a.parquet", "--strategy", "random", "--per-prompt", "3", count=20)
    assert first == select(
        world, tmp_path / "b.parquet", "--strategy", "random", "--per-prompt", "3", count=20
    )
    assert first != select(
        world, tmp_path / "b.parquet", "--strategy", "random", "--per-prompt", "3", "--seed", "1", count=20
    )
    labelled = [{**row, "strength": 1.0} for row in first]
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    known = ["--known", str(tmp_path / "known.jsonl"), "--per-prompt", "3", "--root", str(world.parent)]
    capsys.readouterr()
    rest = select(world, tmp_path / "c.parquet", "--strategy", "random", *known, count=20)
    assert len(rest) == 3 * PROMPTS - 20
    assert not named(rest) & named(first)
    assert "there are no more" in capsys.readouterr().err


def test_near_policy_takes_what_was_drawn_last(world: Path, tmp_path: Path) -> None:
    rows = select(world, tmp_path / "a.parquet", "--strategy", "near-policy", "--window", "11", count=8)
    assert named(rows) == {frozenset({f"{i}-1.png", f"{i}-2.png"}) for i in range(PROMPTS)}
    with pytest.raises(ConfigError, match="no pair to ask about"):
        select(world, tmp_path / "b.parquet", "--strategy", "near-policy", "--window", "1")


def test_scores_are_a_pool_too_each_sample_once(world: Path, tmp_path: Path) -> None:
    rows = [
        {"media": str(world / f"0-{k}.png"), "prompt": "a", "reward": name, "score": None}
        for k in range(2)
        for name in ("x", "y")
    ]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = select(
        world,
        tmp_path / "a.parquet",
        "--strategy",
        "random",
        "--per-prompt",
        "9",
        "--root",
        str(world),
        of=tmp_path / "scores.jsonl",
    )
    assert named(found) == {frozenset({"0-0.png", "0-1.png"})}


def test_a_label_that_the_reward_does_not_believe_goes_to_a_person(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    routed = ["--route", "margin", "--reward", "shapes-truth", "--rest", str(tmp_path / "rest.parquet")]
    rows = select(world, tmp_path / "ask.parquet", *routed, count=1, of=world / "labels.jsonl")
    assert named(rows) == {frozenset({"0-0.png", "0-1.png"})}
    assert rows[0]["strength"] == 0
    assert "8 labels: 1 for people (12.5%)" in capsys.readouterr().err
    with rooted(world.parent):
        rest = read_pairs(tmp_path / "rest.parquet")
    assert [pair.chosen.name for pair in rest] == [f"{i}-0.png" for i in range(1, PROMPTS)]
    assert all(pair.annotator == "machine" for pair in rest)


def test_the_label_with_the_largest_predicted_gain_goes_to_a_person(world: Path, tmp_path: Path) -> None:
    """A human label of a hard pair adds 0.02, of an easy one nothing less than harm."""
    mixtures = [
        {"hard": h, "easy": e, "score": 0.7 + 0.02 * h - 0.01 * e} for h, e in ((0, 0), (4, 1), (1, 5))
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixtures))
    routed = ["--route", "gain", "--mixtures", str(tmp_path / "m.jsonl")]
    rows = select(world, tmp_path / "ask.parquet", *routed, count=5, of=world / "labels.jsonl")
    assert named(rows) == {frozenset({"3-0.png", "3-1.png"})}
    (tmp_path / "m.jsonl").write_text(json.dumps(mixtures[0]) + "\n")
    with pytest.raises(DataError, match="1 mixtures cannot fit 2 kinds"):
        select(world, tmp_path / "ask.parquet", *routed, of=world / "labels.jsonl")
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({**row, "odd": 1}) + "\n" for row in mixtures * 2))
    with pytest.raises(DataError, match=r"row 1, column 'odd': expected a number, got none"):
        select(world, tmp_path / "ask.parquet", *routed, of=world / "labels.jsonl")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "goes with --strategy"),
        (("--strategy", "random", "--route", "gain"), "one of them"),
        (("--strategy", "thompson"), "asks a reward: add --reward"),
        (("--strategy", "random", "--reward", "placebo"), "--reward would be ignored by --strategy random"),
        (("--strategy", "near-policy"), "add --window STEPS"),
        (("--route", "gain"), "add --mixtures FILE"),
        (
            ("--route", "margin", "--reward", "placebo", "--seed", "1", "--window", "2"),
            "--window would be ignored",
        ),
        (("--strategy", "random", "--per-prompt", "0"), "at least 1"),
        (("--strategy", "thompson", "--reward", "shapes-truth"), "asks several members of a reward"),
    ],
)
def test_what_cannot_work_or_would_be_ignored_is_told(
    world: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        select(world, tmp_path / "a.parquet", *options)
    assert not (tmp_path / "a.parquet").exists()


def test_pools_that_cannot_be_read_are_told(world: Path, tmp_path: Path) -> None:
    def fails(of: Path, error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            select(world, tmp_path / "a.parquet", "--strategy", "random", of=of)

    fails(tmp_path, DataError, "no metadata.jsonl in it")
    fails(tmp_path / "absent", DataError, "no such file or folder")
    fails(world / "0-0.png", DataError, "expected a folder or a table")
    table = tmp_path / "m.jsonl"
    table.write_text("")
    fails(table, DataError, "no samples in it")
    table.write_text('{"media": "no.png", "prompt": "a"}\n')
    fails(table, DataError, "no such file: .*no.png")
    with pytest.raises(ConfigError, match="written as parquet"):
        select(world, tmp_path / "a.csv", "--strategy", "random")
    with pytest.raises(UnknownNameError):
        select(world, tmp_path / "a.parquet", "--strategy", "margin", "--reward", "nobody")


def test_a_pair_that_somebody_labelled_is_written_and_read_as_before(world: Path, tmp_path: Path) -> None:
    kept = read_pairs(world / "labels.jsonl")
    write_pairs(tmp_path / "same.parquet", kept)
    with rooted(world.parent):
        again = read_pairs(tmp_path / "same.parquet")
    assert [(p.prompt, p.chosen.name) for p in again] == [(p.prompt, p.chosen.name) for p in kept]
