"""What samples were made of is kept beside them, and is trained on only where it makes them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from mmalign.adapters.loading import load_adapter
from mmalign.training.drawn import drawing, read_drawn
from mmalign.training.recipe import SamplingConfig
from mmalign.training.samples import write_samples
from mmalign.training.sources import encode_files

PROMPTS = ["two low tones", "one high noise", "one low tone, then one high noise"]
SAMPLING = SamplingConfig(steps=2, guidance=1.0, batch_size=2)


@pytest.fixture(scope="module")
def adapter() -> Any:
    return load_adapter("embedded/tones")


@pytest.fixture(scope="module")
def written(adapter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw = drawing(adapter, keep_latents=True, batch_size=2, **SAMPLING.options())
    write_samples(adapter, folder, PROMPTS, [5, 6, 7], SAMPLING, title="", draw=draw)
    return folder


def test_what_trains_on_own_samples_is_the_latents_that_made_them(adapter: Any, written: Path) -> None:
    files = sorted(written.glob("*.wav"))
    latents = encode_files(adapter, files)
    assert torch.equal(latents, adapter.latents(PROMPTS, seeds=[5, 6, 7], batch_size=2, **SAMPLING.options()))
    made = adapter.generate(PROMPTS, seeds=[5, 6, 7], batch_size=2, **SAMPLING.options())
    for sound, again in zip(made, adapter.decode(latents), strict=True):
        assert_close(sound.waveform, again.waveform, atol=1e-4, rtol=0)
    # Encoding the same files gives others; a file without its row is encoded.
    alone = written / "elsewhere" / files[0].name
    alone.parent.mkdir()
    shutil.copy(files[0], alone)
    encoded = encode_files(adapter, [alone, files[1]])
    assert torch.equal(encoded[1], latents[1])
    assert (encoded[0] - latents[0]).abs().max() > 0.05


def test_latents_lie_in_a_file_a_batch(written: Path) -> None:
    rows = [json.loads(line) for line in (written / "metadata.jsonl").read_text().splitlines()]
    names = ["latents-00000.safetensors"] * 2 + ["latents-00002.safetensors"]
    assert [row["latents"] for row in rows] == names


def test_latents_of_another_model_are_not_taken_for_this_ones(
    adapter: Any, written: Path, tmp_path: Path
) -> None:
    rows = (written / "metadata.jsonl").read_text().splitlines()
    for name in ("00001.wav", "latents-00000.safetensors"):
        shutil.copy(written / name, tmp_path / name)
    (tmp_path / "metadata.jsonl").write_text(rows[1] + "\n")
    file = tmp_path / "00001.wav"
    assert list(read_drawn(adapter, [file])) == [file]
    shutil.copy(written / "00000.wav", file)  # as if another model had drawn it
    with pytest.warns(UserWarning, match="do not make its files by this model"):
        assert not read_drawn(adapter, [file])
    (tmp_path / "latents-00000.safetensors").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="its samples are encoded"):
        assert not read_drawn(adapter, [file])
