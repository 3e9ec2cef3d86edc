"""The policy as a LoRA on frozen weights: attach it, switch it off (that is the reference policy), save and load it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from peft import (
    LoraConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.files import whole_folder
from mmalign.weights import check_finite, write_weights

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"
"""Under which name the file's header holds the LoRA's configuration, as diffusers writes it."""
ATTENTION_LINEARS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "qkv", "proj"
)  # fmt: skip

PEFT_WEIGHTS = "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the names of a model's own layers."""

Weights = Literal["policy", "reference", "old", "target"]
"""What a generator computes with: its LoRA on or off, or a kept copy of it."""


def lora_targets(denoiser: nn.Module) -> list[str]:
    """Full names of the attention projections, or of every linear layer where a model names them otherwise."""
    linears = [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)]
    attention = [name for name in linears if name.endswith(tuple(f".{end}" for end in ATTENTION_LINEARS))]
    return attention or linears


def attach(
    denoiser: nn.Module,
    *,
    rank: int,
    alpha: float | None = None,
    seed: int = 0,
    targets: list[str] | None = None,
) -> None:
    """Freeze the denoiser and add a fresh LoRA, which changes nothing until it is trained.

    Args:
        denoiser: any module; diffusers classes keep their own way of saving.
        rank: of every update.
        alpha: the update is scaled by alpha / rank; by default alpha = rank.
        seed: of the random half; the other half is zero.
        targets: full names of the layers; ``lora_targets`` if not given.

    Raises:
        ConfigError: ``rank`` is not positive, or a LoRA is attached already.
    """
    if rank < 1:
        raise ConfigError(f"lora_rank = {rank}: expected at least 1")
    if tuner_layers(denoiser):
        raise ConfigError(
            "the denoiser has a LoRA already; fuse it first (pipeline.fuse_lora(); unload_lora_weights())"
        )
    denoiser.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        target_modules=lora_targets(denoiser) if targets is None else targets,
        init_lora_weights=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if hasattr(denoiser, "add_adapter"):
            denoiser.add_adapter(config)  # type: ignore[operator]
        else:
            inject_adapter_in_model(config, denoiser)
    for parameter in trainable(denoiser):
        # The master copy of what is trained stays in fp32 whatever the frozen weights are held in.
        parameter.data = parameter.data.float()


def tuner_layers(denoiser: nn.Module) -> list[BaseTunerLayer]:
    """Every layer that carries a LoRA."""
    return [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]


def trainable(denoiser: nn.Module) -> list[nn.Parameter]:
    """The parameters that training moves."""
    return [parameter for parameter in denoiser.parameters() if parameter.requires_grad]


@contextmanager
def disabled(layers: list[BaseTunerLayer]) -> Iterator[None]:
    """Switch the LoRA off inside the block, and on again whatever happens there."""
    states = [layer.disable_adapters for layer in layers]
    # The private flag, because the public switch also walks every parameter to toggle its gradient, on each call.
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer, state in zip(layers, states, strict=True):
            layer._disable_adapters = state


class KeptWeights:
    """Copies of a LoRA by name, which can take its place: only the LoRA exists twice, never the frozen weights."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.layers = tuner_layers(denoiser)
        self._parameters = {name: p for name, p in denoiser.named_parameters() if p.requires_grad}
        self._copies: dict[str, dict[str, Tensor]] = {}

    def keep(self, name: str) -> None:
        """Copy the LoRA as it is now."""
        self._copies[name] = {key: p.detach().clone() for key, p in self._parameters.items()}

    def blend(self, name: str, *, decay: float) -> None:
        """Move a copy towards the LoRA: copy <- decay * copy + (1 - decay) * LoRA; decay 0 copies it bitwise."""
        for key, copy in self._copies[name].items():
            copy.lerp_(self._parameters[key].detach(), 1 - decay)

    @contextmanager
    def computing_with(self, which: Weights) -> Iterator[None]:
        """Compute with the "policy", with the "reference" (the LoRA off), or with a kept copy such as "old".

        Raises:
            ConfigError: no copy of this name was kept.
        """
        if which == "policy":
            yield
        elif which == "reference":
            with disabled(self.layers):
                yield
        else:
            with self._active(which):
                yield

    @contextmanager
    def _active(self, name: str) -> Iterator[None]:
        """With a copy in the LoRA's place, without gradient to it."""
        if name not in self._copies:
            raise ConfigError(
                f"weights: no copy '{name}' was kept; there are {sorted(self._copies) or 'none'}"
            )
        copies = self._copies[name]
        own = {key: parameter.data for key, parameter in self._parameters.items()}
        for key, parameter in self._parameters.items():
            parameter.data = copies[key]
        try:
            yield
        finally:
            for key, parameter in self._parameters.items():
                parameter.data = own[key]

    def state(self) -> dict[str, Tensor]:
        """Every copy, for a checkpoint: tensors by ``copy/parameter``."""
        return {f"{name}/{key}": t for name, copy in self._copies.items() for key, t in copy.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take copies back from a checkpoint."""
        self._copies = {}
        for path, tensor in state.items():
            name, _, key = path.partition("/")
            self._copies.setdefault(name, {})[key] = tensor.to(self._parameters[key].device)


def lora_state(denoiser: nn.Module) -> dict[str, Tensor]:
    """The LoRA's tensors by name, as PEFT saves them."""
    state: dict[str, Tensor] = get_peft_model_state_dict(denoiser, adapter_name=adapter_name(denoiser))
    return state


def adapter_name(denoiser: nn.Module) -> str:
    """Under which name PEFT and diffusers hold the one LoRA: "default", or "default_0" where a pipeline loaded it."""
    (name,) = {name for layer in tuner_layers(denoiser) for name in layer.active_adapters}
    return str(name)


def merge(denoiser: nn.Module) -> None:
    """Add every LoRA of a model to the weights that it changes, and leave plain layers in its place."""
    for name, layer in list(denoiser.named_modules()):
        if not isinstance(layer, BaseTunerLayer):
            continue
        layer.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(denoiser.get_submodule(parent), last, layer.get_base_layer())
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        if mark in vars(denoiser):
            delattr(denoiser, mark)


def save_peft(denoiser: nn.Module, folder: Path) -> None:
    """Write a LoRA as PEFT itself does: ``adapter_config.json`` and ``adapter_model.safetensors``.

    For ``PeftModel.from_pretrained(denoiser, folder)``, which puts it into the denoiser.
    """
    config: LoraConfig = denoiser.peft_config[adapter_name(denoiser)]  # type: ignore[index]
    layers = {
        f"{PEFT_PREFIX}{name}": tensor.detach().cpu().contiguous()
        for name, tensor in lora_state(denoiser).items()
    }
    with whole_folder(folder, last=PEFT_WEIGHTS) as unfinished:
        config.save_pretrained(str(unfinished))
        write_weights(unfinished / PEFT_WEIGHTS, layers, {"format": "pt"})


def save(pipeline: Any, component: str, folder: Path) -> None:
    """Write ``pytorch_lora_weights.safetensors`` as the pipeline's own class does, so that plain diffusers loads it.

    Classes without a way of their own (Stable Audio, AudioLDM2, Latte, PixArt) get the same file, for ``load``.
    """
    denoiser = getattr(pipeline, component)
    layers = {name: tensor.detach().cpu().contiguous() for name, tensor in lora_state(denoiser).items()}
    check_finite(layers, folder)
    # The metadata carries alpha; without it a loader assumes alpha = rank.
    metadata = denoiser.peft_config["default"].to_dict()
    with whole_folder(folder, last=WEIGHTS_NAME) as unfinished:
        _write_layers(pipeline, component, unfinished, layers, metadata)


def _write_layers(
    pipeline: Any, component: str, folder: Path, layers: dict[str, Tensor], metadata: dict[str, Any]
) -> None:
    if hasattr(pipeline, "save_lora_weights"):
        type(pipeline).save_lora_weights(
            folder, **{f"{component}_lora_layers": layers, f"{component}_lora_adapter_metadata": metadata}
        )
        return
    from diffusers.loaders.lora_base import LoraBaseMixin

    LoraBaseMixin.write_lora_layers(
        {f"{component}.{name}": tensor for name, tensor in layers.items()},
        str(folder),
        is_main_process=True,
        weight_name=WEIGHTS_NAME,
        save_function=None,
        safe_serialization=True,
        lora_adapter_metadata={f"{component}.{name}": value for name, value in metadata.items()},
    )


def load(pipeline: Any, folder: Path) -> None:
    """Load a LoRA into the pipeline and make sure that it arrived.

    Raises:
        ConfigError: the file is missing, or nothing of it fits this pipeline.
    """
    if not (folder / WEIGHTS_NAME).is_file():
        raise ConfigError(f"{folder}: no {WEIGHTS_NAME} here; give a run's lora folder")
    if hasattr(pipeline, "load_lora_weights"):
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS_NAME)
        arrived = bool(pipeline.get_list_adapters())
    else:
        arrived = _inject(pipeline, folder / WEIGHTS_NAME)
    if not arrived:
        raise ConfigError(f"{folder}: nothing of this LoRA fits a {type(pipeline).__name__}")


def _inject(pipeline: Any, path: Path) -> bool:
    """Load a file into the denoiser that its tensors name, by PEFT; whether all of it fits."""
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    component = next(iter(state), "").partition(".")[0]
    denoiser = getattr(pipeline, component, None)
    if not isinstance(denoiser, nn.Module) or not metadata:
        return False
    own = len(component) + 1
    config = LoraConfig(**{name[own:]: value for name, value in metadata.items()})
    try:
        inject_adapter_in_model(config, denoiser)
        result = set_peft_model_state_dict(denoiser, {name[own:]: tensor for name, tensor in state.items()})
    except (RuntimeError, ValueError):  # other shapes, or no layer of these names
        return False
    return not result.unexpected_keys
