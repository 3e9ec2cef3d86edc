"""``mmalign reward overoptimise``: a weak proxy against the truth, on pictures, in a report and a picture."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmalign.cli import reward
from mmalign.errors import ConfigError, DataError
from mmalign.media import Image
from mmalign.worlds import shapes

PROMPTS, EACH = 6, 4
PROXY, TRUE = "embedded/shapes-clip", "shapes-truth"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of each of six prompts, with 0 to 3 wrong attributes, every second one 48 pixels wide."""
    folder = tmp_path_factory.mktemp("world")
    scenes = shapes.all_shapes("train")[::50][:PROMPTS]
    random = torch.Generator().manual_seed(0)
    rows = []
    for i, scene in enumerate(scenes):
        for k in range(EACH):
            drawn = scene
            for name, values in (("colour", shapes.COLOURS), ("kind", shapes.KINDS), ("size", shapes.SIZES))[
                :k
            ]:
                drawn = replace(drawn, **{name: next(v for v in values if v != getattr(scene, name))})
            pixels = shapes.render([(drawn,)], random)
            if k % 2:
                pixels = torch.nn.functional.interpolate(pixels, 48, mode="area")
            Image(pixels[0]).save(folder / f"{i}-{k}.png")
            rows.append({"file_name": f"{i}-{k}.png", "prompt": shapes.caption((scene,)), "seed": k})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def report(world: Path, out: Path, *more: str, proxy: str = PROXY, status: int = 0) -> dict[str, Any]:
    defaults = {"--proxy": proxy, "--true": TRUE, "--out": str(out), "--resamples": "50"}
    command = [
        "overoptimise",
        str(world),
        *(part for item in defaults.items() if item[0] not in more for part in item),
    ]
    assert reward.main([*command, *more]) == status
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_a_proxy_that_sees_faults_gains_and_so_does_the_truth(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(world, tmp_path / "r.json")
    assert (found["samples"], found["prompts"], found["failed"]) == (PROMPTS * EACH, PROMPTS, 0)
    best = found["best_of_n"]
    assert best["n"] == [1, 2, 4]
    assert best["proxy"]["distance"] == pytest.approx(
        [math.sqrt(max(0, math.log(n) - (n - 1) / n)) for n in (1, 2, 4)]
    )
    for side in ("proxy", "true"):
        gains = best[side]["gain_in_stds"]
        assert 0 == gains[0] < gains[1] < gains[2]
        assert best[side]["low"][2] <= gains[2] <= best[side]["high"][2]
    assert best["gap_in_stds"][2] == pytest.approx(
        best["proxy"]["gain_in_stds"][2] - best["true"]["gain_in_stds"][2]
    )
    assert found["accuracy"]["value"] > 0.8
    assert 0 < found["reward_variance"]["true"]["mean"] <= 4 / 3 + 1e-6
    assert set(found["bias"]) == {"pixels", "brightness", "saturation"}  # what varies; sounds have their own
    assert found["bias"]["pixels"]["true"]["value"] > 0  # the fewer faults, the larger, by construction
    assert found["contrast"]["true"]["response"]["value"] == 1.0
    assert found["training"] is found["shift"] is found["implicit"] is None
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(tmp_path / "r.json"), str(tmp_path / "r.png")]
    assert "24 samples of 6 prompts, 0 without a score" in said.err


@pytest.mark.slow
def test_a_placebo_has_no_accuracy_to_speak_of_and_the_truth_does_not_follow_it(
    world: Path, tmp_path: Path
) -> None:
    found = report(world, tmp_path / "r.json", "--picture", str(tmp_path / "p.svg"), proxy="placebo")
    assert found["best_of_n"]["proxy"]["gain_in_stds"][2] > 0.8
    assert abs(found["best_of_n"]["true"]["gain_in_stds"][2]) < 0.5
    assert 0.25 < found["accuracy"]["value"] < 0.75
    assert "<svg" in (tmp_path / "p.svg").read_text()


@pytest.mark.slow
def test_accuracy_on_shifted_samples_falls_by_the_difference(world: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (world / "metadata.jsonl").read_text().splitlines()]
    far = [
        {"media": str(world / row["file_name"]), "prompt": row["prompt"]}
        for row in rows
        if row["seed"] in (1, 2)  # pairs whose faults differ by one only
    ]
    (tmp_path / "far.jsonl").write_text("".join(json.dumps(row) + "\n" for row in far))
    shift = report(world, tmp_path / "r.json", "--shifted", str(tmp_path / "far.jsonl"))["shift"]
    assert shift["accuracy_shifted"]["n"] <= PROMPTS
    assert shift["drop"]["value"] == pytest.approx(
        shift["accuracy"]["value"] - shift["accuracy_shifted"]["value"]
    )
    assert shift["drop"]["ci95"][0] <= shift["drop"]["value"] <= shift["drop"]["ci95"][1]


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Path:
    """A run folder whose glances follow d (1 - d / 2) in stds of the samples before: a KL of 0.25, 1 and 4 nats."""
    from mmalign.rewards.cards import load_reward

    folder = tmp_path / "run"
    before = folder / "samples" / "before"
    rows: list[dict[str, Any]] = []
    for side in ("before", "after"):
        (folder / "samples" / side).mkdir(parents=True)
        rows = []
        for i in range(PROMPTS):
            picture = Image.load(world / f"{i}-{i % 4}.png")
            picture.save(folder / "samples" / side / f"{i}.png")
            prompt = json.loads((world / "metadata.jsonl").read_text().splitlines()[4 * i])["prompt"]
            rows.append({"file_name": f"{i}.png", "prompt": prompt, "seed": i})
        (folder / "samples" / side / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    from mmalign.media import Sample

    samples = [Sample(row["prompt"], Image.load(before / row["file_name"])) for row in rows]
    scores = {name: load_reward(name).score(samples).value.double() for name in (PROXY, TRUE)}
    metrics = []
    for step, d in ((1, 0.5), (2, 1.0), (3, 2.0)):
        row: dict[str, float] = {"step": step, "loss": 0.5, "kl": d * d}
        for key, name in (("train_reward_heldout_prompts", PROXY), ("heldout_reward", TRUE)):
            fall = 0.0 if name == PROXY else 0.5
            std = float(scores[name].std(correction=0))
            row[key] = float(scores[name].mean()) + std * d * (1 - fall * math.log(d))
        metrics.append(row)
    metrics.insert(1, {"step": 2, "loss": 0.4})  # a step without a glance
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in metrics))
    recipe = {
        "name": "image/flow_dpo",
        "method": {"name": "flow_dpo"},
        "reward": [PROXY],
        "heldout_reward": TRUE,
        "evaluation": {"glance": PROMPTS},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_glances_of_a_run_give_the_law_that_made_them(world: Path, tmp_path: Path, run: Path) -> None:
    found = report(world, tmp_path / "r.json", "--run", str(run))["training"]
    assert found["steps"] == [1, 2, 3]
    assert found["true"]["law"] == "direct"
    assert found["true"]["distance"] == pytest.approx([0.5, 1.0, 2.0])
    assert found["true"]["alpha"]["value"] == pytest.approx(1.0, abs=1e-4)
    assert found["true"]["beta"]["value"] == pytest.approx(0.5, abs=1e-4)
    assert found["true"]["peak_distance"]["value"] == pytest.approx(math.e, abs=1e-3)
    assert found["proxy"]["beta"]["value"] == pytest.approx(0.0, abs=1e-4)
    assert found["true"]["alpha"]["ci95"] == [None, None]  # one run


@pytest.mark.slow
def test_two_runs_have_an_interval(world: Path, tmp_path: Path, run: Path) -> None:
    two = report(world, tmp_path / "r.json", "--run", str(run), "--run", str(run))["training"]
    assert two["true"]["alpha"]["ci95"] == pytest.approx([1.0, 1.0], abs=1e-4)


def test_runs_that_say_nothing_are_refused(world: Path, tmp_path: Path, run: Path) -> None:
    with pytest.raises(ConfigError, match="trained on embedded/shapes-clip and was judged by shapes-truth"):
        report(world, tmp_path / "r.json", "--run", str(run), proxy="placebo")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    with pytest.raises(DataError, match=r"--evaluation\.every"):
        report(world, tmp_path / "r.json", "--run", str(run))
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--true", PROXY), "have to differ"),
        (("--out", "r.txt"), "the report is JSON"),
        (("--picture", "p.gif"), "expected .pdf, .png, .svg"),
        (("--implicit",), "add --run RUN"),
        (("--resamples", "0"), "at least 1"),
    ],
)
def test_usage_that_cannot_work_is_told(
    world: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        report(world, tmp_path / "r.json", *options)


def test_one_sample_of_each_prompt_has_no_best(world: Path, tmp_path: Path) -> None:
    row = json.loads((world / "metadata.jsonl").read_text().splitlines()[0])
    table = tmp_path / "one.jsonl"
    table.write_text(json.dumps({"media": str(world / row["file_name"]), "prompt": row["prompt"]}) + "\n")
    with pytest.raises(ConfigError, match="several of each"):
        report(table, tmp_path / "r.json", "--root", str(world.parent))


@pytest.mark.slow
def test_samples_that_fail_are_counted_and_make_the_exit_status_1(world: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (world / "metadata.jsonl").read_text().splitlines()]
    table = tmp_path / "some.jsonl"
    (tmp_path / "torn.png").write_bytes(b"torn")
    listed = [{"media": str(world / row["file_name"]), "prompt": row["prompt"]} for row in rows]
    listed.append({"media": str(tmp_path / "torn.png"), "prompt": rows[0]["prompt"]})
    table.write_text("".join(json.dumps(row) + "\n" for row in listed))
    assert report(table, tmp_path / "r.json", "--root", str(tmp_path.parent), status=1)["failed"] == 1
