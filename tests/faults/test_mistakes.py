"""Plausible mistakes in ``mmalign align``: each is one sentence before a model is loaded, of a dry run too."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.cli import align
from mmalign.cli.main import main
from mmalign.data.prompts import read_prompts
from mmalign.training import base_model
from mmalign.training.recipe import Recipe

NAME = "image/flow_dpo"
Files = dict[str, Path]
SECONDS = 2.0
"""Of one core, for a refusal."""

# What is typed after `mmalign align`, with the files of `files` by name, and words of the sentence that comes back.
MISTAKES = {
    "unknown recipe": ("image/flow_dop", "Did you mean 'image/flow_dpo'"),
    "unknown option": (f"{NAME} --train.step 3", "train.step"),
    "precision": (f"{NAME} --train.precision fp8", "invalid choice 'fp8'"),
    "option twice": (f"{NAME} --train.steps 3 --train.steps 4", "--train.steps is given twice"),
    "option twice, in two spellings": (
        f"{NAME} --out a --train.batch_size=2 --train.batch-size 2",
        "is given twice",
    ),
    "negative number": (
        f"{NAME} --train.max-grad-norm -1",
        "train.max_grad_norm = -1.0: expected a positive number",
    ),
    "zero": (f"{NAME} --train.max-grad-norm 0", "a large one, such as 1e6, clips nothing"),
    "no number": (f"{NAME} --method.beta nan", "method.beta = nan: expected a finite number"),
    "seed": (f"{NAME} --train.seed -1", "train.seed = -1: expected 0 to 9007199254740991"),
    "guidance 0": (
        "image/flow_grpo --method.guidance 0",
        "method.guidance = 0.0: expected at least 1; 1 is none",
    ),
    "micro-batch": (
        f"{NAME} --train.batch-size 2",
        "train.micro_batch_size = 16 is more than train.batch_size = 2",
    ),
    "no whole groups": (
        "image/nft --train.batch-size 60 --train.micro-batch-size 60",
        "train.batch_size x updates_per_rollout = 60 samples are no whole groups of method.group_size = 8",
    ),
    "idle option": (f"{NAME} --evaluation.every 0 --evaluation.glance 9", "would do nothing"),
    "option of another medium": (f"{NAME} --sampling.duration-s 3", "sampling.duration_s is of audio"),
    "missing pairs": (
        f"{NAME} --preferences {{here}}/nothing.jsonl",
        "cannot be read (No such file or directory)",
    ),
    "pairs are a folder": (f"{NAME} --preferences {{here}}", "cannot be read (Is a directory)"),
    "empty pairs": (f"{NAME} --preferences {{empty}}", "no pairs in it"),
    "wrong column": (f"{NAME} --preferences {{columns}}", "column 'prompt'"),
    "pairs without a picture": (f"{NAME} --preferences {{gone}}", "row 2, column 'rejected': no such file"),
    "pairs of sounds": (f"{NAME} --preferences {{sounds}}", "a.wav is no file of image"),
    "a picture as pairs": (f"{NAME} --preferences {{picture}}", "not UTF-8"),
    "file of another method": (
        f"{NAME} --ratings {{gone}}",
        "--ratings: flow_dpo does not use it; it takes --preferences",
    ),
    "model of another medium": (f"{NAME} --model embedded/tones", "makes audio, and this recipe makes image"),
    "model of another family": (
        "speech/flow_dpo --model embedded/shapes-flow --modality image",
        "token_dpo learns from tokens, and 'embedded/shapes-flow' makes latents",
    ),
    "diffusion for a flow": (
        f"{NAME} --model embedded/shapes-diffusion",
        "is a diffusion by its scheduler; take method",
    ),
    "step of flows for a diffusion": (
        "image/d3po --method.flow-step cps",
        "method.flow_step = 'cps' would do nothing",
    ),
    "unknown model": (f"{NAME} --model embedded/shapes-flw", "Did you mean 'embedded/shapes-flow'"),
    "model folder that is none": (f"{NAME} --model {{here}}", "no model_index.json in this folder"),
    "model file": (f"{NAME} --model {{picture}}", "no such folder"),
    "model that may not be fetched": (f"{NAME} --model nobody/nothing", "HF_HUB_OFFLINE forbids to fetch it"),
    "unknown reward": (f"{NAME} --reward embedded/shapes-clp", "Did you mean 'embedded/shapes-clip'"),
    "reward of sounds": (f"{NAME} --reward stoi", "reward 'stoi' takes audio, and this recipe makes image"),
    "judge of sounds": (f"{NAME} --heldout-reward tones-truth", "takes audio, and this recipe makes image"),
    "reward that needs more": (
        f"{NAME} --reward embedded/shapes-vlm-pair",
        "needs a reference with each sample",
    ),
    "judge that needs more": (
        f"{NAME} --heldout-reward embedded/shapes-vlm-pair",
        "needs a reference with each sample",
    ),
    "reward without gradient": (
        "image/draft --reward placebo",
        "follows the reward's gradient, and 'placebo' has none",
    ),
    "reward that is not here": (f"{NAME} --reward pickscore-v1", "its weights"),
    "reward twice": (f"{NAME} --reward placebo --reward placebo:2", "reward 'placebo' is named twice"),
    "reward is the judge": (
        f"{NAME} --reward shapes-truth",
        "heldout_reward 'shapes-truth' is also trained on",
    ),
    "judge inside the reward": (
        f"{NAME} --reward embedded/shapes-clip@uncertainty-weighted --heldout-reward embedded/shapes-clip",
        "is also trained on, inside embedded/shapes-clip@uncertainty-weighted",
    ),
    "judge without prompts": (f"{NAME} --heldout-prompts None", "give both, or neither"),
    "prompts are a folder": (f"{NAME} --prompts {{here}}", "cannot be read (Is a directory)"),
    "no prompts": (f"{NAME} --prompts {{empty}}", "no prompts in it"),
    "prompts in Latin-1": (f"{NAME} --prompts {{latin}}", "row 2: not UTF-8"),
    "one file for both": (
        f"{NAME} --prompts {{prompts}} --heldout-prompts {{prompts}}",
        "2 of 2 held-out prompts",
    ),
    "a prompt in both": (
        f"{NAME} --prompts {{prompts}} --heldout-prompts {{others}}",
        "1 of 2 held-out prompts",
    ),
    "pairs of held-out prompts": (f"{NAME} --preferences {{leaking}}", "1 of 540 held-out prompts"),
    "people for a method of one": ("image/nft --labels human", "nft does not learn from pairs"),
    "budget of nobody": (f"{NAME} --budget 4", "--rounds and --budget belong to --labels"),
    "folder taken": (f"{NAME} --out {{here}}", "continue it with --resume"),
    "folder below a file": (f"{NAME} --out {{picture}}/run", "is a file; give another --out"),
    "folder that cannot be written": (f"{NAME} --out /proc/run", "cannot be written"),
}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("a.png", "b.png", "a.wav"):
        (here / name).write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    heldout = read_prompts("embedded/shapes-heldout")[0]
    texts = {
        "empty": "",
        "columns": '{"text": "a", "chosen": "a.png", "rejected": "b.png"}\n',
        "gone": '{"prompt": "a", "chosen": "a.png", "rejected": "b.png"}\n'
        '{"prompt": "a", "chosen": "a.png", "rejected": "c.png"}\n',
        "sounds": '{"prompt": "a", "chosen": "a.wav", "rejected": "a.wav"}\n',
        "leaking": f'{{"prompt": "{heldout.upper()}", "chosen": "a.png", "rejected": "b.png"}}\n',
        "prompts": "a red circle\na blue circle\n",
        "others": "A  red circle.\na green circle\n",
    }
    found = {"here": here, "picture": here / "a.png", "latin": here / "latin.txt"}
    found["latin"].write_bytes("a circle\nein Stück\n".encode("latin-1"))
    for name, text in texts.items():
        found[name] = here / f"{name}.{'txt' if name in ('prompts', 'others') else 'jsonl'}"
        found[name].write_text(text)
    return found


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What wrong usage is answered with, on standard error alone and with status 2."""
    try:
        status = main(["align", *arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    assert status == 2, captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return " ".join(captured.err.replace("│", " ").split())


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: object) -> int:
        pytest.fail("a run or an estimate was begun")

    monkeypatch.setattr(align, "run", reached)
    monkeypatch.setattr(align, "_dry_run", reached)


def test_there_are_enough_mistakes() -> None:
    assert len(MISTAKES) >= 45


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_said_before_anything_begins(
    name: str,
    files: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    typed, message = MISTAKES[name]
    arguments = typed.format(**files).split()
    for more in ([], ["--dry-run"]):
        assert message in said([*arguments, *more], capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("nothing_runs")
def test_a_full_disk_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 2**20, 2**20))
    for more in ([], ["--dry-run"]):
        sentence = said([NAME, "--out", str(tmp_path / "run"), *more], capsys)
        assert "MB are needed and 1 MB are free" in sentence.replace("1 are free", "1 MB are free")


@pytest.mark.usefixtures("nothing_runs")
def test_several_mistakes_are_said_together(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = said(
        [NAME, "--reward", "stoi", "--preferences", str(files["empty"]), "--out", str(files["here"])], capsys
    )
    assert "3 things are wrong: 1. reward 'stoi'" in sentence
    assert "2. " in sentence
    assert "no pairs in it 3. " in sentence


def test_what_is_sound_passes(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe that ships and needs no file of the user, and pairs of one's own."""
    begun: list[str] = []
    monkeypatch.chdir(tmp_path)

    def dry_run(recipe: Recipe) -> int:
        begun.append(recipe.name)
        return 0

    monkeypatch.setattr(align, "_dry_run", dry_run)
    names = [name for name in align.recipe_files() if "sd35" not in name and "flux" not in name]
    for name in names:
        assert main(["align", name, "--dry-run"]) == 0
    assert begun == names
    assert len(names) > 30
    pairs = files["here"] / "sound.jsonl"
    pairs.write_text('{"prompt": "a", "chosen": "a.png", "rejected": "b.png"}\n')
    assert main(["align", NAME, "--dry-run", "--preferences", str(pairs)]) == 0


def test_a_run_that_is_none_cannot_be_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no recipe.yaml here" in said(["--resume", str(tmp_path)], capsys)
    (tmp_path / "recipe.yaml").write_text(
        "name: image/mine\nmodel: embedded/nothing\nmethod: {name: flow_dpo}\n"
    )
    assert "nothing to learn from" in said(["--resume", str(tmp_path)], capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["reward of sounds", "missing pairs", "model of another medium", "folder taken"]
)
def test_a_refusal_takes_two_seconds_and_no_torch(name: str, files: Files, record_property: Callable) -> None:
    arguments = MISTAKES[name][0].format(**files).split()
    script = "import sys; from mmalign.cli.main import main; code = main(sys.argv[1:]); "
    script += "print('torch' in sys.modules); sys.exit(code)"
    for more in ([], ["--dry-run"]):
        start, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", script, "align", *arguments, *more],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "200"},
        )
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
        record_property("wall_s", wall)
        print(
            f"{name}{' ' + ' '.join(more) if more else ''}: {used:.2f} s of one core, {wall:.2f} s on the clock"
        )
        assert done.returncode == 2, done.stderr
        assert MISTAKES[name][1] in done.stderr
        assert done.stdout.strip() == "False"
        assert used <= SECONDS


def test_the_medium_of_a_class_is_read_from_its_source() -> None:
    found = {
        name: base_model.pipeline_medium(name)
        for name in (
            "FluxPipeline",
            "WanPipeline",
            "AudioLDM2Pipeline",
            "StableDiffusion3Pipeline",
            "LTXPipeline",
        )
    }
    assert list(found.values()) == ["image", "video", "audio", "image", "video"]
