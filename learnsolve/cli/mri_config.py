"""The config file of ``learnsolve mri train``, and where its slices come from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learnsolve.datasets.kspace import KSpace, open_kspace
from learnsolve.mri.examples import Example, Full, Masking, example
from learnsolve.mri.learned import KIND
from learnsolve.mri.masks import sampled_of
from learnsolve.mri.recurrent_varnet import RecurrentVarNetOptions
from learnsolve.mri.training import MRITraining
from learnsolve.problems.scans import Scans
from learnsolve.training import FitOptions
from learnsolve.training.seeding import seed_of
from learnsolve.training.shipped import config_of
from learnsolve.training.tables import from_table

# Files that a process keeps open.
OPEN = 64


@dataclass(frozen=True)
class MRIData(Scans):
    """What is learned from: files, or scans that are simulated.

    Parameters
    ----------
    sizes, coils, noise, heads, seed, analytic
        Of `learnsolve.problems.scans.Scans`.
    files : tuple of str
        Of k-space, and folders of such; those that are not fully sampled are learned from without a
        reference. By default scans are simulated.
    """

    sizes: tuple[int, ...] = (64, 80, 96)
    seed: int = 1
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class MRIHeldOut:
    """What a network is judged by, which it has not seen.

    Parameters
    ----------
    files : tuple of str
        By default scans are simulated, as those that are learned from but for seed and sizes.
    slices : int
    sizes : tuple of int
    seed : int
    """

    files: tuple[str, ...] = ()
    slices: int = 24
    sizes: tuple[int, ...] = (96,)
    seed: int = 1001

    def __post_init__(self) -> None:
        if self.slices < 1:
            raise ValueError(f"slices is {self.slices}; a positive number is accepted")


@dataclass(frozen=True)
class LossOptions:
    """The table [train]: see `MRITraining`."""

    batch: int = 1
    l1: float = 1.0
    l2: float = 0.0
    ssim: float = 1.0
    save_memory: bool = False


@dataclass(frozen=True)
class Simulated:
    """The slices of a stream."""

    scans: Scans

    def __call__(self, number: int) -> Full:
        return Full(torch.from_numpy(self.scans[number].kspace))


@lru_cache(maxsize=OPEN)
def _opened(path: str) -> KSpace:
    return open_kspace(path)


@dataclass(frozen=True)
class Stored:
    """The slices of files, all of them once in an order of their own before any comes again."""

    places: tuple[tuple[str, int], ...]
    seed: int

    def __call__(self, number: int) -> Full:
        turn, place = divmod(number, len(self.places))
        order = np.random.default_rng(seed_of(self.seed, "order", turn)).permutation(len(self.places))
        path, index = self.places[order[place]]
        return stored(_opened(path), index)


def stored(kspace: KSpace, index: int) -> Full:
    """A slice of a file."""
    k = torch.from_numpy(kspace[index])
    mask = sampled_of(k) if kspace.sampled is None else torch.from_numpy(kspace.sampled)
    return Full(k, sampled=None if mask.all() else mask, centred=kspace.centred)


def places(files: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """All slices of files that are neither zero nor not finite.

    Raises
    ------
    ValueError, OSError
        There are none, or a file holds no k-space.
    """
    from learnsolve.batch.scans import SUFFIXES
    from learnsolve.cli.batch import listed

    found = []
    for path in listed([Path(file) for file in files], SUFFIXES):
        with open_kspace(path) as kspace:
            for index in range(len(kspace)):
                k = kspace[index]
                if k.any() and np.isfinite(k).all():
                    found.append((str(path), index))
    if not found:
        raise ValueError("there is no slice to learn from: all are zero or not finite")
    return tuple(found)


def _resolved(folder: Path, files: Sequence[str]) -> tuple[str, ...]:
    return tuple(str((folder / file).resolve()) for file in files)


@dataclass(frozen=True)
class MRIConfig:
    """All that says what a run does."""

    training: MRITraining
    data: MRIData
    held_out: MRIHeldOut

    @classmethod
    def read(cls, config: str) -> "MRIConfig":
        """A config of a file, or a shipped one.

        Raises
        ------
        ValueError
            The file is no TOML, or has a table, key or value that is not accepted; the message says which.
        OSError
            There is no such file, nor config of that name.
        """
        return config_of(KIND, config, cls.of_tables)

    @classmethod
    def of_tables(cls, tables: Mapping[str, Any], folder: Path = Path()) -> "MRIConfig":
        """A config of tables as `tomllib` reads them; files are looked for from a folder on."""
        known = ("network", "fit", "masks", "train", "data", "held_out")
        for name in tables:
            if name not in known:
                raise ValueError(f"there is no table [{name}]; the tables are {', '.join(known)}")
        if "fit" not in tables:
            raise ValueError("the table [fit] is missing")
        losses: LossOptions = from_table(LossOptions, tables.get("train", {}), "train")
        training = MRITraining(
            from_table(RecurrentVarNetOptions, tables.get("network", {}), "network"),
            from_table(FitOptions, tables["fit"], "fit"),
            from_table(Masking, tables.get("masks", {}), "masks"),
            **asdict(losses),
        )
        data: MRIData = from_table(MRIData, tables.get("data", {}), "data")
        judged: MRIHeldOut = from_table(MRIHeldOut, tables.get("held_out", {}), "held_out")
        data = replace(data, files=_resolved(folder, data.files))
        judged = replace(judged, files=_resolved(folder, judged.files))
        if set(data.files) & set(judged.files):
            raise ValueError(
                "a file is in [data] and in [held_out]: a network is judged on what it has not seen"
            )
        if not data.files and not judged.files and data.seed == judged.seed:
            raise ValueError(
                "[data] and [held_out] have the same seed: a network is judged on what it has not seen"
            )
        return cls(training, data, judged)

    def changed(
        self, steps: int | None, timeout: float | None, seed: int | None, workers: int
    ) -> "MRIConfig":
        """Some options changed; with the steps the warm-up shrinks or grows."""
        fit = self.training.fit
        if steps is not None:
            fit = replace(fit, steps=steps, warmup=fit.warmup * steps // fit.steps)
        if timeout is not None:
            fit = replace(fit, timeout=timeout)
        if seed is not None:
            fit = replace(fit, seed=seed)
        return replace(self, training=replace(self.training, fit=fit, workers=workers))

    def record(self) -> dict[str, Any]:
        """The tables but for [fit], which the run's folder notes anyway."""
        held = asdict(self.training)
        tables = {name: held[name] for name in ("network", "masks")}
        tables["train"] = {name: held[name] for name in LossOptions.__dataclass_fields__}
        return {**tables, "data": asdict(self.data), "held_out": asdict(self.held_out)}

    def source(self) -> Simulated | Stored:
        """Where slices come from."""
        if self.data.files:
            return Stored(places(self.data.files), self.training.fit.seed)
        return Simulated(self.data)

    def examples(self) -> list[Example]:
        """What the network is judged by, with masks of their own."""
        judged = self.held_out
        if judged.files:
            there = places(judged.files)[: judged.slices]
            slices = [stored(_opened(path), index) for path, index in there]
        else:
            scans = replace(self.data, sizes=judged.sizes, seed=judged.seed)
            slices = [Simulated(scans)(number) for number in range(judged.slices)]
        rng = np.random.default_rng(seed_of(judged.seed, "held out", 0))
        return [example(one, self.training.masks, rng) for one in slices]
