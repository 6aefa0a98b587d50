"""Streams of bits whose last ones are asked about: how long a network must remember is a number N."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Questions(NamedTuple):
    """Sequences, and at the end of each one answer for each N.

    Attributes
    ----------
    bits : (B, T) int64 Tensor
    labels : (B, counts) int64 Tensor
        Zero or one.
    """

    bits: Tensor
    labels: Tensor


def draw_length(longest: int, generator: torch.Generator | None = None) -> int:
    """A length for sequences of which at most the last ``longest`` bits are asked about.

    Parameters
    ----------
    longest : int
        The largest N.
    generator : torch.Generator, optional

    Returns
    -------
    int
        Uniform from ``longest + 2`` to ``4 longest + 1``.

    Raises
    ------
    ValueError
        ``longest`` is not positive.

    References
    ----------
    Khajehabdollahi, Zeraati, Giannakakis, Schaefer, Martius and Levina, *Emergent mechanisms for long
    timescales depend on training curriculum and affect performance in memory tasks*, ICLR 2024.

    Examples
    --------
    >>> from learnsolve.problems.timescale_tasks import draw_length
    >>> 5 <= draw_length(3) <= 13
    True
    """
    if longest < 1:
        raise ValueError(f"longest is {longest}; at least 1 is accepted")
    return int(torch.randint(longest + 2, 4 * longest + 2, (), generator=generator))


def n_parity(
    batch: int, length: int, counts: Sequence[int], generator: torch.Generator | None = None
) -> Questions:
    """Whether the ones among the last N bits are an odd number, for several N.

    Each sequence has a probability of ones, uniform from zero to one.

    Parameters
    ----------
    batch, length : int
        B and T.
    counts : sequence of int
        The N that are asked for, of 1 to T.
    generator : torch.Generator, optional

    Returns
    -------
    Questions

    Raises
    ------
    ValueError
        A number is not accepted.

    References
    ----------
    Khajehabdollahi and others, *Emergent mechanisms for long timescales depend on training curriculum and
    affect performance in memory tasks*, ICLR 2024, section 2.

    Examples
    --------
    >>> from learnsolve.problems.timescale_tasks import n_parity
    >>> bits, labels = n_parity(64, 12, [2, 3])
    >>> bool((labels[:, 0] == (bits[:, -1] != bits[:, -2])).all())
    True
    """
    wanted = _counts(batch, length, counts, least=1)
    ones = torch.rand(batch, 1, generator=generator)
    bits = (torch.rand(batch, length, generator=generator) < ones).long()
    return Questions(bits, bits.flip(1).cumsum(1)[:, wanted - 1] % 2)


def n_dms(
    batch: int, length: int, counts: Sequence[int], generator: torch.Generator | None = None
) -> Questions:
    """Delayed match to sample: whether the bit N - 1 steps before the last is as the last, for several N.

    Ones are as likely as zeros.

    Parameters
    ----------
    batch, length : int
        B and T.
    counts : sequence of int
        The N that are asked for, of 2 to T.
    generator : torch.Generator, optional

    Returns
    -------
    Questions
        The label of a match is one.

    Raises
    ------
    ValueError
        A number is not accepted.

    References
    ----------
    Khajehabdollahi and others, *Emergent mechanisms for long timescales depend on training curriculum and
    affect performance in memory tasks*, ICLR 2024, section 2.

    Examples
    --------
    >>> from learnsolve.problems.timescale_tasks import n_dms
    >>> bits, labels = n_dms(64, 12, [2, 5])
    >>> bool((labels[:, 1] == (bits[:, -1] == bits[:, -5])).all())
    True
    """
    wanted = _counts(batch, length, counts, least=2)
    bits = torch.randint(2, (batch, length), generator=generator)
    return Questions(bits, (bits[:, length - wanted] == bits[:, -1:]).long())


TimescaleTask = Callable[[int, int, Sequence[int], torch.Generator | None], Questions]
# Both tasks, by their names.
TIMESCALE_TASKS: dict[str, TimescaleTask] = {"parity": n_parity, "dms": n_dms}


def _counts(batch: int, length: int, counts: Sequence[int], least: int) -> Tensor:
    if batch < 1 or not counts or not least <= min(counts) <= max(counts) <= length:
        raise ValueError(
            f"{batch} sequences of length {length} were asked for, and counts {list(counts)}; at least one "
            f"sequence, and at least one count from {least} to the length, are accepted"
        )
    return torch.tensor(counts)
