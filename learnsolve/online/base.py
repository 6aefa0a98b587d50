"""What a policy is: it chooses one of several actions, hears what that cost, and learns."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from learnsolve.files import replacing

FORMAT = "learnsolve-policy-1"
MAX_BYTES = 256 * 2**20

POLICIES: dict[str, type["Policy"]] = {}


class PolicyFileError(ValueError):
    """A file of a policy is damaged or not one."""


@dataclass
class Policy:
    """Chooses among ``arms`` actions, numbered from zero, and learns from their costs.

    A policy is called in pairs: ``action = policy.choose(context)``, then ``policy.observe(action, cost,
    context)``. A cost that is negative, NaN or infinite counts as the largest seen so far, and is passed over
    if there is none. Options are the dataclass's parameters; all its other fields are what it has
    learned, arrays and numbers, and are saved and loaded as they are.

    Parameters
    ----------
    arms : int
        How many actions there are.
    seed : int
        Of its choices.

    Raises
    ------
    ValueError
        An option is out of range.
    """

    arms: int
    seed: int = field(default=0, kw_only=True)
    rounds: int = field(default=0, init=False)
    worst: float = field(default=0.0, init=False)
    counts: NDArray[np.float64] = field(init=False, repr=False)
    totals: NDArray[np.float64] = field(init=False, repr=False)

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    contextual: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__dict__.get("name"):
            POLICIES[cls.name] = cls

    def __post_init__(self) -> None:
        if self.arms < 1:
            raise ValueError(f"arms is {self.arms}; a positive number of actions is accepted")
        self.rng = np.random.default_rng(self.seed)
        self.counts, self.totals = np.zeros(self.arms), np.zeros(self.arms)

    @property
    def needs_context(self) -> bool:
        """Whether `choose` and `observe` must be told a context."""
        return self.contextual

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean cost of each action so far, infinite where it was never chosen."""
        return np.where(self.counts > 0, self.totals / np.maximum(self.counts, 1), np.inf)

    def best(self, context: float | None = None) -> tuple[int, float] | None:
        """The action that looks best by now, and its expected cost; None before the first cost."""
        if self.rounds == 0:
            return None
        means = self.means
        return int(means.argmin()), float(means.min())

    def predicted(self, action: int, context: float | None = None) -> float:
        """What an action is expected to cost; infinite where nothing is known."""
        return float(self.means[action])

    def fresh(self) -> "Policy":
        """One that has learned nothing, with the same options, whose choices go on where these are."""
        options: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        kind: Any = type(self)
        new = kind(**{k: v.fresh() if isinstance(v, Policy) else v for k, v in options.items()})
        new.rng = self.rng
        return new

    def probabilities(self, context: float | None = None) -> NDArray[np.float64]:
        """How likely each action is to be chosen, ``(arms,)``."""
        raise NotImplementedError

    def learn(self, action: int, cost: float, context: float | None) -> None:
        """Take in a finite cost that is not negative; ``rounds`` counts it already, ``counts`` not yet."""
        raise NotImplementedError

    def choose(self, context: float | None = None) -> int:
        """An action.

        Raises
        ------
        ValueError
            If the policy is contextual, and there is no context or one that is not finite.
        """
        self._checked(context)
        if self.arms == 1:
            return 0
        return int(self.rng.choice(self.arms, p=self.probabilities(context)))

    def observe(self, action: int, cost: float, context: float | None = None) -> None:
        """Hear what an action cost.

        Raises
        ------
        ValueError
            If there is no such action; as `choose`.
        """
        self._checked(context)
        if not 0 <= action < self.arms:
            raise ValueError(f"action is {action}; 0 to {self.arms - 1} are accepted")
        if np.isfinite(cost) and cost >= 0:
            self.worst = max(self.worst, float(cost))
        elif self.rounds == 0:
            return
        else:
            cost = self.worst
        self.rounds += 1
        self.learn(int(action), float(cost), context)
        self.counts[action] += 1
        self.totals[action] += cost

    def _checked(self, context: float | None) -> None:
        if self.needs_context and (context is None or not np.isfinite(context)):
            raise ValueError(f"context is {context}; policy {self.name!r} needs a finite number")

    def state(self) -> dict[str, Any]:
        """Options and all that was learned, as JSON has it."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return {
            "format": FORMAT, "policy": self.name, "fields": values, "rng": self.rng.bit_generator.state,
        }  # fmt: skip

    @staticmethod
    def from_state(state: dict[str, Any]) -> "Policy":
        """The policy of a `state`, ready to go on as if nothing had been.

        Raises
        ------
        PolicyFileError
            It is not one of a policy.
        """
        try:
            if state["format"] != FORMAT:
                raise PolicyFileError(f"its format is {state['format']!r}, expected {FORMAT!r}")
            kind, values = POLICIES[state["policy"]], state["fields"]
            policy = kind(**{f.name: _array(values[f.name]) for f in fields(kind) if f.init})
            for f in fields(kind):
                if f.init:
                    continue
                old, new = getattr(policy, f.name), _array(values[f.name])
                same = isinstance(old, np.ndarray) == isinstance(new, np.ndarray) and np.ndim(old) == np.ndim(
                    new
                )
                if not same or np.asarray(new).dtype.kind not in "fiub":
                    raise PolicyFileError(f"{f.name} is not as policy {kind.name!r} has it")
                setattr(policy, f.name, new)
            policy.rng.bit_generator.state = state["rng"]
        except PolicyFileError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PolicyFileError(f"not the state of a policy ({error!r})") from None
        return policy

    def save(self, path: str | os.PathLike) -> None:
        """Write it to a JSON file, whole or not at all."""
        write_state(path, self.state())

    @staticmethod
    def load(path: str | os.PathLike) -> "Policy":
        """The policy of a file.

        Raises
        ------
        PolicyFileError
            The file is damaged or not one of a policy.
        OSError
            The file cannot be read.
        """
        return Policy.from_state(read_state(path))


def write_state(path: str | os.PathLike, state: dict[str, Any]) -> None:
    """Write a JSON object to a file, whole or not at all."""
    with replacing(path) as part:
        part.write_text(json.dumps(state), encoding="utf-8")


def read_state(path: str | os.PathLike) -> dict[str, Any]:
    """The JSON object in a file; raises `PolicyFileError` if there is none."""
    with open(path, "rb") as stream:
        text = stream.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise PolicyFileError(f"{os.fspath(path)}: more than the {MAX_BYTES} bytes that are accepted")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyFileError(f"{os.fspath(path)}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise PolicyFileError(f"{os.fspath(path)}: not a JSON object")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Policy):
        return value.state()
    return value


def _array(value: Any) -> Any:
    if isinstance(value, dict) and value.get("format") == FORMAT:
        return Policy.from_state(value)
    if isinstance(value, dict):
        return np.array(value["array"], dtype=value["dtype"]).reshape(value["shape"])
    return tuple(value) if isinstance(value, list) else value


def grid_of(low: float, high: float, arms: int) -> NDArray[np.float64]:
    """``arms`` values from ``low`` to ``high``, evenly spaced; of one arm the middle."""
    return np.linspace(low, high, arms) if arms > 1 else np.array([(low + high) / 2])


def newton(value: Callable[[float], tuple[float, float]], start: float, tolerance: float = 1e-12) -> float:
    """Where a convex, increasing function is zero, from a ``start`` right of it: monotone.

    ``value(x)`` returns the function and its slope.
    """
    x = start
    for _ in range(200):
        f, slope = value(x)
        if not f > tolerance:
            break
        x -= f / slope
    return x
