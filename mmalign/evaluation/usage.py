"""The few lines that load what a run trained, in plain diffusers or peft, for a report or a model card."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.evaluation.run_folder import Run

# What a recipe calls it -> what a diffusers pipeline calls it.
_PIPELINE_NAMES = {"steps": "num_inference_steps", "guidance": "guidance_scale", "frames": "num_frames"}
_NOT_OPTIONS = ("file_name", "prompt", "seed", "sampler", "tokens", "latents")


def exported_code(run: Run, form: str, *, component: str | None) -> str:
    """Python that loads an export from inside its folder, as plain diffusers, or transformers and PEFT.

    Args:
        run: what was exported.
        form: "diffusers", "peft" or "merged".
        component: the part of the pipeline that a LoRA changes; None for a language model.
    """
    model = str(run.summary.get("model"))
    if component is None and form == "merged":
        return 'from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained(".")'
    if component is None:
        return _language_model(model, ".")
    if form == "merged":
        return _drawing(run, ['pipeline = DiffusionPipeline.from_pretrained(".")'])
    load = [f"pipeline = DiffusionPipeline.from_pretrained({_model(model)}"]
    if form == "diffusers":
        return _drawing(run, [*load, 'pipeline.load_lora_weights(".")'])
    load.append(f'PeftModel.from_pretrained(pipeline.{component}, ".")  # it puts the LoRA into the pipeline')
    return _drawing(run, load, imports=["from peft import PeftModel"])


def loading_code(run: Run, *, folder: str = "") -> str | None:
    """Python that loads the run's weights and draws its first sample again; None where the run has no weights.

    ``folder`` is put before ``lora`` and ``student``: "runs/x/", or nothing for code that runs inside the run folder.
    """
    model = run.summary.get("model")
    if run.weights is None or not isinstance(model, str):
        return None
    if run.weights == "peft":
        return _language_model(model, f"{folder}lora")
    if run.weights == "student" and run.summary.get("modality") == "speech":
        return "\n".join(
            [
                "import mmalign",
                "",
                f"adapter = mmalign.load_adapter({_literal(folder + 'student')})",
                "# Its language model is plain transformers: adapter.generator.model",
            ]
        )
    if run.weights == "student":
        load = [f"pipeline = DiffusionPipeline.from_pretrained({_literal(folder + 'student')})"]
    elif not _loads_lora(run.summary):
        return _by_adapter(run, model, f"{folder}lora")
    else:
        load = [
            f"pipeline = DiffusionPipeline.from_pretrained({_model(model)}",
            f"pipeline.load_lora_weights({_literal(folder + 'lora')})",
        ]
    return _drawing(run, load)


def _loads_lora(summary: Mapping[str, Any]) -> bool:
    """Whether the run's pipeline has diffusers' own way to load a LoRA; some classes have none."""
    import diffusers

    pipeline = getattr(diffusers, str(summary.get("pipeline")), None)
    return pipeline is None or hasattr(pipeline, "load_lora_weights")


def _by_adapter(run: Run, model: str, lora: str) -> str:
    """Load by mmalign what a pipeline cannot load itself, and draw the run's first sample again."""
    row = run.after[0] if run.after else {}
    ours = {theirs: name for name, theirs in _PIPELINE_NAMES.items()}
    options = {ours.get(name, name): value for name, value in _options(run.summary, row).items()}
    said = "".join(f", {name}={_literal(value)}" for name, value in options.items())
    suffixes = {"image": "png", "video": "mp4", "audio": "wav", "scene3d": "views.png"}
    suffix = suffixes[str(run.summary.get("modality", "image"))]
    return "\n".join(
        [
            "import mmalign",
            "",
            f"adapter = mmalign.load_adapter({_literal(model)})",
            f"adapter.load_lora({_literal(lora)})  # {_one_line(run.summary['pipeline'])} has no load_lora_weights",
            f"prompt = {_literal(row.get('prompt', 'your prompt'))}",
            f"sample = adapter.generate([prompt], seeds=[{int(row.get('seed', 0))}]{said})[0]",
            f'sample.save("sample.{suffix}")',
        ]
    )


def _language_model(model: str, lora: str) -> str:
    return "\n".join(
        [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
            "",
            f"model = AutoModelForCausalLM.from_pretrained({_model(model)}",
            f"model = PeftModel.from_pretrained(model, {_literal(lora)})",
        ]
    )


def _drawing(run: Run, load: Sequence[str], *, imports: Sequence[str] = ()) -> str:
    """Load a pipeline and draw the run's first sample again."""
    row = run.after[0] if run.after else {}
    images = run.summary.get("modality", "image") == "image"
    return "\n".join(
        [
            "import torch",
            "from diffusers import DiffusionPipeline",
            *imports,
            "",
            *load,
            f"{'picture' if images else 'output'} = pipeline(",
            f"    {_literal(row.get('prompt', 'your prompt'))},",
            *(f"    {name}={_literal(value)}," for name, value in _options(run.summary, row).items()),
            f'    generator=torch.Generator("cpu").manual_seed({int(row.get("seed", 0))}),',
            f"){'.images[0]' if images else ''}",
            *(['picture.save("picture.png")'] if images else []),
        ]
    )


def _model(model: str) -> str:
    """The base model and the closing bracket, with a word on where an embedded one lies."""
    if not model.startswith("embedded/"):
        return f"{_literal(model)})"
    place = f"{_one_line(model)}, a folder of mmalign's repository"
    return f"{_literal(model.replace('embedded', 'assets', 1))})  # {place}"


def _options(summary: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline's own options of a sample's row; the recipe's words for them where the row has none."""
    said = {name: value for name, value in row.items() if name not in _NOT_OPTIONS}
    if not said:
        after = (summary.get("sampling") or {}).get("after") or {}
        said = {_PIPELINE_NAMES.get(name, name): after[name] for name in after if name not in _NOT_OPTIONS}
    return {name: value for name, value in said.items() if name.isidentifier() and value is not None}


def _one_line(text: Any) -> str:
    """A text for a comment, which must not end before its line does."""
    return " ".join(str(text).split())


def _literal(value: Any) -> str:
    """A value as Python code; texts in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
