"""BART's calibration and reconstruction of the same arrays, where it is installed."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Weights of the peer, of which the best by the reference is taken, in its own scale.
WEIGHTS = (5e-4, 2e-3, 8e-3, 3e-2)
PENALTIES = {
    "cg": lambda weight: ("-l2", "-r", weight, "-i", "30"),
    "l1": lambda weight: ("-R", f"W:3:0:{weight}", "-i", "100"),
    "tv": lambda weight: ("-R", f"T:3:0:{weight}", "-i", "100"),
}


def installed() -> bool:
    """Whether there is a command ``bart``."""
    return shutil.which("bart") is not None


def write(path: Path, array: Any) -> None:
    """A pair of files, of (coils, height, width)."""
    coils, height, width = array.shape
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{height} {width} 1 {coils}\n")
    moved = np.asarray(array, np.complex64).transpose(1, 2, 0)
    path.with_suffix(".cfl").write_bytes(moved.tobytes(order="F"))


def read(path: Path) -> Any:
    """What a pair of files holds: (height, width), or (coils, height, width)."""
    sizes = [int(word) for word in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    values = np.fromfile(path.with_suffix(".cfl"), np.complex64)
    held = values.reshape(sizes, order="F").squeeze()
    return held.transpose(2, 0, 1) if held.ndim == 3 else held


def called(*words: Any) -> float:
    """Processor seconds of a call."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(["bart", *map(str, words)], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def reconstructed(kspace: Any, width: int) -> Iterator[tuple[str, float, Any]]:
    """What it finds: the maps, and for each penalty and weight an image, each with processor seconds."""
    with tempfile.TemporaryDirectory() as folder:
        y, maps, image = (Path(folder) / name for name in ("y", "maps", "image"))
        write(y, kspace)
        yield "espirit", called("ecalib", "-m1", "-c0", "-r", width, y, maps), read(maps)
        for kind, words in PENALTIES.items():
            for weight in WEIGHTS:
                yield kind, called("pics", "-S", *words(weight), y, maps, image), read(image)
