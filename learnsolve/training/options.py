"""What may be chosen about a training run."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from learnsolve.training.schedules import SCHEDULES, tabulated

OPTIMIZERS = ("adam", "adamw", "radam", "sgd")
PRECISIONS = ("single", "bfloat16")


@dataclass(frozen=True)
class FitOptions:
    """How `fit` trains. The defaults are those of Adam with a REX schedule.

    Parameters
    ----------
    steps : int
        Steps of the optimizer.
    learning_rate : float
        The largest; the schedule multiplies it by a factor in [0, 1].
    schedule : str or tuple of float
        ``"rex"``, ``"linear"``, ``"cosine"``, ``"constant"``, ``"step"``, ``"exponential"`` or
        ``"polynomial"``; or factors in [0, 1] at equal shares of the progress, such as
        `learnsolve.training.refinement.refined` makes.
    warmup : int
        Steps over which the rate rises linearly before the schedule begins; less than ``steps``.
    optimizer : str
        ``"adam"``, ``"adamw"``, ``"radam"`` or ``"sgd"`` (with momentum 0.9).
    weight_decay : float
        In the sense of the optimizer: decoupled for ``"adamw"``, else added to the gradient.
    clip : float
        Largest norm of the gradient over all parameters; zero for none.
    ema : float
        Decay d of the exponential moving average of the weights, in [0, 1); zero for none. After t
        updates it is ``(1 - d) / (1 - d^t) * sum_i d^(t-i) w_i``, free of the initial weights.
    seed : int
        In [0, 2^63).
    validate_every, checkpoint_every : int
        In steps; zero for only at the end.
    parts : int
        A step's batch is made of so many parts, which the processes that train together share. A run comes
        out the same, but for rounding, on any number of them that divides its parts. Zero: as many as there
        are processes when the run begins.
    gradient_norms : bool
        Whether the result has the norm of the gradient at each step.
    precision : str
        ``"single"``, or ``"bfloat16"`` for mixed precision on a CUDA device.
    timeout : float, optional
        Seconds after which the run ends with a checkpoint; a later call resumes.

    Raises
    ------
    ValueError
        An option is not what it may be; the message says what is accepted.

    Examples
    --------
    >>> from learnsolve.training import FitOptions
    >>> FitOptions(steps=100, clip=0).clip
    0.0
    >>> FitOptions(steps=0)
    Traceback (most recent call last):
    ValueError: steps must be an integer of at least 1, not 0
    """

    steps: int
    learning_rate: float = 1e-4
    schedule: str | tuple[float, ...] = "rex"
    warmup: int = 0
    optimizer: str = "adam"
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.0
    seed: int = 0
    validate_every: int = 0
    checkpoint_every: int = 1000
    parts: int = 0
    gradient_norms: bool = False
    precision: str = "single"
    timeout: float | None = None

    def __post_init__(self) -> None:
        self._integer("steps", 1)
        self._integer("warmup", 0)
        self._require("warmup", self.warmup < self.steps, f"less than steps ({self.steps})")
        self._integer("seed", 0)
        self._require("seed", self.seed < 2**63, "less than 2^63")
        self._integer("validate_every", 0)
        self._integer("checkpoint_every", 0)
        self._integer("parts", 0)
        self._real("learning_rate", "a positive number", lambda x: x > 0)
        self._real("weight_decay", "a number of at least 0", lambda x: x >= 0)
        self._real("clip", "a number of at least 0 (0 for none)", lambda x: x >= 0)
        self._real("ema", "a number in [0, 1) (0 for none)", lambda x: 0 <= x < 1)
        if self.timeout is not None:
            self._real("timeout", "a positive number of seconds or None", lambda x: x > 0)
        self._require("gradient_norms", isinstance(self.gradient_norms, bool), "true or false")
        for name, names in (
            ("schedule", tuple(SCHEDULES)),
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
        ):
            if name == "schedule" and not isinstance(self.schedule, str):
                tabulated(self.schedule)
                object.__setattr__(self, name, tuple(map(float, self.schedule)))
                continue
            self._require(name, getattr(self, name) in names, f"one of {', '.join(names)}")

    def _require(self, name: str, accepted: bool, what: str) -> None:
        if not accepted:
            raise ValueError(f"{name} must be {what}, not {getattr(self, name)!r}")

    def _integer(self, name: str, least: int) -> None:
        value: Any = getattr(self, name)
        accepted = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
        self._require(name, accepted, f"an integer of at least {least}")
        object.__setattr__(self, name, int(value))

    def _real(self, name: str, what: str, accepts: Any) -> None:
        value: Any = getattr(self, name)
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        self._require(name, number and accepts(value), what)
        object.__setattr__(self, name, float(value))
