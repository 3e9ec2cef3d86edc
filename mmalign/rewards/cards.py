"""Reads the table of rewards, ``reward_models/*.yaml``: one card a reward, importing no model."""

import importlib
import importlib.util
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mmalign.errors import ConfigError, DataError, UnknownNameError
from mmalign.resources import resource

if TYPE_CHECKING:
    from mmalign.rewards.base import Reward


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardCard:
    """What a reward is, what it takes and what its number means."""

    name: str
    """With its version; ``embedded/x`` is the card ``reward_models/embedded/x.yaml``."""
    target: str
    """``module:Class``, called with this card and ``device=``."""
    modalities: tuple[str, ...]
    unit: str
    range: tuple[float, float] | None = None
    higher_is_better: bool
    differentiable: bool
    needs: tuple[str, ...] = ("prompt",)
    """``prompt`` and keys of ``Sample.context``."""
    weights: str | None = None
    """Hub id, local folder or ``embedded/<name>``; None where the reward is computed."""
    extra: str | None = None
    """The extra of this package that brings what it imports."""
    licence: dict[str, str] = field(default_factory=dict)
    """``code`` and ``weights``."""
    calibration: dict[str, float] = field(default_factory=dict)
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the target."""

    def weights_folder(self) -> Path | None:
        """The local folder of the weights, or None where they are a hub id or not needed."""
        if self.weights is None:
            return None
        if self.weights.startswith("embedded/"):
            return resource("assets") / self.weights.removeprefix("embedded/")
        folder = Path(self.weights)
        return folder if folder.is_dir() else None

    def readiness(self) -> str:
        """ "ready", "needs weights" or "needs extra NAME", without importing anything heavy."""
        if self.extra is not None and not _extra_installed(self.extra):
            return f"needs extra {self.extra}"
        folder = self.weights_folder()
        if self.weights is not None and (folder is None or not folder.is_dir()):
            return "needs weights"
        return "ready"


# The module whose presence shows that an extra is installed.
EXTRAS: dict[str, str] = {"speech": "pocketsphinx"}


def _extra_installed(extra: str) -> bool:
    return importlib.util.find_spec(EXTRAS[extra]) is not None


def read_card(path: Path, *, name: str) -> RewardCard:
    """Read one card.

    Raises:
        DataError: the file is not YAML, or a field is unknown or missing.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"not YAML ({error})", file=path) from None
    if not isinstance(values, dict):
        raise DataError("expected named fields, such as 'unit: cosine x 100'", file=path)
    known = {f.name: f for f in fields(RewardCard)}
    for key in values:
        if key not in known or key == "name":
            raise DataError(str(UnknownNameError("card field", key, known.keys() - {"name"})), file=path)
    for key, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and key not in values and key != "name":
            raise DataError(f"the field '{key}' is missing", file=path)
    for key in ("modalities", "needs", "range"):
        if values.get(key) is not None:
            values[key] = tuple(values[key])
    return RewardCard(name=name, **values)


@cache
def cards() -> dict[str, RewardCard]:
    """Every known card by name, in alphabetical order."""
    root = resource("reward_models")
    names = {path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.yaml")}
    return {name: read_card(names[name], name=name) for name in sorted(names)}


def find_card(name: str) -> RewardCard:
    """The card of a reward.

    Raises:
        UnknownNameError: no card has this name.
    """
    if name not in cards():
        raise UnknownNameError("reward", name, cards())
    return cards()[name]


def load_reward(name: str, *, device: str = "cpu") -> "Reward":
    """Load a reward once; its weights stay in memory with the object, on ``device``.

    >>> load_reward("placebo").card.unit
    'standard normal number, a hash of the content'

    Raises:
        UnknownNameError: no card has this name.
        ConfigError: its weights or its extra are not on this machine.
    """
    card = find_card(name)
    readiness = card.readiness()
    if readiness.startswith("needs extra"):
        raise ConfigError(f"reward '{name}' needs an extra: pip install 'mmalign[{card.extra}]'")
    module, _, target = card.target.partition(":")
    loaded: Reward = getattr(importlib.import_module(module), target)(card, device=device, **card.options)
    return loaded


def parse_weighted(text: str) -> tuple[str, float]:
    """Split ``name`` or ``name:weight``.

    >>> parse_weighted("embedded/shapes-clip:0.5")
    ('embedded/shapes-clip', 0.5)

    Raises:
        ConfigError: the weight is not a finite number.
    """
    name, separator, weight = text.partition(":")
    try:
        number = float(weight) if separator else 1.0
    except ValueError:
        number = float("nan")
    if number != number or abs(number) == float("inf"):
        raise ConfigError(f"reward '{text}': expected NAME or NAME:WEIGHT with a number, got '{weight}'")
    return name, number
