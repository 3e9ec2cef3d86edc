"""The report holds everything it shows, escapes what it quotes, and says what is missing."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from mmalign import load_adapter
from mmalign.errors import DataError
from mmalign.evaluation.pairs import spread
from mmalign.evaluation.report import write_report
from mmalign.evaluation.run_folder import SamplePair, read_run
from mmalign.evaluation.usage import loading_code
from mmalign.media import Audio, Image, Scene3D, Video, turntable
from tests.evaluation.conftest import PROMPTS, SUMMARY, MakeRun

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """What a browser would find: tags that match, addresses, text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.images: list[dict[str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = {name: value or "" for name, value in attrs}
        self.addresses += [
            named[name] for name in ("src", "href", "xlink:href", "srcset", "data") if name in named
        ]
        if tag == "img":
            self.images.append(named)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += " " + " ".join(data.split())


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_the_report_loads_nothing(make_run: MakeRun) -> None:
    path = write_report(make_run())
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.addresses, "the check below has something to check"
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|https?://|file:", html)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "default-src 'none'" in html
    assert str(path.parent) not in html, "no path of this computer"


def test_the_report_has_the_numbers(make_run: MakeRun) -> None:
    text = read(make_run()).text
    wanted = [
        "Better: the held-out reward",
        "95% interval +0.052 to +0.101, 512 samples of 256 prompts",
        "shapes-truth held out: training never used it 0.651 0.727 +0.076 +0.052 to +0.101 512",
        "embedded/shapes-clip trained on 21.3 23.9 +2.610 – –",
        "kind 0.611 0.713 +0.102",
        "colour 0.702 0.698 −0.004",
        "sharpness 0.010 0.010 −1%",
        "diversity 0.211 0.148 −30% – look",
        "5 min 52 s",
        "2,310 MB",
        "51,840",
        "torch 2.13.0",
        "beta: 500.0 # <high>",
        "loss: from 0.696 to 0.601; the thick line is the mean of 3 rows",
    ]
    for piece in wanted:
        assert piece in text, piece


def test_pictures_are_the_files_byte_for_byte_with_prompt_seed_and_score(make_run: MakeRun) -> None:
    folder = make_run()
    page = read(folder)
    shown = page.images[: 2 * len(PROMPTS)]
    for index, prompt in enumerate(PROMPTS):
        for image, side in zip(shown[2 * index : 2 * index + 2], ("before", "after"), strict=True):
            assert image["alt"] == f"{side}: {prompt}"
            data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
            assert data == (folder / "samples" / side / f"{index:05d}.png").read_bytes()
    assert "before 0.250 after 0.750 a small red circle on the left seed 1000" in page.text
    assert "before after 0.500 one blue triangle, small, 日本 seed 1002" in page.text, (
        "a missing score is no 0"
    )


def test_largest_gain_and_loss_are_shown_again(make_run: MakeRun) -> None:
    html = write_report(make_run()).read_text(encoding="utf-8")
    gains, losses = (
        html[html.index("Largest gains") : html.index("Largest losses")],
        html[html.index("Largest losses") :],
    )
    assert gains.count('<figure class="pair">') == 1
    assert "a small red circle" in gains
    assert losses.count('<figure class="pair">') == 1
    assert "star" in losses


def test_where_less_is_better_gains_and_losses_change_places(make_run: MakeRun) -> None:
    folder = make_run()
    summary = json.loads((folder / "summary.json").read_text())
    summary["heldout_reward"]["higher_is_better"] = False
    (folder / "summary.json").write_text(json.dumps(summary))
    html = write_report(folder).read_text(encoding="utf-8")
    gains, losses = html.index("Largest gains"), html.index("Largest losses")
    assert "star" in html[gains:losses]
    assert "a small red circle" in html[losses:]
    assert 'class="up"' not in html[losses:]


def test_prompts_and_settings_are_quoted_and_never_run(make_run: MakeRun) -> None:
    folder = make_run(model='<img src="https://example.org/x.png">', method="<script>alert(1)</script>")
    html = write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert "b" not in page.tags
    assert "script" not in page.tags
    assert page.addresses
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert "&lt;b&gt;star&lt;/b&gt; &amp; a $square" in html
    assert PROMPTS[1] in page.text


def test_the_same_folder_gives_the_same_bytes(make_run: MakeRun) -> None:
    folder = make_run()
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("pipeline", "by"),
    [("StableAudioPipeline", "adapter.load_lora("), ("AudioLDM2Pipeline", "adapter.load_lora(")]
    + [(name, "pipeline.load_lora_weights(") for name in ("FluxPipeline", "OfSomebodysOwn")],
)
def test_a_lora_is_loaded_as_its_pipeline_can(pipeline: str, by: str, make_run: MakeRun) -> None:
    folder = make_run(pipeline=pipeline)
    code = loading_code(read_run(folder))
    assert code is not None
    compile(code, "report", "exec")
    assert f'{by}"lora")' in code
    if by.startswith("adapter"):
        assert f"prompt = {json.dumps(PROMPTS[0])}" in code
        assert "generate([prompt], seeds=[1000], steps=16, guidance=3.0)[0]" in code


def test_views_are_saved_as_what_they_are(make_run: MakeRun) -> None:
    code = loading_code(read_run(make_run(pipeline="PixArtSigmaPipeline", modality="scene3d")))
    assert code is not None
    assert code.endswith('sample.save("sample.views.png")')


def test_what_mmalign_loads_draws_the_runs_sample_again(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(pipeline="StableAudioPipeline", model="embedded/tones", modality="audio")
    adapter = load_adapter("embedded/tones")
    adapter.generator.attach_lora(rank=2)
    for name, parameter in adapter.generator.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    adapter.save_lora(folder / "lora")
    wanted = adapter.generate([PROMPTS[0]], seeds=[1_000], steps=16, guidance=3.0)[0]
    code = loading_code(read_run(folder))
    assert code is not None
    monkeypatch.chdir(folder)
    exec(code, {})
    drawn = Audio.load(folder / "sample.wav")
    torch.testing.assert_close(drawn.waveform, wanted.waveform, rtol=0, atol=1e-4)


def test_loading_code_is_python_with_the_samples_own_options(make_run: MakeRun) -> None:
    html = write_report(make_run()).read_text(encoding="utf-8")
    code = Page(html).text
    compile_me = re.search(r"<pre><code>(import torch.*?)</code>", html, re.DOTALL)
    assert compile_me is not None
    compile(compile_me[1].replace("&quot;", '"').replace("&#x27;", "'"), "report", "exec")
    for piece in (
        'DiffusionPipeline.from_pretrained("assets/shapes-flow")',
        'pipeline.load_lora_weights("runs/image-flow_dpo-1/lora")',
        "num_inference_steps=16, guidance_scale=3.0,",
        "manual_seed(1000)",
    ):
        assert piece in code, piece


OPTIONAL = [
    "recipe.yaml",
    "metrics.jsonl",
    "samples",
    "samples/before",
    "samples/after/scores.jsonl",
    "samples/after/metadata.jsonl",
    "lora",
    "summary.json",
]


@pytest.mark.parametrize("missing", OPTIONAL)
def test_any_one_part_may_be_missing(make_run: MakeRun, missing: str) -> None:
    folder = make_run()
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = read(folder).text
    said = {
        "samples": "This run kept no samples.",
        "samples/before": "This run kept no samples.",
        "lora": "This folder has no weights",
        "summary.json": "This run is not finished",
    }
    assert said.get(missing, "Better") in text
    assert "nan" not in text.lower().split()


@pytest.mark.parametrize(
    "changed",
    [
        {"train_reward": None},
        {"heldout_reward": None},
        {"heldout_reward": {**SUMMARY["heldout_reward"], "ci95": [None, None], "aspects": None}},
        {"guards": {}},
        {"guards": {"diversity": {"before": 0.0, "after": None}}},
        {"sampling": {}, "versions": {}, "denoiser_passes": {"before": 12, "training": 34}},
    ],
)
def test_summaries_with_less_in_them(make_run: MakeRun, changed: dict[str, Any]) -> None:
    text = read(make_run(**changed)).text
    assert "image/flow_dpo" in text
    assert "None" not in text
    assert ("embedded/shapes-clip trained on" in text) == ("train_reward" not in changed)
    assert ("Not measured: this run has no held-out reward" in text) == (
        changed.get("heldout_reward", 1) is None
    )


def test_without_evaluations_or_scores_there_are_still_curves_and_pairs(make_run: MakeRun) -> None:
    folder = make_run()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in row.items() if key != "heldout_reward"} for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    for side in ("before", "after"):
        (folder / "samples" / side / "scores.jsonl").unlink()
    page = read(folder)
    assert "heldout reward: from" not in page.text
    assert "loss: from" in page.text
    assert "Largest" not in page.text
    assert len(page.images) == 2 * len(PROMPTS)


def test_an_unreadable_picture_is_said_to_be_so(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "samples" / "after" / "00000.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (folder / "samples" / "after" / "00002.png").unlink()
    page = read(folder)
    assert page.text.count("not readable") == 3  # two pairs, and one of them again as the largest gain
    assert len(page.images) == 10 - 3


def test_large_pictures_are_reduced(make_run: MakeRun) -> None:
    folder = make_run()
    path = folder / "samples" / "before" / "00000.png"
    Image(torch.rand(3, 900, 1200, generator=torch.Generator().manual_seed(0))).save(path)
    image = read(folder).images[0]
    data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
    with PIL.Image.open(io.BytesIO(data)) as reduced:
        assert reduced.size == (512, 384)
    assert len(data) < path.stat().st_size / 4


def as_another_medium(folder: Path, suffix: str, save: Callable[[Path, int], None]) -> Path:
    """The same run with other files: ``save(path, number)`` writes one."""
    for side in ("before", "after"):
        samples = folder / "samples" / side
        for number in range(len(PROMPTS)):
            (samples / f"{number:05d}.png").unlink()
            save(samples / f"{number:05d}{suffix}", number)
        for name in ("metadata.jsonl", "scores.jsonl"):
            (samples / name).write_text(
                (samples / name).read_text("utf-8").replace(".png", suffix), encoding="utf-8"
            )
    return folder


def save_video(path: Path, number: int) -> None:
    frames = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(number))
    Video(frames, 8.0).save(path)


def save_sound(path: Path, number: int) -> None:
    Audio(torch.rand(1, 4_000, generator=torch.Generator().manual_seed(number)) - 0.5, 8_000).save(path)


def save_views(path: Path, number: int) -> None:
    Scene3D(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(number)), turntable(4)).save(
        path
    )


@pytest.mark.parametrize(
    ("suffix", "save", "tag", "kind"),
    [
        (".mp4", save_video, "video", "data:video/mp4;"),
        (".wav", save_sound, "audio", "data:audio/wav;"),
        (".views.png", save_views, "img", "data:image/webp;"),
    ],
)
def test_media_of_other_kinds_play_in_the_page(
    make_run: MakeRun, suffix: str, save: Callable[[Path, int], None], tag: str, kind: str
) -> None:
    folder = as_another_medium(make_run(), suffix, save)
    page = read(folder)
    played = [address for address in page.addresses if address.startswith(kind)]
    assert len(played) == 2 * len(PROMPTS) + 4, "all pairs, and the largest gain and loss again"
    assert page.tags.count(tag) >= len(played)
    assert all(
        address.startswith(("data:image/", "data:video/", "data:audio/", "#")) for address in page.addresses
    )
    assert ("Above before, below after" in page.text) == (suffix == ".wav")
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "media-src data:" in html
    assert len(html) < 2_000_000
    assert write_report(folder).read_text(encoding="utf-8") == html


def test_spread_takes_evenly_and_repeats_a_prompt_last() -> None:
    def pair(prompt: str, seed: int) -> SamplePair:
        return SamplePair(prompt, seed, Path(), Path())

    pairs = [pair(f"p{i // 2}", i) for i in range(20)]
    assert [p.seed for p in spread(pairs, 5)] == [0, 4, 8, 12, 16]
    assert len({p.prompt for p in spread(pairs, 10)}) == 10
    assert [p.seed for p in spread(pairs, 12)].count(1) == 1
    assert spread(pairs, 40) == pairs


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
