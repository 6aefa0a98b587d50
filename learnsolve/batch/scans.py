"""Volumes of k-space: slices to parts, parts to a file of images."""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import torch

from learnsolve import mri
from learnsolve.datasets.kspace import KSpace, open_kspace
from learnsolve.files import check_room, replacing
from learnsolve.mri import Sampling, held_out_error, reconstruct
from learnsolve.mri.reconstruct import Method
from learnsolve.result import Result, without_convergence_warnings

# What method "auto" takes, unless the network fails its check.
AUTOMATIC = ("zero-filled", "recurrentvarnet")
SUFFIXES = (".h5", ".hdf5", ".npy", ".npz", ".cfl")


@dataclass(frozen=True)
class Recipe:
    """How files are reconstructed.

    Attributes
    ----------
    method, maps : str
        Of `learnsolve.mri.reconstruct`.
    rule : Sampling or None
        By which what is fully sampled is undersampled first.
    by_name : bool
        The rule's seed is the file's name.
    mask : str or None
        A file of a mask, instead of a rule.
    weights : str
        Of a network.
    consistent, check : bool
        Of a network.
    hold_out : bool
        The error at k-space that was kept aside is measured too.
    key, axes : str or None
        Of `learnsolve.datasets.kspace.open_kspace`.
    """

    method: Method = "auto"
    maps: str = "espirit"
    rule: Sampling | None = None
    by_name: bool = True
    mask: str | None = None
    weights: str = "small"
    consistent: bool = False
    check: bool = True
    hold_out: bool = False
    key: str | None = None
    axes: str | None = None

    @property
    def judged(self) -> bool:
        """Whether the file has more than what is used, to judge by."""
        return self.rule is not None or self.mask is not None

    def options(self) -> dict[str, Any]:
        """What `learnsolve.mri.reconstruct` takes beside."""
        if self.method not in ("auto", "recurrentvarnet"):
            return {}
        return {"weights": self.weights, "consistent": self.consistent, "check": self.check}

    def files(self) -> list[Path]:
        """What the images depend on beside k-space."""
        named = [self.weights] if self.options() else []
        return [Path(name) for name in (*named, self.mask) if name is not None and Path(name).suffix]

    def record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Self:
        """What `record` gave."""
        rule = record.get("rule")
        return cls(**{**record, "rule": None if rule is None else Sampling(**rule)})

    def sampled(self, kspace: KSpace, path: Path) -> torch.Tensor | None:
        """The mask: by the rule, of a file, or of the file of k-space itself.

        Raises
        ------
        ValueError
            The mask's file is no mask of that size.
        """
        found = None
        if self.rule is not None:
            rule = replace(self.rule, seed=path.name) if self.by_name else self.rule
            found = rule.mask(kspace.shape)
        elif self.mask is not None:
            found = read_mask(Path(self.mask), kspace.shape[2:])
        if found is not None:
            return placed(found, kspace.centred)
        return None if kspace.sampled is None else torch.from_numpy(kspace.sampled)


def placed(mask: torch.Tensor, centred: bool) -> torch.Tensor:
    """A mask with its origin in the middle, as k-space has it that is centred or not."""
    return mask if centred else torch.fft.ifftshift(mask, (-2, -1))


def read_mask(path: Path, shape: tuple[int, int]) -> torch.Tensor:
    """The mask of a file .npy, or of the dataset ``mask`` of an HDF5 file, with its origin in the middle."""
    try:
        if path.suffix == ".npy":
            held = np.load(path, allow_pickle=False)
        else:
            with h5py.File(path) as file:
                held = np.asarray(file["mask"])
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except Exception as error:
        # What a damaged archive raises is of many kinds.
        raise ValueError(f"{path} holds no mask ({error})") from None
    if held.dtype.kind not in "bfiu" or held.shape not in (shape, shape[1:], (shape[0], 1)):
        raise ValueError(f"the mask in {path} is {held.dtype} of shape {held.shape}; {shape} is accepted")
    return torch.from_numpy(np.array(np.broadcast_to(held != 0, shape)))


@dataclass(frozen=True)
class ReconstructFile:
    """Reconstruct a file of k-space; a task of `learnsolve.batch.map_files`.

    Attributes
    ----------
    recipe : Recipe
        How.
    progress : callable, optional
        Called with the file, how many of its slices are there, and how many it has.

    Examples
    --------
    >>> from learnsolve.mri import Sampling
    >>> recipe = Recipe("total-variation", rule=Sampling("random", 4, centre=0.08))
    >>> ReconstructFile(recipe).suffix
    '.h5'
    """

    recipe: Recipe = Recipe()
    progress: Callable[[Path, int, int], Any] | None = None

    suffix = ".h5"

    def __call__(self, path: Path, target: Path) -> dict[str, Any]:
        return reconstruct_volume(path, target, self.recipe, self.progress)

    def __repr__(self) -> str:
        """All that the images depend on."""
        return repr((self.recipe, [_state(one) for one in self.recipe.files()]))


def reconstruct_volume(
    path: Path, target: Path, recipe: Recipe, progress: Callable[[Path, int, int], Any] | None = None
) -> dict[str, Any]:
    """Reconstruct a file of k-space into another, a slice at a time; a call that was killed goes on.

    Parameters
    ----------
    path, target : pathlib.Path
        The file made has the dataset reconstruction (slices, height, width), and a record of how.
    recipe : Recipe
    progress : callable, optional
        As of `ReconstructFile`.

    Returns
    -------
    dict
        The record: ``skipped``, ``not_converged`` and ``fallback`` slices, and ``metrics`` where more was
        measured than was used.

    Raises
    ------
    OSError, ValueError
        The file is not read, or nothing can be written.
    """
    with open_kspace(path, key=recipe.key, axes=recipe.axes) as kspace:
        sampled = recipe.sampled(kspace, path)
        how = repr((recipe, str(path.resolve()), [_state(one) for one in (path, *recipe.files())]))
        parts = target.parent / f".{target.stem}.{hashlib.sha256(how.encode()).hexdigest()[:12]}.parts"
        parts.mkdir(exist_ok=True)
        for i in range(len(kspace)):
            if not (parts / f"{i}.npz").is_file():
                _slice(kspace, i, parts / f"{i}.npz", recipe, sampled)
            if progress is not None:
                progress(path, i + 1, len(kspace))
        record: dict[str, Any] = {
            "file": str(path.resolve()),
            "out": str(target),
            "verdict": kspace.verdict(),
        }
        record |= {"method": recipe.method, "maps": recipe.maps, "slices": len(kspace)}
        record["recipe"] = recipe.record()
        if sampled is not None:
            record["factor"] = sampled.numel() / max(int(sampled.sum()), 1)
        record |= _joined(kspace, parts, target, record, recipe)
        shutil.rmtree(parts)
        record["size"] = list(kspace.shape)
        return record


def _state(path: Path) -> tuple[int, int]:
    """By which a file that was changed is known."""
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def solved(kspace: KSpace, i: int, recipe: Recipe, sampled: torch.Tensor | None) -> Result:
    """A slice's image."""
    with without_convergence_warnings():
        k = torch.from_numpy(kspace[i])
        return reconstruct(
            k, recipe.method, sampled=sampled, maps=recipe.maps, centred=kspace.centred, **recipe.options()
        )


def _slice(kspace: KSpace, i: int, part: Path, recipe: Recipe, sampled: torch.Tensor | None) -> None:
    """Reconstruct a slice into a file of its own."""
    height, width = kspace.shape[2:]
    image, status, why, method, aside = np.zeros((height, width), np.float32), "SKIPPED", "", "", np.nan
    try:
        res = solved(kspace, i, recipe, sampled)
        found = res.x.abs().numpy()
        if recipe.hold_out:
            aside = held_out_error(
                torch.from_numpy(kspace[i]), recipe.method, sampled=sampled, maps=recipe.maps,
                centred=kspace.centred, **recipe.options(),
            )  # fmt: skip
        if np.isfinite(found).all():
            image, status, method = found.astype(np.float32), res.status.name, res.method
        else:
            why = "the image is not finite"
    except (ValueError, torch.linalg.LinAlgError) as error:
        why = str(error)
    with replacing(part) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, image=image, status=status, why=why, method=method, held_out=aside)


def _joined(
    kspace: KSpace, parts: Path, target: Path, about: dict[str, Any], recipe: Recipe
) -> dict[str, Any]:
    """Write the slices into one file, and compare them with what they should be."""
    skipped, slow, errors, fallback = [], [], [], []
    methods: set[str] = set()
    height, width = kspace.shape[2:]
    check_room(target, 4 * len(kspace) * height * width)
    with replacing(target) as part, h5py.File(part, "w") as file:
        images = file.create_dataset("reconstruction", (len(kspace), height, width), np.float32)
        for i in range(len(kspace)):
            with np.load(parts / f"{i}.npz") as held:
                images[i], status, why = held["image"], str(held["status"]), str(held["why"])
                method, aside = str(held["method"]), float(held["held_out"])
            if status == "SKIPPED":
                skipped.append({"slice": i, "why": why})
                continue
            methods.add(method)
            if status != "CONVERGED":
                slow.append({"slice": i, "status": status})
            if method != recipe.method and not (recipe.method == "auto" and method in AUTOMATIC):
                fallback.append(i)
            found = _judged(kspace, i, images[i]) if recipe.judged else {}
            found |= {"held_out": aside} if recipe.hold_out else {}
            if found:
                errors.append(found)
        names = errors[0] if errors else {}
        means = {name: float(np.mean([one[name] for one in errors])) for name in names}
        beside = {"skipped": skipped, "not_converged": slow, "fallback": fallback, "metrics": means}
        beside["methods"] = sorted(methods)
        file.attrs["learnsolve"] = json.dumps({**about, **beside})
    return beside


def _judged(kspace: KSpace, i: int, image: np.ndarray) -> dict[str, float]:
    """How far an image is from that of all of k-space."""
    reference = mri.zero_filled(torch.from_numpy(kspace[i]), centred=kspace.centred).numpy()
    return mri.measures(reference, image)


def forecast(path: Path, recipe: Recipe) -> dict[str, Any]:
    """Seconds and memory that a file will take, by one slice of it."""
    with open_kspace(path, key=recipe.key, axes=recipe.axes) as kspace:
        sampled = recipe.sampled(kspace, path)
        middle = len(kspace) // 2
        solved(kspace, middle, recipe, sampled)
        # What is compiled and loaded once, the first slice has paid for.
        began = time.perf_counter()
        solved(kspace, middle, recipe, sampled)
        seconds = time.perf_counter() - began
        slices, _, height, width = kspace.shape
        return {
            "file": str(path), "verdict": kspace.verdict(), "slices": slices, "seconds": seconds * slices,
            "bytes": _peak(), "written_bytes": 4 * slices * height * width,
        }  # fmt: skip


def _peak() -> int:
    """Bytes that this process has held at most; zero where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else 1024 * held
