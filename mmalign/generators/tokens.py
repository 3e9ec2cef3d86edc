"""Any transformers model that generates media tokens, as a generator that can be aligned.

How a class reads and writes its tokens is its ``TokenLayout``, chosen by what the model is made of. Here is what all
share: the policy as a LoRA, prompts as conditioning, teacher-forced logits, and samples with their log-probability.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError, ShapeError, UnsupportedPipelineError
from mmalign.files import whole_folder
from mmalign.generators import lora
from mmalign.generators.conditioning import Conditioning
from mmalign.generators.students import shallow_copy
from mmalign.generators.token_causal import CausalTokens, JanusTokens
from mmalign.generators.token_delayed import DiaTokens, MusicgenTokens
from mmalign.generators.token_depth import CsmTokens
from mmalign.generators.token_layouts import (
    IGNORED,
    Arguments,
    Recomputed,
    TokenLayout,
    check_tokens,
    delayed,
    lora_targets,
    undelayed,
)
from mmalign.sampling.tokens import NEVER, TokenSampler, guided_logits, gumbel_noise
from mmalign.weights import check_finite

CHECK_TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Largest difference of a load-time check, as a share of the largest logit."""


@dataclass(frozen=True, eq=False)
class TokenTrajectory:
    """Samples of B prompts, as they were drawn.

    Args:
        tokens: [B, T, K], T frames of K codebooks; ``IGNORED`` from the end of a sample on.
        log_prob: [B, T, K], nats, of each token under the distribution that it was drawn from; 0 where ignored.
        conditioning: of B samples.
        sampler: how they were drawn.
    """

    tokens: Tensor
    log_prob: Tensor
    conditioning: Conditioning
    sampler: TokenSampler

    @property
    def mask(self) -> Tensor:
        """[B, T, K], True where there is a token."""
        return self.tokens != IGNORED

    def __len__(self) -> int:
        return len(self.tokens)


class TokenGenerator:
    """A transformers model whose generating part is the policy (a LoRA), and the reference with the LoRA off.

    Args:
        model: of a class that generates media tokens; ``generator.model`` stays live.
        tokenizer: text to ids.
        layout: how the model reads and writes tokens; found from the model's parts if not given. A language model over
            codec tokens needs one: ``CausalTokens(model, first_code=..., codes=...)``.
        template: how a prompt is written for the model; ``{prompt}`` is its place.

    Raises:
        UnsupportedPipelineError: no layout fits, or drawing step by step does not give the likelihoods of training.
        ConfigError: the template has no place for the prompt.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, layout: TokenLayout | None = None, template: str = "{prompt}"
    ) -> None:
        if "{prompt}" not in template:
            raise ConfigError(f"template '{template}': write {{prompt}} where the prompt goes")
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.layout = layout or find_layout(model)
        self.policy: nn.Module = model
        model.eval().requires_grad_(False)
        self._allowed = self.layout.allowed()
        self.teacher: Any = None
        """What a student was made of; None without one."""
        self.kept = lora.KeptWeights(model)
        """Copies of the LoRA by name."""
        self.denoiser_passes = 0
        """Samples that went through the model so far, two for a guided one, whether in one call or token by token."""
        self.checks: dict[str, float] = {}
        """Relative errors measured at load, by name."""
        self._probe()

    # --- policy and reference -----------------------------------------------------------------------------------------

    def attach_lora(self, *, rank: int, alpha: float | None = None, seed: int = 0) -> None:
        """Make a fresh LoRA the policy; until it is trained, policy and reference are bit-identical."""
        lora.attach(self.model, rank=rank, alpha=alpha, seed=seed, targets=lora_targets(self.layout))
        self._lora_changed()

    def attach_student(self, *, share: float) -> None:
        """Make a copy with some of the layers the policy, trained whole; the model itself stays as the reference.

        Raises:
            ConfigError: the model has a LoRA, or the share of the layers is none.
            UnsupportedPipelineError: the model is no plain stack of layers.
        """
        if self.kept.layers or self.teacher is not None:
            raise ConfigError("the model has a LoRA or a student already; take a fresh one")
        if not isinstance(self.layout, CausalTokens):
            raise UnsupportedPipelineError(
                f"{type(self.model).__name__}: a student is known for language models over codec tokens alone"
            )
        self.teacher = self.model
        self.model = self.policy = self.layout.model = shallow_copy(self.teacher, share=share).float()
        self.model.requires_grad_(True)
        self._lora_changed()

    @contextmanager
    def _computing_with(self, model: Any) -> Iterator[None]:
        own = self.model
        self.model = self.layout.model = model
        try:
            yield
        finally:
            self.model = self.layout.model = own

    def save_lora(self, folder: Path) -> None:
        """Write a PEFT folder, for plain ``model.load_adapter(folder)``."""
        check_finite({n: p for n, p in self.model.named_parameters() if p.requires_grad}, folder)
        with whole_folder(folder, last=lora.PEFT_WEIGHTS) as unfinished:
            self.model.save_pretrained(unfinished)

    def load_lora(self, folder: Path) -> None:
        """Load a PEFT folder as the policy.

        Raises:
            ConfigError: there is no LoRA in the folder, the model has one already, or nothing of it fits.
        """
        if not (folder / "adapter_config.json").is_file():
            raise ConfigError(f"{folder}: no adapter_config.json here; give a run's lora folder")
        if self.kept.layers:
            raise ConfigError("the model has a LoRA already; load this one into a fresh model")
        with _own_names(self.model):
            self.model.load_adapter(folder, is_trainable=True)
        for parameter in lora.trainable(self.model):
            parameter.data = parameter.data.float()  # as a fresh one is held
        self._lora_changed()
        if not self.kept.layers or not any(
            "lora_B" in n and p.any() for n, p in self.model.named_parameters()
        ):
            raise ConfigError(f"{folder}: nothing of this LoRA fits a {type(self.model).__name__}")

    def merge_lora(self) -> None:
        """Add the LoRA to the weights that it changes; what is left is a plain model, of which this is the base."""
        lora.merge(self.model)
        self._lora_changed()

    def entries(self, prompt: str, tokens: Sequence[Sequence[int]]) -> list[int]:
        """A language model's vocabulary entries of a prompt and what was said of it, tokens [T, K], in its own order.

        Raises:
            UnsupportedPipelineError: the model has other embeddings for media tokens.
        """
        if not isinstance(self.layout, CausalTokens):
            raise UnsupportedPipelineError(
                f"{type(self.model).__name__}: its media tokens are no entries of its vocabulary"
            )
        ids = self.layout.ids
        return self._ids(prompt) + [int(ids[k, token]) for frame in tokens for k, token in enumerate(frame)]

    def _lora_changed(self) -> None:
        self.model.eval()
        self.kept = lora.KeptWeights(self.model)

    def weights(self, which: lora.Weights) -> AbstractContextManager[None]:
        """Compute with the policy, with the reference (the LoRA off), or with a kept copy of the LoRA such as "old".

        With a student the reference is the model that it was made of.

        Raises:
            ConfigError: no copy of this name was kept.
        """
        if which == "reference" and self.teacher is not None:
            return self._computing_with(self.teacher)
        return self.kept.computing_with(which)

    # --- conditioning and logits --------------------------------------------------------------------------------------

    @torch.no_grad()
    def condition(
        self, prompts: Sequence[str], *, guidance: float | None = None, negative_prompt: str | None = None
    ) -> Conditioning:
        """Prompts as the model is given them.

        Args:
            prompts: B texts; their padding changes nothing.
            guidance: keep both branches for any scale; None keeps the conditional branch alone.
            negative_prompt: what the other branch of a language model reads; by default nothing but the template.

        Raises:
            ConfigError: a negative prompt without guidance, or for a class that has none; or a prompt without tokens.
        """
        if negative_prompt is not None and (guidance is None or not isinstance(self.layout, CausalTokens)):
            raise ConfigError(
                f"negative_prompt would be ignored: {type(self.model).__name__} takes one only as a language model "
                "under guidance"
            )
        ids = [self._ids(prompt) for prompt in prompts]
        conditional = self.layout.conditional(ids)
        unconditional = None
        if guidance is not None:
            negative = self._ids(negative_prompt or "") if isinstance(self.layout, CausalTokens) else []
            unconditional = self.layout.unconditional(ids, conditional, negative=negative)
        axes: dict[Any, int | None] = dict.fromkeys(((name,) for name in conditional), 0)
        return Conditioning(conditional, unconditional, axes, len(ids), (self.layout.codebooks,))

    def _ids(self, prompt: str) -> list[int]:
        ids: list[int] = self.tokenizer(self.template.replace("{prompt}", prompt)).input_ids
        return ids

    def logits(self, tokens: Tensor, conditioning: Conditioning, *, guidance: float | None = None) -> Tensor:
        """What the model says of every token, given those before it; gradient flows to the policy.

        Args:
            tokens: [B, T, K], ``IGNORED`` from the end of a sample on.
            conditioning: of B samples.
            guidance: None is the conditional branch alone; a scale mixes both, in a second pass.

        Returns:
            [B, T, K, V]; ``NEVER`` for what a codebook cannot hold, arbitrary where tokens are ignored.

        Raises:
            ShapeError: the batch sizes differ, or ``tokens`` are not [B, T, K].
            ConfigError: a token that is none, or guidance without both branches.
        """
        check_tokens(tokens, self.layout)
        if len(tokens) != conditioning.size:
            raise ShapeError(f"logits: {len(tokens)} samples, conditioning of {conditioning.size}")
        tokens = tokens.to(self.device)
        layout = self.layout
        steps = delayed(layout.filled(tokens), layout.delays, before=layout.before, after=layout.after)
        branches = [layout.steps(steps, arguments) for arguments in _branches(conditioning, guidance)]
        self.denoiser_passes += len(tokens) * len(branches)
        return undelayed(self._mixed(branches, guidance), layout.delays).masked_fill(
            ~self._allowed.to(self.device), NEVER
        )

    def _mixed(self, branches: list[Tensor], guidance: float | None) -> Tensor:
        first, *other = [branch.float() for branch in branches]
        return guided_logits(first, other[0], guidance) if guidance is not None else first

    # --- samples ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def rollout(
        self,
        conditioning: Conditioning,
        *,
        seeds: Sequence[int],
        frames: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        guidance: float | None = None,
        use_cache: bool = True,
    ) -> TokenTrajectory:
        """Draw samples with the active weights, token by token.

        A sample depends on its prompt and its seed, and where codebooks lag on the number of frames, whose end the
        later ones see; in fp32 not on its batch or its padding.

        Args:
            conditioning: of B samples.
            seeds: B, of the Gumbel noise of each row.
            frames: T at most; a class with a fixed number draws that many if not given, and no more.
            temperature: as ``TokenSampler``, and so ``top_k``, ``top_p`` and ``guidance``.
            top_k: likewise.
            top_p: likewise.
            guidance: likewise.
            use_cache: keep keys and values; off it is the same, slower.

        Raises:
            ShapeError: as many seeds as samples are needed.
            ConfigError: a number of frames that the class does not draw, or guidance without both branches.
        """
        sampler = TokenSampler(temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance)
        if len(seeds) != conditioning.size:
            raise ShapeError(f"rollout: {len(seeds)} seeds, conditioning of {conditioning.size}")
        layout, device = self.layout, self.device
        T = layout.frames if frames is None else frames
        if T is None or T < 1 or (layout.frames is not None and layout.frames < T):
            known = "a positive number" if layout.frames is None else f"1 to {layout.frames}"
            raise ConfigError(f"frames = {frames}: expected {known}")
        branches = [
            layout.cursor(arguments) if use_cache else Recomputed(layout, arguments)
            for arguments in _branches(conditioning, guidance)
        ]
        self.denoiser_passes += len(seeds) * len(branches)
        randoms = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        B, K = len(seeds), layout.codebooks
        tokens = torch.full((B, T, K), IGNORED, device=device)
        log_prob = torch.zeros(B, T, K, device=device)
        end = torch.full((B,), T, device=device)  # the frame that ends each sample
        allowed = self._allowed.to(device)
        last: Tensor | None = None
        for step in range(T + max(layout.delays)):
            noise = gumbel_noise((K, layout.vocabulary), generators=randoms).to(device)
            for group in layout.groups:
                mixed = self._mixed([cursor.next(last) for cursor in branches], guidance)
                ks = slice(group.start, group.stop)
                scores = sampler.log_probs(mixed.masked_fill(~allowed[ks], NEVER))
                drawn = (scores + noise[:, ks]).argmax(-1)
                fed = []
                for k, token in zip(group, drawn.unbind(1), strict=True):
                    frame = step - layout.delays[k]
                    if not 0 <= frame < T:
                        outside = layout.before if frame < 0 else layout.after
                        fed.append(torch.full_like(token, outside))
                        continue
                    # What ends a sample stands in the first codebook; others lag, and do not hold it themselves.
                    live = frame < end
                    tokens[:, frame, k] = torch.where(live, token, IGNORED)
                    picked = scores[:, k - group.start].gather(1, token[:, None])[:, 0]
                    log_prob[:, frame, k] = torch.where(live, picked, 0.0)
                    if k == 0 and layout.eos is not None:
                        end = torch.where(live & (token == layout.eos), frame, end)
                    fed.append(layout.filled(tokens[:, frame])[:, k])
                last = torch.stack(fed, 1)
            if layout.eos is None and step < T:
                ended = layout.ends(tokens[:, step]) & (end == T)
                end = torch.where(ended, step, end)
            if bool((end + max(layout.delays) <= step).all()):
                break
        longest = min(T, int(end.max()) + 1)
        if layout.frames is None:
            tokens, log_prob = tokens[:, :longest], log_prob[:, :longest]
        return TokenTrajectory(tokens, log_prob, conditioning, sampler)

    def pipeline_options(self, *, guidance: float | None = None, **options: Any) -> dict[str, Any]:
        """The options of ``rollout`` that draw a sample again; guidance of 1 is none."""
        return options | ({} if guidance in (None, 1) else {"guidance": guidance})

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next(self.model.parameters()).device

    # --- finding out, at load -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def _probe(self) -> None:
        """Draw a little with the cache; what was drawn has to be as likely in one teacher-forced call."""
        conditioning = self.condition(["a", "the other one"])
        drawn = self.rollout(conditioning, seeds=[0, 1], frames=min(3, self.layout.frames or 3))
        found = TokenSampler().log_probs(self.logits(drawn.tokens, conditioning))
        again = found.gather(3, drawn.tokens.clamp_min(0)[..., None])[..., 0]
        error = float((again - drawn.log_prob)[drawn.mask].abs().max() / drawn.log_prob.abs().max())
        self.denoiser_passes = 0
        self.checks["teacher forcing is drawing"] = error
        if not error <= CHECK_TOLERANCES[self.dtype]:
            raise UnsupportedPipelineError(
                f"{type(self.model).__name__}: the log-probabilities of drawn tokens are off by {error:.2g} in a "
                "teacher-forced call; aligning it would go wrong in silence"
            )


@contextmanager
def _own_names(model: Any) -> Iterator[None]:
    """Let a model forget how transformers renamed an adapter's weights, or it renames its own when it is saved."""
    name = "_weight_conversions"
    known, own = name in vars(model), vars(model).get(name)
    try:
        yield
    finally:
        vars(model).pop(name, None)
        if known:
            setattr(model, name, own)


def _branches(conditioning: Conditioning, guidance: float | None) -> list[Arguments]:
    if guidance is None:
        return [conditioning.conditional]
    if conditioning.unconditional is None:
        raise ConfigError("guidance needs a conditioning made with guidance=...")
    return [conditioning.conditional, conditioning.unconditional]


def find_layout(model: Any) -> TokenLayout:
    """The layout that fits what a model is made of.

    Raises:
        UnsupportedPipelineError: none does by itself.
    """
    if hasattr(model, "depth_decoder") and hasattr(model, "backbone_model"):
        return CsmTokens(model)
    if hasattr(model, "prepare_embeddings_for_image_generation"):
        return JanusTokens(model)
    if getattr(model.config, "delay_pattern", None) is not None:
        return DiaTokens(model)
    if hasattr(getattr(model, "decoder", None), "build_delay_pattern_mask"):
        return MusicgenTokens(model)
    raise UnsupportedPipelineError(
        f"{type(model).__name__}: nothing says which tokens are media; for a language model over codec tokens give "
        "layout=CausalTokens(model, first_code=..., codes=...)"
    )


def join_trajectories(parts: Sequence[TokenTrajectory], conditioning: Conditioning) -> TokenTrajectory:
    """Trajectories of several batches of one conditioning as one; shorter ones are padded."""
    T = max(part.tokens.shape[1] for part in parts)

    def stretched(tensor: Tensor, fill: float) -> Tensor:
        return nn.functional.pad(tensor, (0, 0, 0, T - tensor.shape[1]), value=fill)

    return replace(
        parts[0],
        tokens=torch.cat([stretched(part.tokens, IGNORED) for part in parts]),
        log_prob=torch.cat([stretched(part.log_prob, 0) for part in parts]),
        conditioning=conditioning,
    )
