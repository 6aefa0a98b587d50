"""Sequences: recurrences, which are triangular systems, as functions with gradients."""

from learnsolve.sequence.attention import delta_rule, linear_attention
from learnsolve.sequence.functional import linear_recurrence

__all__ = ["delta_rule", "linear_attention", "linear_recurrence"]
