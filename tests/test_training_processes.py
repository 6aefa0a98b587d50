"""Training on several processes: the losses of one, and runs that go on with another number of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from learnsolve.training import FitOptions, fit
from learnsolve.training.processes import part_of
from learnsolve.training.toml import toml_text

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def line():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 1)


def drawn(number, generator):
    x = torch.randn(8, 3, generator=generator)
    return x, x.sum(1, keepdim=True) + 0.1 * torch.randn(8, 1, generator=generator)


def loss(network, batch):
    x, y = batch
    return torch.nn.functional.mse_loss(network(x), y)


def test_parts_are_one_batch():
    """A step of several parts is that of all their examples together."""

    def together(number, generator):
        parts = []
        for part in range(3):
            from learnsolve.training.seeding import seed_of

            own = torch.Generator().manual_seed(seed_of(0, "batch", 3 * number + part))
            parts.append(drawn(number, own))
        return tuple(torch.cat(one) for one in zip(*parts, strict=True))

    one, other = line(), line()
    options = FitOptions(20, 0.05, validate_every=1)
    apart = fit(one, loss, drawn, FitOptions(20, 0.05, validate_every=1, parts=3))
    whole = fit(other, loss, together, options)
    for here, there in zip(apart.history, whole.history, strict=True):
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-5)
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_in_one_part_leaves_the_step_out():
    def spoilt(number, generator):
        x, y = drawn(number, generator)
        return x, y * (torch.nan if number == 5 else 1)

    assert fit(line(), loss, spoilt, FitOptions(6, parts=2)).skipped == 1


def test_a_folder_remembers_its_parts(tmp_path):
    stop = iter([False, True])
    options = FitOptions(6, parts=2)
    first = fit(line(), loss, drawn, options, folder=tmp_path, callback=lambda _: next(stop))
    assert first.status == "stopped"
    network = line()
    assert fit(network, loss, drawn, FitOptions(6), folder=tmp_path).finished
    reference = line()
    fit(reference, loss, drawn, options)
    assert torch.equal(network.weight, reference.weight)
    with pytest.raises(ValueError, match="parts"):
        fit(line(), loss, drawn, FitOptions(6, parts=3), folder=tmp_path)


def test_names_of_parts():
    assert [part_of(name) for name in ("part0.a.b", "part12.x", "part.x", "partx.y", "part3", "alpha")] == [
        0,
        12,
        None,
        None,
        None,
        None,
    ]


def tables(kind):
    """Configs of small runs of each command that trains, 50 steps of two parts."""
    options = {"steps": 50, "validate_every": 1, "checkpoint_every": 10, "parts": 2, "learning_rate": 1e-3}
    if kind == "sequence":
        return {
            "task": {"name": "parity"},
            "network": {"width": 16, "layers": 1, "heads": 2, "conv": 0, "beta_max": 2.0},
            "train": {"lengths": [3, 12], "judged": [12], "batch": 4, "count": 8},
            "fit": options,
        }
    if kind == "mri":
        return {
            "network": {
                "steps": 1, "hidden": 4, "layers": 1, "initialiser": False, "refine": False, "coupling": 50.0
            },
            "fit": {**options, "validate_every": 10},
            "train": {"l2": 1.0},
            "data": {"sizes": [32], "coils": [3, 4]},
            "held_out": {"slices": 2, "sizes": [32]},
        }  # fmt: skip
    if kind == "multigrid":
        return {
            "fit": options,
            "multigrid": {"coarsest": 20},
            "data": {"shapes": [[12, 12]], "domains": ["obstacles"]},
            "held_out": {"families": ["obstacles"], "shapes": [[12, 12]]},
        }
    return {
        "network": {"dims": 2, "channels": 4},
        "fit": options,
        "dcdm": {"cells": 512, "depth": 4, "loss": kind.partition(" ")[2]},
        "data": {"shapes": [[12, 12]], "domains": ["obstacles"], "seeds": [0], "vectors": 20, "samples": 40},
        "held_out": {"families": ["obstacles"], "shapes": [[12, 12]], "seeds": [5]},
    }


def series(path):
    x = np.empty((400, 3))
    x[0] = 1.0
    for i in range(399):
        a, b, c = x[i]
        x[i + 1] = x[i] + 0.01 * np.array([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])
    path.write_text("a,b,c\n" + "\n".join(",".join(map(repr, row)) for row in x.tolist()))
    return path


def words_of(kind, folder, out):
    """The command line of a run."""
    files = ["--out", str(out)]
    if kind == "dynamics":
        options = ["--steps", "50", "--parts", "2", "--length", "20", "--hidden", "20", "--held-out", "0.3"]
        return ["dynamics", "fit", str(series(folder / "series.csv")), *options, *files]
    if kind == "forecast":
        options = ["--horizon", "4", "--look-back", "12", "--patch", "4", "--steps", "50", "--parts", "2"]
        return ["forecast", str(dated(folder / "dated.csv")), *options, *files]
    config = folder / "config.toml"
    config.write_text(toml_text(tables(kind)), encoding="utf-8")
    words = ["train", kind.split(" ")[0]] if kind in TRAINED else [kind, "train"]
    return [*words, "--task" if kind == "sequence" else "--config", str(config), *files]


def dated(path):
    """A table of dates and two waves."""
    hours = np.datetime64("2020-01-01T00:00:00") + np.arange(300) * np.timedelta64(1, "h")
    values = np.sin(np.arange(300)[:, None] / np.array([3.0, 5.0]))
    rows = [
        f"{str(hour).replace('T', ' ')},{a!r},{b!r}"
        for hour, (a, b) in zip(hours, values.tolist(), strict=True)
    ]
    path.write_text("date,a,b\n" + "\n".join(rows) + "\n")
    return path


def started(words, count):
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    )
    module = ["--module"] if count > 1 else ["-m"]
    return subprocess.Popen(
        [sys.executable, *launcher, *module, "learnsolve", *words],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def trained(words, count):
    process = started(words, count)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


TRAINED = ["dcdm energy", "dcdm residual", "multigrid"]
KINDS = [*TRAINED, "sequence", "mri", "dynamics", "forecast"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_losses_of_one(tmp_path, kind):
    for count in (1, 2):
        trained(words_of(kind, tmp_path, tmp_path / f"run{count}"), count)
    one, two = losses(tmp_path / "run1"), losses(tmp_path / "run2")
    assert max(one) == 50 and len(one) >= 5 and one.keys() == two.keys()
    assert max(abs(one[step] - two[step]) for step in one) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_on_two_goes_on_on_one(tmp_path, kind):
    reference, run = tmp_path / "reference", tmp_path / "run"
    trained(words_of(kind, tmp_path, reference), 1)
    words = words_of(kind, tmp_path, run)
    process = started(words, 2)
    deadline = time.monotonic() + 200
    while not (run / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    trained(words, 1)
    one, killed = losses(reference), losses(run)
    assert killed.keys() == one.keys()
    assert max(abs(one[step] - killed[step]) for step in one) <= 1e-5
