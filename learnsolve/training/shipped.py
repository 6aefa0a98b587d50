"""Networks that can be built again from one file: shipped ones by name, or any path."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import nn

from learnsolve.training.weights import WEIGHTS_FORMAT, WeightsError, load_weights, read_tensors, save_weights

SHIPPED = Path(__file__).parents[1] / "weights"
LARGEST = 64 * 2**20
T = TypeVar("T")


class Describable(Protocol):
    """A network that knows what it takes to build it again."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Options, as JSON can hold them."""


def shipped(kind: str, suffix: str = ".safetensors") -> list[str]:
    """Names of the weights, or of the configs, of a kind that come with the package.

    Examples
    --------
    >>> all(isinstance(name, str) for name in shipped("dcdm"))
    True
    """
    return sorted(path.stem.removeprefix(f"{kind}-") for path in SHIPPED.glob(f"{kind}-*{suffix}"))


def located(kind: str, name: str | Path, suffix: str, what: str) -> Path:
    """A path that ends in a suffix, or the file of a shipped name.

    Raises
    ------
    FileNotFoundError
        There is no such name.
    """
    path = Path(name)
    if path.suffix == suffix:
        return path
    path = SHIPPED / f"{kind}-{name}{suffix}"
    if not path.exists():
        names = ", ".join(shipped(kind, suffix)) or "none"
        raise FileNotFoundError(
            f"there {what} {str(name)!r}; there are {names}, or give a path that ends in {suffix}"
        )
    return path


def config_of(kind: str, config: str | Path, of_tables: Callable[[dict[str, Any], Path], T]) -> T:
    """What the tables of a TOML file, or of a shipped config, make.

    Parameters
    ----------
    kind : str
        Of `shipped`.
    config : str or Path
        A path that ends in ``.toml``, or a name.
    of_tables : callable
        Takes the tables, as `tomllib` reads them, and the file's folder.

    Raises
    ------
    ValueError
        The file is no TOML, or ``of_tables`` does not take what it holds; the message names the file.
    OSError
        There is no such file, nor config of that name.
    """
    path = located(kind, config, ".toml", "is no config")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return of_tables(tomllib.loads(path.read_text(encoding="utf-8")), path.parent)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def save_network(path: str | Path, kind: str, network: Any, **metadata: Any) -> None:
    """Write a `Describable` network with what it takes to build it again."""
    save_weights(path, network, {"kind": kind, "network": network.metadata, **metadata})


def load_network(kind: str, weights: str | Path, build: Callable[..., nn.Module]) -> Any:
    """The network of a shipped name, or of a file that `save_network` wrote, in evaluation mode.

    Parameters
    ----------
    kind : str
        Of network.
    weights : str or Path
        A name of `shipped`, or a path that ends in ``.safetensors``.
    build : callable
        Makes the network of the options in its metadata, given by name.

    Raises
    ------
    WeightsError
        The file is damaged, or holds weights of another kind.
    FileNotFoundError
        There is no such file, nor weights of that name.
    """
    path = located(kind, weights, ".safetensors", f"are no {kind} weights")
    _, metadata = read_tensors(path, WEIGHTS_FORMAT, LARGEST)
    options = metadata.get("network")
    if metadata.get("kind") != kind or not isinstance(options, dict):
        raise WeightsError(path, f"holds weights of kind {metadata.get('kind')!r}, expected {kind!r}")
    try:
        network = build(**options)
    except (TypeError, ValueError) as error:
        raise WeightsError(path, f"describes no network of kind {kind}: {error}") from None
    load_weights(path, network, max_bytes=LARGEST)
    return network.eval()
