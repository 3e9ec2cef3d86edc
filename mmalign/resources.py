"""Finds what ships beside the code: recipes, reward cards and embedded models, in a checkout and in a wheel alike."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """The folder ``recipes``, ``reward_models`` or ``assets``: inside the wheel, or beside the package in a checkout.

    >>> resource("assets").is_dir()
    True
    """
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
