"""Reads the table of rewards, ``reward_models/*.yaml``, and folders that have a card: importing no model."""

import importlib
import importlib.util
import warnings
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mmalign.errors import ConfigError, DataError, UnknownNameError
from mmalign.resources import resource
from mmalign.rewards.weights import find

if TYPE_CHECKING:
    from mmalign.rewards.base import Reward


CARD = "card.yaml"
"""What makes a folder a reward, as `mmalign reward train` writes one."""
BESIDE = "."
"""``weights`` of a card whose files lie in its own folder, wherever that is moved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFiles:
    """Where files of weights come from, and which they are."""

    source: str
    """Hub id, folder, file, ``embedded/<name>``, or the URL of a folder."""
    files: dict[str, str | None] = field(default_factory=dict)
    """By name, with the SHA-256 where it is known."""


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
    reads: tuple[str, ...] = ()
    """Keys of ``Sample.context`` that it takes where they are there."""
    weights: str | None = None
    """Hub id, local folder or file, ``embedded/<name>``, or a URL; None where the reward is computed."""
    files: dict[str, str | None] = field(default_factory=dict)
    """Of ``weights``, those that are needed, by name, with the SHA-256 where it is known."""
    parts: dict[str, WeightFiles] = field(default_factory=dict)
    """What comes from elsewhere, by its role: a processor, a backbone."""
    extra: str | None = None
    """The extra of this package that brings what it imports."""
    licence: dict[str, str] = field(default_factory=dict)
    """``code`` and ``weights``."""
    calibration: dict[str, float] = field(default_factory=dict)
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the target."""

    def weight_files(self, part: str = "") -> WeightFiles:
        """The files of a part, or of the weights themselves."""
        return self.parts[part] if part else WeightFiles(source=self.weights or "", files=self.files)

    def weights_folder(self) -> Path | None:
        """Where the weights lie on this machine, a folder or one file, or None where they do not or are not needed."""
        return None if self.weights is None else find(self)

    def readiness(self) -> str:
        """ "ready", "needs weights" or "needs extra NAME", without importing anything heavy."""
        if self.extra is not None and not _extra_installed(self.extra):
            return f"needs extra {self.extra}"
        parts = ("", *self.parts) if self.weights is not None else tuple(self.parts)
        if any(find(self, part) is None for part in parts):
            return "needs weights"
        states = (find_card(name).readiness() for name in self.made_of)
        return next((state for state in states if state != "ready"), "ready")

    def takes(self, modality: str) -> bool:
        """Whether it is made for this medium; what takes sound takes speech."""
        return modality in self.modalities or (modality == "speech" and "audio" in self.modalities)

    @property
    def made_of(self) -> tuple[str, ...]:
        """The rewards that this one lifts, keeps, combines or stands on, as its options name them."""
        of = self.options.get("of", ())
        named = [of] if isinstance(of, str) else list(of)
        for key in ("gates", "constraints"):
            named += self.options.get(key, {})
        named += [self.options["backbone"]] if "backbone" in self.options else []
        return tuple(name for name in named if not is_address(name))


# The module whose presence shows that an extra is installed.
EXTRAS: dict[str, str] = {"ocr": "rapidocr", "speaker": "resemblyzer", "speech": "pocketsphinx"}


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
    for key in ("modalities", "needs", "reads", "range"):
        if values.get(key) is not None:
            values[key] = tuple(values[key])
    if values.get("weights") == BESIDE:
        values["weights"] = str(path.parent.absolute())
    if "files" in values:
        values["files"] = _files(values["files"])
    if "parts" in values:
        try:
            values["parts"] = {
                part: WeightFiles(**{**named, "files": _files(named["files"])})
                for part, named in values["parts"].items()
            }
        except (AttributeError, KeyError, TypeError):
            raise DataError("parts: expected ROLE: {source: ..., files: [...]}", file=path) from None
    return RewardCard(name=name, **values)


def _files(names: Any) -> dict[str, str | None]:
    """File names with their SHA-256, or as a list, without."""
    return names if isinstance(names, dict) else dict.fromkeys(names)


@cache
def cards() -> dict[str, RewardCard]:
    """Every known card by name, in alphabetical order."""
    root = resource("reward_models")
    names = {path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.yaml")}
    return {name: read_card(names[name], name=name) for name in sorted(names)}


def find_card(name: str) -> RewardCard:
    """The card of a reward; that of an address is asked for there.

    A path that ends in .yaml is a card itself, and a folder with a card.yaml is a reward, such as one that was trained;
    a name of the table comes first, so ``./placebo`` is the folder. ``NAME@worst-case``, ``NAME@mean-less-std=2`` and
    ``NAME@uncertainty-weighted`` are a reward less what it is unsure of.

    Raises:
        UnknownNameError: no card has this name.
        DataError: the file is no card, or the folder has none.
        ConfigError: nothing answers at the address, or it is no reward.
    """
    if is_address(name):
        from mmalign.rewards.remote import fetch_card

        return fetch_card(name)
    if name.endswith(".yaml") and Path(name).is_file():
        return read_card(Path(name), name=Path(name).stem)
    if name in cards():
        return cards()[name]
    if is_folder(name):
        return read_card(Path(name) / CARD, name=Path(name).as_posix())
    if Path(name).is_dir():
        raise DataError(f"this folder is no reward: it has no {CARD}", file=name)
    if "@" in name:
        return _careful_card(name)
    raise UnknownNameError("reward", name, cards())


def _careful_card(name: str) -> RewardCard:
    """The card of ``NAME@HOW`` or ``NAME@HOW=STRENGTH``, which is that of NAME with another target."""
    of, _, how = name.rpartition("@")
    how, given, number = how.partition("=")
    options: dict[str, Any] = {"of": of, "how": how}
    if given:
        try:
            options["strength"] = float(number)
        except ValueError:
            raise ConfigError(f"reward '{name}': expected NAME@HOW=NUMBER, got '{number}'") from None
    inner = find_card(of)
    return replace(
        inner,
        name=name,
        target="mmalign.rewards.careful:careful",
        range=None,
        calibration={},
        options=options,
        source=f"{how} of {of}: {inner.source}",
    )


def load_reward(name: str, *, device: str = "cpu", weights: Path | str | None = None) -> "Reward":
    """Load a reward once; its weights stay in memory with the object, on ``device``.

    An address such as ``http://127.0.0.1:8000`` is a reward that ``mmalign serve`` runs there.

    >>> load_reward("placebo").card.unit
    'standard normal number, a hash of the content'

    Args:
        name: of a card.
        device: where its model runs.
        weights: a folder or file in the place of where the card's weights come from.

    Raises:
        UnknownNameError: no card has this name.
        ConfigError: its weights or its extra are not on this machine, it has no weights and some were given, or nothing
            answers at its address.
    """
    card = find_card(name)
    if weights is not None:
        if card.weights is None:
            raise ConfigError(f"weights = '{weights}': reward '{name}' is computed and has none")
        card = replace(card, weights=str(weights))
    return load_card(card, device=device)


def load_card(card: RewardCard, *, device: str = "cpu") -> "Reward":
    """Load the reward of any card, also of one that is in no table.

    Raises:
        ConfigError: its weights or its extra are not on this machine.
    """
    readiness = card.readiness()
    if readiness.startswith("needs extra"):
        raise ConfigError(f"reward '{card.name}' needs an extra: pip install 'mmalign[{card.extra}]'")
    if card.licence.get("weights") == "unverified":
        warnings.warn(f"reward '{card.name}': nobody verified the licence of its weights; see {card.source}")
    module, _, target = card.target.partition(":")
    loaded: Reward = getattr(importlib.import_module(module), target)(card, device=device, **card.options)
    return loaded


def parse_weighted(text: str) -> tuple[str, float]:
    """Split ``name`` or ``name:weight``; the weight of an address follows a slash, as its port takes the first colon.

    >>> parse_weighted("embedded/shapes-clip:0.5")
    ('embedded/shapes-clip', 0.5)
    >>> parse_weighted("http://127.0.0.1:8000"), parse_weighted("http://127.0.0.1:8000/:2")
    (('http://127.0.0.1:8000', 1.0), ('http://127.0.0.1:8000', 2.0))

    Raises:
        ConfigError: the weight is not a finite number.
    """
    name, weight = _split(text)
    try:
        number = 1.0 if weight is None else float(weight)
    except ValueError:
        number = float("nan")
    if number != number or abs(number) == float("inf"):
        raise ConfigError(f"reward '{text}': expected NAME or NAME:WEIGHT with a number, got '{weight}'")
    return name, number


def has_weight(text: str) -> bool:
    """Whether ``parse_weighted`` reads a weight in it.

    >>> has_weight("placebo"), has_weight("placebo:1")
    (False, True)
    """
    return _split(text)[1] is not None


def _split(text: str) -> tuple[str, str | None]:
    """Name, and what stands in the place of a weight."""
    if is_folder(text):  # whose name may have a colon of its own
        return text, None
    before, _, after = text.rpartition(":")
    if before and is_folder(before):
        return before, after
    start = 0
    if is_address(text):
        start = text.find("/", text.index("://") + 3)
        if start < 0:
            return text, None
    name, colon, weight = text[start:].partition(":")
    whole = (text[:start] + name).rstrip("/") if is_address(text) else name
    return whole, weight if colon else None


def is_folder(name: str) -> bool:
    """Whether a reward is named by its own folder.

    >>> is_folder("embedded/shapes-clip")
    False
    """
    return (Path(name) / CARD).is_file()


def is_address(name: str) -> bool:
    """Whether a reward is named by where it is served, and not by its card.

    >>> is_address("http://127.0.0.1:8000"), is_address("embedded/shapes-clip")
    (True, False)
    """
    return name.startswith(("http://", "https://"))
