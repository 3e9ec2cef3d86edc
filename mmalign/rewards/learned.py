"""Rewards trained from preferences: a head on another reward's frozen vectors, in a folder with its card."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Sample
from mmalign.rewards.base import OK, EmbeddingReward, Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard, load_reward
from mmalign.rewards.clip_encoder import freeze
from mmalign.rewards.familiarity import Familiarity
from mmalign.rewards.learned_heads import HeadOptions, Heads, joint_features
from mmalign.rewards.maxmin import Aspect, GroupWeights
from mmalign.rewards.weights import checkpoint, fill, read_state

HEAD, KNOWN = "head.safetensors", "known.safetensors"
"""Of a trained reward's folder, beside its card: the heads, and where it has them, the vectors of its training."""
SCATTER = "scatter"
"""The aspect that says how far people's answers scatter, as a std, where the head has a variance."""


def load_backbone(name: str, *, device: str = "cpu") -> EmbeddingReward:
    """A reward whose vectors others can be trained on.

    Raises:
        UnknownNameError: no such reward.
        ConfigError: it has no vectors of media and prompts.
    """
    reward = load_reward(name, device=device)
    if not isinstance(reward, EmbeddingReward):
        raise ConfigError(
            f"'{name}' has no vectors of media and prompts to train on; take a CLIP (embedded/shapes-clip, "
            "clipscore-vit-l-14, pickscore-v1, ...) or a CLAP (clap-laion-htsat-unfused)"
        )
    return reward


def fingerprint(backbone: EmbeddingReward) -> str:
    """A hash of what a backbone makes of media: its card, its weights and how it prepares them."""
    digest = hashlib.sha256(repr(getattr(backbone, "preprocessing", None)).encode())
    digest.update(f"{backbone.card.target} {backbone.card.options}".encode())
    model = getattr(getattr(backbone, "encoder", backbone), "model", None)
    if isinstance(model, nn.Module):
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class LearnedReward:
    """What people preferred, as heads learned it on frozen vectors.

        value  = mean_k (head_k(features) - shift_k) / scale_k
        std^2  = var_k of the same, by K - 1, + the variance of ``Familiarity``

    The unit is the card's: of pairs, standard deviations over the training samples, since pairs fix neither zero nor
    scale; of ratings theirs; of labels log odds. Higher is better. ``std`` is epistemic. Members that see the same
    vectors agree about what none of them has seen, so the second term asks how far that is from the training samples;
    a reward without it has the members' spread alone, and None for one head.

    A reward of groups of people (``maxmin`` of its head) is the mean of theirs by :class:`GroupWeights`, which learn
    from each rollout of an online method; what scores files leaves them as they are.

    Args:
        card: its weights are the folder, its options what `mmalign reward train` wrote.
        device: where backbone and head run.
        backbone: a reward with vectors.
        head: of ``HeadOptions``.
        weights_of: the backbone's ``fingerprint`` at training.
        known: how many ``media`` and ``prompts`` of training were kept, in a file of their own; None where none were.

    Raises:
        ConfigError: the head is missing or another, or the backbone's weights are not those it was trained on.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        device: str = "cpu",
        backbone: str,
        head: Mapping[str, Any],
        weights_of: str | None = None,
        known: Mapping[str, int] | None = None,
    ) -> None:
        self.card, self.device = card, device
        path = checkpoint(card, HEAD)
        self.backbone = load_backbone(backbone, device=device)
        found = fingerprint(self.backbone)
        if weights_of not in (None, found):
            raise ConfigError(
                f"reward '{card.name}' was trained on other weights of '{backbone}' ({weights_of}) than those here "
                f"({found}); its scores would mean nothing"
            )
        width = self.backbone.prompt_vectors(["a"]).shape[-1]
        heads = Heads(width, HeadOptions.read(head))
        fill(heads, read_state(path), origin=path)
        self.heads = freeze(heads, device)
        self.groups = GroupWeights(len(heads.options.aspects)) if heads.options.maxmin else None
        self.familiarity: Familiarity | None = None
        if known is not None:
            path, familiarity = checkpoint(card, KNOWN), Familiarity(width=width, **known)
            fill(familiarity, read_state(path), origin=path)
            self.familiarity = freeze(familiarity, device)

    def obstacle(self, sample: Sample) -> str:
        """ "ok", or why the sample cannot be scored."""
        entry = obstacle(sample, self.card)
        return self.backbone.obstacle(sample) if entry == OK else entry

    def prepare(self, sample: Sample) -> Sample:
        """The sample as the backbone wants it."""
        return self.backbone.prepare(sample)

    def score(self, samples: Sequence[Sample]) -> Score:
        """Value, std and aspects of each sample; on the CPU."""
        return self.score_members(samples)[1]

    @torch.no_grad()
    def score_members(self, samples: Sequence[Sample]) -> tuple[Tensor, Score]:
        """What each head says [K, B], NaN where there is no score, and the score."""
        status = [self.obstacle(sample) for sample in samples]
        ready = [sample for sample, entry in zip(samples, status, strict=True) if entry == OK]
        each = torch.full((self.heads.options.members, len(samples)), math.nan)
        if not ready:
            return each, self._in_parts(scatter(status, torch.zeros(0)))
        media, prompts = self.backbone.media_vectors(ready).to(self.device), self._prompts(ready)
        features = joint_features(media, prompts)
        members = self.heads.members(features)
        overall = self._overall(members)
        names = self.heads.options.aspects
        aspects = {name: members[..., i].mean(0) for i, name in enumerate(names)} if len(names) > 1 else {}
        std = self.heads.scatter(features)
        if std is not None:
            aspects[SCATTER] = self._overall(std).mean(0)
        score = scatter(status, overall.mean(0), aspects, std=self._std(overall, media, prompts))
        each[:, torch.tensor([entry == OK for entry in status])] = overall.float().cpu()
        return each.masked_fill(score.value.isnan(), math.nan), self._in_parts(score)

    @property
    def parts(self) -> tuple[Aspect, ...]:
        """Each group's reward, in the order of ``Score.parts``; none where there are no groups to weigh."""
        return () if self.groups is None else tuple(Aspect(self, name) for name in self.heads.options.aspects)

    def after_rollout(self, samples: Sequence[Sample], scores: Score) -> None:
        """Let the groups' weights follow what ``score`` said of a rollout."""
        del samples
        if self.groups is not None:
            self.groups.update(torch.stack([part.value for part in scores.parts]))

    def state(self) -> dict[str, Tensor]:
        """The groups' weights, for a checkpoint."""
        return {} if self.groups is None else {"weights": self.groups.weights}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As they were."""
        if self.groups is not None:
            self.groups.weights = state["weights"].clone()

    def report(self) -> dict[str, float]:
        """Each group's weight."""
        weights = [] if self.groups is None else self.groups.weights.tolist()
        return {f"weight/{part.name}": weight for part, weight in zip(self.parts, weights, strict=True)}

    def _in_parts(self, score: Score) -> Score:
        return replace(score, parts=tuple(part.of(score) for part in self.parts))

    def _overall(self, members: Tensor) -> Tensor:
        """[K, B] of [K, B, A]."""
        return self.heads.overall(members, None if self.groups is None else self.groups.weights)

    @torch.no_grad()
    def member_aspects(self, samples: Sequence[Sample]) -> Tensor:
        """[K, B, A] of samples without an obstacle."""
        media = self.backbone.media_vectors(samples).to(self.device)
        return self.heads.members(joint_features(media, self._prompts(samples)))

    def score_with_grad(self, media: Tensor, samples: Sequence[Sample], **options: Any) -> Tensor:
        """Values [B] whose gradient reaches the media.

        Args:
            media: as the backbone takes them: pictures [B, 3, H, W] in [0, 1], sounds [B, C, N] in [-1, 1].
            samples: B samples; only their prompts are read.
            options: of the backbone, such as ``sample_rate_hz``.

        Raises:
            ShapeError: not one sample for each medium.
        """
        return self.members_with_grad(media, samples, **options)[0].mean(0)

    def members_with_grad(
        self, media: Tensor, samples: Sequence[Sample], **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Members [K, B] and std [B], whose gradient reaches the media; arguments as of ``score_with_grad``.

        Raises:
            ShapeError: not one sample for each medium.
        """
        if len(media) != len(samples):
            raise ShapeError(f"media: expected B = {len(samples)}, got {list(media.shape)}")
        vectors_of: Callable[..., Tensor] = self.backbone.media_vectors_with_grad
        vectors = vectors_of(media, **options)
        prompts = self._prompts(samples).to(vectors)
        overall = self._overall(self.heads.members(joint_features(vectors, prompts)))
        return overall, self._std(overall, vectors, prompts)

    def _std(self, overall: Tensor, media: Tensor, prompts: Tensor) -> Tensor | None:
        """[B] of members [K, B]."""
        several = len(overall) > 1
        if self.familiarity is None:
            return overall.std(0, correction=1) if several else None
        new = self.familiarity.variance(media, prompts)
        return (new + overall.var(0, correction=1) if several else new).clamp(min=1e-20).sqrt()

    def _prompts(self, samples: Sequence[Sample]) -> Tensor:
        return self.backbone.prompt_vectors([sample.prompt for sample in samples]).to(self.device)
