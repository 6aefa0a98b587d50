"""What a layer of a converted model remembers."""

from typing import NamedTuple

from torch import Tensor


class LigerState(NamedTuple):
    """What Liger attention remembers, of a size that does not grow.

    Attributes
    ----------
    keys, values : (B, S, heads of keys, K) Tensor
        The last ones, at most one less than the window. Keys are turned by their places; where tokens were
        padded they have one channel more, which says so.
    recurrent : tuple of Tensor
        Of the recurrence, for each head of keys.
    seen : int
        How many tokens there were.
    """

    keys: Tensor
    values: Tensor
    recurrent: tuple[Tensor, ...]
    seen: int
