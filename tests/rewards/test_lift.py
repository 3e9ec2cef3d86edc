"""Rewards of pictures on videos and scenes, and rewards of sound on videos: which parts count, and how much."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.media import Audio, Image, Media, Sample, Scene3D, Video, load_media
from mmalign.media.mesh import Mesh
from mmalign.rewards.base import OK, DifferentiableReward, PreparingReward, Score, obstacle, scatter
from mmalign.rewards.cards import cards, find_card, load_reward, read_card
from mmalign.rewards.lift import DifferentiableImageLift, ImageLift, LiftOptions
from mmalign.rewards.sound_lift import SoundLift
from mmalign.worlds import shapes

CARD = replace(find_card("placebo"), name="lifted-v1", modalities=("video", "scene3d"), needs=())


class Brightness:
    """The mean of a picture; a picture that is all black has no score."""

    def __init__(self, *, higher_is_better: bool = True) -> None:
        self.card = replace(
            find_card("placebo"),
            name="bright-v1",
            needs=(),
            modalities=("image",),
            higher_is_better=higher_is_better,
        )
        self.calls: list[int] = []

    def score(self, samples: Sequence[Sample]) -> Score:
        self.calls.append(len(samples))
        means = [
            sample.media.pixels.mean() if isinstance(sample.media, Image) else None for sample in samples
        ]
        status = ["too dark" if mean is not None and mean == 0 else OK for mean in means]
        kept = [mean for mean, entry in zip(means, status, strict=True) if entry == OK and mean is not None]
        values = torch.stack(kept) if kept else torch.zeros(0)
        return scatter(status, values, {"double": 2 * values})

    def score_with_grad(self, media: torch.Tensor, samples: Sequence[Sample]) -> torch.Tensor:
        return media.flatten(1).mean(1)


def video(levels: Sequence[float]) -> Video:
    return Video(torch.tensor(levels)[:, None, None, None].expand(-1, 3, 4, 4).contiguous(), 8.0)


@pytest.mark.parametrize(
    ("frames", "count", "chosen"),
    [
        (3, 9, [1, 4, 7]),
        (1, 9, [4]),
        (4, 9, [1, 3, 5, 7]),
        (None, 4, [0, 1, 2, 3]),
        (8, 3, [0, 1, 2]),
        (2, 2, [0, 1]),
    ],
)
def test_uniform_frames_are_the_middles_of_equal_parts(
    frames: int | None, count: int, chosen: list[int]
) -> None:
    assert LiftOptions(frames=frames).choose(count).tolist() == chosen


def test_segmental_frames_lie_in_their_segments_and_can_be_had_again() -> None:
    options = LiftOptions(frames=4, mode="segmental", seed=3)
    chosen = options.choose(16)
    assert (chosen // 4).tolist() == [0, 1, 2, 3]
    assert torch.equal(options.choose(16), chosen)
    assert any(
        not torch.equal(LiftOptions(frames=4, mode="segmental", seed=seed).choose(16), chosen)
        for seed in range(5)
    )


def test_the_mean_weighs_frames_by_their_distance_from_the_middle() -> None:
    levels = [0.1, 0.2, 0.4, 0.8, 1.0]
    plain = ImageLift(CARD, Brightness(), options=LiftOptions(frames=None))
    assert plain.score([Sample("x", video(levels))]).value[0] == pytest.approx(sum(levels) / 5)
    decayed = ImageLift(CARD, Brightness(), options=LiftOptions(frames=None, decay=0.7))
    weights = [math.exp(-0.7 * abs(i - 2)) for i in range(5)]
    expected = sum(w * level for w, level in zip(weights, levels, strict=True)) / sum(weights)
    score = decayed.score([Sample("x", video(levels))])
    assert score.value[0] == pytest.approx(expected)
    assert score.aspects["double"][0] == pytest.approx(2 * expected)
    strong = ImageLift(CARD, Brightness(), options=LiftOptions(frames=None, decay=100.0))
    assert strong.score([Sample("x", video(levels))]).value[0] == pytest.approx(0.4)


@pytest.mark.parametrize(("higher", "worst"), [(True, 0.2), (False, 0.9)])
def test_the_minimum_is_the_worst_picture(higher: bool, worst: float) -> None:
    lift = ImageLift(
        replace(CARD, higher_is_better=higher),
        Brightness(higher_is_better=higher),
        options=LiftOptions(frames=None, reduce="min"),
    )
    scores = lift.score(
        [Sample("x", video([0.5, 0.2, 0.9])), Sample("x", Scene3D(video([0.5, 0.2, 0.9]).frames))]
    )
    assert scores.value.tolist() == pytest.approx([worst, worst])


def test_a_video_of_one_picture_scores_as_the_picture() -> None:
    reward = Brightness()
    for decay in (0.0, 2.0):
        lift = ImageLift(CARD, reward, options=LiftOptions(frames=4, decay=decay))
        assert lift.score([Sample("x", video([0.3] * 7))]).value[0] == pytest.approx(0.3)


def test_samples_of_many_lengths_go_in_one_call_and_faults_stay_alone() -> None:
    reward = Brightness()
    lift = ImageLift(CARD, reward, options=LiftOptions(frames=2))
    mesh = Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]))
    media: list[Media | None] = [
        video([0.2, 0.4]),
        video([0.6]),
        Image(torch.ones(3, 2, 2)),
        None,
        video([0.5, 0.0]),
        Scene3D(mesh=mesh),
        video([0.7, 0.9, 0.7, 0.9]),
    ]
    score = lift.score([Sample("x", medium) for medium in media])
    assert score.status == [
        "ok",
        "ok",
        "takes video or scene3d, not image",
        "no media",
        "picture 1: too dark",
        "the scene has a mesh and no views",
        "ok",
    ]
    assert score.value[score.ok].tolist() == pytest.approx([0.3, 0.6, 0.9])
    assert reward.calls == [7]
    assert lift.score([]).value.shape == (0,)


def test_a_prepared_sample_is_small_and_scores_as_the_whole() -> None:
    lift = ImageLift(CARD, Brightness(), options=LiftOptions(frames=3, decay=0.5))
    whole = Sample("x", video([i / 10 for i in range(1, 10)]))
    ready = lift.prepare(whole)
    assert isinstance(ready.media, Video)
    assert len(ready.media.frames) == 3
    assert_close(lift.score([ready]).value, lift.score([whole]).value)
    assert_close(lift.prepare(ready).media.frames, ready.media.frames)  # type: ignore[union-attr]


@pytest.mark.parametrize("reduce", ["mean", "min"])
def test_the_gradient_reaches_the_frames_that_were_chosen(reduce: str) -> None:
    options = LiftOptions(frames=2, reduce=reduce)  # type: ignore[arg-type]
    lift = DifferentiableImageLift(replace(CARD, differentiable=True), Brightness(), options=options)
    media = torch.rand(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = [Sample("x", Video(clip.float(), 8.0)) for clip in media]
    value = lift.score_with_grad(media.requires_grad_(), samples)
    assert_close(value.detach().float(), lift.score(samples).value)
    (gradient,) = torch.autograd.grad(value.sum(), media)
    assert (gradient.abs().flatten(2).sum(2) > 0)[:, [0, 2]].logical_not().all()  # frames 1 and 3 were chosen
    assert gradient.sum() == pytest.approx(2.0)
    with pytest.raises(ShapeError, match=r"expected \[B, F, 3, H, W\]"):
        lift.score_with_grad(media[0], samples)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"frames": 0}, ConfigError, "frames = 0, expected at least 1"),
        ({"mode": "randm"}, UnknownNameError, "lift mode is called 'randm'"),
        ({"reduce": "max"}, UnknownNameError, "lift reduce is called 'max'"),
        ({"decay": -1.0}, ConfigError, "decay = -1.0"),
        ({"decay": 1.0, "reduce": "min"}, ConfigError, "0 where the minimum is taken"),
        ({"frame": 4}, UnknownNameError, "Did you mean 'frames'"),
    ],
)
def test_options_that_cannot_work_are_refused(
    options: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        LiftOptions.read(options)


# Cards

LIFTED = sorted(name for name, card in cards().items() if card.target == "mmalign.rewards.lift:lifted")


@pytest.mark.parametrize("name", LIFTED)
def test_a_lifted_card_tells_a_true_scene_from_another(name: str) -> None:
    card, reward = find_card(name), load_reward(name)
    assert card.readiness() == "ready"
    assert isinstance(reward, DifferentiableReward) == card.differentiable
    random = torch.Generator().manual_seed(0)
    scenes = [shapes.random_scene(random) for _ in range(4)]
    pictures = shapes.render([scene for scene in scenes for _ in range(3)], random).unflatten(0, (4, 3))
    make = (lambda p: Video(p, 8.0)) if "video" in card.modalities else Scene3D
    samples = [Sample(shapes.caption(scenes[j]), make(pictures[i])) for i in range(4) for j in range(4)]
    value = reward.score(samples).value.view(4, 4)
    assert (value.diagonal() > value.flip(1).diagonal()).all()
    image = load_reward(card.made_of[0]).score([replace(s, media=Image(pictures[0, 1])) for s in samples[:1]])
    still = pictures[0, 1].expand(3, -1, -1, -1)
    assert_close(
        reward.score([replace(samples[0], media=make(still))]).value, image.value, atol=1e-4, rtol=1e-5
    )
    low, high = card.range or (-math.inf, math.inf)
    assert ((value >= low) & (value <= high)).all()


def test_there_are_lifted_cards_for_video_and_scenes() -> None:
    assert {"video", "scene3d"} <= {modality for name in LIFTED for modality in find_card(name).modalities}


def test_a_users_own_card_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    fields = "unit: u\nhigher_is_better: true\ndifferentiable: false\nsource: s\ntarget: mmalign.rewards.lift:lifted\n"
    path.write_text(fields + "modalities: [video]\noptions: {of: placebo, lift: {frames: 2}}\n")
    reward = load_reward(str(path))
    assert reward.card.name == "mine"
    assert reward.score([Sample("x", video([0.1, 0.2, 0.3]))]).status == ["ok"]
    path.write_text(fields + "modalities: [video]\noptions: {of: embedded/shapes-clip, lift: {frame: 2}}\n")
    with pytest.raises(UnknownNameError, match="Did you mean 'frames'"):
        load_reward(str(path))
    path.write_text(fields.replace("false", "true") + "modalities: [video]\noptions: {of: shapes-truth}\n")
    with pytest.raises(ConfigError, match="says it has a gradient, but 'shapes-truth' has none"):
        load_reward(str(path))
    path.write_text(fields + "modalities: [video]\nweights: nowhere\noptions: {of: placebo}\n")
    assert read_card(path, name="mine").readiness() == "needs weights"


# Sound


class Loudness:
    """The mean square of a sound."""

    card = replace(find_card("placebo"), name="loud-v1", needs=(), modalities=("audio",))

    def score(self, samples: Sequence[Sample]) -> Score:
        status = [obstacle(sample, self.card) for sample in samples]
        values = [s.media.waveform.square().mean() for s in samples if isinstance(s.media, Audio)]
        return scatter(status, torch.stack(values) if values else torch.zeros(0))


def write_video(path: Path, *, loudness: float | None) -> Path:
    """A short clip, with a square wave or without a sound."""
    with av.open(str(path), "w") as file:
        picture = file.add_stream("mpeg4", rate=8)
        picture.width = picture.height = 32
        picture.pix_fmt = "yuv420p"
        sound = None if loudness is None else file.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for _ in range(8):
            for packet in picture.encode(
                av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
            ):
                file.mux(packet)
        file.mux(picture.encode(None))
        if sound is not None and loudness is not None:
            wave = (np.sign(np.sin(np.arange(16_000) * 0.1)) * loudness * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(wave, "s16", "mono")
            frame.sample_rate = 16_000
            for packet in [*sound.encode(frame), *sound.encode(None)]:
                file.mux(packet)
    return path


def test_a_reward_of_sound_hears_a_video(tmp_path: Path) -> None:
    card = replace(CARD, name="loud-video-v1", modalities=("video",))
    lift = SoundLift(card, Loudness())
    samples = []
    for name, loudness in (("loud.mkv", 0.5), ("still.mkv", None)):
        path = write_video(tmp_path / name, loudness=loudness)
        samples.append(Sample("x", load_media(path), meta={"path": str(path)}))
    samples.append(Sample("x", video([0.1]), {"sound": Audio(torch.full((1, 100), 0.25), 8_000)}))
    samples += [Sample("x", video([0.1])), Sample("x", Image(torch.zeros(3, 2, 2)))]
    score = lift.score(samples)
    assert score.value[[0, 2]].tolist() == pytest.approx([0.25, 0.0625], abs=1e-3)
    assert score.status[0] == score.status[2] == "ok"
    assert "has no sound" in score.status[1]
    assert score.status[3:] == ["no sound", "takes video, not image"]
    assert isinstance(lift, PreparingReward)
    assert_close(lift.score([lift.prepare(s) for s in samples]).value, score.value, equal_nan=True)


def test_what_cannot_be_lifted_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes no pictures"):
        ImageLift(CARD, Loudness())
    with pytest.raises(ConfigError, match="takes no sound"):
        SoundLift(CARD, Brightness())
