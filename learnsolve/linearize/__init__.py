"""Linearization: pretrained causal language models whose memory does not grow with what they read."""

from learnsolve.linearize.attention import LigerAttention, LigerOptions, liger_attention
from learnsolve.linearize.convert import linearize
from learnsolve.linearize.files import load, save
from learnsolve.linearize.gates import GATES
from learnsolve.linearize.state import LigerState
from learnsolve.linearize.tuning import LoRAOptions, next_token_accuracy, tune, windows

__all__ = [
    "GATES",
    "LigerAttention",
    "LigerOptions",
    "LigerState",
    "LoRAOptions",
    "liger_attention",
    "linearize",
    "load",
    "next_token_accuracy",
    "save",
    "tune",
    "windows",
]
