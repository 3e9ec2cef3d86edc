"""Who has judged what: gives each person the next item, keeps every choice at once, takes the last one back.

Nothing here knows of a page. Any number of threads may call; a choice names the showing that it is about, so that a
page that was opened twice, or a key that was hit twice, cannot count twice.
"""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self

from mmalign.data.cells import relative_to
from mmalign.data.label_choices import LARGEST_SCALE, checked_choice
from mmalign.data.label_items import GROUPED, Item, Mode, Showing, make_items, showings
from mmalign.data.label_log import LabelLog, Row
from mmalign.errors import ConfigError, DataError, MmalignError

NAME = re.compile(r"[^\W_][\w .@+-]{0,63}", re.UNICODE)
RATE_OVER = 20
"""Choices that the rate is a mean of."""
PAUSE_S = 300.0
"""A longer time between two choices was a break, and no part of the rate."""


class StaleError(MmalignError):
    """A choice about something that is not what this person has before them now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSettings:
    """What is asked, of which samples, in which order.

    Args:
        mode: of the page.
        group_size: samples beside each other, 2 for pairs; of the modes that show one, anything.
        per_prompt: groups of each prompt.
        repeat: share of the items that everybody sees again.
        seed: of groups and orders.
        aspects: that are rated.
        scale: the highest score.

    Raises:
        ConfigError: a number that cannot be, or aspects that would be ignored.
    """

    mode: Mode = "pairs"
    group_size: int = 2
    per_prompt: int = 1
    repeat: float = 0.1
    seed: int = 0
    aspects: tuple[str, ...] = ()
    scale: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.repeat <= 1:
            raise ConfigError(f"repeat = {self.repeat}: expected a share in [0, 1]")
        if not 2 <= self.scale <= LARGEST_SCALE:
            raise ConfigError(f"scale = {self.scale}: expected 2 to {LARGEST_SCALE}, a digit for each score")
        if self.aspects and self.mode != "rating":
            raise ConfigError(f"aspects are for mode rating, and this is {self.mode}")
        if len(set(self.aspects)) != len(self.aspects) or not all(self.aspects):
            raise ConfigError("aspects: expected different names")

    @property
    def rated(self) -> tuple[str, ...]:
        """The aspects of a rating; the whole where none was named."""
        return () if self.mode != "rating" else self.aspects or ("overall",)

    def header(self) -> Row:
        """What decides which items there are and who sees which when, as the first line of the file says it."""
        grouped = {"group_size": self.group_size, "per_prompt": self.per_prompt}
        return {
            "mode": self.mode,
            **(grouped if self.mode in GROUPED else {}),
            **({"aspects": list(self.rated), "scale": self.scale} if self.mode == "rating" else {}),
            "repeat": self.repeat,
            "seed": self.seed,
        }


@dataclass(slots=True)
class _Person:
    """What one annotator is shown, and has said."""

    pending: deque[Showing]
    """What is still to be judged, the next one first."""
    done: list[tuple[Showing, Row]] = field(default_factory=list)
    """The choices that stand, in the order they were made."""
    last: int = 0
    since: tuple[str, float] = ("", 0.0)
    """What is before this person, and since when."""
    moments: list[float] = field(default_factory=list)
    """When the last choices were made in this run."""

    def current(self) -> Showing | None:
        return self.pending[0] if self.pending else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a person is.

    Args:
        done: choices that stand, of what there is to be shown now.
        total: showings, repeated ones among them.
        per_minute: choices of late; NaN before there are two.
    """

    done: int
    total: int
    per_minute: float


class LabelStore:
    """Labels of the samples of one folder, in one file.

    Args:
        path: the file of labels, which is gone on with if it is there.
        samples: prompt, source and file of each, as ``list_samples`` gives them.
        settings: what is asked.
        folder: of the samples, for the file's first line: it is named relative to the file, so that both can be moved
            together.
        clock: seconds, for the time that an item took.

    Raises:
        ConfigError: the file was begun with other settings or is in use, or there is nothing to ask.
        DataError: the file is something else.
    """

    def __init__(
        self,
        path: Path,
        samples: Sequence[tuple[str, str, str]],
        settings: LabelSettings,
        *,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self._clock = settings, clock
        self.items: list[Item] = make_items(
            samples,
            settings.mode,
            group_size=settings.group_size,
            per_prompt=settings.per_prompt,
            seed=settings.seed,
        )
        self._lock = threading.RLock()
        self._people: dict[str, _Person] = {}
        where = {} if folder is None else {"samples": relative_to(path.resolve(), folder.resolve())}
        self._log = LabelLog(path, {**settings.header(), **where})
        self._kept: dict[str, list[Row]] = {}
        for row in self._log.found.choices:
            self._kept.setdefault(row["annotator"], []).append(row)
        known = {item.id for item in self.items}
        self.faults: tuple[DataError, ...] = self._log.found.faults
        """Lines of the file that count for nothing."""
        self.gone = sum(row["item"] not in known for row in self._log.found.choices)
        """Choices about items that there are no more; they stay in the file, and are no part of anybody's progress."""
        self.before = {name: len(rows) for name, rows in self._kept.items()}
        """Choices of each person that were in the file at the start."""

    def current(self, annotator: str) -> Showing | None:
        """What a person is to judge now; None when all is done. The time of an item begins here.

        Raises:
            ConfigError: no name that a person can have here.
        """
        with self._lock:
            person = self._person(annotator)
            showing = person.current()
            if showing is not None and person.since[0] != showing.key:
                person.since = (showing.key, self._clock())
            return showing

    def upcoming(self, annotator: str, count: int) -> list[Showing]:
        """What a person will see from now on, for whoever prepares it."""
        with self._lock:
            person = self._person(annotator)
            return list(islice(person.pending, count))

    def choose(self, annotator: str, key: str, choice: Any) -> Row:
        """Keep a choice; when this returns, it is on the disk.

        Args:
            annotator: whose it is.
            key: of the showing that it is about.
            choice: see ``checked_choice``.

        Raises:
            StaleError: this person has something else before them, for the choice was made already, here or elsewhere.
            ConfigError: it is no choice of this mode.
        """
        with self._lock:
            person = self._person(annotator)
            showing = person.current()
            if showing is None or showing.key != key:
                raise StaleError("that was answered already; this is what comes now")
            now = self._clock()
            row = self._row(annotator, person, showing, choice)
            row["seconds"] = round(now - person.since[1], 3) if person.since[0] == key else None
            self._log.append(row)
            person.last += 1
            person.done.append((person.pending.popleft(), row))
            person.moments = [*person.moments[-RATE_OVER:], now]
            return row

    def _row(self, annotator: str, person: _Person, showing: Showing, choice: Any) -> Row:
        item = showing.item
        columns = checked_choice(
            choice,
            self.settings.mode,
            shown=len(showing.order),
            words=len(item.prompt.split()),
            aspects=self.settings.rated,
            scale=self.settings.scale,
        )
        return {
            "annotator": annotator,
            "number": person.last + 1,
            "mode": self.settings.mode,
            "item": item.id,
            "prompt": item.prompt,
            "shown": list(showing.order),
            "repeat": showing.repeat,
            **columns,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }

    def undo(self, annotator: str, key: str | None) -> bool:
        """Take a person's last choice back; it is then before them again.

        Args:
            annotator: whose.
            key: of what their page shows now, None at its end: a page that is behind takes nothing back.

        Returns:
            Whether there was one.

        Raises:
            StaleError: the page is behind.
        """
        with self._lock:
            person = self._person(annotator)
            showing = person.current()
            if (None if showing is None else showing.key) != key:
                raise StaleError("this page was behind; this is what comes now")
            if not person.done:
                return False
            last, row = person.done[-1]
            self._log.append({"annotator": annotator, "undo": row["number"]})
            person.done.pop()
            person.pending.appendleft(last)
            person.moments = person.moments[:-1]
            person.since = ("", 0.0)
            return True

    def progress(self, annotator: str) -> Progress:
        """How far a person is, and how fast."""
        with self._lock:
            person = self._person(annotator)
            steps = [b - a for a, b in zip(person.moments, person.moments[1:], strict=False)]
            steps = [step for step in steps if step <= PAUSE_S]
            return Progress(
                done=len(person.done),
                total=len(person.done) + len(person.pending),
                per_minute=60 * len(steps) / max(sum(steps), 1e-6) if steps else float("nan"),
            )

    def _person(self, name: str) -> _Person:
        if name not in self._people:
            check_name(name)
            settings = self.settings
            found = showings(self.items, name, repeat=settings.repeat, seed=settings.seed)
            by_key = {showing.key: showing for showing in found}
            person = _Person(deque(), last=self._log.found.last.get(name, 0))
            for row in self._kept.get(name, []):
                showing = by_key.pop(f"{row['item']}{'-again' if row.get('repeat') else ''}", None)
                if showing is not None:
                    person.done.append((showing, row))
            person.pending.extend(by_key.values())
            self._people[name] = person
        return self._people[name]

    def close(self) -> None:
        """Let another process have the file."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_name(name: Any) -> str:
    """A name that an annotator may have: it begins with a letter or digit, and no path is made of it.

    >>> check_name("Ann 2")
    'Ann 2'

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name != name.strip() or ".." in name:
        raise ConfigError(
            f"{str(name)[:40]!r} is no name here: up to 64 letters, digits, spaces and . @ + - _, "
            "beginning with a letter or digit"
        )
    return name


def choice_of(row: Mapping[str, Any]) -> Any:
    """What a label says of the samples themselves, whatever their order on the screen; None where it was skipped.

    - pairs: the file that is better, "tie" or "both_bad".
    - ranking: (file, rank) of all, by file.
    - rating: (aspect, score) of all.
    - binary: the label.
    - marks: whether anything is wrong.
    """
    if row.get("skipped"):
        return None
    match row.get("mode"):
        case "pairs":
            side = row["choice"]
            return row["shown"][("left", "right").index(side)] if side in ("left", "right") else side
        case "ranking":
            return tuple(sorted(zip(row["shown"], row["ranks"], strict=True)))
        case "rating":
            return tuple(sorted(row["scores"].items()))
        case "binary":
            return row["label"]
        case _:
            return bool(row["regions"] or row["words"])
