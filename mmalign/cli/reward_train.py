"""``mmalign reward train``: a reward from the preferences in a file."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from mmalign.errors import ConfigError, DataError
from mmalign.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEED, Range, check_ranges
from mmalign.rewards.cards import find_card
from mmalign.training.places import check_writable
from mmalign.training.preflight_rewards import check_ready

if TYPE_CHECKING:
    from mmalign.training.dense_training import DenseTrained
    from mmalign.training.reward_training import Trained


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCommand:
    """Train a reward from pairs, rankings, ratings or labels, on the frozen vectors of a CLIP or CLAP.

    Or, from captions and what is wrong with them, one that finds wrong words (--head token) or wrong regions too
    (--head region), on the patches and words of a CLIP.

    Minutes on a CPU. The folder that it writes is a reward: `mmalign score --reward FOLDER`, `mmalign rewards FOLDER`,
    `mmalign align RECIPE --reward FOLDER`. Prompts are held out twice: some to stop by, some to judge by.
    """

    data: Path
    """A jsonl, csv or parquet file: prompt, chosen, rejected (and aspect); prompt, samples, ranks; prompt, sample,
    score; or prompt, sample, label. For --head token: prompt, sample, where every prompt is right and wrong ones are
    made of it, or prompt, sample, marked: the prompt with _0 behind each wrong word. For --head region these and
    region: a picture, white where the fault is. Rows that cannot be used are listed, and the others are used."""
    out: Path
    """The folder of the reward."""
    root: Path | None = None
    """Media of the tables may lie anywhere below this folder; by default, below each table's own."""
    backbone: str = "embedded/shapes-clip"
    """A reward with vectors of media and prompts."""
    head: Literal["linear", "deep", "token", "region"] = "linear"
    """linear: one layer; deep: hidden layers of --hidden; token: a small transformer on words and patches, that says of
    each word how surely it is right; region: the same, and a map of where the picture is wrong."""
    hidden: Annotated[tuple[int, ...], COUNT] = (128,)
    """Widths of a deep head's hidden layers."""
    members: Annotated[int, COUNT] = 5
    """Heads of the ensemble, whose spread is the std of a score; 1 for none."""
    std: Literal["distance", "members"] = "distance"
    """distance: the members' spread and how far a sample is from those of training, of which the folder keeps the
    vectors; members: their spread alone, which does not rise for what is new."""
    shared_trunk: bool = False
    """One set of hidden layers for all members."""
    keep: Annotated[float, Range(above=0, most=1)] = 1.0
    """Share of the features that each member sees."""
    loss: Literal[
        "auto",
        "bradley-terry",
        "gaussian",
        "davidson",
        "rao-kupper",
        "plackett-luce",
        "odin",
        "squared",
        "beta",
        "logistic",
    ] = "auto"
    """Of linear and deep heads. auto: bradley-terry for pairs and rankings, squared for ratings, logistic for labels.
    gaussian, of pairs or ratings, and beta, of ratings with two ends, also learn how far people scatter; davidson and
    rao-kupper learn from ties as well, plackett-luce from rankings as wholes, and odin keeps --nuisance out."""
    nuisance: str | None = None
    """Of odin: a reward whose score should not count, such as covered-area or loudness-bs1770."""
    tie: Annotated[float, POSITIVE] = 1.0
    """Of davidson: at equal scores a tie is so many times as probable as a win."""
    threshold: Annotated[float, Range(above=1)] = 5.0
    """Of rao-kupper: the odds by which a side has to lead before it wins half the time."""
    margin_scale: Annotated[float, NOT_NEGATIVE] = 0.0
    """Of bradley-terry, and pairs with a column margin: log odds per unit of it, by which the chosen side has to lead;
    0 leaves margins out, for their unit is that of whatever measured them."""
    aspect: str | None = None
    """Of a table with several: the only one to train; by default each has a head, and the score is overall, or the mean
    of all."""
    groups: Annotated[int, COUNT] = 1
    """Groups of annotators to find by EM; each is an aspect, and groups.csv in the folder says who is in which."""
    over_groups: Literal["worst", "mean", "least"] = "worst"
    """What the value is of the groups' rewards. worst: a mean by weights that start equal and, in online methods,
    follow whose mean over a rollout is lowest, so that it is raised (MaxMin-RLHF); mean: always equal weights; least:
    the least of each sample's, whose mean is at most the least of the groups' means."""
    personal: Annotated[int, NOT_NEGATIVE] = 0
    """Features that are common to all annotators, each of whom weighs them otherwise; the value is the average
    person's, and `mmalign reward adapt` makes it another's."""
    heldout: Annotated[float, Range(above=0, below=1)] = 0.2
    """Share of the prompts that are not trained on; one half decides when to stop, the other gives the accuracy."""
    epochs: Annotated[int, COUNT] = 30
    """At most."""
    patience: Annotated[int, COUNT] = 4
    """Epochs without a better loss on the first half after which training ends."""
    batch_size: Annotated[int | None, COUNT] = None
    """By default 256, for token and region heads 32."""
    learning_rate: Annotated[float | None, Range(above=0, most=1)] = None
    """By default 1e-3, for token and region heads 2e-3."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.1
    dropout: Annotated[float, Range(least=0, below=1)] = 0.0
    """Share of the features that a step of a linear or deep head leaves out."""
    tune: Literal["frozen", "lora", "full"] = "frozen"
    """Of token and region heads: the backbone as it is, with low-rank updates of its networks, or trained whole."""
    lora_rank: Annotated[int, COUNT] = 8
    """Of the updates, with --tune lora."""
    patch_layer: Annotated[int, Range(least=-1_000, most=1_000)] = -1
    """Of token and region heads: the layer of the picture tower whose patches they see, -1 for the last."""
    words: Path | None = None
    """Of token and region heads: groups of words of which one may stand for another, one a line, with commas; by
    default common colours, sizes, numbers, places, shapes, materials and some things."""
    negatives: Annotated[float, Range(above=0, below=1)] = 0.5
    """Of token and region heads: the share of right prompts that a step makes wrong."""
    seed: Annotated[int, SEED] = 0
    """Of the split, the first weights and the order."""
    features: Path | None = None
    """Where the vectors of media are kept, by content, so that a second run has them; by default OUT/features."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        self._check_ignored()
        if self.head == "linear" and (self.hidden != (128,) or self.shared_trunk):
            raise ConfigError("--hidden and --shared-trunk are for --head deep, and this one is linear")
        if self.members == 1 and self.shared_trunk:
            raise ConfigError("--shared-trunk is for an ensemble, and --members is 1")
        if self.groups > 1 and self.personal:
            raise ConfigError(
                f"--groups {self.groups} and --personal {self.personal}: one of both, from 2 and from 1 on"
            )
        if self.over_groups != "worst" and self.groups == 1:
            raise ConfigError("--over-groups is for --groups 2 or more")
        if self.tie != 1.0 and self.loss != "davidson":
            raise ConfigError("--tie is for --loss davidson")
        if self.threshold != 5.0 and self.loss != "rao-kupper":
            raise ConfigError("--threshold is for --loss rao-kupper")
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"--out {self.out} is a file; a reward is a folder")

    @property
    def dense(self) -> bool:
        """Whether the head is one of words or regions."""
        return self.head in ("token", "region")

    def _check_ignored(self) -> None:
        """Refuse what the head would not read."""
        others = VECTOR_OPTIONS if self.dense else DENSE_OPTIONS
        defaults = {f.name: f.default for f in fields(self)}
        given = [name for name in others if getattr(self, name) != defaults[name]]
        if given:
            option = "--" + given[0].replace("_", "-")
            wanted = "linear or deep" if self.dense else "token or region"
            raise ConfigError(f"{option} is for --head {wanted}, and this one is {self.head}")
        if self.lora_rank != defaults["lora_rank"] and self.tune != "lora":
            raise ConfigError(f"--lora-rank is for --tune lora, and this is {self.tune}")


VECTOR_OPTIONS = (
    *("hidden", "members", "std", "shared_trunk", "keep", "loss", "nuisance", "tie", "groups", "over_groups"),
    *("personal", "dropout", "threshold", "margin_scale", "aspect"),
)
DENSE_OPTIONS = ("tune", "lora_rank", "patch_layer", "words", "negatives")
"""What only linear and deep heads read, and what only token and region heads do."""


def check_parts(command: TrainCommand) -> None:
    """Refuse data, rewards and a folder that are not there, before anything is loaded.

    Raises:
        MmalignError: with the way out.
    """
    if not command.data.is_file():
        raise DataError("no such file; give a table with --data", file=command.data)
    for name in filter(None, (command.backbone, command.nuisance)):
        check_ready(find_card(name))
    check_writable(command.out)


def train(command: TrainCommand) -> int:
    """Train, print, write.

    Raises:
        MmalignError: wrong usage, or data that cannot be used; no card was written.
    """
    check_parts(command)
    if command.dense:
        return train_dense_head(command)
    import torch
    from rich.console import Console

    from mmalign.rewards.learned_heads import HeadOptions
    from mmalign.training.reward_data import read_examples
    from mmalign.training.reward_fitting import FitOptions
    from mmalign.training.reward_objectives import TIED, chosen_loss, unread_columns
    from mmalign.training.reward_training import RewardTraining, train_reward

    head = HeadOptions(
        hidden=command.hidden if command.head == "deep" else (),
        members=command.members,
        shared_trunk=command.shared_trunk,
        keep=command.keep,
    )
    examples = read_examples(command.data, ties=command.loss in TIED, aspect=command.aspect)
    loss = chosen_loss(command.loss, examples)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    for line in unread_columns(loss, examples, margin_scale=command.margin_scale):
        say(f"{command.data}: {line}", markup=False)
    if len(examples.aspects) > 1:
        say(
            f"{command.data}: the aspects {', '.join(examples.aspects)} have a head each; --aspect NAME trains one",
            markup=False,
        )
    fit = FitOptions(
        loss=loss,
        tie=command.tie,
        threshold=command.threshold,
        margin_scale=command.margin_scale,
        epochs=command.epochs,
        batch_size=command.batch_size or 256,
        learning_rate=command.learning_rate or 1e-3,
        weight_decay=command.weight_decay,
        dropout=command.dropout,
        patience=command.patience,
    )
    trained = train_reward(
        RewardTraining(
            data=command.data,
            backbone=command.backbone,
            out=command.out,
            head=head,
            fit=fit,
            heldout=command.heldout,
            seed=command.seed,
            features=command.features,
            nuisance=command.nuisance,
            groups=command.groups,
            over_groups=command.over_groups,
            personal=command.personal,
            std=command.std,
            device="cuda" if torch.cuda.is_available() else "cpu",
        ),
        examples,
    )
    say_rows(trained, say)
    low, high = trained.ci95  # NaN where there is one prompt
    say(
        f"held-out {trained.measure} {trained.value:.3f}, 95 % interval {low:.3f} to {high:.3f} over prompts, of "
        f"{trained.heldout} {examples.kind}",
        markup=False,
    )
    print(command.out)
    return 0


def say_rows(trained: "Trained | DenseTrained", say: Callable[..., None]) -> None:
    """Which rows were used, and when training ended."""
    for reason in trained.rejected[:5]:
        say(reason, style="yellow", markup=False)
    say(
        f"{trained.rows} rows: {trained.used} used, {len(trained.rejected)} rejected; best after epoch "
        f"{trained.best_epoch} of {trained.epochs}",
        markup=False,
    )


def train_dense_head(command: TrainCommand) -> int:
    """Train, print, write a reward of words or regions.

    Raises:
        MmalignError: wrong usage, or data that cannot be used; no card was written.
    """
    import torch
    from rich.console import Console

    from mmalign.rewards.dense_head import DenseHeadOptions
    from mmalign.training.dense_training import DenseTraining, train_dense
    from mmalign.training.reward_fitting import FitOptions
    from mmalign.training.reward_perturbations import GROUPS, read_groups

    found = train_dense(
        DenseTraining(
            data=command.data,
            backbone=command.backbone,
            out=command.out,
            head=DenseHeadOptions(
                regions=command.head == "region",
                patch_layer=command.patch_layer,
                tune=command.tune,
                lora_rank=command.lora_rank,
            ),
            fit=FitOptions(
                epochs=command.epochs,
                batch_size=command.batch_size or 32,
                learning_rate=command.learning_rate or 2e-3,
                weight_decay=command.weight_decay,
                patience=command.patience,
            ),
            groups=GROUPS if command.words is None else read_groups(command.words),
            negatives=command.negatives,
            heldout=command.heldout,
            seed=command.seed,
            features=command.features,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
    )
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    say_rows(found, say)
    low, high = found.word_ci95
    say(
        f"held-out AUROC of wrong words {found.word_auroc:.3f}, 95 % interval {low:.3f} to {high:.3f} over prompts, of "
        f"{found.words} words",
        markup=False,
    )
    if found.pointing is not None and found.pointing_ci95 is not None:
        low, high = found.pointing_ci95
        say(
            f"held-out regions pointed at {found.pointing:.3f}, 95 % interval {low:.3f} to {high:.3f}, of "
            f"{found.regions}",
            markup=False,
        )
    print(command.out)
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptCommand:
    """Make a reward that was trained with --personal another person's, from a few of their pairs."""

    reward: Path
    """The folder of the reward."""
    data: Path
    """This person's pairs: prompt, chosen, rejected."""
    out: Path
    """The folder of the new reward."""
    root: Path | None = None
    """Media of the tables may lie anywhere below this folder; by default, below each table's own."""
    ridge: Annotated[float, POSITIVE] = 1.0
    """How much people are alike: the larger, the nearer to the average person."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")


def adapt(command: AdaptCommand) -> int:
    """Fit, print, write.

    Raises:
        MmalignError: wrong usage, or data that cannot be used.
    """
    from rich.console import Console

    from mmalign.training.reward_adapting import adapt_reward

    count = adapt_reward(command.reward, command.data, command.out, ridge=command.ridge)
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"fitted on {count} pairs", markup=False)
    print(command.out)
    return 0
