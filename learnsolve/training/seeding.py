"""Random numbers that depend on the seed, what they are for, and the step alone."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(seed: int, purpose: str, number: int) -> int:
    """A seed of 63 bits, of its own for each purpose and number.

    Examples
    --------
    >>> from learnsolve.training.seeding import seed_of
    >>> seed_of(0, "batch", 1) == seed_of(0, "batch", 1) != seed_of(0, "loss", 1)
    True
    """
    digest = hashlib.blake2b(f"{seed} {purpose} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators of the CPU and ``device`` seeded, and put back afterwards."""
    cuda = [device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
