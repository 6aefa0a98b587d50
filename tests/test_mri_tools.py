"""``learnsolve mri mask | maps | simulate | evaluate | report``, and writers of k-space."""

import json

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from learnsolve.cli import app
from learnsolve.datasets.kspace import open_kspace
from learnsolve.datasets.kspace_writers import LAYOUTS, write_kspace
from learnsolve.mri import RecurrentVarNetOptions, Sampling, espirit, nmse, walsh, zero_filled
from learnsolve.mri.learned import save
from learnsolve.problems.scans import Volume

SCANS = Volume((40, 32), coils=4, slices=3, noise=0.01, seed=1)
SHAPE = (3, 4, 40, 32)


def run(*arguments):
    return CliRunner().invoke(app, ["mri", *map(str, arguments)])


def slices():
    return [SCANS[i].kspace for i in range(3)]


@pytest.fixture
def file(tmp_path):
    write_kspace(tmp_path / "a.h5", slices(), SHAPE)
    return tmp_path / "a.h5"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_read(tmp_path, layout):
    made = slices()
    made[1][:, ::3] = 0
    references = [zero_filled(torch.from_numpy(k)).numpy() for k in made]
    write_kspace(
        tmp_path / "a.h5", iter(made), SHAPE, layout, references=references, attributes={"acquisition": "T1"}
    )
    with open_kspace(tmp_path / "a.h5") as kspace:
        assert kspace.layout == layout
        assert kspace.shape == SHAPE
        assert kspace.centred == (layout != "calgary")
        for i, k in enumerate(made):
            found = torch.from_numpy(kspace[i])
            if layout != "calgary":
                np.testing.assert_array_equal(found, k)
            image = zero_filled(found, centred=kspace.centred)
            np.testing.assert_allclose(image, references[i], atol=1e-5 * references[i].max())
            if layout == "fastmri":
                np.testing.assert_array_equal(kspace.references(i), references[i])


def test_a_mask_is_written_beside(tmp_path):
    sampled = np.arange(32) % 2 == 0
    write_kspace(tmp_path / "a.h5", [k * sampled for k in slices()], SHAPE, sampled=sampled)
    with open_kspace(tmp_path / "a.h5") as kspace:
        np.testing.assert_array_equal(kspace.sampled, np.broadcast_to(sampled, (40, 32)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrong", ["few", "many", "shape"])
def test_no_half_file_is_left(tmp_path, layout, wrong):
    made = {"few": slices()[:2], "many": slices() * 2, "shape": [k[:2] for k in slices()]}[wrong]
    with pytest.raises(ValueError, match=r"slices|slice"):
        write_kspace(tmp_path / "a.h5", made, SHAPE, layout)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="layout is"):
        write_kspace(tmp_path / "a.h5", slices(), SHAPE, "none")


def test_mask_writes_a_rules_mask(tmp_path):
    out = tmp_path / "m.npy"
    done = run(
        "mask", "poisson", "--shape", 40, 32, "--acceleration", 3, "--centre", 8, "--seed", 2, "--out", out
    )
    assert done.exit_code == 0, done.output
    assert "factor 2.99" in done.output or "factor 3.0" in done.output
    np.testing.assert_array_equal(np.load(out), Sampling("poisson", 3, centre=8, seed=2).mask((40, 32)))
    named = run("mask", "random", "--shape", 40, 32, "--seed", "file1.h5", "--out", out)
    assert named.exit_code == 0
    np.testing.assert_array_equal(np.load(out), Sampling("random", 4, seed="file1.h5").mask((40, 32)))
    refused = run("mask", "random", "--shape", 40, 32, "--acceleration", 0.1, "--out", out)
    assert refused.exit_code == 1
    assert "acceleration" in refused.output


def test_maps_are_written(tmp_path, file):
    done = run("maps", file, "--out", tmp_path / "m.h5", "--sets", 2)
    assert done.exit_code == 0, done.output
    expected = espirit(torch.from_numpy(SCANS[1].kspace), maps=2)
    with h5py.File(tmp_path / "m.h5") as held:
        assert held["maps"].shape == (3, 2, 4, 40, 32)
        np.testing.assert_allclose(held["maps"][1], expected.maps, atol=1e-4)
        np.testing.assert_allclose(held["eigenvalues"][1], expected.eigenvalues, atol=1e-4)
    assert run("maps", file, "--out", tmp_path / "w.h5", "--method", "walsh").exit_code == 0
    with h5py.File(tmp_path / "w.h5") as held:
        np.testing.assert_allclose(held["maps"][0, 0], walsh(torch.from_numpy(SCANS[0].kspace)), atol=1e-4)
    made = slices()
    made[1][:] = 0
    write_kspace(tmp_path / "z.h5", made, SHAPE)
    some = run("maps", tmp_path / "z.h5", "--out", tmp_path / "z_maps.h5")
    assert some.exit_code == 2
    assert "slice 1 skipped" in some.output
    for wrong in (("--method", "none"), ("--method", "walsh", "--sets", 2), ("--sets", 9)):
        assert run("maps", file, "--out", tmp_path / "x.h5", *wrong).exit_code == 1
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_simulate_writes_scans(tmp_path, layout):
    done = run("simulate", "--out", tmp_path, "--volumes", 2, "--slices", 3, "--size", 32, "--coils", 4,
               "--layout", layout, "--seed", 5)  # fmt: skip
    assert done.exit_code == 0, done.output
    scan = Volume((32, 32), coils=4, slices=3, noise=0.01, seed=6)
    with open_kspace(tmp_path / f"{layout}_6.h5") as kspace:
        assert kspace.shape == (3, 4, 32, 32)
        image = zero_filled(torch.from_numpy(kspace[2]), centred=kspace.centred)
        wanted = zero_filled(torch.from_numpy(scan[2].kspace))
        np.testing.assert_allclose(image, wanted, atol=1e-5 * float(wanted.max()))


def recon(file, out, *more):
    done = run("recon", file, "--out", out, "--method", "cg-sense", "--json", *more)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_evaluate_compares(tmp_path, file):
    record = recon(
        file, tmp_path / "out", "--mask", "random", "--acceleration", 2, "--centre", 10, "--seed", 1
    )
    plain = run("evaluate", record["out"], "--reference", file)
    assert plain.exit_code == 0, plain.output
    assert "fastmri: NMSE" in plain.output
    for reference in (file, file.parent):
        done = run("evaluate", record["out"], "--reference", reference, "--json")
        found = json.loads(done.output)
        for name in ("nmse", "psnr", "ssim", "foreground_nmse", "foreground_ssim"):
            assert found[name]["mean"] == pytest.approx(record["metrics"][name], rel=1e-3), name
            low, high = found[name]["interval"]
            assert low <= found[name]["mean"] <= high
    other = run("evaluate", record["out"], "--reference", file, "--convention", "calgary", "--json")
    assert json.loads(other.output)["psnr"]["mean"] != pytest.approx(found["psnr"]["mean"], rel=1e-6)
    write_kspace(tmp_path / "b.h5", slices()[:2], (2, *SHAPE[1:]))
    for wrong, what in (
        ((record["out"], "--reference", tmp_path / "b.h5"), "k-space"),
        ((file, "--reference", file), "no dataset 'reconstruction'"),
        ((record["out"], "--reference", tmp_path / "none.h5"), "no file"),
    ):
        refused = run("evaluate", *wrong)
        assert refused.exit_code == 1
        assert what in refused.output


def test_report_makes_a_page(tmp_path, file):
    options = ("--mask", "random", "--acceleration", 2, "--centre", 10)
    record = recon(file, tmp_path / "out", *options, "--report")
    page = tmp_path / "out" / "a.html"
    assert record["report"] == str(page)
    text = page.read_text()
    assert "data:image/png;base64," in text
    assert f"{record['metrics']['nmse']:.4f}" in text
    assert (tmp_path / "out" / "a.png").read_bytes()[:4] == b"\x89PNG"
    done = run("report", record["out"], "--out", tmp_path / "page", "--slice", 2)
    assert done.exit_code == 0, done.output
    assert "montage of slice 2" in (tmp_path / "page" / "a.html").read_text()
    for wrong, what in (
        ((file,), "not of learnsolve mri recon"),
        ((record["out"], "--slice", 7), "slice 7"),
        ((tmp_path / "none.h5",), "no file"),
    ):
        refused = run("report", *wrong)
        assert refused.exit_code == 1
        assert what in refused.output
    file.unlink()
    assert run("report", record["out"]).exit_code == 1


def test_a_page_of_what_has_no_reference(tmp_path):
    sampled = np.zeros(32, bool)
    sampled[::2] = sampled[10:22] = True
    write_kspace(tmp_path / "a.h5", [k * sampled for k in slices()], SHAPE)
    record = recon(tmp_path / "a.h5", tmp_path / "out", "--report", "--hold-out")
    assert 0 < record["metrics"]["held_out"] < 1
    assert "held_out" in (tmp_path / "out" / "a.html").read_text()


def test_a_mask_of_a_file(tmp_path, file):
    mask = Sampling("random", 2, centre=10, seed=1).mask((40, 32))
    np.save(tmp_path / "m.npy", mask.numpy())
    with h5py.File(tmp_path / "m.h5", "w") as held:
        held["mask"] = mask[0].numpy().astype(np.float32)
    rule = recon(file, tmp_path / "r", "--mask", "random", "--acceleration", 2, "--centre", 10, "--seed", 1)
    for name in ("m.npy", "m.h5"):
        found = recon(file, tmp_path / name.replace(".", "_"), "--mask", tmp_path / name)
        assert found["metrics"] == rule["metrics"]
        assert found["factor"] == 2
    np.save(tmp_path / "bad.npy", np.ones((3, 3)))
    (tmp_path / "text.npy").write_text("no")
    for wrong, what in (
        ("bad.npy", "(40, 32) is accepted"),
        ("text.npy", "no mask"),
        ("none.npy", "no file"),
    ):
        refused = run("recon", file, "--out", tmp_path / "x", "--mask", tmp_path / wrong)
        assert refused.exit_code == 1
        assert what in refused.output
    assert "mask is 'best'" in run("recon", file, "--out", tmp_path / "x", "--mask", "best").output


def test_a_dry_run_writes_nothing(tmp_path, file):
    done = run("recon", file, "--out", tmp_path / "out", "--method", "cg-sense", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["slices"] == 3
    assert found["seconds"] > 0
    assert found["bytes"] > 1 << 20
    assert found["written_bytes"] == 3 * 40 * 32 * 4
    assert not (tmp_path / "out").exists()
    assert "MiB of memory" in run("recon", file, "--out", tmp_path / "out", "--dry-run").output


def test_a_network_reconstructs_a_volume(tmp_path, file):
    torch.manual_seed(0)
    options = RecurrentVarNetOptions(
        steps=1, hidden=2, layers=1, initialiser=False, refine=False, coupling=50.0
    )
    network = options.build()
    for tensor in network.blocks[0].unit.blocks[-1][1].parameters():
        torch.nn.init.zeros_(tensor)
    save(tmp_path / "good.safetensors", network)
    torch.nn.init.constant_(network.blocks[0].unit.blocks[-1][1].bias, 9.0)
    save(tmp_path / "wrong.safetensors", network)
    options = ("--method", "recurrentvarnet", "--mask", "random", "--acceleration", 2, "--centre", 10)
    found = {}
    for name in ("good", "wrong"):
        done = run("recon", file, "--out", tmp_path / name, *options, "--weights",
                   tmp_path / f"{name}.safetensors", "--json")  # fmt: skip
        assert done.exit_code == 0, done.output
        found[name] = json.loads(done.output)
    assert found["good"]["fallback"] == []
    assert found["wrong"]["fallback"] == [0, 1, 2]
    assert found["wrong"]["metrics"]["nmse"] < 0.2
    shown = run(
        "recon", file, "--out", tmp_path / "wrong", *options, "--weights", tmp_path / "wrong.safetensors"
    )
    assert "failed its check: slices [0, 1, 2]" in shown.output
    with h5py.File(found["good"]["out"]) as held:
        images = held["reconstruction"][:]
    reference = np.stack([zero_filled(torch.from_numpy(k)).numpy() for k in slices()])
    assert nmse(reference, images) < 0.2
    missing = run("recon", file, "--out", tmp_path / "x", "--method", "recurrentvarnet", "--weights", "none")
    assert missing.exit_code == 1
    assert "no recurrent-varnet weights" in missing.output
