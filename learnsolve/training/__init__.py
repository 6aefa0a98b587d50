"""Training: one loop for every learned part, its schedules, and files of weights."""

from learnsolve.training.curriculum import CURRICULA, Curriculum
from learnsolve.training.fit import FitProgress, FitResult, fit
from learnsolve.training.options import FitOptions
from learnsolve.training.processes import with_parts
from learnsolve.training.schedules import SCHEDULES, BudgetLR, schedule
from learnsolve.training.weights import WeightsError, load_weights, save_weights

__all__ = [
    "CURRICULA",
    "SCHEDULES",
    "BudgetLR",
    "Curriculum",
    "FitOptions",
    "FitProgress",
    "FitResult",
    "WeightsError",
    "fit",
    "load_weights",
    "save_weights",
    "schedule",
    "with_parts",
]
