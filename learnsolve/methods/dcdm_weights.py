"""Weights of a direction network: shipped ones by name, or any file."""

from pathlib import Path
from typing import Any

from learnsolve.methods.dcdm_network import DirectionNetwork, NetworkOptions
from learnsolve.training import shipped as files

KIND = "dcdm"


def shipped() -> list[str]:
    """Names of the weights that come with the package."""
    return files.shipped(KIND)


def save(path: str | Path, network: DirectionNetwork, **metadata: Any) -> None:
    """Write a network with what it takes to build it again."""
    files.save_network(path, KIND, network, **metadata)


def load(weights: str | Path) -> DirectionNetwork:
    """The network of a shipped name or of a file; see `learnsolve.training.shipped.load_network`."""
    return files.load_network(KIND, weights, lambda **options: NetworkOptions(**options).build())
