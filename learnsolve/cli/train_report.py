"""What a trained network can do: figures and a picture."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

import learnsolve
from learnsolve.cli.train_config import Kind, TrainingConfig
from learnsolve.cli.train_data import FAMILIES, HeldOut
from learnsolve.files import replacing
from learnsolve.methods import DCDM
from learnsolve.preconditioners import LearnedMultigrid
from learnsolve.preconditioners.coupling_network import CouplingNetwork
from learnsolve.result import without_convergence_warnings
from learnsolve.training import FitResult

LIMIT = 2000
TITLES = {"dcdm": "A trained direction network", "multigrid": "A learned multigrid"}

Solves = dict[str, list["learnsolve.Result"]]
Groups = dict[tuple[str, tuple[int, ...]], Solves]


def compare(
    kind: Kind,
    network: nn.Module,
    systems: Sequence[HeldOut],
    rtol: float,
    progress: Callable[[], Any] = lambda: None,
) -> Groups:
    """Results of the network and of classical methods, by family and shape.

    Parameters
    ----------
    kind : {"dcdm", "multigrid"}
        Of network.
    network : torch.nn.Module
        For `DCDM` or `LearnedMultigrid`.
    systems : sequence of HeldOut
        Each is solved with each method.
    rtol : float
        Relative residual.
    progress : callable
        Called after each system.
    """
    groups: Groups = {}
    seen: set[str] = set()
    for system in systems:
        methods = _methods(kind, network)
        solves = groups.setdefault((system.family, system.shape), {name: [] for name in methods})
        for name, method in methods.items():
            if name not in seen:
                # The first solve compiles kernels.
                _solve(system, method, rtol)
                seen.add(name)
            solves[name].append(_solve(system, method, rtol))
        progress()
    return groups


def _methods(kind: Kind, network: nn.Module) -> dict[str, dict[str, Any]]:
    classical: dict[str, Any] = {"method": "cg", "M": "multigrid"}
    if kind == "dcdm":
        return {"DCDM": {"method": DCDM(network)}, "CG": {"method": "cg"}, "multigrid CG": classical}
    assert isinstance(network, CouplingNetwork)
    return {
        "learned multigrid CG": {"method": "cg", "M": LearnedMultigrid(network)},
        "multigrid CG": classical,
        "Ruge-Stüben CG": {"method": "cg", "M": "ruge_stuben"},
    }


def _solve(system: HeldOut, method: dict[str, Any], rtol: float, **options: Any) -> "learnsolve.Result":
    with without_convergence_warnings():
        # The report marks what has not converged.
        return learnsolve.solve(system.A, system.b, rtol=rtol, maxiter=LIMIT, **method, **options)


def markdown(config: TrainingConfig, result: FitResult, groups: Groups, weights: Path) -> str:
    """The text of the report."""
    training, held_out, data = config.training, config.held_out, config.data
    seeds = f"{'seed' if len(data.seeds) == 1 else 'seeds'} {', '.join(map(str, data.seeds))}"
    where = [f"{name} ({seeds})" if name in FAMILIES else Path(name).name for name in data.domains]
    grids = ", ".join(_size(shape) for shape in data.shapes) or "the grids of the files"
    each = len(held_out.rhs) * len(held_out.seeds)
    names = list(next(iter(groups.values())))
    fallback = " fallback |" if config.kind == "dcdm" else ""
    lines = [
        f"# {TITLES[config.kind]}",
        "",
        f"* Network: {', '.join(f'{key} {value}' for key, value in asdict(training.network).items())}.",
        f"* Trained: {', '.join(f'{key} {value}' for key, value in config.record()[config.kind].items())}; "
        f"on {grids}, domains {', '.join(where)}; "
        f"{result.step} steps in {result.seconds:.0f} s, last loss {result.loss:.4g}, "
        f"{result.skipped} steps skipped.",
        f"* Held out: {each} {'system' if each == 1 else 'systems'} in each row below, right-hand sides "
        f"{', '.join(held_out.rhs)}; means, to a relative residual of {held_out.rtol:g}, set-up counted.",
        "",
        "| family | cells | " + " | ".join(f"{name}, iterations | s" for name in names) + " |" + fallback,
        "|---|---|" + "---:|" * (2 * len(names) + bool(fallback)),
    ]
    failed = False
    for (family, shape), solves in groups.items():
        cells = [family, _size(shape)]
        for name in names:
            results = solves[name]
            converged = all(result.success for result in results)
            failed = failed or not converged
            cells.append(f"{_mean(r.iterations for r in results):.1f}{'' if converged else '*'}")
            cells.append(f"{_mean(r.seconds for r in results):.3f}")
        if fallback:
            cells.append(f"{_mean(r.extras['fallback_steps'] for r in solves['DCDM']):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    if fallback:
        lines += ["", "*Fallback* counts the steps of DCDM in which the network's direction was of no use."]
    if failed:
        lines.append(f"\\* At least one system had not converged after {LIMIT} iterations.")
    lines += ["", "![residuals of one held-out system](convergence.png)", "", "## Use", "", "```python"]
    return "\n".join([*lines, *usage(config.kind, weights), "```", ""])


def usage(kind: Kind, weights: Path) -> list[str]:
    """The lines of Python that use a file of weights."""
    file = json.dumps(weights.as_posix(), ensure_ascii=False)
    if kind == "dcdm":
        return [
            "import learnsolve",
            "from learnsolve.methods import DCDM",
            "",
            f"method = DCDM.load({file})",
            "learnsolve.solve(A, b, method=method)",
        ]
    return [
        "import learnsolve",
        "from learnsolve.preconditioners import LearnedMultigrid",
        "",
        f"M = LearnedMultigrid.load({file})",
        'learnsolve.solve(A, b, method="cg", M=M)',
    ]


def draw(path: Path, kind: Kind, network: nn.Module, system: HeldOut, rtol: float) -> None:
    """Residuals of the methods on one system, by iteration and by second."""
    from matplotlib.figure import Figure

    from learnsolve.plots import plot_convergence

    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    by_iteration, by_second = figure.subplots(1, 2, sharey=True)
    for name, method in _methods(kind, network).items():
        times = [0.0]

        def note(info: Any, times: list[float] = times) -> None:
            times.append(info.seconds)

        result = _solve(system, method, rtol, callback=note)
        # An iteration that fails is not reported.
        times += [result.seconds] * (len(result.residuals) - len(times))
        plot_convergence(result, by_iteration, label=f"{name}: {_count(result.iterations)}")
        plot_convergence(result, by_second, seconds=times, label=f"{name}: {result.seconds:.3f} s")
    by_second.set_ylabel("")
    figure.suptitle(f"{system.family}, {_size(system.shape)} cells, held out")
    with replacing(path) as part:
        figure.savefig(part, dpi=150, format="png")


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def _count(iterations: int) -> str:
    return f"{iterations} iteration{'' if iterations == 1 else 's'}"


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
