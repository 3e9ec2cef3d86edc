"""Curves show every number that is there, smooth without lag, and fit into a page."""

import math
import re
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mmalign.evaluation.curves import curve, curve_names, points, smoothed, window_for


def test_missing_values_are_left_out_and_not_drawn_as_zero() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "loss": 0.7},
        {"step": 2, "loss": None},
        {"step": 3, "loss": math.nan},
        {"step": 4, "loss": 0.5},
    ]
    steps, values = points(rows, "loss")
    assert_allclose(steps, [1, 4])
    assert_allclose(values, [0.7, 0.5])


def test_curves_are_fields_with_two_numbers_and_people_s_favourites_come_first() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "margin": 0.0, "loss": 0.7, "note": "warm-up", "flag": True, "once": 1.0},
        {"step": 2, "margin": 0.1, "loss": 0.6, "note": "", "flag": False, "heldout_reward": 0.1},
        {"step": 3, "heldout_reward": 0.2},
    ]
    assert curve_names(rows) == ["heldout_reward", "loss", "margin"]


@pytest.mark.parametrize("window", [1, 3, 11])
def test_smoothing_keeps_a_constant_and_does_not_lag(window: int) -> None:
    assert_allclose(smoothed(np.full(30, 0.4), window), 0.4)
    ramp = np.arange(30.0)
    inside = slice(window // 2, 30 - window // 2)
    assert_allclose(smoothed(ramp, window)[inside], ramp[inside])


def test_smoothing_quiets_noise() -> None:
    noise = np.random.default_rng(0).normal(size=500)
    assert smoothed(noise, window_for(500)).std() < 0.25 * noise.std()


def test_a_curve_is_inline_svg_in_the_page_s_colours() -> None:
    rows = [{"step": i, "loss": math.sin(i)} for i in range(50)]
    svg = curve(rows, "loss")
    assert svg.startswith("<svg viewBox=")
    assert svg.endswith("</svg>")
    assert not re.search(r"https?:|<style|<metadata|#0[123]0[123]0[123]|font-family: sans", svg)
    assert "currentColor" in svg
    assert "var(--accent)" in svg
    assert ">step</text>" in svg
    assert ">loss</text>" in svg
    assert curve(rows, "loss") == svg


def test_a_long_run_is_thinned() -> None:
    rows = [{"step": i, "loss": math.sin(i)} for i in range(20_000)]
    assert len(curve(rows, "loss")) < 100_000
