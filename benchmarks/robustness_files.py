"""A small file of every format that is read, and a digest of what its reader makes of it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Reader:
    """A format.

    Attributes
    ----------
    file : str
        Name of the file.
    make : callable
        Writes it into a folder.
    read : callable
        A digest of all that a path's file holds.
    checksum : bool
        Whether the format has checksums, so that no damage may go unseen.
    """

    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], str]
    checksum: bool = False


def digest(*values: Any) -> str:
    """Of arrays, tensors, sparse matrices and what has a repr."""
    total = hashlib.sha256()
    for value in values:
        if hasattr(value, "indptr"):
            total.update(digest(value.indptr, value.indices, value.data, value.shape).encode())
        elif hasattr(value, "detach"):
            total.update(digest(value.detach().float().numpy()).encode())
        elif isinstance(value, np.ndarray) and value.dtype.kind not in "OUS":
            total.update(
                repr((value.dtype.str, value.shape)).encode() + np.ascontiguousarray(value).tobytes()
            )
        else:
            total.update(repr(value.tolist() if isinstance(value, np.ndarray) else value).encode())
    return total.hexdigest()


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _matrix_market(folder: Path, name: str = "a.mtx") -> None:
    import scipy.sparse

    from learnsolve.datasets import matrix_market

    values = _rng().standard_normal((12, 9)) * (_rng().random((12, 9)) < 0.4)
    matrix_market.write(folder / name, scipy.sparse.csr_array(values), comment="a matrix")


def _read_matrix_market(path: Path) -> str:
    from learnsolve.datasets import matrix_market

    return digest(matrix_market.read(path, max_bytes=1 << 26))


def _ratings(folder: Path) -> None:
    rng = _rng()
    rows = [f"u{rng.integers(20)},i{rng.integers(15)},{rng.integers(1, 6)},{1000 + k}" for k in range(80)]
    (folder / "a.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(rows) + "\n")


def _read_ratings(path: Path) -> str:
    from learnsolve.datasets.ratings import read_ratings

    held = read_ratings(path)
    return digest(held.rows, held.cols, held.values, held.shape)


def _series(folder: Path) -> None:
    rows = [f"2020-01-{1 + k // 24:02}T{k % 24:02}:00:00,{float(np.sin(k))!r},{k}.5" for k in range(60)]
    (folder / "a.csv").write_text("date,one,two\n" + "\n".join(rows).replace("T", " ") + "\n")


def _read_series(path: Path) -> str:
    from learnsolve.datasets.series import read_series

    held = read_series(path)
    return digest(held.values, held.names, held.start, held.step)


def _measured(folder: Path) -> None:
    rows = [f"{0.1 * k:.1f},{float(np.sin(k))!r},{'' if k == 7 else k}" for k in range(60)]
    (folder / "a.csv").write_text("t,x,y\n" + "\n".join(rows) + "\n")


def _measured_npz(folder: Path) -> None:
    np.savez(folder / "a.npz", t=np.arange(30) * 0.1, x=_rng().standard_normal((30, 2)))


def _read_measured(path: Path) -> str:
    from learnsolve.datasets.measured import read_measured

    held = read_measured(path, time="t")
    return digest(held.values, held.times, held.names)


def _slices(coils: int = 2) -> np.ndarray:
    rng = _rng()
    shape = (2, coils, 16, 12)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def _kspace(layout: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from learnsolve.datasets.kspace_writers import write_kspace

        k = _slices()
        write_kspace(folder / "a.h5", iter(k), k.shape, layout, attributes={"patient": "nobody"})

    return make


def _kspace_npz(folder: Path) -> None:
    np.savez(folder / "a.npz", kspace=_slices())


def _kspace_npy(folder: Path) -> None:
    np.save(folder / "a.npy", _slices())


def _read_kspace(path: Path) -> str:
    from learnsolve.datasets.kspace import open_kspace

    with open_kspace(path) as held:
        if len(held) * np.prod(held.shape) > 1 << 24:
            raise ValueError("more than is read here")
        return digest(held.shape, held.sampled, *(held[i] for i in range(len(held))))


def _samples(folder: Path) -> None:
    from learnsolve.datasets.samples import write_samples

    write_samples(folder / "a.h5", list(_rng().standard_normal((6, 8, 8))), seed=3)


def _read_samples(path: Path) -> str:
    from learnsolve.datasets.samples import Samples

    with Samples(path) as held:
        if len(held) > 1 << 16:
            raise ValueError("more than is read here")
        return digest(held.batch(np.arange(len(held))))


def _stored(folder: Path) -> None:
    from learnsolve.completion.stored import store_entries

    rng = _rng()
    places = rng.choice(600, 200, replace=False)
    entries = (places // 20, places % 20, rng.standard_normal(200))
    store_entries(folder / "a.h5", [entries], (30, 20), held_out=0).close()


def _read_stored(path: Path) -> str:
    from learnsolve.completion.stored import StoredEntries

    with StoredEntries(path) as held:
        lines = [lines for transposed in (False, True) for lines in held.blocks(transposed)]
        return digest(held.shape, *(part for line in lines for part in (line.indices, line.values)))


def _weights(folder: Path) -> None:
    import torch

    from learnsolve.training.weights import save_weights

    torch.manual_seed(0)
    save_weights(folder / "a.safetensors", torch.nn.Linear(8, 8), {"levels": 3})


def _read_weights(path: Path) -> str:
    import torch

    from learnsolve.training.weights import load_weights

    network = torch.nn.Linear(8, 8)
    about = load_weights(path, network)
    return digest(network.weight, network.bias, sorted(about.items()))


def _model(folder: Path) -> None:
    import torch

    from learnsolve.dynamics import DynamicalModel, ShallowPLRNN
    from learnsolve.dynamics.observation import Identity

    network = ShallowPLRNN(3, 5, generator=torch.Generator().manual_seed(0))
    ones = np.ones(3)
    DynamicalModel(network, Identity(3, 3), 0 * ones, ones, 0.01, ("x", "y", "z"), ones).save(
        folder / "a.safetensors"
    )


def _read_model(path: Path) -> str:
    from learnsolve.dynamics import DynamicalModel

    held = DynamicalModel.load(path)
    return digest(*held.network.state_dict().values(), held.mean, held.scale, held.dt, held.names)


def _toml(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from learnsolve.training.shipped import SHIPPED

        (folder / "a.toml").write_bytes((SHIPPED / name).read_bytes())

    return make


def _read_training(path: Path) -> str:
    from learnsolve.cli.train_config import TrainingConfig

    return digest(TrainingConfig.read(path))


def _read_mri_training(path: Path) -> str:
    from learnsolve.cli.mri_config import MRIConfig

    return digest(MRIConfig.read(str(path)))


def _read_sequence(path: Path) -> str:
    from learnsolve.cli.sequence_config import SequenceConfig

    return digest(SequenceConfig.read(str(path)))


READERS = {
    "Matrix Market": Reader("a.mtx", _matrix_market, _read_matrix_market),
    "Matrix Market, .gz": Reader(
        "a.mtx.gz", lambda folder: _matrix_market(folder, "a.mtx.gz"), _read_matrix_market, checksum=True
    ),
    "ratings, CSV": Reader("a.csv", _ratings, _read_ratings),
    "series, CSV": Reader("a.csv", _series, _read_series),
    "measured, CSV": Reader("a.csv", _measured, _read_measured),
    "measured, npz": Reader("a.npz", _measured_npz, _read_measured),
    "k-space, HDF5": Reader("a.h5", _kspace("fastmri"), _read_kspace),
    "k-space, ISMRMRD": Reader("a.h5", _kspace("ismrmrd"), _read_kspace),
    "k-space, npz": Reader("a.npz", _kspace_npz, _read_kspace),
    "k-space, npy": Reader("a.npy", _kspace_npy, _read_kspace),
    "samples, HDF5": Reader("a.h5", _samples, _read_samples, checksum=True),
    "entries, HDF5": Reader("a.h5", _stored, _read_stored),
    "weights, safetensors": Reader("a.safetensors", _weights, _read_weights, checksum=True),
    "dynamics, safetensors": Reader("a.safetensors", _model, _read_model, checksum=True),
    "train, TOML": Reader("a.toml", _toml("dcdm-poisson2d.toml"), _read_training),
    "mri train, TOML": Reader("a.toml", _toml("recurrent-varnet-small.toml"), _read_mri_training),
    "sequence train, TOML": Reader("a.toml", _toml("sequence-parity.toml"), _read_sequence),
}
