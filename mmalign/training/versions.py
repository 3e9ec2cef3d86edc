"""What a run was made with, for its summary and for bug reports."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("mmalign", "torch", "diffusers", "transformers", "peft", "accelerate", "open_clip_torch")
OPTIONAL = (
    "datasets",
    "onnxruntime",
    "pocketsphinx",
    "rapidocr",
    "resemblyzer",
    "scikit-image",
    "silero-vad",
    "speechmos",
    "trimesh",
)
"""Packages of the extras."""
SETTINGS = ("HF_HUB_OFFLINE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables that change what a run does or how fast."""


def versions() -> dict[str, str]:
    """Python and the packages that decide a result.

    >>> sorted(versions())[:2]
    ['accelerate', 'diffusers']
    """
    return {"python": platform.python_version(), **_packages(PACKAGES)}


def environment() -> dict[str, str]:
    """Versions, system, devices and settings; no names of users, hosts or folders.

    >>> environment()["torch"] == versions()["torch"]
    True
    """
    import torch

    found = versions()
    found["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    found["cores"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    found["threads"] = str(torch.get_num_threads())
    found["memory"] = _memory()
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{device.name}, {device.total_memory / 2**30:.0f} GB"
    found["cuda"] = str(torch.version.cuda or "none")
    extras = {name: said for name, said in _packages(OPTIONAL).items() if said != "not installed"}
    return found | extras | {name: os.environ[name] for name in SETTINGS if name in os.environ}


def _packages(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in names:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GB"
    except (AttributeError, OSError, ValueError):  # other systems do not say
        return "unknown"
