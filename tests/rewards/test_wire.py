"""Samples and scores as JSON: nothing is lost on the way, and whatever arrives is a sentence or a sample."""

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.errors import DataError
from mmalign.media import Audio, Image, Media, Sample, Scene3D, Speech, Video, content_hash
from mmalign.rewards.base import Score, TokenScores
from mmalign.rewards.wire import decode_sample, encode_sample
from mmalign.rewards.wire_scores import decode_scores, encode_scores

RANDOM = torch.Generator().manual_seed(0)
MEDIA: dict[str, Media] = {
    "image": Image(torch.rand(3, 5, 7, generator=RANDOM)),
    "video": Video(torch.rand(3, 3, 8, 6, generator=RANDOM), 12.5),
    "audio": Audio(torch.rand(2, 900, generator=RANDOM) - 0.5, 8_000),
    "speech": Speech(torch.rand(1, 700, generator=RANDOM) - 0.5, 16_000, transcript="go left", voice="anna"),
    "scene3d": Scene3D(torch.rand(4, 3, 6, 6, generator=RANDOM)),
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def sent(sample: Sample) -> Any:
    return json.loads(json.dumps(encode_sample(sample), allow_nan=False))


@pytest.mark.parametrize("name", MEDIA)
def test_every_medium_arrives_as_it_was_sent(name: str) -> None:
    sample = Sample("a \u00e9 dog", MEDIA[name], {"source_image": MEDIA["image"], "negative": "dark"})
    back = decode_sample(sent(sample), name="sample 0")
    assert content_hash(back) == content_hash(sample)
    assert type(back.media) is type(sample.media)
    if isinstance(back.media, Speech):
        assert (back.media.transcript, back.media.voice) == ("go left", "anna")


def test_a_sample_without_medium_stays_without() -> None:
    back = decode_sample(sent(Sample("x")), name="sample 0")
    assert (back.prompt, back.media, dict(back.context)) == ("x", None, {})


def test_paths_lead_only_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for folder in (root, tmp_path):
        Image(torch.full((3, 2, 2), 0.5)).save(folder / "a.png")
    (root / "link.png").symlink_to(tmp_path / "a.png")

    def ask(path: Any, allowed: Path | None = root) -> Sample:
        return decode_sample({"media": {"path": path}}, name="sample 0", root=allowed)

    assert isinstance(ask("a.png").media, Image)
    for outside in ("../a.png", str(tmp_path / "a.png"), "link.png", "a/../../a.png", "x\0y"):
        with pytest.raises(DataError, match=r"outside|expected a text") as caught:
            ask(outside)
        assert str(root) not in str(caught.value)
    with pytest.raises(DataError, match="no such file") as caught:
        ask("gone.png")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(DataError, match="start the server with --root"):
        ask("a.png", None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "expected an object with prompt and media"),
        ({"prompt": 3}, "prompt: expected a text"),
        ({"promt": "x"}, "unknown field 'promt'"),
        ({"media": {}}, "expected data, frames or path"),
        ({"media": {"type": "image/svg+xml", "data": ""}}, "is not known; known: image/png"),
        ({"media": {"type": "image/png", "data": "***"}}, "expected base64"),
        ({"media": {"type": "image/png", "data": "AAAA"}}, "media"),
        ({"media": {"modality": "smell", "data": ""}}, "modality 'smell' is not known"),
        ({"media": {"frames": []}}, "expected a list of 1 to"),
        ({"media": {"frames": ["AAAA"], "fps": True}}, "fps: expected a number"),
        ({"context": {"source_image": 3}}, "source_image"),
    ],
)
def test_what_is_wrong_is_said(entry: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        decode_sample(entry, name="sample 4")
    assert str(caught.value).startswith("sample 4")


@settings(max_examples=150, deadline=None)
@given(
    entry=json_values
    | st.fixed_dictionaries(
        {},
        optional={
            "prompt": json_values,
            "context": json_values,
            "media": st.fixed_dictionaries(
                {},
                optional={
                    "type": st.sampled_from(
                        ["image/png", "audio/wav", "video/mp4", "model/gltf-binary", "x"]
                    ),
                    "modality": st.sampled_from(["image", "speech", "scene3d", "video", None, "x"]),
                    "data": st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode()),
                    "frames": st.lists(st.just("AAAA") | json_values, max_size=2),
                    "fps": json_values,
                    "path": json_values,
                },
            ),
        },
    )
)
def test_whatever_arrives_is_a_sample_or_a_sentence(entry: Any) -> None:
    said = "sample 0"
    try:
        assert isinstance(decode_sample(entry, name="sample 0"), Sample)
    except DataError as error:
        said = str(error)
    assert said.startswith("sample 0")


def test_scores_come_back_with_all_that_they_say() -> None:
    score = Score(
        torch.tensor([1.5, math.nan, -2.25]),
        ["ok", "no media", "ok"],
        std=torch.tensor([0.5, math.nan, 0.25]),
        aspects={"colour": torch.tensor([0.0, math.nan, 3.0])},
        tokens=[TokenScores(("a", "b"), (1.0, -1.0)), TokenScores((), ()), TokenScores(("c",), (0.5,))],
        regions=torch.rand(3, 2, 4, generator=RANDOM),
        text=["good", "", "bad"],
    )
    back = decode_scores(json.loads(json.dumps(encode_scores(score), allow_nan=False)), count=3)
    assert back.status == score.status
    torch.testing.assert_close(back.value, score.value, equal_nan=True, rtol=0, atol=0)
    assert back.std is not None
    torch.testing.assert_close(back.std, score.std, equal_nan=True)
    torch.testing.assert_close(back.aspects, score.aspects, equal_nan=True)
    assert back.tokens == score.tokens
    assert back.text == score.text
    assert back.regions is not None
    torch.testing.assert_close(back.regions, score.regions, atol=5.1e-5, rtol=0)


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        ({"score": None, "status": "ok"}, "no score: None"),
        ({"score": "1", "status": "ok"}, "no score: '1'"),
        ({"score": True, "status": "ok"}, "no score: True"),
        ({"score": 1e60, "status": "ok"}, "no score: 1e[+]60"),
        ({"score": 10**400, "status": "ok"}, "no score: 1000"),
        ({"score": 0.0}, "no status"),
        ({"score": 0.0, "status": "busy"}, "busy"),
        (0.0, "no score: 0.0"),
    ],
)
def test_a_score_that_is_none_is_never_a_number(entry: Any, status: str) -> None:
    back = decode_scores([entry, {"score": 1, "status": "ok"}], count=2)
    assert re.match(status, back.status[0])
    assert math.isnan(back.value[0])
    assert back.value[1] == 1


@settings(max_examples=150, deadline=None)
@given(
    entries=st.lists(
        json_values | st.fixed_dictionaries({"score": json_values, "status": json_values}), max_size=3
    )
)
def test_whatever_a_server_answers_is_a_sound_score(entries: list[Any]) -> None:
    back = decode_scores(entries, count=len(entries))
    assert back.ok.tolist() == [status == "ok" for status in back.status]
    assert back.value[back.ok].isfinite().all()


def test_a_score_for_each_sample_or_none_at_all() -> None:
    with pytest.raises(DataError, match="expected 2 scores, got 1"):
        decode_scores([{"score": 1.0, "status": "ok"}], count=2)
    with pytest.raises(DataError, match="expected 1 scores, got None"):
        decode_scores(None, count=1)
