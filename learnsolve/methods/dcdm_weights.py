"""Weights of a direction network: shipped ones by name, or any file."""

from pathlib import Path
from typing import Any

from learnsolve.methods.dcdm_network import DirectionNetwork, NetworkOptions
from learnsolve.training.weights import WEIGHTS_FORMAT, WeightsError, load_weights, read_tensors, save_weights

SHIPPED = Path(__file__).parents[1] / "weights"
LARGEST = 64 * 2**20


def shipped() -> list[str]:
    """Names of the weights that come with the package.

    Examples
    --------
    >>> all(isinstance(name, str) for name in shipped())
    True
    """
    return sorted(path.stem.removeprefix("dcdm-") for path in SHIPPED.glob("dcdm-*.safetensors"))


def save(path: str | Path, network: DirectionNetwork, **metadata: Any) -> None:
    """Write a network with what it takes to build it again."""
    save_weights(path, network, {"kind": "dcdm", "network": network.metadata, **metadata})


def load(weights: str | Path) -> DirectionNetwork:
    """The network of a name or of a file that `save` wrote.

    Parameters
    ----------
    weights : str or Path
        A name of `shipped`, or a path that ends in ``.safetensors``.

    Raises
    ------
    learnsolve.training.WeightsError
        The file is damaged, or holds other weights than a direction network's.
    FileNotFoundError
        There is no such file, nor weights of that name.
    """
    path = Path(weights)
    if path.suffix != ".safetensors":
        path = SHIPPED / f"dcdm-{weights}.safetensors"
        if not path.exists():
            raise FileNotFoundError(
                f"there are no dcdm weights {str(weights)!r}; there are {', '.join(shipped()) or 'none'}, "
                "or give a path that ends in .safetensors"
            )
    _, metadata = read_tensors(path, WEIGHTS_FORMAT, LARGEST)
    options = metadata.get("network")
    if metadata.get("kind") != "dcdm" or not isinstance(options, dict):
        raise WeightsError(path, f"holds weights of kind {metadata.get('kind')!r}, expected 'dcdm'")
    try:
        network = NetworkOptions(**options).build()
    except (TypeError, ValueError) as error:
        raise WeightsError(path, f"describes no direction network: {error}") from None
    load_weights(path, network, max_bytes=LARGEST)
    return network.eval()
