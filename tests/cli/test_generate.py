"""``mmalign generate`` with every embedded generator: files that ordinary tools open, as long and large as stated."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import PIL.Image
import pytest
import soundfile

from mmalign.adapters.loading import embedded_models
from mmalign.cli import generate
from mmalign.errors import ConfigError

PROMPTS = {
    "embedded/commands": "say 'stop the window' in a low voice",
    "embedded/shapes-diffusion": "a small red circle on the left",
    "embedded/shapes-flow": "a small red circle on the left",
    "embedded/shapes-video": "a red circle moving to the left slowly",
    "embedded/shapes-views": "a large red cone",
    "embedded/tones": "one low tone, then two high noises",
}
FEW = {"embedded/commands": ["--temperature", "0.9"]}
"""Options of quick samples where ``--steps`` is none."""


def opened(path: Path) -> dict[str, Any]:
    """What a tool that knows nothing of us says of a file."""
    if path.suffix == ".png":
        with PIL.Image.open(path) as picture:
            picture.load()
            return {"size": picture.size, "mode": picture.mode}
    if path.suffix == ".mp4":
        with av.open(path) as video:
            stream = video.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24").shape for frame in video.decode(video=0)]
            return {"frames": len(frames), "size": frames[0][1::-1], "rate": stream.average_rate}
    waveform, rate = soundfile.read(path)
    return {"rate": rate, "channels": waveform.ndim, "seconds": len(waveform) / rate}


EXPECTED = {
    "embedded/shapes-diffusion": {"size": (64, 64), "mode": "RGB"},
    "embedded/shapes-flow": {"size": (64, 64), "mode": "RGB"},
    "embedded/shapes-video": {"frames": 9, "size": (32, 32), "rate": Fraction(8)},
    "embedded/shapes-views": {"size": (64, 64), "mode": "RGB"},
    "embedded/tones": {"rate": 8_000, "channels": 1, "seconds": 1.28},
}


def test_every_embedded_generator_is_here() -> None:
    assert sorted(PROMPTS) == embedded_models()


@pytest.mark.parametrize("model", sorted(PROMPTS))
def test_files_open_with_ordinary_tools(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    few = FEW.get(model, ["--steps", "2", "--guidance", "2"])
    assert generate.main([model, "--prompt", PROMPTS[model], "--n", "2", "--out", str(out), *few]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [PROMPTS[model]] * 2
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        found = opened(out / row["file_name"])
        if model == "embedded/commands":
            assert (found["rate"], found["channels"]) == (16_000, 1)
            assert 0.3 < found["seconds"] < 8
        else:
            assert found == EXPECTED[model]
    assert (out / rows[0]["file_name"]).read_bytes() != (out / rows[1]["file_name"]).read_bytes()


def test_a_folder_with_something_in_it_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        generate.main(["embedded/shapes-flow", "--prompt", "a red circle", "--out", str(tmp_path)])


def test_options_that_a_model_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no option"):
        generate.main(
            [
                "embedded/shapes-flow",
                "--prompt",
                "a red circle",
                "--frames",
                "9",
                "--out",
                str(tmp_path / "out"),
            ]
        )


def test_a_stopped_one_keeps_prompts_and_whole_samples_and_goes_on_as_the_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmalign.training import samples

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\na blue square\na green triangle\n")
    options = ["--prompts", str(prompts), "--batch-size", "1", "--steps", "2", "--guidance", "2"]

    def command(out: str, *more: str) -> list[str]:
        return ["embedded/shapes-flow", *options, "--out", str(tmp_path / out), *more]

    assert generate.main(command("whole")) == 0
    real = samples._write

    def write(medium: Any, path: Path) -> list[Path]:
        if path.name == "00001.png":
            raise KeyboardInterrupt
        return real(medium, path)

    monkeypatch.setattr(samples, "_write", write)
    with pytest.raises(KeyboardInterrupt):
        generate.main(command("out"))
    monkeypatch.undo()
    assert "the same command with --resume goes on" in capsys.readouterr().err
    out = tmp_path / "out"
    assert json.loads((out / generate.ASKED).read_text())["prompts"] == prompts.read_text().splitlines()
    assert (out / "metadata.jsonl").read_text().count("\n") == 1

    with pytest.raises(ConfigError, match="is unfinished; go on with --resume"):
        generate.main(command("out"))
    with pytest.raises(ConfigError, match="was begun with other seed; repeat that"):
        generate.main(command("out", "--resume", "--seed", "7"))
    assert generate.main(command("out", "--resume")) == 0
    whole = tmp_path / "whole"
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert len(list(out.iterdir())) == 4
    for path in whole.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    with pytest.raises(ConfigError, match="nothing unfinished"):
        generate.main(command("out", "--resume"))
