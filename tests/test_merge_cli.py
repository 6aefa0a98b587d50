"""``learnsolve merge``: direction networks as one, or a refusal that leaves nothing behind."""

import re
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

import learnsolve
from learnsolve.cli import app
from learnsolve.methods import DCDM
from learnsolve.methods.dcdm_network import NetworkOptions
from learnsolve.methods.dcdm_training import DCDMTraining, Source, train
from learnsolve.methods.dcdm_weights import load, save
from learnsolve.preconditioners import DCDMPreconditioner
from learnsolve.problems import poisson
from learnsolve.training import FitOptions
from learnsolve.training.matching import permuted
from learnsolve.training.symmetries import symmetries
from learnsolve.training.weights import WEIGHTS_FORMAT, read_tensors

FAST = ["--shape", "12x12", "--family", "obstacles", "--seed", "7"]
OPTIONS = NetworkOptions(dims=2, channels=4, half=1)
RECORD = {
    "data": {"domains": ["obstacles"], "seeds": [0, 2001], "shapes": [[16, 16]]},
    "held_out": {"families": ["maze"], "shapes": [[16, 16]], "seeds": [2002]},
}


def merge(*arguments):
    return CliRunner().invoke(app, ["merge", *map(str, arguments)])


def figures(text):
    """What the table says of each network: the loss, and iterations if there are any."""
    rows = (re.findall(r"-?\d+\.\d+", line) for line in text.splitlines() if line.startswith("│"))
    return [tuple(map(float, row)) for row in rows if row]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, and files without a record: of the first, and with its channels in other orders."""
    folder = tmp_path_factory.mktemp("runs")
    sources = [Source(poisson.obstacles((16, 16), seed).A) for seed in (0, 2001)]
    for name, seed in (("run", 0), ("other", 1)):
        fit = FitOptions(25, 2e-2, seed=seed)
        config = DCDMTraining(OPTIONS, fit, cells=1024, depth=4)
        train(config, sources, folder=folder / name, record=RECORD)
    network = load(folder / "run" / "network.safetensors")
    generator = torch.Generator().manual_seed(0)
    orders = {
        name: replace(units, order=torch.randperm(4, generator=generator))
        for name, units in symmetries(network, torch.zeros(1, 1, 16, 16)).items()
    }
    save(folder / "turned.safetensors", permuted(network, orders))
    save(folder / "plain.safetensors", network)
    return folder


def test_a_network_and_its_permutation_are_one(runs, tmp_path):
    out = tmp_path / "merged"
    done = merge(
        runs / "run", runs / "turned.safetensors", "--out", out, "--accept", "1e-6", "--shape", "12x12"
    )
    assert done.exit_code == 0, done.output
    merged, network = load(out / "network.safetensors"), load(runs / "run" / "network.safetensors")
    for one, other in zip(merged.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    first, second, average = figures(done.stdout)
    assert first == second == average and first[0] < -0.1 and first[1] > 1
    # The seeds that were trained and validated on are passed over, and the families are those of the runs.
    assert "held out: maze, 12×12, seeds 2003, 2004" in done.stdout
    assert "by itself is better" not in done.stdout
    assert f'DCDM.load("{(out / "network.safetensors").as_posix()}")' in done.stdout


def test_what_is_merged_solves_and_merges_again(runs, tmp_path):
    done = merge(runs / "run", runs / "other", "--out", tmp_path / "merged", "--accept", "5", *FAST)
    assert done.exit_code == 0, done.output
    path = tmp_path / "merged" / "network.safetensors"
    problem = poisson.obstacles((16, 16), seed=3)
    method = DCDM.load(path)
    assert learnsolve.solve(problem.A, problem.b, method=method).success
    M = DCDMPreconditioner(weights=str(path))
    assert learnsolve.solve(problem.A, problem.b, method="cg", M=M).success
    metadata = read_tensors(path, WEIGHTS_FORMAT)[1]
    losses = [row[0] for row in figures(done.stdout)[:3]]
    assert metadata["merged"]["losses"] == pytest.approx(losses[:2], abs=1e-4)
    barrier = losses[2] - sum(losses[:2]) / 2
    assert metadata["merged"]["barrier"] == pytest.approx(barrier, abs=2e-4)
    assert f"barrier {metadata['merged']['barrier']:+.4f}; " in done.stdout
    if losses[2] > min(losses[:2]):
        assert "by itself is better than the average" in done.stdout
    # What the networks of an average were trained on counts too.
    arguments = [tmp_path / "merged", runs / "plain.safetensors", "--out", tmp_path / "again", *FAST]
    again = merge(*arguments[:-1], "2001")
    assert again.exit_code == 1 and "--seed 2001: a run was trained on obstacles of that seed" in again.stderr


def test_a_refusal_writes_nothing(runs, tmp_path):
    out = tmp_path / "deep" / "merged"
    pair = runs / "plain.safetensors", runs / "turned.safetensors"
    done = merge(*pair, "--out", out, "--no-align", "--accept", "1e-3", "--shape", "8x8", "--seed", "7")
    assert done.exit_code == 2, done.output
    assert re.search(r"the barrier of the average is [\d.]+, and at most 0.001 is accepted", done.stderr)
    assert not out.parent.exists()
    first, second, average = figures(done.stdout)
    assert first == second and average[0] > first[0] + 1e-3
    # Without a record the families are the usual ones.
    assert "held out: obstacles, free_surface, maze, 8×8, seed 7" in done.stdout


def test_layers_that_may_be_averaged(runs, tmp_path):
    pair = runs / "run", runs / "turned.safetensors"
    arguments = [*pair, "--out", tmp_path, "--no-align", "--layers", "auto", "--accept", "0.1"]
    done = merge(*arguments, *FAST)
    assert done.exit_code == 0, done.output
    merged = read_tensors(tmp_path / "network.safetensors", WEIGHTS_FORMAT)[1]["merged"]
    assert merged["barrier"] <= 0.1 and 0 < len(merged["layers"]) < len(merged["layer_barriers"])
    told = re.findall(r"│ (\S+) +│ +([+-][\d.]+) │ (yes|no)", done.stdout)
    assert {name for name, _, _ in told} == set(merged["layer_barriers"])
    assert {name for name, _, answer in told if answer == "yes"} == set(merged["layers"])
    assert f"{len(merged['layers'])} layers averaged" in done.stdout
    network, average = load(pair[0] / "network.safetensors"), load(tmp_path / "network.safetensors")
    for layer in merged["layer_barriers"]:
        name = layer if layer == "gain" else f"{layer}.weight"
        same = network.get_parameter(name).equal(average.get_parameter(name))
        assert same == (layer not in merged["layers"]), layer


def damaged(runs, tmp_path, what):
    """Two arguments of which one cannot be merged."""
    path = tmp_path / "bad.safetensors"
    if what == "bytes":
        path.write_bytes(b"no weights")
    elif what in ("coarsest", "channels", "dims"):
        save(path, replace(OPTIONS, **{what: 3}).build())
    elif what == "record":
        save(path, OPTIONS.build(), training={"data": {"seeds": "many"}})
    elif what == "records":
        save(path, OPTIONS.build(), trainings=7)
    elif what == "unfinished":
        path = tmp_path / "run"
        path.mkdir()
    return runs / "plain.safetensors", path


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("bytes", "not a whole safetensors file"),
        ("missing", "No such file"),
        ("unfinished", "holds no network.safetensors; a finished run"),
        ("coarsest", "coarsest is 4 in"),
        ("channels", "channels is 4 in"),
        ("dims", "dims is 2 in"),
        ("record", "its record of the training is none: [data] seeds must be a list"),
        ("records", "its record of the training is none"),
    ],
)
def test_what_cannot_be_merged_is_refused(runs, tmp_path, what, words):
    done = merge(*damaged(runs, tmp_path, what), "--out", tmp_path / "merged")
    assert done.exit_code == 1, done.output
    assert words in done.stderr and len(done.stderr.splitlines()) == 1 and done.stdout == ""
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "12x12x12"], "--shape has 3 axes, but the networks are for 2"),
        (["--shape", "wide"], "--shape is 'wide'; numbers of cells such as 64x64"),
        (["--shape", "4x4"], "--shape is 4x4, and the networks pool axes of more than 4 cells"),
        (["--shape", "12x2"], "[held_out] shapes holds [12, 2]"),
        (["--family", "ball"], "must be one of 'obstacles'"),
        (["--seed", "0", "--family", "obstacles"], "--seed 0: a run was trained on obstacles"),
        (["--accept", "nan"], "greater than or equal to 0"),
    ],
)
def test_wrong_options(runs, tmp_path, arguments, words):
    done = merge(runs / "run", runs / "other", "--out", tmp_path / "merged", *arguments)
    assert done.exit_code == 1 and words in done.stderr, done.output
    assert not (tmp_path / "merged").exists()


def test_what_is_there_is_not_written_over(runs):
    before = (runs / "run" / "network.safetensors").read_bytes()
    done = merge(runs / "run", runs / "plain.safetensors", "--out", runs / "run")
    assert done.exit_code == 1 and "holds a network already" in done.stderr
    assert (runs / "run" / "network.safetensors").read_bytes() == before
    alone = merge(runs / "run", "--out", runs / "new")
    assert alone.exit_code == 1 and "one RUN is given" in alone.stderr
    unknown = merge("no-such-name", runs / "run", "--out", runs / "new")
    assert unknown.exit_code == 1 and "poisson2d, poisson3d" in unknown.stderr


def test_quiet(runs, tmp_path):
    plain = runs / "plain.safetensors"
    done = merge(plain, plain, "--out", tmp_path / "merged", *FAST, "--quiet")
    assert done.exit_code == 0 and done.output == ""
    assert (tmp_path / "merged" / "network.safetensors").exists()
