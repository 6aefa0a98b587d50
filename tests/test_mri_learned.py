"""Reconstruction by a network: its check, what it falls back to, weights of DIRECT's."""

import warnings

import numpy as np
import pytest
import torch

from learnsolve import ConvergenceWarning
from learnsolve.mri import (
    RecurrentVarNetOptions,
    cg_sense,
    from_direct,
    held_out_error,
    l1_wavelet,
    load_direct,
    reconstruct,
    recurrentvarnet,
    rss,
)
from learnsolve.mri.coils import images_of
from learnsolve.mri.examples import started
from learnsolve.mri.frame import Frame
from learnsolve.mri.learned import completed, load, save
from learnsolve.mri.rows import correction
from learnsolve.operators import Identity, sense
from learnsolve.training import WeightsError
from tests.mri_cases import scan, undersampled

SMALL = RecurrentVarNetOptions(steps=2, hidden=4, layers=2, initialiser=False, refine=False)


def network(silent=True, options=SMALL):
    """One whose learned part says nothing, or something at random."""
    torch.manual_seed(0)
    found = options.build().eval()
    if silent:
        for step in found.blocks:
            torch.nn.init.zeros_(step.unit.blocks[-1][1].weight)
            torch.nn.init.zeros_(step.unit.blocks[-1][1].bias)
    return found


@pytest.mark.parametrize("shape", [(10, 12), (9, 7)])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_are_solved_exactly(shape, centred, axis):
    rng = torch.Generator().manual_seed(3)
    maps = torch.randn(2, 3, *shape, dtype=torch.complex128, generator=rng)
    maps = maps / rss(maps).unsqueeze(-3)
    lines = torch.rand(shape[axis], generator=rng) < 0.5
    sampled = (lines[:, None] if axis == 0 else lines).expand(shape).contiguous()
    E = sense(maps, sampled, centred=centred)
    y, x = (torch.randn(2, *size, dtype=torch.complex128, generator=rng) for size in ((3, *shape), shape))
    frame = Frame(sampled, centred)
    add = correction(frame, frame.enter(torch.where(sampled, y, 0)), frame.origin(maps), 0.3)
    found = frame.seen(add(frame.origin(x)))
    A = E.H @ E + 0.3 * Identity(E.domain_shape, E.dtype)
    np.testing.assert_allclose(A @ found, E.H @ (torch.where(sampled, y, 0) - E @ x), atol=1e-12)


def test_points_come_closer():
    _, maps, full = scan((32, 32), noise=0.0)
    y, sampled = undersampled(full, "poisson", 3.0)
    frame = Frame(sampled, True)
    given = frame, frame.enter(y), frame.origin(maps)
    add = correction(*given, 0.02)
    E = sense(maps, sampled)
    x = E.H @ y
    left = [torch.linalg.vector_norm(y - E @ image) for image in (x, x + frame.seen(add(frame.origin(x))))]
    assert left[1] < 0.5 * left[0]
    # However far the shift is from the system's size, the steps do not run away.
    heavy = frame.seen(correction(*given, 50.0)(torch.zeros_like(x)))
    np.testing.assert_allclose(heavy, x / 50.5, atol=0.02 * float(x.abs().max()) / 50)


def test_a_network_that_says_nothing_keeps_what_it_began_with():
    _, maps, full = scan(noise=0.01)
    y, sampled = undersampled(full)
    reference = rss(images_of(full))
    res = recurrentvarnet(y, sampled, maps, weights=network())
    classical = cg_sense(y, sampled, maps).x.abs()
    assert res.success
    assert res.method == "recurrentvarnet"
    assert res.extras["fallback"] == []
    assert torch.linalg.vector_norm(res.x - reference) < torch.linalg.vector_norm(classical - reference)
    score = res.extras["scores"][0]
    assert score.reliable
    assert 0 < score.learned < 1
    assert res.relative_residual < 0.1
    kept = recurrentvarnet(y, sampled, maps, weights=network(), consistent=True, as_kspace=True)
    np.testing.assert_array_equal(kept.extras["kspace"][:, sampled], y[:, sampled])
    assert kept.relative_residual == 0


def test_a_network_that_is_wrong_is_found_out():
    _, maps, full = scan(noise=0.01)
    y, sampled = undersampled(full)
    wrong = network(silent=False)
    with torch.no_grad():
        wrong.blocks[-1].unit.blocks[-1][1].bias += 3.0
    with pytest.warns(ConvergenceWarning, match="1 are by l1-wavelet"):
        res = recurrentvarnet(y, sampled, maps, weights=wrong)
    assert res.method == "l1-wavelet"
    assert res.extras["fallback"] == [0]
    assert not res.extras["scores"][0].reliable
    np.testing.assert_array_equal(res.x, l1_wavelet(y, sampled, maps).x.abs())
    with torch.no_grad():
        wrong.blocks[0].alpha.fill_(float("nan"))
    for check in (True, False):
        with pytest.warns(ConvergenceWarning):
            res = recurrentvarnet(y, sampled, maps, weights=wrong, check=check)
        assert torch.isfinite(res.x).all()
        assert res.extras["fallback"] == [0]


def test_of_what_a_network_changes_the_better_share_is_taken():
    """A network that says something useless is held back, by samples that it has not seen."""
    _, maps, full = scan(noise=0.01)
    y, sampled = undersampled(full)
    reference = rss(images_of(full))
    wild = network(silent=False)
    with torch.no_grad():
        for step in wild.blocks:
            step.unit.blocks[-1][1].weight *= 0.1
            step.unit.blocks[-1][1].bias *= 0.1
    found = {check: recurrentvarnet(y, sampled, maps, weights=wild, check=check) for check in (False, True)}
    errors = {check: torch.linalg.vector_norm(res.x - reference) for check, res in found.items()}
    assert found[True].method == "recurrentvarnet"
    assert 0 <= found[True].extras["scores"][0].share < 1
    assert errors[True] < errors[False]
    kept = completed(wild, y, sampled, maps, True, 0.0)
    begun = sense(maps, torch.ones_like(sampled)) @ started(y, sampled, maps, True)
    np.testing.assert_allclose(kept, torch.where(sampled, y, begun), atol=1e-4)


def test_slices_fall_back_one_by_one():
    scans = [scan(noise=0.01, seed=seed) for seed in (0, 1)]
    full, maps = (torch.stack([one[place] for one in scans]) for place in (2, 1))
    y, sampled = undersampled(full)
    maps = maps.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = reconstruct(y, "recurrentvarnet", sampled=sampled, maps=maps, weights=network())
    assert res.x.shape == (2, 64, 48)
    alone = recurrentvarnet(y[1], sampled, maps[1], weights=network())
    np.testing.assert_allclose(res.x[1], alone.x, rtol=1e-6)


def test_with_nothing_to_keep_aside_there_is_no_score():
    _, maps, full = scan((24, 24), noise=0.01)
    sampled = torch.ones(24, 24, dtype=torch.bool)
    res = recurrentvarnet(full, sampled, maps, weights=network())
    assert res.extras["scores"] == [None]
    assert res.success


def test_files_of_networks(tmp_path):
    made = network(silent=False)
    save(tmp_path / "a.safetensors", made)
    found = load(tmp_path / "a.safetensors")
    assert found.options == SMALL
    assert not found.training
    for name, tensor in made.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    with pytest.raises(FileNotFoundError, match="no recurrent-varnet weights 'none'"):
        load("none")
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:200])
    with pytest.raises(WeightsError):
        load(tmp_path / "b.safetensors")


@pytest.mark.parametrize("method", ["cg-sense", "total-variation", "recurrentvarnet"])
def test_what_is_kept_aside_tells_the_error(method):
    _, maps, full = scan(noise=0.01)
    y, sampled = undersampled(full)
    options = {"weights": network()} if method == "recurrentvarnet" else {}
    good = held_out_error(y, method, sampled=sampled, maps=maps, **options)
    bad = held_out_error(y, method, sampled=sampled, maps=maps.roll(9, -1), **options)
    assert 0 < good < (1 if method == "cg-sense" else 0.7) * bad
    assert held_out_error(y, "zero-filled", sampled=sampled) == 1
    with pytest.raises(ValueError, match="nothing to keep aside"):
        held_out_error(full, method, maps=maps, **options)


def in_directs_words(made, layers=("layers.0", "layers.4"), up="layers.0"):
    """The state of a network as DIRECT names it."""
    model, unet = {}, {}
    gates = {"reset": "reset_gates", "update": "update_gates", "proposal": "out_gates"}
    for name, tensor in made.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks" and parts[2] == "alpha":
            model[f"block_list.{parts[1]}.learning_rate"] = tensor.reshape(1)
        elif parts[0] == "blocks" and parts[3] == "blocks":
            model[f"block_list.{parts[1]}.regularizer.conv_blocks.{parts[4]}.1.{parts[6]}"] = tensor
        elif parts[0] == "blocks":
            model[f"block_list.{parts[1]}.regularizer.{gates[parts[3]]}.{parts[4]}.0.{parts[5]}"] = tensor
        elif parts[:2] == ["initialiser", "blocks"]:
            model[f"initializer.conv_blocks.{parts[2]}.1.{parts[4]}"] = tensor
        elif parts[0] == "initialiser":
            model[f"initializer.out_blocks.{parts[2]}.0.{parts[3]}"] = tensor
        else:
            last = len(made.refinement.merge) - 1
            layer = layers[0] if parts[-2] == "0" else layers[1]
            if parts[1] == "down":
                unet[f"down_sample_layers.{parts[2]}.{layer}.weight"] = tensor
            elif parts[1] == "bottom":
                unet[f"conv.{layer}.weight"] = tensor
            elif parts[1] == "up":
                unet[f"up_transpose_conv.{parts[2]}.{up}.weight"] = tensor
            elif parts[1] == "merge":
                inner = "0." if int(parts[2]) == last else ""
                unet[f"up_conv.{parts[2]}.{inner}{layer}.weight"] = tensor
            else:
                unet[f"up_conv.{last}.1.{parts[2]}"] = tensor
    return model, unet


@pytest.mark.parametrize(
    "words", [(("layers.0", "layers.4"), "layers.0"), (("layer_1.conv", "layer_2.conv"), "conv")]
)
def test_weights_of_directs(tmp_path, words):
    torch.manual_seed(1)
    options = RecurrentVarNetOptions(steps=3, hidden=4, layers=2)
    made = options.build()
    model, unet = in_directs_words(made, *words)
    torch.save({"model": model, "sensitivity_model": unet, "__datetime__": "now"}, tmp_path / "model_1.pt")
    found = load_direct(tmp_path / "model_1.pt")
    assert found.options == options
    for name, tensor in made.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    shared = from_direct(
        {k: v for k, v in model.items() if not k.startswith(("block_list.1", "block_list.2"))}, steps=3
    )
    assert shared.options == RecurrentVarNetOptions(steps=3, hidden=4, layers=2, shared=True, refine=False)


def test_what_of_directs_is_refused(tmp_path):
    options = RecurrentVarNetOptions(steps=2, hidden=4, layers=1, refine=False)
    model, _ = in_directs_words(options.build())
    first = "block_list.0.learning_rate"
    for change, what in (
        ({first: torch.tensor([float("nan")])}, "NaN"),
        ({first: torch.ones(2)}, "has shape"),
        ({"extra": torch.ones(2)}, "unknown"),
        ({"block_list.0.regularizer.convgru.x": torch.ones(1)}, "normalises"),
    ):
        with pytest.raises(ValueError, match=what):
            from_direct({**model, **change})
    with pytest.raises(ValueError, match="missing"):
        from_direct({name: tensor for name, tensor in model.items() if name != first})
    with pytest.raises(ValueError, match="steps is 3"):
        from_direct(model, steps=3)
    (tmp_path / "a.pt").write_bytes(b"no")
    torch.save([1, 2], tmp_path / "b.pt")
    for name, what in (("a.pt", "no checkpoint"), ("b.pt", "no state")):
        with pytest.raises(ValueError, match=what):
            load_direct(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_direct(tmp_path / "none.pt")
