"""What a run was made with, for its summary and for bug reports."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("mmalign", "torch", "diffusers", "transformers", "peft", "accelerate", "open_clip_torch")


def versions() -> dict[str, str]:
    """Python and the packages that decide a result.

    >>> sorted(versions())[:2]
    ['accelerate', 'diffusers']
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
