"""Options that would do nothing beside the others of a recipe, and why."""

from collections.abc import Iterable

from mmalign.errors import ConfigError
from mmalign.training.recipe import Recipe


def refuse_idle(recipe: Recipe, named: Iterable[str]) -> None:
    """Refuse options that somebody gave and that nothing will read.

    Args:
        recipe: with the options in it.
        named: fields that were given, such as ``evaluation.glance``.

    Raises:
        ConfigError: the first of them, with the reason.
    """
    reasons = idle_settings(recipe)
    for name in named:
        reason = next((why for field, why in reasons.items() if (f"{name}.").startswith(f"{field}.")), None)
        if reason is not None:
            raise ConfigError(f"--{name.replace('_', '-')} would do nothing: {reason}; leave it out")


def idle_settings(recipe: Recipe) -> dict[str, str]:
    """By field, or by the block of several: why nothing reads it in this recipe."""
    method = recipe.method
    given = next((n for n in ("preferences", "ratings", "demonstrations") if getattr(recipe, n)), None)
    found: dict[str, str] = {}
    if not recipe.evaluation.every:
        found["evaluation.glance"] = "evaluation.every is 0, so nobody glances"
    if recipe.labels is None:
        found["pairs_per_round"] = "it is of --labels"
    else:
        found["method.own"] = "with --labels the pairs are those of the rounds"
    if recipe.labels in ("human", "simulated") and not method.needs_gradient:
        found["reward"] = f"with --labels {recipe.labels} people judge all pairs"
    if given is not None and given != "demonstrations":
        found["method.own"] = f"--{given} takes the place of own samples"
    elif given is not None and method.source == "demonstrations":
        found["method.own"] = "--demonstrations take the place of own samples"
    if getattr(method, "student_share", None) is not None:
        found["train.lora_rank"] = f"{method.name} trains a whole student and no LoRA"
    if getattr(method, "guidance", None) == 1:
        found["method.ratio_guidance"] = "method.guidance is 1, so that there is one branch"
    if getattr(method, "weighting", None) == "best":
        found["method.temperature"] = "method.weighting is best, which has no temperature"
    if getattr(method, "last_steps", None) == 1:
        found["method.truncation"] = "method.last_steps is 1, so that there is nothing to draw"
    return found
