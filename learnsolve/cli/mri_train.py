"""``learnsolve mri train``: from a config file, or one's own scans, to weights and a report on them."""

import shlex
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.train import BAD_CONFIG, FAILED, INTERRUPTED, Device, Out, Seed, Steps, Timeout, ended

if TYPE_CHECKING:
    from learnsolve.cli.mri_config import MRIConfig
    from learnsolve.mri import RecurrentVarNet
    from learnsolve.mri.examples import Example
    from learnsolve.training import FitProgress, FitResult

CLASSICAL = ("zero-filled", "cg-sense", "l1-wavelet", "total-variation")
Figures = dict[str, dict[str, float]]


def train(
    config: Annotated[str, typer.Option(metavar="FILE|NAME", help="A .toml file, or small.")],
    out: Out,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Files of k-space, or folders of them, instead of the config's.", show_default=False
        ),
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option(help="Weights to begin with: a name, or a .safetensors file.", show_default=False),
    ] = None,
    steps: Steps = None,
    timeout: Timeout = None,
    seed: Seed = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make slices ahead of time.")] = 0,
    device: Device = "cpu",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train a RecurrentVarNet, and report what it can do beside classical methods.

    Slices that are fully sampled are undersampled by masks drawn on the way; of others, samples are kept
    aside to learn by. The same command continues a run that was stopped. RUN gets network.safetensors,
    config.toml, metrics.jsonl and report.md. Exit code 0: finished, or paused by --timeout; 2: wrong config
    or files; 1: training failed; 130: interrupted, with a checkpoint.
    """
    try:
        from learnsolve.cli.mri_config import MRIConfig
        from learnsolve.cli.train import processes

        chosen = MRIConfig.read(config).changed(steps, timeout, seed, workers)
        if data:
            files = tuple(str(path.resolve()) for path in data)
            chosen = replace(chosen, data=replace(chosen.data, files=files))
        with processes(device) as (where, rank):
            asked = _run(chosen, out, begin, where, rank, quiet, _command(locals()))
    except (OSError, ValueError) as error:
        raise ended(error, BAD_CONFIG) from None
    except (RuntimeError, MemoryError) as error:
        raise ended(error, FAILED) from None
    if asked:
        raise typer.Exit(INTERRUPTED)


def _command(given: dict[str, Any]) -> str:
    """The same call, to be typed again."""
    words = ["learnsolve", "mri", "train"]
    for name in ("config", "out", "begin", "steps", "timeout", "seed", "workers", "device"):
        if given[name] is not None:
            words += [f"--{name}", str(given[name])]
    for path in given["data"] or ():
        words += ["--data", str(path)]
    return shlex.join(words)


def _run(
    config: "MRIConfig", out: Path, begin: str | None, where: Any, rank: int, quiet: bool, command: str
) -> bool:
    """Train and report; whether a signal has stopped it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from learnsolve.cli.train import signals
    from learnsolve.files import replacing
    from learnsolve.mri import learned, training

    console = Console(quiet=quiet or rank != 0)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    record = config.record()
    weights = None
    if begin is not None:
        first = learned.load(begin)
        if first.options != config.training.network:
            raise ValueError(
                f"{begin} is a network of {first.options}, and the config has {config.training.network}"
            )
        weights, record["begin"] = first.state_dict(), begin
    with console.status("preparing slices"):
        held_out = config.examples()
        source = config.source()
    if config.training.fit.timeout is not None:
        left = max(config.training.fit.timeout - (time.perf_counter() - began), 1e-3)
        fit = replace(config.training.fit, timeout=left)
        config = replace(config, training=replace(config.training, fit=fit))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console) as progress, signals() as asked:
        task = progress.add_task("training", total=config.training.fit.steps, now="")

        def note(now: "FitProgress") -> bool:
            progress.update(task, completed=now.step, now=_figures(now))
            return asked()

        network, result = training.train(
            config.training,
            source,
            held_out,
            device=where,
            folder=out,
            callback=note,
            record=record,
            begin=weights,
        )
        progress.update(task, completed=result.step)
        stopped = asked()
    if not result.finished:
        say(f"stopped at step {result.step} of {config.training.fit.steps}, with a checkpoint")
        say(f"to continue: {command}")
        return stopped
    if rank == 0:
        learned.save(out / "network.safetensors", network.cpu())
        with console.status("comparing with classical methods"):
            figures = compare(network.cpu().eval(), held_out)
        with replacing(out / "report.md") as part:
            part.write_text(markdown(config, result, figures), encoding="utf-8", newline="\n")
    for name in ("network.safetensors", "report.md"):
        if (out / name).exists():
            say(f"wrote {out / name}")
    use = f"--method recurrentvarnet --weights {out}/network.safetensors"
    say(f"to use it: learnsolve mri recon FILE --out DIR {use}")
    return False


def _figures(now: "FitProgress") -> str:
    parts = [f"loss {now.loss:.4f}"]
    if "nmse" in now.metrics:
        parts.append(f"held-out NMSE {now.metrics['nmse']:.4f}")
    if now.skipped:
        parts.append(f"{now.skipped} skipped")
    return ", ".join([*parts, f"{timedelta(seconds=round(now.eta))} left"])


def compare(
    network: "RecurrentVarNet",
    examples: Sequence["Example"],
    methods: Sequence[str] = CLASSICAL,
    checked: bool = False,
) -> Figures:
    """Means over slices of each method's metrics, and of its seconds, those for the maps not counted.

    Slices without a reference have the error at samples that were kept aside alone. If asked for, the network
    is run with its check, too.
    """
    import torch

    from learnsolve import ConvergenceWarning
    from learnsolve.mri import reconstruct

    learned = {"weights": network, "check": False, "as_kspace": True}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {method: (method, {}) for method in methods}
    kinds["recurrentvarnet"] = ("recurrentvarnet", learned)
    if checked:
        kinds["recurrentvarnet, checked"] = ("recurrentvarnet", {**learned, "check": True})
    rows: dict[str, list[dict[str, float]]] = {}
    for one in examples:
        k = torch.where(one.sampled, one.kspace, 0)
        given: dict[str, Any] = {"sampled": one.sampled, "maps": one.maps, "centred": one.centred}
        for name, (method, options) in kinds.items():
            if one.aside is not None and method == "zero-filled":
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                res = reconstruct(k, method, **given, **options)
            rows.setdefault(name, []).append({**_judged(one, res), "seconds": res.seconds})
    return {
        method: {name: statistics.fmean(row[name] for row in found) for name in found[0]}
        for method, found in rows.items()
    }


def _judged(one: "Example", res: Any) -> dict[str, float]:
    from learnsolve import mri
    from learnsolve.mri.coils import norm
    from learnsolve.mri.held_out import foretold

    if one.aside is not None:
        wanted = one.kspace[..., one.aside]
        return {
            "held_out": norm(foretold(res, one.aside, one.centred)[..., one.aside] - wanted) / norm(wanted)
        }
    assert one.reference is not None
    return mri.measures(one.reference.numpy(), res.x.abs().numpy())


def markdown(config: "MRIConfig", result: "FitResult", figures: Figures) -> str:
    """The text of the report."""
    names = list(next(iter(figures.values())))
    judged, masks = config.held_out, config.training.masks
    network = asdict(config.training.network)
    where = ", ".join(Path(file).name for file in judged.files) or (
        f"simulated scans of seed {judged.seed}, {' or '.join(map(str, judged.sizes))} pixels each way"
    )
    lines = [
        "# A trained RecurrentVarNet",
        "",
        f"* Network: {', '.join(f'{name} {value}' for name, value in network.items())}.",
        f"* Trained: {result.step} steps in {result.seconds:.0f} s, last loss {result.loss:.4g}, "
        f"{result.skipped} steps skipped.",
        f"* Held out: {judged.slices} slices at most, {where}; masks {', '.join(masks.kinds)}, acceleration "
        f"{masks.acceleration[0]:g} to {masks.acceleration[1]:g}. Means over slices.",
        "",
        "| method | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for method, row in figures.items():
        lines.append(f"| {method} | " + " | ".join(f"{row[name]:.4g}" for name in names) + " |")
    return "\n".join([*lines, ""])
