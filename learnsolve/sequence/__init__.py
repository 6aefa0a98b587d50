"""Sequences: recurrences, which are triangular systems, as functions with gradients."""

from learnsolve.sequence.attention import delta_rule, linear_attention
from learnsolve.sequence.convolution import causal_conv
from learnsolve.sequence.functional import linear_recurrence

__all__ = ["causal_conv", "delta_rule", "linear_attention", "linear_recurrence"]
