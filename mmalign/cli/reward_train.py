"""``mmalign reward train``: a reward from the preferences in a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmalign.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCommand:
    """Train a reward from pairs, rankings, ratings or labels, on the frozen vectors of a CLIP or CLAP.

    Minutes on a CPU. The folder that it writes is a reward: `mmalign score --reward FOLDER`, `mmalign rewards FOLDER`,
    `mmalign align RECIPE --reward FOLDER`. Prompts are held out twice: some to stop by, some to judge by.
    """

    data: Path
    """A jsonl, csv or parquet file: prompt, chosen, rejected (and aspect); prompt, samples, ranks; prompt, sample,
    score; or prompt, sample, label. Rows that cannot be used are listed, and the others are used."""
    out: Path
    """The folder of the reward."""
    backbone: str = "embedded/shapes-clip"
    """A reward with vectors of media and prompts."""
    head: Literal["linear", "deep"] = "linear"
    """linear: one layer; deep: hidden layers of --hidden."""
    hidden: tuple[int, ...] = (128,)
    """Widths of a deep head's hidden layers."""
    members: int = 5
    """Heads of the ensemble, whose spread is the std of a score; 1 for none."""
    std: Literal["distance", "members"] = "distance"
    """distance: the members' spread and how far a sample is from those of training, of which the folder keeps the
    vectors; members: their spread alone, which does not rise for what is new."""
    shared_trunk: bool = False
    """One set of hidden layers for all members."""
    keep: float = 1.0
    """Share of the features that each member sees."""
    loss: Literal["auto", "bradley-terry", "squared", "gaussian", "logistic"] = "auto"
    """auto: bradley-terry for pairs and rankings, squared for ratings, logistic for labels; gaussian, of pairs or
    ratings, also learns how far people scatter."""
    heldout: float = 0.2
    """Share of the prompts that are not trained on; one half decides when to stop, the other gives the accuracy."""
    epochs: int = 30
    """At most."""
    patience: int = 4
    """Epochs without a better loss on the first half after which training ends."""
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    dropout: float = 0.0
    """Share of the features that a step leaves out."""
    seed: int = 0
    """Of the split, the first weights and the order."""
    features: Path | None = None
    """Where the vectors of media are kept, by content, so that a second run has them; by default OUT/features."""

    def __post_init__(self) -> None:
        if self.head == "linear" and (self.hidden != (128,) or self.shared_trunk):
            raise ConfigError("--hidden and --shared-trunk are for --head deep, and this one is linear")
        if self.members == 1 and self.shared_trunk:
            raise ConfigError("--shared-trunk is for an ensemble, and --members is 1")
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"--out {self.out} is a file; a reward is a folder")


LOSSES = {"pairs": ("bradley-terry", "gaussian"), "ratings": ("squared", "gaussian"), "binary": ("logistic",)}
"""By the kind of data, the default first."""


def train(command: TrainCommand) -> int:
    """Train, print, write.

    Raises:
        MmalignError: wrong usage, or data that cannot be used; no card was written.
    """
    import torch
    from rich.console import Console

    from mmalign.rewards.learned_heads import HeadOptions
    from mmalign.training.reward_data import read_examples
    from mmalign.training.reward_fitting import FitOptions
    from mmalign.training.reward_training import RewardTraining, train_reward

    head = HeadOptions(
        hidden=command.hidden if command.head == "deep" else (),
        members=command.members,
        shared_trunk=command.shared_trunk,
        keep=command.keep,
        variance=command.loss == "gaussian",
    )
    examples = read_examples(command.data)
    if command.loss not in ("auto", *LOSSES[examples.kind]):
        raise ConfigError(
            f"--loss {command.loss} is not for {examples.kind}, which {command.data} has; take "
            f"{' or '.join(LOSSES[examples.kind])}"
        )
    fit = FitOptions(
        epochs=command.epochs,
        batch_size=command.batch_size,
        learning_rate=command.learning_rate,
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
            std=command.std,
            device="cuda" if torch.cuda.is_available() else "cpu",
        ),
        examples,
    )
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    for reason in trained.rejected[:5]:
        say(reason, style="yellow", markup=False)
    say(
        f"{trained.rows} rows: {trained.used} used, {len(trained.rejected)} rejected; best after epoch "
        f"{trained.best_epoch} of {trained.epochs}",
        markup=False,
    )
    low, high = trained.ci95  # NaN where there is one prompt
    say(
        f"held-out {trained.measure} {trained.value:.3f}, 95 % interval {low:.3f} to {high:.3f} over prompts, of "
        f"{trained.heldout} {examples.kind}",
        markup=False,
    )
    print(command.out)
    return 0
