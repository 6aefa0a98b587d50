"""Every command that writes, with small inputs, and whether a file that it has written is whole."""

import csv
import json
import os
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes
    ----------
    words : str
        What is typed after ``learnsolve``; ``{in}`` and ``{out}`` stand for folders.
    make : callable
        Writes what it reads into the folder ``{in}``.
    keeps : bool
        A folder that holds an answer already is refused.
    """

    words: str
    make: Callable[[Path], None]
    keeps: bool = False


def _system(folder: Path) -> None:
    import scipy.sparse

    from learnsolve.datasets import matrix_market

    line = scipy.sparse.diags_array(
        [-np.ones(399), 2 * np.ones(400), -np.ones(399)], offsets=[-1, 0, 1], format="csr"
    )
    matrix_market.write(folder / "A.mtx", line)
    matrix_market.write(folder / "A_b.mtx", np.random.default_rng(0).standard_normal(400))


def _tables(folder: Path) -> None:
    for number in range(3):
        rng = np.random.default_rng(number)
        U, V = rng.standard_normal((40, 2)), rng.standard_normal((30, 2))
        cells = [(i, j) for i in range(40) for j in range(30) if rng.random() < 0.5]
        lines = [f"u{i},i{j},{U[i] @ V[j]:.6f}" for i, j in cells]
        (folder / f"{number}.csv").write_text("user,item,rating\n" + "\n".join(lines) + "\n")


def _scans(folder: Path) -> None:
    from learnsolve.datasets.kspace_writers import write_kspace
    from learnsolve.problems.scans import Volume

    for seed in range(2):
        scan = Volume((32, 32), coils=4, slices=3, noise=0.01, seed=seed)
        write_kspace(folder / f"{seed}.h5", (scan[i].kspace for i in range(3)), (3, 4, 32, 32), "fastmri")


def _reconstructions(folder: Path) -> None:
    from learnsolve.batch import Recipe
    from learnsolve.batch.scans import reconstruct_volume

    (folder / "scans").mkdir()
    _scans(folder / "scans")
    for seed in range(2):
        reconstruct_volume(folder / "scans" / f"{seed}.h5", folder / f"{seed}.h5", Recipe("cg-sense"))


def _config(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "a.toml").write_text(text)

    return make


_ROOMS = """[data]
shapes = [[16, 16]]
[held_out]
shapes = [[16, 16]]
families = ["obstacles"]
rhs = ["noise"]
"""
_DIRECTIONS = """[network]
dims = 2
channels = 4
[fit]
steps = 60
learning_rate = 2e-3
warmup = 1
validate_every = 10
[dcdm]
depth = 3
cells = 512
"""
_COARSENING = """[fit]
steps = 6
learning_rate = 2e-3
warmup = 1
validate_every = 3
"""
_IMAGES = """[network]
steps = 1
hidden = 4
layers = 1
initialiser = false
refine = false
coupling = 50.0
[fit]
steps = 12
learning_rate = 1e-3
[train]
l2 = 1.0
[data]
sizes = [32]
coils = [3, 4]
[held_out]
slices = 2
sizes = [32]
"""


def _networks(folder: Path) -> None:
    from learnsolve.methods.dcdm_network import NetworkOptions
    from learnsolve.methods.dcdm_training import DCDMTraining, Source, train
    from learnsolve.problems import poisson
    from learnsolve.training import FitOptions

    record = {
        "data": {"domains": ["obstacles"], "seeds": [0], "shapes": [[16, 16]]},
        "held_out": {"families": ["maze"], "shapes": [[16, 16]], "seeds": [2002]},
    }
    for name, seed in (("one", 0), ("two", 1)):
        options = NetworkOptions(dims=2, channels=4, half=1)
        config = DCDMTraining(options, FitOptions(4, 2e-2, seed=seed), cells=512, depth=3)
        train(config, [Source(poisson.obstacles((16, 16), 0).A)], folder=folder / name, record=record)


def _orbit(folder: Path) -> None:
    from learnsolve.problems.chaotic import lorenz63

    rows = [f"{t / 100},{x:.6f},{y:.6f},{z:.6f}" for t, (x, y, z) in enumerate(lorenz63().orbit(900))]
    (folder / "a.csv").write_text("\n".join(["t,x,y,z", *rows]) + "\n")


def _load(folder: Path) -> None:
    t = np.arange(600)
    values = np.sin(t[:, None] * [0.26, 0.26 / 7]) + 0.1 * np.random.default_rng(0).standard_normal((600, 2))
    dates = np.datetime64("2024-01-01") + t * np.timedelta64(1, "h")
    rows = [
        f"{str(date).replace('T', ' ')}:00:00,{a:.4f},{b:.4f}"
        for date, (a, b) in zip(dates, values, strict=True)
    ]
    (folder / "a.csv").write_text("\n".join(["date,a,b", *rows]) + "\n")


def _language_model(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=23, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "original")


def _nothing(folder: Path) -> None:
    """What needs no input."""


COMMANDS = {
    "solve": Command("solve {in}/A.mtx {in}/A_b.mtx --method cg -o {out}/x.mtx", _system),
    "batch solve": Command("batch solve {in} --workers 1 -o {out}", _system),
    "complete": Command(
        "complete {in}/0.csv --rank 2 -o {out}/f.npz --plot {out}/f.png --checkpoint {out}/c.npz", _tables
    ),
    "batch complete": Command("batch complete {in} --workers 1 --rank 2 -o {out}", _tables),
    "tune": Command("tune --grid 12 --steps 20 --output {out}", _nothing),
    "demo": Command("demo --shape 48x32 --steps 4 --output {out}", _nothing),
    "merge": Command(
        "merge {in}/one {in}/two --out {out}/m --accept 100 --shape 16x16 --seed 7", _networks, keeps=True
    ),
    "linearize": Command("linearize {in}/original --out {out}/l", _language_model, keeps=True),
    "forecast": Command(
        "forecast {in}/a.csv --horizon 4 --look-back 24 --patch 6 --steps 12 --out {out}", _load
    ),
    "train dcdm": Command("train dcdm --config {in}/a.toml --out {out}", _config(_DIRECTIONS + _ROOMS)),
    "train multigrid": Command(
        "train multigrid --config {in}/a.toml --out {out}", _config(_COARSENING + _ROOMS)
    ),
    "sequence train": Command("sequence train --task parity --steps 8 --out {out}", _nothing),
    "dynamics fit": Command(
        "dynamics fit {in}/a.csv --out {out} --time t --hidden 8 --steps 40 --length 20", _orbit
    ),
    "mri mask": Command("mri mask random --shape 64 48 -o {out}/m.npy --centre 8", _nothing),
    "mri maps": Command("mri maps {in}/0.h5 -o {out}/maps.h5", _scans),
    "mri simulate": Command("mri simulate -o {out} --volumes 2 --slices 2 --size 32", _nothing),
    "mri recon": Command(
        "mri recon {in} -o {out} --method cg-sense --report --mask random --acceleration 2 --centre 8",
        _scans,
    ),
    "mri report": Command("mri report {in}/0.h5 {in}/1.h5 -o {out}", _reconstructions),
    "mri train": Command("mri train --config {in}/a.toml --out {out}", _config(_IMAGES)),
}


def written(out: Path) -> list[str]:
    """Files under their own names: not those that are about to be renamed, or parts of others."""
    found = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    return sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts))


def half_written(out: Path) -> list[str]:
    """Files whose names say that they are whole, and that are not."""
    return [name for name in written(out) if not _is_whole(out / name)]


def _is_whole(path: Path) -> bool:
    try:
        _readers()[path.suffix](path)
    except Exception:
        return False
    return path.suffix == ".jsonl" or path.stat().st_size > 0


def _readers() -> dict[str, Callable[[Path], Any]]:
    from learnsolve.datasets import matrix_market

    return {
        ".mtx": matrix_market.read,
        ".npy": lambda path: np.load(path, allow_pickle=False),
        ".npz": _read_archive,
        ".h5": _read_datasets,
        ".png": _read_picture,
        ".safetensors": _read_tensors,
        ".toml": lambda path: tomllib.loads(path.read_text()),
        ".json": lambda path: json.loads(path.read_text()),
        # A log: what was cut short in it, its readers pass over.
        ".jsonl": lambda path: path.read_bytes(),
        ".csv": _read_table,
        ".md": _read_text,
        ".html": _read_text,
    }


def _read_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as held:
        if held.testzip() is not None:
            raise ValueError(path)


def _read_datasets(path: Path) -> None:
    import h5py

    with h5py.File(path) as file:
        if not file.keys():
            raise ValueError(path)
        file.visititems(lambda _, held: held[()] is None if isinstance(held, h5py.Dataset) else None)


def _read_picture(path: Path) -> None:
    from matplotlib.image import imread

    imread(path)


def _read_tensors(path: Path) -> None:
    from safetensors.torch import load_file

    load_file(path)


def _read_table(path: Path) -> None:
    with open(path, newline="") as stream:
        if len({len(row) for row in csv.reader(stream)}) != 1:
            raise ValueError(path)


def _read_text(path: Path) -> None:
    with open(path, "rb") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read() != b"\n":
            raise ValueError(path)
