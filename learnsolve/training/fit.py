"""The one training loop: steps, schedule, averaging, validation, checkpoints, exact resume."""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from learnsolve.training.modes import mode
from learnsolve.training.options import FitOptions
from learnsolve.training.processes import Processes, with_parts
from learnsolve.training.run_folder import RunFolder, finite
from learnsolve.training.schedules import factor_at, schedule
from learnsolve.training.seeding import seed_of, seeded
from learnsolve.training.state import State
from learnsolve.training.weights import load_weights, save_weights

MAX_SKIPPED = 50
# These say when a run pauses, not what comes out of it: a resumed run may change them.
NOT_OF_THE_RESULT = ("timeout", "checkpoint_every")

Loss = Callable[[torch.nn.Module, Any], Tensor]
Batches = Callable[[int, torch.Generator], Any]
Validate = Callable[[torch.nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class FitProgress:
    """What a callback sees after each step; a true return value stops the run with a checkpoint.

    Attributes
    ----------
    step, steps : int
        Steps done, and all steps of the run.
    loss : float
        Of this step's batch.
    learning_rate : float
        Of this step.
    metrics : dict
        The latest that ``validate`` returned; empty before the first time.
    skipped : int
        Steps so far that were left out because loss or gradient was not finite.
    seconds, eta : float
        Spent on the run, interrupted parts included; and likely still to be spent.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    metrics: dict[str, float]
    skipped: int
    seconds: float
    eta: float


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes
    ----------
    status : str
        ``"finished"``, ``"stopped"`` (by the callback) or ``"timeout"``.
    step : int
        Steps done.
    loss : float
        Of the last step's batch; NaN if it was not finite.
    metrics : dict
        The last that ``validate`` returned.
    skipped : int
        Steps left out because loss or gradient was not finite.
    seconds : float
        Spent on the run, interrupted parts included.
    history : list of dict
        The lines of ``metrics.jsonl``: step, loss, learning_rate, metrics, skipped, seconds.
    gradient_norms : (steps, 2) float64 Tensor or None
        Of each step, before it is clipped: the Euclidean norm, and the sum of absolute values. Of all
        processes' mean gradient; zero of steps that are still to be done.
    """

    status: str
    step: int
    loss: float
    metrics: dict[str, float]
    skipped: int
    seconds: float
    history: list[dict[str, Any]] = field(repr=False)
    gradient_norms: Tensor | None = field(repr=False, default=None)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.status == "finished"


def fit(
    network: torch.nn.Module,
    loss: Loss,
    batches: Batches,
    options: FitOptions,
    *,
    folder: str | os.PathLike | None = None,
    validate: Validate | None = None,
    callback: Callable[[FitProgress], Any] | None = None,
    config: Mapping[str, Any] | None = None,
    carried: Mapping[str, Tensor] | None = None,
) -> FitResult:
    """Train a network in place; what comes out depends on its initial weights, the options and the seed.

    On return the network holds the averaged weights if ``options.ema`` is set, else its own. With a
    folder, a run that was stopped or killed continues when ``fit`` is called again with the same
    network, options and config; on the CPU it ends with the same bits as a run without a break.
    A finished run returns at once with its weights loaded.

    Where ``torch.distributed`` is initialised, the network is wrapped in `DistributedDataParallel`, its
    gradients and the metrics are averaged, and rank 0 alone calls the callback and writes the folder,
    which all ranks must be able to read. The processes share the parts of each batch
    (`FitOptions.parts`), and a run may go on with another number of them.

    Parameters
    ----------
    network : torch.nn.Module
        On the device where it shall be trained.
    loss : callable
        ``loss(network, batch)``, a scalar tensor. Its randomness comes from torch's global generator,
        which is seeded for each step and put back afterwards. It must call ``network(...)`` itself.
    batches : callable
        ``batches(number, generator)``, whatever ``loss`` takes. ``generator``, on the CPU, is seeded by
        ``options.seed`` and ``number``, which is ``step * parts + part``: with one part, the step.
    options : FitOptions
        Steps, rates and so on.
    folder : str or os.PathLike, optional
        Gets config.toml, metrics.jsonl, checkpoint.safetensors and, at the end, weights.safetensors.
    validate : callable
        ``validate(network)``, names and numbers; called with the averaged weights if there are any, in
        evaluation mode and without gradients, every ``options.validate_every`` steps and at the end.
    callback : callable
        Called with a `FitProgress` after each step.
    config : mapping, optional
        What else describes the run, for config.toml: strings, numbers, lists, mappings of these.
    carried : mapping of Tensor, optional
        What ``loss`` or ``batches`` change in place from step to step, and a run that goes on needs back.
        What belongs to a part of the batch is named ``part<i>.*``, and changes with that part alone; of what
        is not, several processes all get that of rank 0.

    Raises
    ------
    ValueError
        The folder holds a run of other options or config, or of another network; the processes cannot share
        the parts of a batch evenly; the network has nothing to train; ``loss`` returns no scalar tensor with
        a gradient; or bfloat16 is asked for without a CUDA device.
    RuntimeError
        Loss or gradient was not finite in 50 steps in a row.
    WeightsError
        The checkpoint is damaged.
    TypeError
        ``config`` holds what TOML cannot.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.training import FitOptions, fit
    >>> network = torch.nn.Linear(1, 1)
    >>> def batches(number, generator):
    ...     x = torch.rand(64, 1, generator=generator)
    ...     return x, 2 * x + 1
    >>> def loss(network, batch):
    ...     x, y = batch
    ...     return torch.nn.functional.mse_loss(network(x), y)
    >>> result = fit(network, loss, batches, FitOptions(steps=200, learning_rate=0.1))
    >>> result.finished, result.loss < 1e-3
    (True, True)
    """
    options = with_parts(options, folder)
    run = _Run(network, loss, batches, options, validate, callback, carried)
    if folder is not None and run.open(folder, config or {}):
        return run.result("finished")
    with mode(network, training=True):
        status = run.steps()
    run.processes.wait()
    return run.result(status)


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        network: torch.nn.Module,
        loss: Loss,
        batches: Batches,
        options: FitOptions,
        validate: Validate | None,
        callback: Callable[[FitProgress], Any] | None,
        carried: Mapping[str, Tensor] | None,
    ) -> None:
        self.began = time.perf_counter()
        self.network, self.loss, self.batches = network, loss, batches
        self.options, self.validate, self.callback = options, validate, callback
        self.norms = torch.zeros(options.steps, 2, dtype=torch.float64) if options.gradient_norms else None
        norms = {} if self.norms is None else {"gradient_norms": self.norms}
        self.state = State(network, options, {**(carried or {}), **norms})
        self.device = next(iter(self.state.trained.values())).device
        if options.precision == "bfloat16" and self.device.type != "cuda":
            raise ValueError(
                f"precision='bfloat16' needs a network on a CUDA device, this one is on {self.device}; "
                "use precision='single'"
            )
        self.processes = Processes(self.device)
        self.parts = self.processes.parts(options.parts)
        self.wrapped = self.processes.wrapped(network)
        self.profile = schedule(options.schedule)
        self.folder: RunFolder | None = None
        self.seconds_before = 0.0
        self.history: list[dict[str, Any]] = []

    def open(self, path: str | os.PathLike, config: Mapping[str, Any]) -> bool:
        """Go on from the folder's checkpoint, if there is one; whether the run is finished."""
        kept = {name: value for name, value in asdict(self.options).items() if name not in NOT_OF_THE_RESULT}
        identity = {"fit": kept, "config": config}
        self.folder = RunFolder(path, identity, writes=self.processes.rank == 0)
        found = self.folder.read_checkpoint()
        if found is not None:
            try:
                self.state.restore(*found)
            except ValueError as error:
                raise ValueError(f"{path} holds a run of another network: {error}") from None
            self.seconds_before = self.state.seconds
            self.history = self.folder.read_metrics(self.state.step)
            if self.state.step == self.options.steps and self.folder.weights.exists():
                load_weights(self.folder.weights, self.network, max_bytes=None)
                return True
        self.folder.begin({"fit": asdict(self.options), "config": config}, self.history)
        return False

    def steps(self) -> str:
        """Train until the end or a reason to stop; the status."""
        options, state, first = self.options, self.state, self.state.step
        status = "finished"
        while state.step < options.steps and status == "finished":
            rate = self.train()
            state.step += 1
            seconds = time.perf_counter() - self.began
            state.seconds = self.seconds_before + seconds
            last = state.step == options.steps
            if last or _due(state.step, options.validate_every):
                self.log(rate)
            eta = seconds / (state.step - first) * (options.steps - state.step)
            asked, late = self.processes.any_of(
                self.report(rate, eta), options.timeout is not None and seconds > options.timeout
            )
            if not last and (asked or late):
                status = "stopped" if asked else "timeout"
            if self.folder and (last or asked or late or _due(state.step, options.checkpoint_every)):
                self.processes.from_owners(state.carried)
                counters = {**state.counters(), "seed": options.seed}
                self.folder.write_checkpoint(state.tensors(), counters)
        state.optimizer.zero_grad(set_to_none=True)
        state.use_average()
        if self.folder and self.folder.writes and status == "finished":
            metadata = {"step": state.step, "metrics": state.metrics, **self.folder.identity}
            save_weights(self.folder.weights, self.network, metadata)
        return status

    def train(self) -> float:
        """One step; returns its learning rate."""
        options, state = self.options, self.state
        values: list[Tensor] = []
        for part in self.parts[:-1]:
            with self.processes.alone(self.wrapped):
                values.append(self.backward(part, first=not values))
        values.append(self.backward(self.parts[-1], first=not values))
        parameters = list(state.trained.values())
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        # A loss that is not finite on one process makes the mean so on all: all skip the step.
        mean = self.processes.mean(torch.stack(values).mean())
        state.loss, gradient = torch.stack((mean, norm.to(mean))).tolist()
        if self.norms is not None:
            absolute = get_total_norm([p.grad for p in parameters if p.grad is not None], norm_type=1.0)
            self.norms[state.step] = torch.tensor([gradient, float(absolute)], dtype=torch.float64)

        factor = factor_at(self.profile, state.step, options.steps, options.warmup)
        rate = options.learning_rate * factor
        if math.isfinite(state.loss) and math.isfinite(gradient):
            if options.clip:
                clip_grads_with_norm_(parameters, options.clip, norm)
            state.update(rate)
        else:
            self.skip(gradient)
        return rate

    def backward(self, part: int, first: bool) -> Tensor:
        """Add the gradient of a part of the batch, by their number, to the mean; returns its loss."""
        options, number = self.options, self.state.step * self.options.parts + part
        generator = torch.Generator().manual_seed(seed_of(options.seed, "batch", number))
        with seeded(seed_of(options.seed, "loss", number), self.device):
            batch = self.batches(number, generator)
            mixed = options.precision == "bfloat16"
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
                value = self.loss(self.wrapped, batch)
            if not (isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad):
                raise ValueError(
                    "loss must return a scalar tensor that depends on the network's parameters, "
                    f"not {_described(value)}"
                )
            if first:
                self.state.optimizer.zero_grad(set_to_none=True)
            (value if len(self.parts) == 1 else value / len(self.parts)).backward()
        return value.detach().to(self.device, torch.float64, copy=True)

    def skip(self, gradient: float) -> None:
        """Count a step that is left out."""
        state = self.state
        state.skipped += 1
        state.skipped_in_a_row += 1
        if state.skipped_in_a_row >= MAX_SKIPPED:
            raise RuntimeError(
                f"loss or gradient was not finite in {MAX_SKIPPED} steps in a row, up to step "
                f"{state.step + 1} (loss {state.loss}, norm of the gradient {gradient}): "
                "lower learning_rate, set clip, or check the data"
            )

    def log(self, rate: float) -> None:
        """Validate and write a line of metrics."""
        state = self.state
        if self.validate is not None:
            state.metrics = self.validated(self.validate)
        line = {
            "step": state.step,
            "loss": finite(state.loss),
            "learning_rate": rate,
            "metrics": {name: finite(value) for name, value in state.metrics.items()},
            "skipped": state.skipped,
            "seconds": state.seconds,
        }
        self.history.append(line)
        if self.folder is not None:
            self.folder.log(line)

    def validated(self, validate: Validate) -> dict[str, float]:
        """What ``validate`` says of the weights with which the run would end now."""
        seed = seed_of(self.options.seed, "validate", self.state.step)
        with (
            torch.no_grad(),
            self.state.averaged(),
            mode(self.network, training=False),
            seeded(seed, self.device),
        ):
            metrics = {name: float(value) for name, value in validate(self.network).items()}
        values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self.device)
        return dict(zip(metrics, self.processes.mean(values).tolist(), strict=True))

    def report(self, rate: float, eta: float) -> bool:
        """Whether the callback asks to stop."""
        if self.callback is None or self.processes.rank != 0:
            return False
        state = self.state
        progress = FitProgress(
            step=state.step,
            steps=self.options.steps,
            loss=state.loss,
            learning_rate=rate,
            metrics=dict(state.metrics),
            skipped=state.skipped,
            seconds=state.seconds,
            eta=eta,
        )
        return bool(self.callback(progress))

    def result(self, status: str) -> FitResult:
        state = self.state
        return FitResult(
            status=status,
            step=state.step,
            loss=state.loss,
            metrics=state.metrics,
            skipped=state.skipped,
            seconds=state.seconds,
            history=self.history,
            gradient_norms=self.norms,
        )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"one of shape {tuple(value.shape)} {'with' if value.requires_grad else 'without'} a gradient"
