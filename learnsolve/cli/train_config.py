"""The config file of ``learnsolve train``: tables with the names of the dataclasses behind them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

from learnsolve.cli.train_cells import SMALLEST, digest, read_cells
from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.methods.dcdm_training import DCDMTraining
from learnsolve.preconditioners.coupling_network import CouplingOptions
from learnsolve.preconditioners.learned_multigrid_training import MultigridTraining
from learnsolve.training import FitOptions
from learnsolve.training.shipped import config_of
from learnsolve.training.tables import from_table

Shapes = tuple[tuple[int, ...], ...]
Family = Literal["obstacles", "free_surface", "maze", "jump"]
Kind = Literal["dcdm", "multigrid"]
# The dataclasses of the tables [network] and [dcdm] or [multigrid].
KINDS: dict[str, tuple[type, type]] = {
    "dcdm": (NetworkOptions, DCDMTraining),
    "multigrid": (CouplingOptions, MultigridTraining),
}
DOMAINS = ("room", "dirichlet", "closed", *get_args(Family))
Rhs = Literal["noise", "ones", "bump"]


@dataclass(frozen=True)
class DataOptions:
    """What a network is trained on: every training step takes one of the domains, in turn.

    Parameters
    ----------
    shapes : tuple of tuples of int
        Grids on which each named domain is made.
    domains : tuple of str
        ``"room"`` (closed walls under an open top: the last two layers of axis 0 are air), ``"dirichlet"``
        (a box of zero values all around), ``"closed"`` (a box of closed walls); a function of
        `learnsolve.problems.poisson` (``"obstacles"``, ``"free_surface"``, ``"maze"``, ``"jump"``); or a
        path that ends in ``.npy``, to an integer array of cells: 0 fluid, 1 solid, 2 air.
    seeds : tuple of int
        Of `learnsolve.problems.poisson`: each of its domains is made once with each.
    vectors, samples, low, weight, seed
        Of `learnsolve.datasets.ritz.write_ritz`; ``loss="residual"`` alone makes and reads such files.
    """

    shapes: Shapes = ()
    domains: tuple[str, ...] = ("room",)
    seeds: tuple[int, ...] = (0,)
    vectors: int = 1000
    samples: int = 2000
    low: float = 0.55
    weight: float = 9.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("domains", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; at least one is needed")
        named = [domain for domain in self.domains if not domain.endswith(".npy")]
        for domain in named:
            if domain not in DOMAINS:
                raise ValueError(
                    f"domains holds {domain!r}; {', '.join(map(repr, DOMAINS))} and paths that end in .npy "
                    "are accepted"
                )
        if min(self.seeds) < 0:
            raise ValueError(f"seeds are {self.seeds}; none may be negative")
        if named or self.shapes:
            _check_shapes(self.shapes)
        for name in ("vectors", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a positive number is accepted")
        if not 0 <= self.low <= 1:
            raise ValueError(f"low is {self.low}; a fraction from 0 to 1 is accepted")
        if not (isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight is {self.weight}; a positive number is accepted")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative")

    @property
    def files(self) -> tuple[str, ...]:
        """The domains that are files."""
        return tuple(domain for domain in self.domains if domain.endswith(".npy"))


@dataclass(frozen=True)
class HeldOutOptions:
    """On which systems a network is judged: each shape, family, right-hand side and seed with each.

    Parameters
    ----------
    shapes : tuple of tuples of int
        Grids.
    families : tuple of {"obstacles", "free_surface", "maze", "jump"}
        Functions of `learnsolve.problems.poisson`.
    rhs : tuple of {"noise", "ones", "bump"}
        See `learnsolve.problems.poisson.right_hand_side`.
    seeds : tuple of int
        Of the domains.
    rtol : float
        When a solve has converged.
    maxiter : int
        So many steps count for a solve that has not, while training.
    """

    shapes: Shapes
    families: tuple[Family, ...] = ("obstacles", "free_surface", "maze")
    rhs: tuple[Rhs, ...] = ("noise", "ones")
    seeds: tuple[int, ...] = (1001,)
    rtol: float = 1e-4
    maxiter: int = 200

    def __post_init__(self) -> None:
        _check_shapes(self.shapes)
        for name in ("families", "rhs", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; at least one is needed")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds are {self.seeds}; none may be negative")
        if not 0 < self.rtol < 1:
            raise ValueError(f"rtol is {self.rtol}; a number between 0 and 1 is accepted")
        if self.maxiter < 1:
            raise ValueError(f"maxiter is {self.maxiter}; a positive number is accepted")


def _check_shapes(shapes: Shapes) -> None:
    if not shapes:
        raise ValueError("shapes is empty; at least one is needed")
    for shape in shapes:
        if len(shape) not in (2, 3) or min(shape) < SMALLEST:
            raise ValueError(
                f"shapes holds {list(shape)}; 2 or 3 numbers of at least {SMALLEST} cells are accepted"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """All that says what a training run does.

    Parameters
    ----------
    training : DCDMTraining or MultigridTraining
        The tables ``[network]``, ``[fit]`` and ``[dcdm]`` or ``[multigrid]``.
    data : DataOptions
        The table ``[data]``.
    held_out : HeldOutOptions
        The table ``[held_out]``.

    Raises
    ------
    ValueError
        A shape or a file of cells has not as many axes as the network or the others; a file is no file of
        cells; or a family is trained and judged on the same seed.
    FileNotFoundError
        There is no such file of cells.

    Examples
    --------
    >>> config = TrainingConfig.read("poisson2d")
    >>> config.training.fit.steps, config.data.shapes[0]
    (8000, (32, 32))
    """

    training: DCDMTraining | MultigridTraining
    data: DataOptions
    held_out: HeldOutOptions

    def __post_init__(self) -> None:
        dims = self.dims
        for name, shapes in (("data", self.data.shapes), ("held_out", self.held_out.shapes)):
            for shape in shapes:
                if len(shape) != dims:
                    raise ValueError(
                        f"[{name}] shapes holds {list(shape)}, but the network is for {dims} axes: "
                        f"{f'set dims = {len(shape)} in [network] or ' if self.kind == 'dcdm' else ''}"
                        "change the shape"
                    )
        for file in self.data.files:
            axes = read_cells(file).ndim
            if axes != dims:
                raise ValueError(f"{file} has {axes} axes, but the network is for {dims}")
        both = sorted(set(self.data.seeds) & set(self.held_out.seeds))
        seen = [family for family in self.held_out.families if family in self.data.domains]
        if both and seen:
            raise ValueError(
                f"seed {both[0]} of {seen[0]} is in [data] seeds and in [held_out] seeds: "
                "a network is judged on domains that it has not seen"
            )

    @property
    def kind(self) -> Kind:
        """What is trained."""
        return "multigrid" if isinstance(self.training, MultigridTraining) else "dcdm"

    @property
    def dims(self) -> int:
        """How many axes the domains have."""
        if isinstance(self.training, DCDMTraining):
            return self.training.network.dims
        return len(self.data.shapes[0]) if self.data.shapes else read_cells(self.data.files[0]).ndim

    @classmethod
    def read(cls, config: str | Path, kind: Kind = "dcdm") -> "TrainingConfig":
        """A config of a file, or a shipped one.

        Parameters
        ----------
        config : str or Path
            A path that ends in ``.toml``, or a name of `learnsolve.training.shipped.shipped`.
        kind : {"dcdm", "multigrid"}
            What is trained.

        Raises
        ------
        ValueError
            The file is no TOML, or has an unknown or missing table or key, or a value that is not accepted;
            the message says where.
        OSError
            There is no such file, nor config of that name.
        """
        return config_of(kind, config, lambda tables, folder: cls.from_tables(tables, folder, kind))

    @classmethod
    def from_tables(
        cls, tables: Mapping[str, Any], folder: Path = Path(), kind: Kind = "dcdm"
    ) -> "TrainingConfig":
        """A config of tables as `tomllib` reads them; files of cells are looked for from a folder on.

        Raises
        ------
        ValueError
            As in `read`.
        """
        known = ("network", "fit", kind, "data", "held_out")
        for name in tables:
            if name not in known:
                raise ValueError(f"there is no table [{name}]; the tables are {', '.join(known)}")
        for name in ("fit", "data"):
            if name not in tables:
                raise ValueError(f"the table [{name}] is missing")
        of_network, of_training = KINDS[kind]
        network: Any = from_table(of_network, tables.get("network", {}), "network")
        fit = from_table(FitOptions, tables["fit"], "fit")
        data = from_table(DataOptions, tables["data"], "data")
        places = {file: str((folder / file).resolve()) for file in data.files}
        data = replace(data, domains=tuple(places.get(domain, domain) for domain in data.domains))
        judged = tables.get("held_out", {})
        if isinstance(judged, Mapping):
            shapes = data.shapes or [read_cells(file).shape for file in data.files]
            judged = {"shapes": shapes[-1:], **judged}
        return cls(
            from_table(of_training, tables.get(kind, {}), kind, network=network, fit=fit),
            data,
            from_table(HeldOutOptions, judged, "held_out"),
        )

    def with_options(
        self,
        steps: int | None = None,
        timeout: float | None = None,
        seed: int | None = None,
        schedule: str | tuple[float, ...] | None = None,
    ) -> "TrainingConfig":
        """Some of the options of [fit] changed; with the steps the warm-up shrinks or grows.

        Norms of the gradient are noted, for a schedule that is refined by them.

        Raises
        ------
        ValueError
            As `FitOptions`.
        """
        fit = self.training.fit
        if steps is not None:
            fit = replace(fit, steps=steps, warmup=fit.warmup * steps // fit.steps)
        if timeout is not None:
            fit = replace(fit, timeout=timeout)
        if seed is not None:
            fit = replace(fit, seed=seed)
        if schedule is not None:
            # One that is refined has a warm-up of its own.
            fit = replace(fit, schedule=schedule, warmup=fit.warmup if isinstance(schedule, str) else 0)
        fit = replace(fit, gradient_norms=True)
        return replace(self, training=replace(self.training, fit=fit))

    def with_network(self, network: NetworkOptions) -> "TrainingConfig":
        """Another direction network.

        Raises
        ------
        ValueError
            The config trains none, or its grids have not as many axes.
        """
        if not isinstance(self.training, DCDMTraining):
            raise ValueError("the config trains a learned multigrid, which has no direction network")
        return replace(self, training=replace(self.training, network=network))

    def record(self) -> dict[str, Any]:
        """The tables but for [fit], which the run's folder notes anyway."""
        rest = {
            field.name: getattr(self.training, field.name)
            for field in fields(self.training)
            if field.name not in ("network", "fit")
        }
        tables = {
            "network": asdict(self.training.network),
            self.kind: rest,
            "data": asdict(self.data),
            "held_out": asdict(self.held_out),
        }
        if self.data.files:
            # A file may change while its name stays.
            tables["cells"] = {file: digest(read_cells(file)) for file in self.data.files}
        return tables
