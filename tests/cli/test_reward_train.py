"""``mmalign reward train``: from a table to a reward that scores, and what it says of data that cannot be used."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.cli import reward, rewards, score
from mmalign.cli.main import main
from mmalign.errors import ConfigError, DataError
from mmalign.media import Image, Sample
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.learned import LearnedReward
from mmalign.rewards.learned_heads import Heads, joint_features
from mmalign.training import reward_training
from mmalign.worlds import shapes

Rows = list[dict[str, object]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a right and a wrong picture for each of 60 prompts."""
    folder = tmp_path_factory.mktemp("world")
    scenes = shapes.all_shapes("train")[::5][:60]
    colours = list(shapes.COLOURS)
    wrong = [replace(s, colour=colours[(colours.index(s.colour) + 2) % 6]) for s in scenes]
    random = torch.Generator().manual_seed(0)
    for name, which in (("right", scenes), ("wrong", wrong)):
        for i, picture in enumerate(shapes.render([(s,) for s in which], random)):
            Image(picture).save(folder / f"{name}-{i}.png")
    (folder / "prompts.txt").write_text("\n".join(shapes.caption((s,)) for s in scenes))
    return folder


def prompts(world: Path) -> list[str]:
    return (world / "prompts.txt").read_text().splitlines()


def pairs(world: Path) -> Rows:
    return [
        {"prompt": prompt, "chosen": f"right-{i}.png", "rejected": f"wrong-{i}.png"}
        for i, prompt in enumerate(prompts(world))
    ]


def singles(world: Path, column: str, good: object, bad: object) -> Rows:
    return [
        {"prompt": prompt, "sample": f"{name}-{i}.png", column: value}
        for i, prompt in enumerate(prompts(world))
        for name, value in (("right", good), ("wrong", bad))
    ]


def table(world: Path, rows: Rows, name: str) -> Path:
    path = world / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def train(data: Path, out: Path, *more: str) -> int:
    return reward.main(["train", "--data", str(data), "--out", str(out), *more])


def test_pairs_become_a_reward_that_scores(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    assert train(table(world, pairs(world), "pairs.csv"), out, "--members", "3") == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(out)
    assert "60 rows: 60 used, 0 rejected" in captured.err
    accuracy = find_card(str(out)).calibration["heldout_accuracy"]
    assert f"held-out accuracy {accuracy:.3f}" in captured.err
    assert accuracy == 1.0  # a wrong colour is easy to see for this backbone
    assert rewards.main([str(out)]) == 0
    assert "standard deviations" in capsys.readouterr().out
    media = [str(world / f"{name}-0.png") for name in ("right", "wrong")]
    assert score.main([*media, "--reward", str(out), "--prompt", prompts(world)[0], "--format", "csv"]) == 0
    right, wrong = csv.DictReader(capsys.readouterr().out.splitlines())
    assert float(right["score"]) > float(wrong["score"])
    assert float(right["std"]) > 0


def test_ratings_come_back_in_their_unit_and_labels_as_log_odds(world: Path, tmp_path: Path) -> None:
    ratings = table(world, singles(world, "score", 80, 20), "ratings.csv")
    assert train(ratings, tmp_path / "ratings", "--loss", "gaussian") == 0
    labels = table(world, singles(world, "label", "true", "false"), "labels.csv")
    assert train(labels, tmp_path / "labels", "--head", "deep") == 0
    seen = [[Image.load(world / f"{name}-{i}.png") for i in range(20)] for name in ("right", "wrong")]
    said = prompts(world)
    for name, middle in (("ratings", 50.0), ("labels", 0.0)):
        loaded = load_reward(str(tmp_path / name))
        good, bad = (
            loaded.score([Sample(said[i], media) for i, media in enumerate(side)]).value for side in seen
        )
        assert good.mean() > middle > bad.mean()
    assert "scatter" in load_reward(str(tmp_path / "ratings")).score([Sample(said[0], seen[0][0])]).aspects
    assert find_card(str(tmp_path / "ratings")).unit == "unit of the ratings"


def test_the_same_seed_gives_the_same_head_from_a_cache_or_without(world: Path, tmp_path: Path) -> None:
    data = table(world, pairs(world), "pairs.csv")
    for name in ("a", "b"):
        assert train(data, tmp_path / name, "--features", str(tmp_path / "features"), "--epochs", "2") == 0
    parts = list((tmp_path / "features").rglob("*.safetensors"))
    assert parts
    parts[0].write_bytes(b"damaged")  # counts as absent
    assert train(data, tmp_path / "c", "--features", str(tmp_path / "features"), "--epochs", "2") == 0
    heads = [(tmp_path / name / "head.safetensors").read_bytes() for name in "abc"]
    assert heads[0] == heads[1] == heads[2]
    assert train(data, tmp_path / "d", "--features", str(tmp_path / "features"), "--seed", "1") == 0
    assert (tmp_path / "d" / "head.safetensors").read_bytes() != heads[0]


def by_people(world: Path) -> Rows:
    """Ten people want the right picture and five the wrong one."""
    rows: Rows = []
    for i, row in enumerate(pairs(world)):
        for person in ((2 * i) % 15, (2 * i + 1) % 15):
            sides = (row["chosen"], row["rejected"]) if person < 10 else (row["rejected"], row["chosen"])
            rows.append(
                {
                    "prompt": row["prompt"],
                    "chosen": sides[0],
                    "rejected": sides[1],
                    "annotator": f"p{person:02d}",
                }
            )
    return rows


def ranked(world: Path) -> Rows:
    """Right before wrong, and for every third prompt both alike."""
    return [
        {
            "prompt": row["prompt"],
            "samples": json.dumps([row["chosen"], row["rejected"]]),
            "ranks": [1, 1 + (i % 3 > 0)],
        }
        for i, row in enumerate(pairs(world))
    ]


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (ranked, ("--loss", "davidson", "--tie", "2")),
        (ranked, ("--loss", "plackett-luce")),
        (lambda world: singles(world, "score", 5, 1), ("--loss", "beta")),
        (pairs, ("--loss", "odin", "--nuisance", "covered-area")),
        (by_people, ("--groups", "2")),
        (by_people, ("--groups", "2", "--over-groups", "least")),
        (by_people, ("--personal", "2")),
        (pairs, ("--members", "1", "--std", "members")),
    ],
    ids=["ties", "rankings", "beta", "odin", "groups", "least", "persons", "one"],
)
def test_what_was_fitted_is_what_the_folder_says(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: Callable[[Path], Rows],
    options: tuple[str, ...],
) -> None:
    fitted: list[Heads] = []
    fit = reward_training.fit_heads

    def remembered(*arguments: Any, **named: Any) -> Any:
        found = fit(*arguments, **named)
        fitted.append(found[0])
        return found

    monkeypatch.setattr(reward_training, "fit_heads", remembered)
    out, data = tmp_path / "r", table(world, rows(world), "rows.csv")
    members = () if "--members" in options else ("--members", "2")
    assert train(data, out, *members, "--epochs", "2", "--features", str(world / "features"), *options) == 0
    loaded = load_reward(str(out))
    assert isinstance(loaded, LearnedReward)
    samples = [Sample(prompts(world)[0], Image.load(world / f"{name}-0.png")) for name in ("right", "wrong")]
    score, vectors = loaded.score(samples), loaded.backbone
    features = joint_features(
        vectors.media_vectors(samples), vectors.prompt_vectors([s.prompt for s in samples])
    )
    with torch.no_grad():
        said = fitted[0].overall(fitted[0].members(features)).mean(0)
    torch.testing.assert_close(score.value, said, atol=1e-5, rtol=1e-4)
    assert (score.std is None) == ("--std" in options)
    card = find_card(str(out))
    assert ("the distance to training" in card.source) == ("--std" not in options)
    if "--groups" in options:
        groups = torch.stack(list(score.aspects.values()))
        if "least" in options:
            assert bool((score.value <= groups.amin(0) + 1e-5).all())  # the mean of members' minima
        else:
            torch.testing.assert_close(score.value, groups.mean(0))
            worst = int(groups.mean(1).argmin())
            for _ in range(400):
                loaded.after_rollout(samples, loaded.score(samples))
            assert loaded.report()[f"weight/group-{worst + 1}"] > 0.5
            kept = loaded.score(samples).value
            again = load_reward(str(out))
            assert isinstance(again, LearnedReward)
            again.load_state(loaded.state())
            torch.testing.assert_close(again.score(samples).value, kept)
        assert len((out / "groups.csv").read_text().splitlines()) == 16
    if "--personal" in options:
        few = table(world, [row for row in by_people(world) if row["annotator"] == "p14"], "few.csv")
        assert (
            reward.main(["adapt", "--reward", str(out), "--data", str(few), "--out", str(tmp_path / "p14")])
            == 0
        )
        theirs = load_reward(str(tmp_path / "p14")).score(samples).value
        assert float(theirs[0] - theirs[1]) < float(score.value[0] - score.value[1])
        with pytest.raises(ConfigError, match="the reward itself"):
            reward.main(["adapt", "--reward", str(out), "--data", str(few), "--out", str(out)])


def test_rows_that_cannot_be_used_are_counted_and_told(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (world / "right-0.png").read_bytes()
    (world / "half.png").write_bytes(whole[: len(whole) // 2])
    rows: Rows = [
        *pairs(world),
        {"prompt": "a", "chosen": "missing.png", "rejected": "wrong-0.png"},
        {"prompt": "", "chosen": "right-0.png", "rejected": "wrong-0.png"},
        {"prompt": "a", "chosen": "right-0.png", "rejected": "right-0.png"},
        {"prompt": "a", "chosen": "right-0.png", "rejected": "half.png"},
    ]
    assert train(table(world, rows, "bad.csv"), tmp_path / "r", "--epochs", "1") == 0
    said = capsys.readouterr().err
    assert "64 rows: 60 used, 4 rejected" in said
    for row, what in ((61, "no such file"), (62, "expected a text"), (63, "the same file"), (64, "half.png")):
        assert any(f"row {row}" in line and what in line for line in said.splitlines())


def test_data_that_say_nothing_are_refused(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    with pytest.raises(DataError, match="every label is True"):
        train(table(world, singles(world, "label", "true", "true"), "one.csv"), out)
    with pytest.raises(DataError, match="every score is 3"):
        train(table(world, singles(world, "score", 3, 3), "flat.csv"), out)
    with pytest.raises(DataError, match="none of its 1 rows can be used"):
        train(table(world, [{"prompt": "a", "chosen": "no.png", "rejected": "no.png"}], "none.csv"), out)
    with pytest.raises(DataError, match="demonstrations say nothing"):
        train(table(world, [{"prompt": "a", "sample": "right-0.png"}], "demo.csv"), out)
    with pytest.raises(ConfigError, match="2 prompts: one to train on"):
        train(table(world, pairs(world)[:2], "two.csv"), out)
    with pytest.raises(ConfigError, match="--loss squared is not for pairs"):
        train(table(world, pairs(world), "pairs.csv"), out, "--loss", "squared")
    with pytest.raises(ConfigError, match="name their annotator"):
        train(table(world, pairs(world), "pairs.csv"), out, "--groups", "2")
    with pytest.raises(ConfigError, match="one of both"):
        train(table(world, pairs(world), "pairs.csv"), out, "--groups", "2", "--personal", "3")
    with pytest.raises(ConfigError, match="measure of the medium alone"):
        train(table(world, pairs(world), "pairs.csv"), out, "--loss", "odin", "--nuisance", "shapes-truth")
    with pytest.raises(DataError, match="no such file"):
        train(world / "absent.csv", out)
    assert not (out / "card.yaml").exists()


def test_unknown_options_and_backbones_are_usage_errors(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(world, pairs(world), "pairs.csv")
    with pytest.raises(SystemExit) as stopped:
        train(data, tmp_path / "r", "--epoch", "3")
    assert stopped.value.code == 2
    capsys.readouterr()
    command = ["reward", "train", "--data", str(data), "--out", str(tmp_path / "r"), "--backbone"]
    assert main([*command, "embedded/shape-clip"]) == 2
    assert "Did you mean 'embedded/shapes-clip'" in capsys.readouterr().err
    assert main([*command, "placebo"]) == 2
    assert "has no vectors" in capsys.readouterr().err


def judged(world: Path, count: int = 40) -> Rows:
    """Pairs of which every second one is a tie, as the labelling page's tables have them."""
    return [
        {
            **row,
            "strength": 1.0 if i % 4 else 0.5,
            "verdict": "" if i % 2 else ("tie", "both_bad")[i // 2 % 2],
        }
        for i, row in enumerate(pairs(world)[:count])
    ]


def test_ties_of_the_page_are_learned_from_or_counted_as_rejected(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(world, judged(world), "judged.csv")
    for loss, more in (("davidson", ["--tie", "2"]), ("rao-kupper", ["--threshold", "3"])):
        assert train(data, tmp_path / loss, "--loss", loss, "--epochs", "2", "--members", "1", *more) == 0
        said = capsys.readouterr().err
        assert "40 rows: 40 used, 0 rejected" in said
        assert f"the column strength is not read by --loss {loss}" in said
    assert train(data, tmp_path / "plain", "--epochs", "2", "--members", "1") == 0
    said = capsys.readouterr().err
    assert "row 1: is no order: tie; --loss davidson and rao-kupper learn from ties" in said
    assert "40 rows: 20 used, 20 rejected" in said
    assert "not read" not in said
    heads = [
        (tmp_path / name / "head.safetensors").read_bytes() for name in ("davidson", "rao-kupper", "plain")
    ]
    assert len(set(heads)) == 3
    with pytest.raises(ConfigError, match="--threshold is for --loss rao-kupper"):
        train(data, tmp_path / "x", "--loss", "davidson", "--threshold", "3")


def test_strength_and_margin_change_what_is_learned(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = pairs(world)
    sure = [{**row, "strength": 1.0 if i % 2 else 0.1} for i, row in enumerate(plain)]
    apart = [{**row, "margin": float(i % 3)} for i, row in enumerate(plain)]
    heads = {}
    for name, rows, more in (
        ("plain", plain, []),
        ("equal", [{**row, "strength": 0.5} for row in plain], []),
        ("sure", sure, []),
        ("apart", apart, []),
        ("led", apart, ["--margin-scale", "0.5"]),
    ):
        data, out = table(world, rows, f"{name}-columns.csv"), tmp_path / name
        assert train(data, out, "--epochs", "2", "--members", "1", *more) == 0
        heads[name] = (out / "head.safetensors").read_bytes()
        said = capsys.readouterr().err
        assert (
            "the column margin is not read by --loss bradley-terry (--margin-scale reads it)" in said
        ) == (name == "apart")
    assert heads["plain"] == heads["apart"] == heads["equal"]  # strengths that are all alike say nothing
    assert len({heads["plain"], heads["sure"], heads["led"]}) == 3
    with pytest.raises(ConfigError, match=r"--margin-scale is for margins of pairs, .* the table has none"):
        train(table(world, plain, "plain.csv"), tmp_path / "x", "--margin-scale", "1")
    with pytest.raises(ConfigError, match="and this is gaussian"):
        train(table(world, apart, "apart.csv"), tmp_path / "x", "--margin-scale", "1", "--loss", "gaussian")


@pytest.mark.parametrize("kind", ["ratings", "binary", "rankings"])
def test_opposite_aspects_have_heads_of_their_own_or_one_is_chosen(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Aspect B says the opposite of A, on another scale: merged they would say nothing."""
    rows: Rows = []
    for aspect in ("A", "B"):
        up = aspect == "A"
        for i, prompt in enumerate(prompts(world)):
            files = [f"right-{i}.png", f"wrong-{i}.png"]
            if kind == "rankings":
                ranks = [1, 2] if up else [2, 1]
                rows.append(
                    {
                        "prompt": prompt,
                        "samples": json.dumps(files),
                        "ranks": json.dumps(ranks),
                        "aspect": aspect,
                    }
                )
                continue
            for file, good in zip(files, (True, False), strict=True):
                value: dict[str, object] = {"label": good == up}
                if kind == "ratings":
                    value = {"score": (5 if good else 1) if up else (10 if good else 90)}
                rows.append({"prompt": prompt, "sample": file, **value, "aspect": aspect})
    data = table(world, rows, f"{kind}-aspects.csv")
    assert train(data, tmp_path / "both", "--members", "1") == 0
    assert "the aspects A, B have a head each" in capsys.readouterr().err
    seen = [
        Sample(prompts(world)[i], Image.load(world / f"{n}-{i}.png"))
        for n in ("right", "wrong")
        for i in range(20)
    ]
    said = load_reward(str(tmp_path / "both")).score(seen).aspects
    gap = {name: float((said[name][:20] - said[name][20:]).mean()) for name in "AB"}
    assert gap["A"] > 0 > gap["B"]
    if kind == "ratings":
        assert gap["B"] < -20 < gap["A"] < 5  # each in its own unit
    assert train(data, tmp_path / "one", "--members", "1", "--aspect", "A") == 0
    said_of = capsys.readouterr().err
    assert f"{len(rows)} rows: {len(rows) // 2} used, {len(rows) // 2} rejected" in said_of
    assert "is of the aspect 'B'" in said_of
    alone = load_reward(str(tmp_path / "one")).score(seen).value
    assert float((alone[:20] - alone[20:]).mean()) > 0
    with pytest.raises(DataError, match="no aspect is called 'C'"):
        train(data, tmp_path / "x", "--aspect", "C")
