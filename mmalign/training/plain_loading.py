"""Loads what an export wrote with diffusers, transformers and PEFT alone, and computes something from it.

Run as a file, so that mmalign is not even imported: ``python -I plain_loading.py JOB.json OUT.safetensors``. The job
says the model, the exported folder, its form, and the calls; out comes one tensor a call. ``draw`` and ``say`` are also
what the other side of the comparison uses.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def draw(pipeline: Any, calls: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """What a diffusers pipeline makes of prompt, seed and its own options, one at a time."""
    pipeline.set_progress_bar_config(disable=True)
    found = {}
    for number, call in enumerate(calls):
        options = {name: value for name, value in call.items() if name not in ("prompt", "seed")}
        output = pipeline(
            prompt=[call["prompt"]],
            generator=[torch.Generator("cpu").manual_seed(call["seed"])],
            output_type="pt",
            return_dict=False,
            **options,
        )[0]
        found[str(number)] = torch.as_tensor(output).detach().float().cpu().contiguous()
    return found


@torch.no_grad()
def say(model: Any, calls: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The probability that a language model gives every token after those before it."""
    model.eval()
    return {
        str(number): model(torch.tensor([call["ids"]])).logits.float().softmax(-1).contiguous()
        for number, call in enumerate(calls)
    }


def load_pipeline(job: Mapping[str, Any]) -> Any:
    """The pipeline of a job, as any user of diffusers would load it."""
    from diffusers import DiffusionPipeline

    if job["form"] == "merged":
        return DiffusionPipeline.from_pretrained(job["folder"])
    pipeline = DiffusionPipeline.from_pretrained(job["model"])
    if job["form"] == "diffusers":
        pipeline.load_lora_weights(job["folder"])
    else:
        from peft import PeftModel

        # PEFT puts the layers into the model that it is given, so the pipeline has them.
        PeftModel.from_pretrained(getattr(pipeline, job["component"]), job["folder"])
    return pipeline


def load_language_model(job: Mapping[str, Any]) -> Any:
    """The language model of a job, as any user of transformers would load it."""
    from transformers import AutoModelForCausalLM

    if job["form"] == "merged":
        return AutoModelForCausalLM.from_pretrained(job["folder"])
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(job["model"]), job["folder"])


def main(arguments: Sequence[str]) -> None:
    """Do a job; ends with an error if mmalign found its way in."""
    job_file, out = arguments
    with open(job_file, encoding="utf-8") as file:
        job = json.load(file)
    found = (
        say(load_language_model(job), job["calls"])
        if job["tokens"]
        else draw(load_pipeline(job), job["calls"])
    )
    save_file(found, out)
    if any(name.partition(".")[0] == "mmalign" for name in sys.modules):
        raise SystemExit("mmalign was imported, so this shows nothing of plain libraries")


if __name__ == "__main__":
    main(sys.argv[1:])
