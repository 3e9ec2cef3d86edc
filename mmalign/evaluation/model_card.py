"""The README.md of a run folder: a model card that the Hub reads when the folder is uploaded."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmalign.evaluation.run_folder import Run, read_run
from mmalign.evaluation.usage import exported_code, loading_code
from mmalign.evaluation.verdict import held_out, interval, number, signed, verdict
from mmalign.files import whole_file

_TASKS = {
    "image": "text-to-image",
    "video": "text-to-video",
    "scene3d": "text-to-3d",
    "audio": "text-to-audio",
    "speech": "text-to-speech",
}


def write_model_card(run_folder: Path | str, *, export: "Exported | None" = None) -> Path:
    """Write ``README.md`` from the files of a run folder, whole or not at all; of an export into its own folder.

    Its YAML head has license, base_model, library_name, pipeline_tag and tags; the text has the verdict, the rewards,
    how to load the weights, and how they were made. The licence is the base model's, as far as its own card on this
    computer says it; where it does not, none is named.

    Returns:
        The path of the card.

    Raises:
        DataError: the folder holds no run, or one of its files is broken.
    """
    run = read_run(run_folder)
    head = yaml.safe_dump(front_matter(run, export), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{head}---", *_text(run, export)]
    path = (run.folder if export is None else export.folder) / "README.md"
    with whole_file(path) as unfinished:
        unfinished.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class Exported:
    """Weights of a run in a form of their own.

    Args:
        folder: where they are.
        form: "diffusers", "peft" or "merged".
        component: the part of the pipeline that a LoRA changes; None for a language model.
    """

    folder: Path
    form: str
    component: str | None


def front_matter(run: Run, export: Exported | None = None) -> dict[str, Any]:
    """What the Hub reads: the names of model, library and task, and tags to find it by."""
    summary = run.summary
    modality = summary.get("modality")
    lora = run.weights in ("diffusers", "peft") and (export is None or export.form != "merged")
    known = {
        **licence_of(str(summary.get("model", ""))),
        "base_model": _public_name(summary.get("model")),
        "base_model_relation": "adapter" if lora else "finetune",
        "library_name": "peft" if export is not None and export.form == "peft" else _library(run, lora=lora),
        "pipeline_tag": _TASKS.get(str(modality)),
        "tags": [
            *(tag for tag in (modality, summary.get("method")) if tag),
            *(["lora"] if lora else []),
            "alignment",
            "mmalign",
        ],
    }
    return {key: value for key, value in known.items() if value is not None}


def licence_of(model: str) -> dict[str, str]:
    """The licence fields of a base model's card, from this package, its folder or the Hub's cache; nothing is fetched.

    >>> licence_of("embedded/shapes-flow")
    {'license': 'apache-2.0'}
    """
    if model.startswith("embedded/"):
        return {"license": "apache-2.0"}  # as the package
    card = Path(model).expanduser() / "README.md"
    if not card.is_file() and model.count("/") == 1 and not model.startswith((".", "/", "~")):
        from huggingface_hub import try_to_load_from_cache

        card = Path(str(try_to_load_from_cache(model, "README.md")))
    try:
        text = card.read_text(encoding="utf-8")
        head = yaml.safe_load(text.split("---\n", 2)[1]) if text.startswith("---\n") else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return {}
    names = ("license", "license_name", "license_link")
    return {name: head[name] for name in names if isinstance(head, dict) and isinstance(head.get(name), str)}


def _library(run: Run, *, lora: bool) -> str:
    if run.weights == "peft" and lora:
        return "peft"
    return "transformers" if run.summary.get("modality") == "speech" else "diffusers"


def _public_name(model: object) -> str | None:
    """A Hub id as it is; of a folder on this computer only its last name, which is all that others can use."""
    if not isinstance(model, str) or not model:
        return None
    parts = Path(model).parts
    return model if len(parts) <= 2 and not Path(model).is_absolute() else parts[-1]


def _text(run: Run, export: Exported | None) -> list[str]:
    summary = run.summary
    model, method = _public_name(summary.get("model")), summary.get("method")
    before, after = run.folder / "samples" / "before.png", run.folder / "samples" / "after.png"
    pictures = export is None and before.is_file() and after.is_file()
    usage = (
        loading_code(run) if export is None else exported_code(run, export.form, component=export.component)
    )
    return [
        f"# {plain(model or 'A model')} aligned with {plain(method or 'mmalign')}",
        plain(verdict(summary)) if summary else "This run is not finished.",
        _rewards(summary),
        "| before | after |\n| --- | --- |\n| ![before](samples/before.png) | ![after](samples/after.png) |"
        * pictures,
        "The same prompts and seeds on both sides." * pictures,
        f"## Usage\n\n```python\n{usage}\n```" if usage else "",
        'From the Hub, give the repository\'s name instead of `lora`, with `subfolder="lora"`.'
        * (run.weights == "diffusers" and export is None),
        "## Training\n\nMade with mmalign; `mmalign align recipe.yaml` repeats it. "
        f"Seed {number(summary.get('seed'))}, {number(summary.get('steps'))} steps.",
    ]


def plain(text: object) -> str:
    r"""A text of a run as Markdown that shows it and is neither HTML, nor a link, nor another line.

    >>> print(plain("a <b>|[x](javascript:y)"))
    a &lt;b&gt;\|\[x\](javascript:y)
    """
    said = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\[\]|`\\])", r"\\\1", said)


def _rewards(summary: Mapping[str, Any]) -> str:
    rows = [
        "| reward | used for | before | after | 95% interval of the gain | n |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key, role in (
        ("heldout_reward", "evaluation only" if held_out(summary) else "training too"),
        ("train_reward", "training"),
    ):
        entry = summary.get(key)
        if entry:
            low, high = interval(entry)
            cells = [
                plain(entry.get("name")),
                role,
                number(entry.get("before")),
                number(entry.get("after")),
                "–" if low is None else f"{signed(low)} to {signed(high)}",
                number(entry.get("n")),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) if len(rows) > 2 else ""
