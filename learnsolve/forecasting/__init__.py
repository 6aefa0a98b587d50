"""Forecasting of series: a closed-form line, and networks of state spaces in two dimensions."""

from learnsolve.forecasting.chimera import ChimeraForecaster, ChimeraOptions
from learnsolve.forecasting.classification import ChimeraClassifier, train_classifier
from learnsolve.forecasting.ridge import Ridge, fit_ridge
from learnsolve.forecasting.training import train
from learnsolve.forecasting.windows import Errors, errors, repeated, windows

__all__ = [
    "ChimeraClassifier",
    "ChimeraForecaster",
    "ChimeraOptions",
    "Errors",
    "Ridge",
    "errors",
    "fit_ridge",
    "repeated",
    "train",
    "train_classifier",
    "windows",
]
