"""What a card's ``target`` may name: this table, and what installed packages say they bring. Imports no model."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from mmalign.errors import ConfigError

TARGETS = {
    "AestheticReward": "mmalign.rewards.clip_heads:AestheticReward",
    "BrightnessFlicker": "mmalign.rewards.flicker:BrightnessFlicker",
    "CTCReward": "mmalign.rewards.ctc:CTCReward",
    "ClapReward": "mmalign.rewards.clap:ClapReward",
    "ClipReward": "mmalign.rewards.clip:ClipReward",
    "CommandsTruth": "mmalign.worlds.rewards:CommandsTruth",
    "CommandsWer": "mmalign.worlds.rewards:CommandsWer",
    "CommandsWords": "mmalign.worlds.rewards:CommandsWords",
    "CoveredArea": "mmalign.rewards.covered_area:CoveredArea",
    "CritiqueJudge": "mmalign.rewards.vlm_written:CritiqueJudge",
    "DenseReward": "mmalign.rewards.dense:DenseReward",
    "DigitJudge": "mmalign.rewards.vlm:DigitJudge",
    "Dnsmos": "mmalign.rewards.dnsmos:Dnsmos",
    "Flicker": "mmalign.rewards.flicker:Flicker",
    "GoalBaselineReward": "mmalign.rewards.clip_projection:GoalBaselineReward",
    "GoalJudge": "mmalign.rewards.vlm_pair:GoalJudge",
    "ImageReward": "mmalign.rewards.imagereward:ImageReward",
    "JpegSize": "mmalign.rewards.jpeg_size:JpegSize",
    "LearnedReward": "mmalign.rewards.learned:LearnedReward",
    "LikertJudge": "mmalign.rewards.vlm_written:LikertJudge",
    "Loudness": "mmalign.rewards.loudness:Loudness",
    "MeshSoundness": "mmalign.rewards.mesh_soundness:MeshSoundness",
    "MotionAmount": "mmalign.rewards.motion:MotionAmount",
    "MotionSmoothness": "mmalign.rewards.motion:MotionSmoothness",
    "MsSsim": "mmalign.rewards.ssim:MsSsim",
    "NumericJudge": "mmalign.rewards.vlm_written:NumericJudge",
    "OcrText": "mmalign.rewards.ocr:OcrText",
    "PairJudge": "mmalign.rewards.vlm_pair:PairJudge",
    "Placebo": "mmalign.rewards.placebo:Placebo",
    "PrincipleJudge": "mmalign.rewards.vlm_principles:PrincipleJudge",
    "ReferenceClipReward": "mmalign.rewards.clip_references:ReferenceClipReward",
    "RemoteReward": "mmalign.rewards.remote:RemoteReward",
    "ShapesTruth": "mmalign.worlds.rewards:ShapesTruth",
    "ShapesVideoTruth": "mmalign.worlds.rewards:ShapesVideoTruth",
    "ShapesViewsTruth": "mmalign.worlds.rewards:ShapesViewsTruth",
    "Sharpness": "mmalign.rewards.sharpness:Sharpness",
    "SiSdr": "mmalign.rewards.si_sdr:SiSdr",
    "SpeakerSimilarity": "mmalign.rewards.speaker:SpeakerSimilarity",
    "Ssim": "mmalign.rewards.ssim:Ssim",
    "Stoi": "mmalign.rewards.stoi:Stoi",
    "TonesTruth": "mmalign.worlds.rewards:TonesTruth",
    "VideoClipReward": "mmalign.rewards.clip_video:VideoClipReward",
    "ViewConsistency": "mmalign.rewards.view_consistency:ViewConsistency",
    "VqaScore": "mmalign.rewards.vlm:VqaScore",
    "WordErrorRate": "mmalign.rewards.word_errors:WordErrorRate",
    "YesNo": "mmalign.rewards.vlm:YesNo",
    "against_baseline": "mmalign.rewards.relative:against_baseline",
    "cached": "mmalign.rewards.caching:cached",
    "careful": "mmalign.rewards.careful:careful",
    "constrained": "mmalign.rewards.relative:constrained",
    "gated": "mmalign.rewards.compose:gated",
    "lifted": "mmalign.rewards.lift:lifted",
    "minimum": "mmalign.rewards.compose:minimum",
    "within_prompt": "mmalign.rewards.relative:within_prompt",
}
"""Ours, by name; a card may also say the whole ``module:name``."""
GROUP = "mmalign.rewards"
"""The group of entry points by which an installed package adds to the table: ``name = "module:Class"``."""


@dataclass(frozen=True, slots=True)
class PlugIn:
    """A target of an installed package."""

    name: str
    code: str
    """``module:Class``."""
    distribution: str
    """The package with its version."""


@cache
def plug_ins() -> dict[str, PlugIn]:
    """What installed packages add, by name, in alphabetical order.

    Raises:
        ConfigError: a name is taken, by us or by another package.
    """
    found: dict[str, PlugIn] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
        taken = "mmalign" if point.name in TARGETS else None
        if point.name in found:
            taken = found[point.name].distribution
        if taken is not None:
            raise ConfigError(
                f"{package} brings a target of rewards called '{point.name}', which {taken} has already; "
                f"uninstall one of them: pip uninstall {package.partition(' ')[0]}"
            )
        found[point.name] = PlugIn(point.name, point.value, package)
    return found


def code_of(target: str) -> str | None:
    """The ``module:name`` that a card's target means, or None where it is in no table.

    >>> code_of("ClipReward"), code_of("mmalign.rewards.clip:ClipReward"), code_of("transformers:pipeline")
    ('mmalign.rewards.clip:ClipReward', 'mmalign.rewards.clip:ClipReward', None)
    """
    table = TARGETS | {name: plug_in.code for name, plug_in in plug_ins().items()}
    return table.get(target) or (target if target in table.values() else None)


def load_target(code: str) -> Callable[..., Any]:
    """Import ``module:name``.

    Raises:
        ConfigError: there is no such module, or nothing of this name in it.
    """
    module, _, name = code.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"target '{code}' cannot be imported ({error}); expected module:name") from error
    return found
