"""What tissues look like in a scan: relaxation times, and the signal of the usual sequences."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sequence = Literal["spin-echo", "inversion-recovery", "gradient-echo"]

# Proton density, and T1, T2 and T2* in milliseconds, at 3 tesla.
TISSUES: dict[str, tuple[float, float, float, float]] = {
    "air": (0.0, 1.0, 1.0, 1.0),
    "fat": (0.9, 380.0, 70.0, 40.0),
    "bone": (0.08, 500.0, 8.0, 3.0),
    "csf": (1.0, 4000.0, 1800.0, 1000.0),
    "grey": (0.83, 1450.0, 95.0, 52.0),
    "white": (0.7, 850.0, 72.0, 48.0),
    "muscle": (0.8, 1300.0, 38.0, 25.0),
    "lesion": (0.9, 1900.0, 170.0, 80.0),
    "vessel": (0.9, 1800.0, 250.0, 60.0),
}
NAMES = tuple(TISSUES)


@dataclass(frozen=True)
class Contrast:
    r"""A sequence with its times.

    The signals are those of the steady state: a spin echo :math:`\rho (1 - e^{-TR/T_1}) e^{-TE/T_2}`, an
    inversion recovery :math:`\rho (1 - 2 e^{-TI/T_1} + e^{-TR/T_1}) e^{-TE/T_2}`, whose sign is kept, and a
    spoiled gradient echo :math:`\rho \sin\alpha (1 - E) / (1 - E \cos\alpha) e^{-TE/T_2^*}` with
    :math:`E = e^{-TR/T_1}`.

    Parameters
    ----------
    sequence : {"spin-echo", "inversion-recovery", "gradient-echo"}
    repetition, echo, inversion : float
        TR, TE and TI in milliseconds.
    flip : float
        Angle of the gradient echo in degrees.

    Raises
    ------
    ValueError
        The sequence is unknown, or a time is not positive.

    References
    ----------
    Bernstein, King and Zhou, *Handbook of MRI pulse sequences*, 2004, chapters 14 and 16.

    Examples
    --------
    >>> import numpy as np
    >>> from learnsolve.problems.tissues import Contrast
    >>> weighted = Contrast("spin-echo", repetition=4000, echo=100)
    >>> csf, white = weighted.signal(np.array([[1, 4000, 1800, 1000], [0.7, 850, 72, 48]]))
    >>> bool(csf > 2 * white)
    True
    """

    sequence: Sequence = "spin-echo"
    repetition: float = 2000.0
    echo: float = 20.0
    inversion: float = 900.0
    flip: float = 20.0

    def __post_init__(self) -> None:
        if self.sequence not in ("spin-echo", "inversion-recovery", "gradient-echo"):
            raise ValueError(
                f"sequence is {self.sequence!r}; spin-echo, inversion-recovery and gradient-echo are accepted"
            )
        for name in ("repetition", "echo", "inversion", "flip"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)}; a positive number is accepted")

    def signal(self, tissues: Array) -> Array:
        """Signals of (n, 4) tissues: proton density, T1, T2, T2*."""
        density, t1, t2, t2_star = np.asarray(tissues, dtype=np.float64).T
        e1 = np.exp(-self.repetition / t1)
        if self.sequence == "gradient-echo":
            angle = np.deg2rad(self.flip)
            steady = np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle))
            return density * steady * np.exp(-self.echo / t2_star)
        recovered = 1 - e1
        if self.sequence == "inversion-recovery":
            recovered = 1 - 2 * np.exp(-self.inversion / t1) + e1
        return density * recovered * np.exp(-self.echo / t2)

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Contrast":
        """One as clinics use them."""
        sequence = rng.choice(["spin-echo", "spin-echo", "inversion-recovery", "gradient-echo"])
        if sequence == "spin-echo":
            if rng.random() < 0.5:
                return cls("spin-echo", rng.uniform(2500, 6000), rng.uniform(60, 120))
            return cls("spin-echo", rng.uniform(400, 3000), rng.uniform(8, 25))
        if sequence == "inversion-recovery":
            times = rng.uniform(2000, 9000), rng.uniform(3, 100), rng.uniform(250, 2500)
            return cls("inversion-recovery", *times)
        return cls("gradient-echo", rng.uniform(8, 600), rng.uniform(2, 30), flip=rng.uniform(5, 60))
