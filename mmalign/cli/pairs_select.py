"""``mmalign pairs --select N``: the pairs to label next, or the labels of a machine to check."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from mmalign.cli.options import parse
from mmalign.cli.root import in_root
from mmalign.errors import ConfigError
from mmalign.locks import locked_output
from mmalign.ranges import COUNT, POSITIVE, SEED, check_ranges

if TYPE_CHECKING:
    import torch

    from mmalign.data.pairs import Pair
    from mmalign.data.unlabelled import Pool
    from mmalign.rewards.base import Reward

Triple = tuple[str, Path, Path]


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectCommand:
    """Choose the N pairs that people should label next, among samples or among the labels of a machine.

    With --strategy, of the samples of each prompt, with the help of a reward that has members (`mmalign reward train
    --members 5`). With --route, of a file of pairs that a machine labelled. The pairs that come out have no verdict:
    their strength is 0, their order is random, and no command takes them for preferences until they are labelled.
    """

    samples: Positional[Path]
    """A folder with metadata.jsonl (file_name, prompt), a table (media, prompt), or a file that `mmalign score` wrote;
    for --route a file of pairs."""
    select: Annotated[int, COUNT]
    """How many pairs."""
    out: Path
    """The parquet file of pairs without a verdict."""
    strategy: (
        Literal[
            "random",
            "thompson",
            "thompson-variance",
            "boltzmann",
            "variance",
            "disagreement",
            "margin",
            "near-policy",
        ]
        | None
    ) = None
    """random: any two; thompson: the favourites of two members that are drawn (double Thompson sampling);
    thompson-variance: a drawn member's favourite, and what is hardest to tell from it; variance: members disagree most
    about the gap; disagreement: about who wins; margin: the mean can hardly tell the two apart; boltzmann: two by the
    softmax of the mean; near-policy: any two of the last --window steps."""
    route: Literal["margin", "gain"] | None = None
    """margin: the labels that a reward, trained on them, believes least; gain: those from which human labels are
    predicted to be worth most, by --mixtures."""
    reward: str | None = None
    """A reward folder or name; all but random, near-policy and gain ask it."""
    per_prompt: Annotated[int, COUNT] = 1
    """Pairs of a prompt at most, for --strategy."""
    temperature: Annotated[float, POSITIVE] = 1.0
    """Of boltzmann, in the unit of the scores."""
    window: Annotated[int | None, COUNT] = None
    """Leave out samples that were drawn longer ago than this many steps before the last one; the samples have a column
    step. For near-policy, and with any other strategy."""
    known: Path | None = None
    """A file of pairs that are labelled already, in any order, which are not asked about again."""
    mixtures: Path | None = None
    """For gain: a table with a row for each mixture of human and machine labels that a reward was trained on: its
    score on a benchmark, and in every other column how many of its human labels are of that kind. The pairs have the
    same columns, with 1 or 0."""
    rest: Path | None = None
    """For --route: write the pairs that stay with the machine here, with its verdicts."""
    root: Path | None = None
    """Media of tables may lie anywhere below this folder, and relative paths of a table of samples start there; by
    default it is each table's own, and for scores the present one."""
    batch_size: Annotated[int, COUNT] = 32
    """Samples per call of the reward."""
    seed: Annotated[int, SEED] = 0
    """Of all draws, and of the order of the two sides."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        for name, path in (("out", self.out), ("rest", self.rest)):
            if path is not None and path.suffix.lower() != ".parquet":
                raise ConfigError(
                    f"--{name} {path}: preferences are written as parquet; name it {path.stem}.parquet"
                )
        if (self.strategy is None) == (self.route is None):
            raise ConfigError(
                "--select goes with --strategy (which samples to compare) or with --route (which labels of a machine "
                "to check), one of them"
            )
        asks = self.strategy not in (None, "random", "near-policy") or self.route == "margin"
        chosen = f"--strategy {self.strategy}" if self.strategy else f"--route {self.route}"
        if asks and self.reward is None:
            raise ConfigError(
                f"{chosen} asks a reward: add --reward FOLDER, such as `mmalign reward train` writes"
            )
        if self.strategy == "near-policy" and self.window is None:
            raise ConfigError(
                "--strategy near-policy takes the samples of the last steps: add --window STEPS"
            )
        if self.route == "gain" and self.mixtures is None:
            raise ConfigError(
                "--route gain is fitted to what mixtures of labels were worth: add --mixtures FILE"
            )
        for name, default, used in (
            ("reward", None, asks),
            ("temperature", 1.0, self.strategy == "boltzmann"),
            ("per_prompt", 1, self.strategy is not None),
            ("window", None, self.strategy is not None),
            ("known", None, self.strategy is not None),
            ("mixtures", None, self.route == "gain"),
            ("rest", None, self.route is not None),
        ):
            if getattr(self, name) != default and not used:
                raise ConfigError(f"--{name.replace('_', '-')} would be ignored by {chosen}; leave it out")


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign pairs --select``.

    Raises:
        MmalignError: wrong usage, or no pair to ask about; nothing was written.
    """
    # --select stands before --help, and takes a number.
    asked = ["--help"] if {"-h", "--help"} & set(arguments) else arguments
    command = parse(SelectCommand, asked, prog="mmalign pairs")
    with locked_output(command.out, command.rest):
        return in_root(ask if command.strategy else route, command)


def ask(command: SelectCommand) -> int:
    """Choose pairs of samples, and write them."""
    import torch

    from mmalign.data.unlabelled import read_pool
    from mmalign.rewards.query_selection import Strategy, select_queries

    pool = read_pool(command.samples, root=command.root)
    total, prompts = len(pool), len(pool.prompts)
    notes = []
    if command.window is not None:
        pool = _recent(pool, command.window, command.samples)
        notes.append(f"{len(pool)} of the last {command.window} steps")
    reward = None if command.reward is None else _load(command.reward)
    pool, scores, faults = _scored(pool, reward, command.batch_size)
    generator = torch.Generator().manual_seed(command.seed)
    drawn = command.strategy is None or command.strategy == "near-policy"
    strategy: Strategy = "random" if drawn else command.strategy  # type: ignore[assignment]
    found = select_queries(
        scores,
        strategy=strategy,
        count=command.select,
        generator=generator,
        per_prompt=command.per_prompt,
        temperature=command.temperature,
        known=_known(command.known, pool),
    )
    if not found:
        raise ConfigError(
            f"{command.samples}: no pair to ask about among {prompts} prompts; each needs two samples"
            + (f"; first of {len(faults)} without a score: {faults[0]}" if faults else "")
        )
    clashes = sum(query.value == 0 for query in found) if command.strategy == "thompson" else 0
    if clashes:
        notes.append(f"{clashes} where all members have one favourite")
    triples = [
        (pool.prompts[q.prompt], pool.media[q.prompt][q.first], pool.media[q.prompt][q.second]) for q in found
    ]
    source = f"select {command.strategy}" + (f" by {command.reward}" if command.reward else "")
    _write(command.out, triples, source, generator)
    if len(found) < command.select:
        notes.append(f"there are no more with --per-prompt {command.per_prompt}")
    _say(faults, f"{total} samples, {prompts} prompts: {len(found)} pairs to label", notes)
    print(command.out)
    return 0


def route(command: SelectCommand) -> int:
    """Choose labels of a machine that people should check, and write them without those labels."""
    import torch

    from mmalign.data.pairs import read_preferences, write_pairs

    found = read_preferences(command.samples)
    if found.rejected:
        raise found.rejected[0]  # a tie is no label that could be doubted, and --rest would lose it
    pairs = found.pairs
    chosen, note, faults = (_by_margin if command.route == "margin" else _by_gain)(command, pairs)
    if not chosen:
        raise ConfigError(
            f"{command.samples}: no label of {len(pairs)} to send to people"
            + (f"; first without a margin: {faults[0]}" if faults else "; no gain is above 0")
        )
    generator = torch.Generator().manual_seed(command.seed)
    triples = [(pairs[i].prompt, pairs[i].chosen, pairs[i].rejected) for i in chosen]
    _write(command.out, triples, f"route {command.route}", generator)
    if command.rest is not None:
        sent = set(chosen)
        left = [pair for i, pair in enumerate(pairs) if i not in sent]
        if not left:
            raise ConfigError(f"--rest {command.rest}: all {len(pairs)} labels go to people, and none stays")
        write_pairs(command.rest, left)
    _say(faults, f"{len(pairs)} labels: {len(chosen)} for people ({len(chosen) / len(pairs):.1%})", [note])
    print(command.out)
    return 0


def _by_margin(command: SelectCommand, pairs: Sequence["Pair"]) -> tuple[list[int], str, list[str]]:
    import torch

    from mmalign.media import SampleFile
    from mmalign.rewards.label_routing import doubtful_labels
    from mmalign.rewards.member_scores import score_members_of

    assert command.reward is not None
    keys = list(dict.fromkeys((pair.prompt, side) for pair in pairs for side in (pair.chosen, pair.rejected)))
    files = [SampleFile("", path, prompt, str(path)) for prompt, path in keys]
    members, status = score_members_of(files, _load(command.reward), batch_size=command.batch_size)
    score = dict(zip(keys, members.mean(0).tolist(), strict=True))
    margins = torch.tensor([score[p.prompt, p.chosen] - score[p.prompt, p.rejected] for p in pairs])
    there = (~margins.isnan()).nonzero()[:, 0]
    order, turn = doubtful_labels(margins[there], budget=command.select)
    chosen: list[int] = there[order].tolist()
    below = int((margins[there] < turn).sum())
    note = f"{below} margins are below the knee of the lower half, {turn:.3g}"
    return chosen, note, [entry for entry in status if entry != "ok"]


def _by_gain(command: SelectCommand, pairs: Sequence["Pair"]) -> tuple[list[int], str, list[str]]:
    from mmalign.data.readers import read_records
    from mmalign.errors import DataError
    from mmalign.rewards.label_routing import fit_gain, predicted_gain, route_to_people

    assert command.mixtures is not None
    mixtures = list(read_records(command.mixtures))
    if not mixtures or "score" not in mixtures[0]:
        raise DataError(
            "expected rows with a column score, and one for each kind of label", file=command.mixtures
        )
    kinds = [name for name in mixtures[0] if name != "score"]
    if len(mixtures) <= len(kinds):
        raise DataError(
            f"{len(mixtures)} mixtures cannot fit {len(kinds)} kinds and a constant; at least {len(kinds) + 1}",
            file=command.mixtures,
        )
    counts = _numbers(mixtures, [*kinds, "score"], command.mixtures)
    weights = fit_gain(counts[:, :-1], counts[:, -1])
    gain = predicted_gain(weights, _numbers(list(read_records(command.samples)), kinds, command.samples))
    chosen: list[int] = route_to_people(gain, budget=command.select, least=0.0).tolist()
    worth = ", ".join(
        f"{kind} {weight:+.3g}" for kind, weight in zip(kinds, weights[1:].tolist(), strict=True)
    )
    return chosen, f"a human label is worth: {worth}", []


def _numbers(rows: Sequence, columns: Sequence[str], path: Path) -> "torch.Tensor":
    import torch

    from mmalign.data.cells import number_of
    from mmalign.errors import DataError

    values = []
    for number, row in enumerate(rows, 1):
        values.append([number_of(row, column, path, number) for column in columns])
        if None in values[-1]:
            missing = columns[values[-1].index(None)]
            raise DataError("expected a number, got none", file=path, row=number, column=missing)
    return torch.tensor(values, dtype=torch.float64)


def _load(name: str) -> "Reward":
    import torch

    from mmalign.rewards.cards import load_reward

    return load_reward(name, device="cuda" if torch.cuda.is_available() else "cpu")


def _recent(pool: "Pool", window: int, path: Path) -> "Pool":
    """Only what was drawn in the last steps."""
    import torch

    from mmalign.data.unlabelled import Pool
    from mmalign.errors import DataError
    from mmalign.rewards.queries import near_policy

    if pool.steps is None:
        raise DataError("has no column step, by which --window goes", file=path)
    now = max(step for group in pool.steps for step in group)
    kept = [near_policy(torch.tensor(group), now=now, window=window).tolist() for group in pool.steps]
    return Pool(
        pool.prompts,
        tuple(
            tuple(medium for medium, keep in zip(group, keeps, strict=True) if keep)
            for group, keeps in zip(pool.media, kept, strict=True)
        ),
        None,
    )


def _scored(
    pool: "Pool", reward: "Reward | None", batch_size: int
) -> tuple["Pool", list["torch.Tensor"], list[str]]:
    """The pool without what has no score, [E, n] of each prompt, and the reasons."""
    import torch

    from mmalign.data.unlabelled import Pool
    from mmalign.media import SampleFile
    from mmalign.rewards.member_scores import score_members_of

    if reward is None:
        return pool, [torch.zeros(1, len(group)) for group in pool.media], []
    files = [
        SampleFile("", medium, prompt, str(medium))
        for prompt, group in zip(pool.prompts, pool.media, strict=True)
        for medium in group
    ]
    members, status = score_members_of(files, reward, batch_size=batch_size)
    # Probabilities of verdicts want log odds; the card of a reward of pairs knows how many a unit is.
    members = members * reward.card.calibration.get("log_odds_per_unit", 1.0)
    media, scores = [], []
    for group, part in zip(pool.media, members.split([len(group) for group in pool.media], 1), strict=True):
        there = ~part.isnan().any(0)
        media.append(tuple(medium for medium, keep in zip(group, there.tolist(), strict=True) if keep))
        scores.append(part[:, there])
    return Pool(pool.prompts, tuple(media), None), scores, [entry for entry in status if entry != "ok"]


def _known(path: Path | None, pool: "Pool") -> frozenset[tuple[int, int, int]]:
    """Pairs of the pool that a file has already, by what the files are called."""
    from mmalign.data.pairs import read_judgements

    if path is None:
        return frozenset()
    place = {
        (prompt, medium.resolve()): (m, i)
        for m, (prompt, group) in enumerate(zip(pool.prompts, pool.media, strict=True))
        for i, medium in enumerate(group)
    }
    found = set()
    for pair in read_judgements(path):
        sides = [place.get((pair.prompt, side.resolve())) for side in (pair.chosen, pair.rejected)]
        if sides[0] is not None and sides[1] is not None:
            first, second = sorted((sides[0][1], sides[1][1]))
            found.add((sides[0][0], first, second))
    return frozenset(found)


def _write(out: Path, triples: Sequence[Triple], source: str, generator: "torch.Generator") -> None:
    """The two sides in a random order, so that none is the favourite of a machine."""
    import torch

    from mmalign.data.unlabelled import write_unlabelled

    turned = (torch.rand(len(triples), generator=generator) < 0.5).tolist()
    sides = [(p, b, a) if turn else (p, a, b) for (p, a, b), turn in zip(triples, turned, strict=True)]
    write_unlabelled(out, sides, source=source)


def _say(faults: Sequence[str], line: str, notes: Sequence[str]) -> None:
    from rich.console import Console

    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    for reason in dict.fromkeys(faults[:5]):
        say(reason, style="yellow", markup=False)
    left = [f"{len(faults)} samples have no score"] if faults else []
    say("; ".join([line, *left, *notes]), markup=False)
