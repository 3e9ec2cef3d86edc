"""A recipe: everything that decides a run, as one typed object that a command line, a YAML file or Python can make.

Imports no torch, so that ``--help`` answers at once.
"""

import dataclasses
import importlib.util
import sys
import types
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args

import yaml

from mmalign.errors import ConfigError, DataError, UnknownNameError
from mmalign.files import whole_file
from mmalign.methods import METHODS, MethodConfig
from mmalign.ranges import COUNT, GUIDANCE, NOT_NEGATIVE, POSITIVE, SEED, Range, check_ranges
from mmalign.resources import resource

Modality = Literal["image", "video", "scene3d", "audio", "speech"]
"""As in ``mmalign.media``, which ``--help`` does not wait for."""
MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the policy is trained."""

    steps: Annotated[int, COUNT] = 200
    """Optimiser steps."""
    batch_size: Annotated[int, COUNT] = 16
    """Rows (for pair methods: pairs) of one optimiser step, over all devices together."""
    micro_batch_size: Annotated[int, COUNT] = 16
    """Rows that pass the model at once; smaller needs less memory and gives the same gradient."""
    learning_rate: Annotated[float, Range(above=0, most=1)] = 1e-4
    warmup_steps: Annotated[int, NOT_NEGATIVE] = 10
    """The learning rate rises over them."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up: stays, or falls to zero by the last step."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    max_grad_norm: Annotated[float, Range(above=0, why="a large one, such as 1e6, clips nothing")] = 1.0
    """Gradients are scaled down to this norm; a large one, such as 1e6, clips nothing."""
    lora_rank: Annotated[int, COUNT] = 16
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the frozen weights and of what is computed with them; trained weights, latents and losses stay fp32."""
    gradient_checkpointing: bool = False
    """Less memory, about a third more time."""
    park_encoders: bool = False
    """While it trains, text encoders and VAE wait in main memory; for methods whose data are encoded before."""
    checkpoint_every: Annotated[int, COUNT] = 50
    """Steps between checkpoints; a stopped run loses at most as many."""
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_ranges(self, place="train.")
        if self.micro_batch_size > self.batch_size:
            raise ConfigError(
                f"train.micro_batch_size = {self.micro_batch_size} is more than train.batch_size = {self.batch_size}; "
                "lower it, or raise batch_size"
            )


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How media are drawn, for training and for evaluation: the pipeline's own options."""

    steps: Annotated[int | None, COUNT] = None
    """Denoising steps; None is the model's own number, else 28. A model that draws token by token has none."""
    guidance: Annotated[float | None, GUIDANCE] = None
    """Guidance scale, 1 is none; None is the model's own, else 4.5, and 1 of a model that draws token by token."""
    height: Annotated[int | None, COUNT] = None
    """In pixels; None is the model's own."""
    width: Annotated[int | None, COUNT] = None
    frames: Annotated[int | None, COUNT] = None
    """Of a video, and most tokens of a speech; None is the model's own number."""
    fps: Annotated[float | None, POSITIVE] = None
    """Frames per second, in pipelines that are told; None is the model's own rate."""
    duration_s: Annotated[float | None, POSITIVE] = None
    """Of a sound; None is the model's own length."""
    max_sequence_length: Annotated[int | None, COUNT] = None
    """Prompt tokens of the long text encoder, in pipelines that have one."""
    temperature: Annotated[float | None, POSITIVE] = None
    """Of token models; None is 1, the model's own distribution."""
    top_k: Annotated[int | None, COUNT] = None
    """Of token models: only the k likeliest tokens are drawn."""
    top_p: Annotated[float | None, Range(above=0, most=1)] = None
    """Of token models: only the fewest tokens that hold this share of the probability are drawn."""
    batch_size: Annotated[int, COUNT] = 32
    """Samples drawn at once; changes speed and memory, not the samples."""
    vae_tiling: bool = False
    """Decode large pictures in tiles: less memory, faint seams."""

    def __post_init__(self) -> None:
        check_ranges(self, place="sampling.")

    def options(self) -> dict[str, Any]:
        """Arguments of ``adapter.generate``."""
        ours = ("batch_size", "vae_tiling")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ours}
        return {name: value for name, value in values.items() if value is not None}

    def pipeline_options(self) -> dict[str, Any]:
        """The options that shape latents and conditioning, without those of single steps."""
        of_steps = ("steps", "guidance", "temperature", "top_k", "top_p")
        return {name: value for name, value in self.options().items() if name not in of_steps}


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the run is judged, before and after, on prompts and by a reward that training never used."""

    n: Annotated[int, COUNT] = 512
    """Held-out samples, spread evenly over the held-out prompts."""
    every: Annotated[int, NOT_NEGATIVE] = 0
    """Steps between glances at the held-out reward while training; 0 is never."""
    glance: Annotated[int, COUNT] = 48
    """Samples of such a glance."""

    def __post_init__(self) -> None:
        check_ranges(self, place="evaluation.")


OF_MEDIA: dict[str, tuple[Modality, ...]] = {
    "height": ("image", "video", "scene3d"),
    "width": ("image", "video", "scene3d"),
    "frames": ("video", "speech"),
    "fps": ("video",),
    "duration_s": ("audio",),
}
"""Sampling options that only some media have."""
OF_DENOISERS = ("steps", "max_sequence_length", "vae_tiling")
OF_TOKENS = ("temperature", "top_k", "top_p")
"""Sampling options that only one family of generators has."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run."""

    name: str = ""
    """Your own, for the run folder and the report; by default the recipe file's, as ``image/flow_dpo``."""
    modality: Modality = ""  # type: ignore[assignment]  # "" stands for the first part of ``name``
    """What the model makes."""
    model: str
    """Embedded name, folder or hub id."""
    reward: tuple[str, ...] = ()
    """One or several of ``mmalign rewards``, each NAME or NAME:WEIGHT; their weighted sum is what is trained for."""
    heldout_reward: str | None = None
    """Judges before and after; training never sees it."""
    prompts: str | None = None
    """Training prompts: a text file with one a line, or an embedded list."""
    heldout_prompts: str | None = None
    """Prompts that training never sees."""
    preferences: Path | None = None
    """A file of your own pairs (prompt, chosen, rejected); replaces sampling and scoring."""
    ratings: Path | None = None
    """A file of your own scored samples (prompt, sample, score), for methods that learn from ratings."""
    demonstrations: Path | None = None
    """A file of your own good samples (prompt, sample), for methods that learn from demonstrations."""
    aspect: str | None = None
    """Of a file of your own that has several in its column ``aspect``: which one, or all."""
    labels: Literal["human", "simulated", "ai", "ai+human", "ai+simulated"] | None = None
    """Learn from pairs of the generator's own samples that somebody judges, in rounds: people at a page, simulated
    people who see the held-out reward through noise, the reward (ai), or the reward where it is sure and people where
    not."""
    rounds: Annotated[int, COUNT] = 1
    """With labels: so often new pairs are drawn and judged; ``train.steps`` are those of one round."""
    pairs_per_round: Annotated[int, COUNT] = 200
    """With labels: pairs that are judged in a round, each of another prompt."""
    budget: Annotated[int | None, NOT_NEGATIVE] = None
    """With labels by ai and people: pairs that people judge, in all rounds together."""
    method: MethodConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    out: Path | None = None
    """Run folder; by default runs/<modality>-<method>-<n>."""

    def __post_init__(self) -> None:
        check_ranges(self, place="")
        self._find_modality()
        self._check_labels()
        self._check_sampling()
        self._check_source()
        if (self.heldout_reward is None) != (self.heldout_prompts is None):
            raise ConfigError("heldout_reward and heldout_prompts belong together; give both, or neither")
        if self.heldout_reward in [name.partition(":")[0] for name in self.reward]:
            raise ConfigError(
                f"heldout_reward '{self.heldout_reward}' is also trained on; it would prove nothing"
            )

    def _find_modality(self) -> None:
        """Recipes written before the field have it as the first part of their name."""
        if not self.modality and self.name.partition("/")[0] in MODALITIES:
            object.__setattr__(self, "modality", self.name.partition("/")[0])
        if self.modality not in MODALITIES:
            raise ConfigError(
                f"modality = '{self.modality}': say what the model makes, one of {', '.join(MODALITIES)}"
            )

    def _check_sampling(self) -> None:
        """Refuse options of other media and of the other family, which would do nothing."""
        for name, media in OF_MEDIA.items():
            if getattr(self.sampling, name) is not None and self.modality not in media:
                raise ConfigError(
                    f"sampling.{name} is of {' and '.join(media)}, and this recipe makes {self.modality}; leave it out"
                )
        others, family = (
            (OF_DENOISERS, "draws token by token")
            if self.method.on_tokens
            else (OF_TOKENS, "is a method of denoisers")
        )
        for name in others:
            if getattr(self.sampling, name) not in (None, False):
                raise ConfigError(
                    f"sampling.{name} would be ignored: {self.method.name} {family}; leave it out"
                )

    def _check_labels(self) -> None:
        """Refuse what rounds cannot do, and what they would ignore."""
        if self.labels is None:
            if self.rounds != 1 or self.budget is not None:
                raise ConfigError("--rounds and --budget belong to --labels; say who judges the pairs")
            return
        if self.method.name != "d3po" and (self.method.source != "pairs" or self.method.on_tokens):
            raise ConfigError(
                f"--labels: {self.method.name} does not learn from pairs of a denoiser's samples; take d3po, "
                "flow_dpo or diffusion_dpo"
            )
        if getattr(self.method, "group_size", 2) != 2:
            raise ConfigError("method.group_size: with --labels two samples are compared, so it is 2")
        if self.train.park_encoders:
            raise ConfigError("train.park_encoders would be ignored: rounds draw samples between their steps")
        if self.preferences is not None:
            raise ConfigError("--preferences would be ignored: with --labels the run makes its own pairs")
        if not self.prompts:
            raise ConfigError("--labels: give --prompts FILE, of which pairs are drawn")
        if self.labels.startswith("ai") and not self.reward:
            raise ConfigError(f"--labels {self.labels}: give --reward NAME, which judges the pairs")
        if self.labels.endswith("simulated") and self.heldout_reward is None:
            raise ConfigError(
                f"--labels {self.labels}: give --heldout-reward NAME, which simulated people see through noise"
            )
        if ("+" in self.labels) != (self.budget is not None):
            raise ConfigError(
                "--budget N, pairs that people judge beside the reward, belongs to --labels ai+human or ai+simulated"
            )

    def _check_source(self) -> None:
        """Refuse what the method cannot learn from, and files that it would ignore."""
        source = self.method.source
        wanted = {"pairs": "preferences", "ratings": "ratings", "demonstrations": "demonstrations"}.get(
            source
        )
        for name in ("preferences", "ratings", "demonstrations"):
            if getattr(self, name) is not None and name not in (wanted, *self.method.also_takes):
                uses = f"takes --{wanted}" if wanted else "draws its own samples"
                raise ConfigError(f"--{name}: {self.method.name} does not use it; it {uses}")
        given = wanted is not None and getattr(self, wanted) is not None
        if self.aspect is not None and not (self.preferences or self.ratings or self.demonstrations):
            raise ConfigError(
                "--aspect is for a file of your own: --preferences, --ratings or --demonstrations"
            )
        if self.train.park_encoders and self.method.draws:
            raise ConfigError(
                f"train.park_encoders: {self.method.name} draws or decodes samples while it trains and needs them"
            )
        if self.evaluation.every and self.train.park_encoders:
            raise ConfigError(
                "train.park_encoders: evaluation.every draws samples while it trains; set it to 0"
            )
        if self.method.needs_gradient and not self.reward:
            raise ConfigError(f"{self.method.name} follows a reward's gradient: give --reward NAME")
        if not given and self.labels is None and not (self.reward and self.prompts):
            file = f"--{wanted} FILE, or " if wanted else ""
            raise ConfigError(f"nothing to learn from: give {file}--reward NAME with --prompts FILE")

    @property
    def learns_from_reward(self) -> bool:
        """Whether the reward has a say: it has none where people judge all pairs."""
        return self.labels is None or self.labels.startswith("ai")

    @property
    def title(self) -> str:
        """Its name; of one without, what it makes and how."""
        return self.name or f"{self.modality}/{self.method.name}"


T = TypeVar("T")


def from_values(cls: type[T], values: dict[str, Any], *, file: Path, place: str = "") -> T:
    """Build a settings class from plain values, refusing keys that it does not have.

    Raises:
        DataError: an unknown key or a value of another type, with its place in the file.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise DataError(str(UnknownNameError(f"field of {place or 'the recipe'}", key, known)), file=file)
        built[key] = _convert(hints[key], value, file=file, place=f"{place}.{key}".lstrip("."))
    missing = [
        name
        for name, f in known.items()
        if name not in built and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise DataError(f"the field '{missing[0]}' of {place or 'the recipe'} is missing", file=file)
    return cls(**built)


def _convert(hint: Any, value: Any, *, file: Path, place: str) -> Any:
    if hint is MethodConfig:
        name = value.pop("name", None) if isinstance(value, dict) else None
        if name not in METHODS:
            raise DataError(str(UnknownNameError("method", str(name), METHODS)), file=file)
        return from_values(METHODS[name][0], value, file=file, place=place)
    origin, arguments = typing.get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, file=file, place=place)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return from_values(hint, value, file=file, place=place)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], item, file=file, place=place) for item in value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a text
        except (ValueError, OverflowError):
            pass
    elif (origin is Literal and value in arguments) or (isinstance(hint, type) and type(value) is hint):
        return value
    wanted = " | ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise DataError(f"{place}: expected {wanted}, got {value!r}", file=file)


def to_values(settings: Any) -> dict[str, Any]:
    """Plain values of a settings object, for YAML."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"name": value.name, **fields} if isinstance(value, MethodConfig) else fields
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    values: dict[str, Any] = plain(settings)
    return values


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe; ``mmalign align PATH`` repeats it."""
    with whole_file(path) as unfinished:
        unfinished.write_text(yaml.safe_dump(to_values(recipe), sort_keys=False), encoding="utf-8")


def recipe_files() -> dict[str, Path]:
    """The recipes that ship, by name ``<modality>/<method>``."""
    root = resource("recipes")
    files = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.glob("*/*.py"))}
    return {name: path for name, path in files.items() if not name.startswith("pretrain/")}


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or one's own as a ``.py`` file with a ``recipe``, which runs that file, or as YAML.

    One that has no name of its own gets its file's.

    Raises:
        UnknownNameError: no recipe has this name.
        DataError: the file is missing or holds no recipe.
    """
    path, named = recipe_files().get(name), name
    if path is None:
        path = Path(name)
        named = path.stem
        if path.suffix not in (".py", ".yaml", ".yml"):
            raise UnknownNameError("recipe", name, recipe_files())
        if not path.is_file():
            raise DataError("no such recipe file", file=path)
    if path.suffix == ".py" and name not in recipe_files():
        print(f"mmalign: {name} is Python code and is run", file=sys.stderr, flush=True)
    recipe = _from_python(path) if path.suffix == ".py" else _from_yaml(path)
    return recipe if recipe.name else replace(recipe, name=named)


def _from_python(path: Path) -> Recipe:
    spec = importlib.util.spec_from_file_location("mmalign_recipe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        raise DataError("expected a module with recipe = Recipe(...)", file=path)
    return recipe


def _from_yaml(path: Path) -> Recipe:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"not YAML ({error})", file=path) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=path) from None
    if not isinstance(values, dict):
        raise DataError("expected the fields of a recipe", file=path)
    return from_values(Recipe, values, file=path)
