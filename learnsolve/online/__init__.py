"""Solvers that tune themselves from one system of a sequence to the next."""

from learnsolve.online.base import POLICIES, Policy, PolicyFileError
from learnsolve.online.contexts import diagonal_excess, jacobi_radius
from learnsolve.online.linear_mdp import AdversarialMDP
from learnsolve.online.log_barrier import LinearLogBarrier, LogBarrier
from learnsolve.online.policies import ChebCB, Fixed, TsallisINF, Young
from learnsolve.online.regret import best_fixed, growth, instance_optimum, regret, replay
from learnsolve.online.switching import Switching
from learnsolve.online.tuned import TunedSOR, TunedSSORCG
from learnsolve.online.tuned_multigrid import TunedMultigrid

__all__ = [
    "POLICIES",
    "AdversarialMDP",
    "ChebCB",
    "Fixed",
    "LinearLogBarrier",
    "LogBarrier",
    "Policy",
    "PolicyFileError",
    "Switching",
    "TsallisINF",
    "TunedMultigrid",
    "TunedSOR",
    "TunedSSORCG",
    "Young",
    "best_fixed",
    "diagonal_excess",
    "growth",
    "instance_optimum",
    "jacobi_radius",
    "regret",
    "replay",
]
