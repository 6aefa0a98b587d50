"""``learnsolve mri train``: from a config file, or one's own scans, to weights and a report on them."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.common import Quiet
from learnsolve.cli.runs import (
    Device,
    Out,
    Run,
    Seed,
    Steps,
    Timeout,
    command_line,
    processes,
    time_left,
)

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
    quiet: Quiet = False,
) -> None:
    """Train a RecurrentVarNet, and report what it can do beside classical methods.

    Slices that are fully sampled are undersampled by masks drawn on the way; of others, samples are kept
    aside to learn by. The same command continues a run that was stopped. RUN gets network.safetensors,
    config.toml, metrics.jsonl and report.md. Exit code 0: finished, or paused by --timeout; 1: wrong config
    or files, or training failed; 130: interrupted, with a checkpoint.
    """
    command = command_line(
        "learnsolve", "mri", "train", config=config, out=out, begin=begin, steps=steps, timeout=timeout,
        seed=seed, workers=workers, device=device, data=data,
    )  # fmt: skip
    from learnsolve.cli.mri_config import MRIConfig

    chosen = MRIConfig.read(config).changed(steps, timeout, seed, workers)
    if data:
        files = tuple(str(path.resolve()) for path in data)
        chosen = replace(chosen, data=replace(chosen.data, files=files))
    with processes(device) as (where, rank):
        _go(chosen, out, begin, where, Run(command, rank, quiet))


def _go(config: "MRIConfig", out: Path, begin: str | None, where: Any, run: Run) -> None:
    """Train and report."""
    from learnsolve.files import replacing
    from learnsolve.mri import learned, training

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
    with run.bars.status("preparing slices"):
        held_out = config.examples()
        source = config.source()
    fit = time_left(config.training.fit, began)
    config = replace(config, training=replace(config.training, fit=fit))
    work = partial(
        training.train, config.training, source, held_out, device=where, folder=out, record=record,
        begin=weights,
    )  # fmt: skip
    network, result, _ = run.train(work, fit.steps, _figures)
    if run.rank == 0:
        learned.save(out / "network.safetensors", network.cpu())
        with run.bars.status("comparing with classical methods"):
            figures = compare(network.cpu().eval(), held_out)
        with replacing(out / "report.md") as part:
            part.write_text(markdown(config, result, figures), encoding="utf-8", newline="\n")
    for name in ("network.safetensors", "report.md"):
        if (out / name).exists():
            run.say(f"wrote {out / name}")
    use = f"--method recurrentvarnet --weights {out}/network.safetensors"
    run.say(f"to use it: learnsolve mri recon FILE --out DIR {use}")


def _figures(now: "FitProgress") -> list[str]:
    """What stands beside the bar."""
    parts = [f"held-out NMSE {now.metrics['nmse']:.4f}"] if "nmse" in now.metrics else []
    return [*parts, f"{now.skipped} skipped"] if now.skipped else parts


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

    from learnsolve.mri import reconstruct
    from learnsolve.result import without_convergence_warnings

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
            with without_convergence_warnings():
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
