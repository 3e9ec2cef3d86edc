"""Noise levels, what a prediction means at them, and one denoising step with its log-probability."""

from mmalign.sampling.parametrisation import Kind, Prediction, add_noise, target, velocity_target, with_noise
from mmalign.sampling.schedules import alpha_sigma, logit_normal, scaled_linear_abar, shift_sigma, uniform
from mmalign.sampling.steps import FlowStep, Reduction, Transition, ddim_step, flow_sde_step

__all__ = [
    "Kind",
    "Prediction",
    "add_noise",
    "target",
    "velocity_target",
    "with_noise",
    "alpha_sigma",
    "logit_normal",
    "scaled_linear_abar",
    "shift_sigma",
    "uniform",
    "FlowStep",
    "Reduction",
    "Transition",
    "ddim_step",
    "flow_sde_step",
]
