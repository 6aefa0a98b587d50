"""Training of RecurrentVarNet: examples, losses, the command, short and real."""

import json

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from learnsolve.cli import app
from learnsolve.cli.mri_config import MRIConfig, Simulated, Stored, places
from learnsolve.mri import RecurrentVarNetOptions, factor, rss, sampled_of, ssim
from learnsolve.mri.coils import images_of
from learnsolve.mri.examples import Batches, Full, Masking, example, split
from learnsolve.mri.learned import load
from learnsolve.mri.training import MRITraining, apart, made, similarity, train
from learnsolve.problems.scans import Scans
from learnsolve.training import FitOptions
from tests.mri_cases import scan, undersampled

STREAM = Scans(sizes=(32, 40), coils=(3, 5), seed=1)
NETWORK = RecurrentVarNetOptions(
    steps=2, hidden=6, layers=1, initialiser=False, refine=False, percentile=99.9, coupling=50.0
)


def lost(chosen, network, one):
    return apart(chosen, *made(chosen, network, one)).item()


def training(steps=2, **more):
    fit = FitOptions(steps=steps, learning_rate=3e-3, ema=0.9, checkpoint_every=1)
    return MRITraining(NETWORK, fit, **{"l2": 1.0, "ssim": 0.5, **more})


def test_masks_are_drawn_as_asked():
    rng = np.random.default_rng(0)
    masking = Masking(kinds=("random", "poisson"), acceleration=(2, 4), centre=(0.1, 0.2))
    factors, kinds = [], set()
    for _ in range(40):
        mask = masking.draw((48, 64), rng)
        factors.append(factor(mask))
        kinds.add(bool((mask == mask[:1]).all() or (mask == mask[:, :1]).all()))
    assert 1.95 < min(factors) < 2.4
    assert 3.4 < max(factors) < 4.1
    assert kinds == {True, False}


@pytest.mark.parametrize(
    "wrong",
    [{"kinds": ()}, {"kinds": ("best",)}, {"acceleration": (0.5, 2)}, {"centre": (0.2, 0.1)}, {"axes": (0,)}],
)
def test_what_masking_refuses(wrong):
    with pytest.raises(ValueError, match="accepted"):
        Masking(**wrong)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"workers": -1}, {"l1": -1.0}, {"l1": 0.0, "l2": 0.0}])
def test_what_training_refuses(wrong):
    with pytest.raises(ValueError, match=r"accepted|negative"):
        training(**wrong)


@pytest.mark.parametrize("centred", [True, False])
def test_an_example_of_all_of_kspace(centred):
    _, _, full = scan((48, 40), 4, noise=0.01)
    full = full if centred else torch.fft.ifftshift(full, (-2, -1))
    one = example(Full(full, centred=centred), Masking(kinds=("random",)), np.random.default_rng(0))
    np.testing.assert_allclose(one.reference, rss(images_of(full, centred=centred)))
    assert one.aside is None
    assert 2 < factor(one.sampled) < 6.5
    middle = one.sampled if centred else torch.fft.fftshift(one.sampled)
    assert middle[24, 20]
    np.testing.assert_allclose(rss(one.maps), 1, rtol=1e-3)
    off = torch.linalg.vector_norm(one.start.abs() - one.reference) / torch.linalg.vector_norm(one.reference)
    assert off < 0.5


@pytest.mark.parametrize("kind", ["random", "poisson"])
@pytest.mark.parametrize("centred", [True, False])
def test_an_example_of_a_part_of_kspace(kind, centred):
    _, _, full = scan((48, 40), 4, noise=0.01)
    y, sampled = undersampled(full, kind, 3.0, axis=-1)
    if not centred:
        y, sampled = (torch.fft.ifftshift(part, (-2, -1)) for part in (y, sampled))
    one = example(Full(y, sampled=sampled, centred=centred), Masking(), np.random.default_rng(0))
    assert one.reference is None
    assert one.aside is not None
    assert bool((one.sampled ^ one.aside == sampled).all())
    middle = torch.fft.fftshift(one.aside) if not centred else one.aside
    assert not middle[21:27, 18:22].any()
    if kind == "random":
        assert bool((one.aside == one.aside[:1]).all())


def test_similarity_is_that_of_the_metric():
    torch.manual_seed(0)
    r, x = torch.rand(2, 20, 24, dtype=torch.float64)
    assert similarity(r, x).item() == pytest.approx(ssim(r.numpy(), x.numpy()), rel=1e-9)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: similarity(r, x), x)


def test_the_loss_is_what_it_says():
    one = example(Full(torch.from_numpy(STREAM[0].kspace)), Masking(), np.random.default_rng(1))
    network = NETWORK.build()
    seen = torch.where(one.sampled, one.kspace, 0)
    image = network(seen[None], one.sampled, one.maps[None], start=one.start[None])[0]
    away = image - one.reference
    parts = (
        (away.abs().mean() / one.reference.mean()).item(),
        (torch.linalg.vector_norm(away) / torch.linalg.vector_norm(one.reference)).item(),
        1 - ssim(one.reference.numpy(), image.detach().numpy()),
    )
    for weights in ((1, 0, 0), (0, 1, 0), (2, 1, 0.5)):
        found = lost(training(l1=weights[0], l2=weights[1], ssim=weights[2]), network, one)
        assert found == pytest.approx(np.dot(weights, parts), rel=1e-4)
    saved = lost(training(save_memory=True), network, one)
    assert saved == pytest.approx(lost(training(), network, one), rel=1e-6)


def test_the_gradient_goes_through_the_correction():
    torch.manual_seed(0)
    _, maps, full = scan((10, 9), 2, dtype=torch.complex128)
    lines = torch.rand(9) < 0.6
    sampled = lines.expand(10, 9)
    network = NETWORK.build().double()
    start = torch.randn(1, 10, 9, dtype=torch.complex128)

    def image(weight):
        given = (full[None], sampled, maps[None])
        held = {"blocks.0.unit.blocks.1.1.weight": weight}
        return torch.func.functional_call(network, held, given, {"start": start})

    weight = network.blocks[0].unit.blocks[1][1].weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(image, weight, nondet_tol=1e-9, fast_mode=True)


def test_batches_made_ahead_are_the_same():
    made = Simulated(STREAM), Masking(), 2, 7
    here, there = Batches(*made), Batches(*made, workers=1, stride=2)
    generator = torch.Generator()
    for number in (0, 2, 4, 1):
        for one, other in zip(here(number, generator), there(number, generator), strict=True):
            assert torch.equal(one.kspace, other.kspace)
            assert torch.equal(one.sampled, other.sampled)
            torch.testing.assert_close(one.start, other.start)


def test_fifty_steps_lower_the_loss(tmp_path):
    rng = np.random.default_rng(3)
    others = Simulated(Scans(sizes=(40,), coils=(4, 4), seed=9))
    judged = [example(others(i), Masking(), rng) for i in range(4)]
    chosen = training(50)
    torch.manual_seed(chosen.fit.seed)
    with torch.no_grad():
        before = np.mean([lost(chosen, NETWORK.build(), one) for one in judged])
    network, result = train(chosen, Simulated(STREAM), judged, folder=tmp_path)
    assert result.finished
    assert result.metrics["loss"] < 0.93 * before
    losses = [lost(chosen, network, one) for one in judged]
    assert result.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_stopped_run_goes_on_bitwise(tmp_path):
    _, whole = train(training(4), Simulated(STREAM), [], folder=tmp_path / "a")
    train(training(4), Simulated(STREAM), [], folder=tmp_path / "b", callback=lambda now: now.step == 2)
    network, resumed = train(training(4), Simulated(STREAM), [], folder=tmp_path / "b")
    assert resumed.loss == whole.loss
    again, _ = train(training(4), Simulated(STREAM), [], folder=tmp_path / "a")
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_of_another_network_are_no_beginning():
    other = RecurrentVarNetOptions(steps=1, hidden=2, layers=1).build().state_dict()
    with pytest.raises(ValueError, match="of another network"):
        train(training(), Simulated(STREAM), [], begin=other)


CONFIG = """
[network]
steps = 1
hidden = 4
layers = 1
initialiser = false
refine = false
coupling = 50.0
[fit]
steps = 3
learning_rate = 1e-3
[train]
l2 = 1.0
[data]
sizes = [32]
coils = [3, 4]
[held_out]
slices = 2
sizes = [32]
"""


def run(*arguments):
    return CliRunner().invoke(app, ["mri", "train", *map(str, arguments)])


def test_the_command_trains_and_reports(tmp_path):
    (tmp_path / "a.toml").write_text(CONFIG)
    out = tmp_path / "run"
    done = run("--config", tmp_path / "a.toml", "--out", out)
    assert done.exit_code == 0, done.output
    assert load(out / "network.safetensors").options.hidden == 4
    text = (out / "report.md").read_text()
    assert "| recurrentvarnet |" in text
    assert "| total-variation |" in text
    again = run("--config", tmp_path / "a.toml", "--out", out)
    assert again.exit_code == 0
    other = run("--config", tmp_path / "a.toml", "--out", out, "--seed", 5)
    assert other.exit_code == 1


def test_the_command_learns_from_files(tmp_path):
    (tmp_path / "a.toml").write_text(CONFIG)
    (tmp_path / "in").mkdir()
    sampled = np.zeros(32, bool)
    sampled[::2] = sampled[10:22] = True
    for number in range(2):
        k = STREAM[number].kspace[:, :32, :32].copy()
        with h5py.File(tmp_path / "in" / f"{number}.h5", "w") as file:
            file["kspace"] = np.stack([k, 0 * k, k]) * (sampled if number else 1)
    found = places([str(tmp_path / "in")])
    assert len(found) == 4
    source = Stored(found, 3)
    seen = [source(number) for number in range(8)]
    assert sum(one.sampled is None for one in seen) == 4
    assert all(bool((sampled_of(one.kspace) == one.sampled).all()) for one in seen if one.sampled is not None)
    out = tmp_path / "run"
    done = run("--config", tmp_path / "a.toml", "--out", out, "--data", tmp_path / "in", "--steps", 4)
    assert done.exit_code == 0, done.output
    tuned = run(
        "--config", tmp_path / "a.toml", "--out", tmp_path / "tuned", "--data", tmp_path / "in" / "1.h5",
        "--begin", out / "network.safetensors", "--steps", 2, "--quiet",
    )  # fmt: skip
    assert tuned.exit_code == 0, tuned.output
    assert (tmp_path / "tuned" / "network.safetensors").is_file()
    lines = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("[other]\na = 1", "no table"),
        ("[masks]\nkinds = ['best']", "kinds holds"),
        ("[data2]", "no table"),
    ],
)
def test_configs_that_are_refused(tmp_path, change, what):
    (tmp_path / "a.toml").write_text(CONFIG + change)
    refused = run("--config", tmp_path / "a.toml", "--out", tmp_path / "run")
    assert refused.exit_code == 1
    assert what in refused.output


def test_a_network_is_judged_on_what_it_has_not_seen(tmp_path):
    (tmp_path / "a.toml").write_text(CONFIG.replace("slices = 2", "slices = 2\nseed = 1"))
    refused = run("--config", tmp_path / "a.toml", "--out", tmp_path / "run")
    assert refused.exit_code == 1
    assert "has not seen" in refused.output
    assert run("--config", "none", "--out", tmp_path / "run").exit_code == 1


def test_the_shipped_config_is_one():
    config = MRIConfig.read("small")
    assert config.training.network.coupling > 0
    assert config.record()["data"]["seed"] != config.record()["held_out"]["seed"]


def test_nothing_outside_of_the_middle():
    with pytest.raises(ValueError, match="nothing to keep aside"):
        split(torch.ones(8, 8, dtype=torch.bool), True, np.random.default_rng(0))
