"""``learnsolve doctor``: what is installed, what works, and a check of it."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import Any

import typer

from learnsolve import __version__
from learnsolve.cli.common import FAILED, Json

TOLERANCE = 1e-8
# What the optional packages are for, by the name under which they are imported.
OPTIONAL = {
    "triton": ("triton", "kernels on NVIDIA GPUs: learnsolve[gpu]"),
    "cupy": ("cupy-cuda13x", "cupy arrays in and out: learnsolve[gpu]"),
    "petsc4py": ("petsc4py", "solve --mpi: learnsolve[distributed]"),
    "mpi4py": ("mpi4py", "batch --mpi: learnsolve[distributed]"),
    "distributed": ("distributed", "batch --scheduler: learnsolve[distributed]"),
    "transformers": ("transformers", "linearize: learnsolve[llm]"),
    "peft": ("peft", "linearize: learnsolve[llm]"),
    "sklearn": ("scikit-learn", "sets of digits: learnsolve[digits]"),
}


def doctor(as_json: Json = False) -> None:
    """Say what is installed, which backends work, and check them. Exit code 0: all is well; 1: it is not."""
    report: dict[str, Any] = {
        "learnsolve": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "required": _required(),
        "optional": _optional(),
    }
    report["checks"] = _checks()
    missing = [name for name, found in report["required"].items() if found is None]
    failed = [name for name, check in report["checks"].items() if check["works"] is False]
    report["healthy"] = not (missing or failed)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _show(report)
    if not report["healthy"]:
        raise typer.Exit(FAILED)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _required() -> dict[str, str | None]:
    """Versions of what the package cannot do without."""
    words = [line.partition(";") for line in requires("learnsolve") or []]
    names = [name for name, _, when in words if "extra ==" not in when]
    plain = [name.split("[")[0].strip(" <>=!~0123456789.") for name in names]
    return {name: _installed(name) for name in plain}


def _optional() -> dict[str, dict[str, Any]]:
    return {
        package: {"version": _installed(package) if find_spec(module) else None, "for": what}
        for module, (package, what) in OPTIONAL.items()
    }


def _checks() -> dict[str, dict[str, Any]]:
    """Each backend tried: ``works`` is None where there is nothing to try."""
    checks: dict[str, dict[str, Any]] = {}
    works: bool | None
    tried: list[tuple[str, Callable[[], str | None]]] = [
        ("torch", _torch),
        ("solve on the CPU (numba)", _solve_on_cpu),
        ("solve on the GPU (Triton)", _solve_on_gpu),
        ("shipped weights", _weights),
        ("PETSc", _petsc),
    ]
    for name, check in tried:
        began, works = time.perf_counter(), None
        try:
            said = check()
            works = None if said is None else True
        except Exception as error:
            said, works = f"{type(error).__name__}: {' '.join(str(error).split())}", False
        checks[name] = {"works": works, "says": said, "seconds": time.perf_counter() - began}
    return checks


def _torch() -> str:
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.get_num_threads()} threads; " + (", ".join(devices) if devices else "no CUDA device")


def _solved(device: str) -> str:
    """A system solved and compared with the answer that is known."""
    import torch

    import learnsolve

    A = learnsolve.operators.GridPoisson(
        torch.zeros(16, 16, dtype=torch.int64), boundary="dirichlet", device=device
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 16, generator=generator, dtype=torch.float64).to(device)
    result = learnsolve.solve(A, A @ x, method="cg", rtol=1e-12)
    error = float((result.x - x).norm() / x.norm())
    if not (result.success and error < TOLERANCE):
        raise RuntimeError(f"{result!r} is {error:.1e} from the answer")
    return f"{result.iterations} iterations, {error:.0e} from the answer"


def _solve_on_cpu() -> str:
    return _solved("cpu")


def _solve_on_gpu() -> str | None:
    import torch

    return _solved("cuda") if torch.cuda.is_available() and find_spec("triton") else None


def _weights() -> str:
    from learnsolve.methods.dcdm_weights import load
    from learnsolve.training.shipped import SHIPPED

    for name in ("poisson2d", "poisson3d"):
        load(name)
    files = sorted(SHIPPED.glob("*.safetensors"))
    return f"{len(files)} files, {sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


def _petsc() -> str | None:
    if find_spec("petsc4py") is None:
        return None
    from learnsolve.distributed.exchange import petsc

    return "PETSc {}.{}.{}".format(*petsc().Sys.getVersion())


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(
        f"learnsolve {report['learnsolve']}, Python {report['python']} on {report['platform']}, "
        f"{report['cores']} cores",
        highlight=False,
        soft_wrap=True,
    )
    packages = Table("package", "version", "for")
    for name, found in report["required"].items():
        packages.add_row(name, found or "[red]missing", "")
    for name, about in report["optional"].items():
        packages.add_row(name, about["version"] or "-", escape(about["for"]))
    console.print(packages)
    checks = Table("check", "", "says", "seconds")
    words = {True: "[green]works", False: "[red]fails", None: "not here"}
    for name, check in report["checks"].items():
        checks.add_row(name, words[check["works"]], escape(check["says"] or ""), f"{check['seconds']:.2f}")
    console.print(checks)
    if not report["healthy"]:
        print("learnsolve: something above is missing or fails", file=sys.stderr)
