"""Reconstruction of dynamical systems from measured series."""

from learnsolve.dynamics.model import DynamicalModel
from learnsolve.dynamics.reconstruct import Reconstruction, reconstruct_dynamics
from learnsolve.dynamics.shplrnn import ShallowPLRNN

__all__ = ["DynamicalModel", "Reconstruction", "ShallowPLRNN", "reconstruct_dynamics"]
