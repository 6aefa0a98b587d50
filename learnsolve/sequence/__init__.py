"""Sequences: recurrences, which are triangular systems, as functions with gradients, and models of them."""

from learnsolve.sequence.attention import delta_product, delta_rule, linear_attention
from learnsolve.sequence.convolution import causal_conv
from learnsolve.sequence.functional import linear_recurrence
from learnsolve.sequence.light import additive_attention
from learnsolve.sequence.moving_average import moving_average
from learnsolve.sequence.signed import signed_attention
from learnsolve.sequence.state_space import state_space
from learnsolve.sequence.window import chunked_attention, sliding_window_attention

__all__ = [
    "additive_attention",
    "causal_conv",
    "chunked_attention",
    "delta_product",
    "delta_rule",
    "linear_attention",
    "linear_recurrence",
    "moving_average",
    "signed_attention",
    "sliding_window_attention",
    "state_space",
]
