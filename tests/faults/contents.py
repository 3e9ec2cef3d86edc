"""What a folder holds, without the clock: two folders are equal where every number, weight and sample is."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open

CLOCK = frozenset(("wall_s", "peak_rss_mb", "at", "per_s", "wall_s_per_step"))
"""Fields that differ between two runs that nothing disturbed."""
EVENTS = "events.out.tfevents."
"""Files of tensorboard: one for every process that trained, with the time in its name."""
WATCHED = "progress.json"
"""What is told to whoever watches, at most once a second; it has to be there and whole."""


def contents(folder: Path) -> dict[str, Any]:
    """Every file below a folder by its name, as something that can be compared."""
    return {
        path.relative_to(folder).as_posix(): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(EVENTS)
    }


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return _tensors(path)
    data = path.read_bytes()
    if path.suffix == ".json":
        values = _timeless(_totals(json.loads(data)))
        return sorted(values) if path.name == WATCHED else values
    if path.suffix in (".html", ".md"):
        return _without_durations(data.decode())
    return data


def _totals(values: Any) -> Any:
    """A run's state with the sum of its passes, however many attempts they were noted in, and without its digest."""
    if not isinstance(values, dict) or not values.get("passes"):
        return values
    noted = sum(count for rows in values["passes"].values() for _, count in rows)
    return {**{name: value for name, value in values.items() if name != "sha256"}, "passes": noted}


def _tensors(path: Path) -> dict[str, str]:
    """A digest of the bits of each tensor: NaNs are equal to themselves, and -0 is not 0."""
    with safe_open(path, "np") as tensors:
        found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    return {
        name: f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
        for name, value in found.items()
    }


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(part) for name, part in value.items() if name not in CLOCK}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def _without_durations(page: str) -> str:
    """A page without the times and the memory that it tells."""
    return re.sub(r"\d[\d.,]*\s(h|min|s|MB|GB)\b(\s\d[\d.,]*\s(min|s)\b)*", "#", page)


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs, a line each; none where all is equal."""
    lines = [f"{name}: left behind" for name in sorted(found.keys() - wanted.keys())]
    lines += [f"{name}: missing" for name in sorted(wanted.keys() - found.keys())]
    for name in sorted(found.keys() & wanted.keys()):
        if found[name] != wanted[name]:
            lines.append(f"{name}: {_where(found[name], wanted[name])}")
    return lines


def _where(found: Any, wanted: Any) -> str:
    """The first place that differs, with both values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
        return f"{names[0]}: {_where(found.get(names[0]), wanted.get(names[0]))}"
    if isinstance(found, bytes | str) and isinstance(wanted, bytes | str):
        pairs = zip(found, wanted, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(wanted)))
        start = max(0, at - 40)
        return f"differs at {at}: {found[start : at + 40]!r} for {wanted[start : at + 40]!r}"
    return f"{found!r} for {wanted!r}"
