"""``learnsolve mri``, and the one call behind it."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import learnsolve
from learnsolve.batch import scans
from learnsolve.cli import app
from learnsolve.mri import espirit, l1_wavelet, nmse, reconstruct, zero_filled
from tests.mri_cases import scan, undersampled


def run(*arguments):
    return CliRunner().invoke(app, ["mri", *map(str, arguments)])


def write(path, kspace, **more):
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        for name, value in more.items():
            file[name] = value
    return path


def volume(slices=3):
    full = torch.stack([scan((48, 40), 4, seed=seed)[2] for seed in range(slices)]).numpy()
    return full.astype(np.complex64)


def test_one_call_is_its_parts():
    _, _, full = scan()
    y, sampled = undersampled(full)
    maps = espirit(y).maps[0]
    expected = l1_wavelet(y, sampled, maps)
    found = reconstruct(y.numpy())
    assert isinstance(found.x, np.ndarray)
    np.testing.assert_array_equal(found.x, expected.x.numpy())
    np.testing.assert_array_equal(found.extras["maps"], maps.numpy())
    assert found.iterations == expected.iterations
    given = reconstruct(y, "cg-sense", maps=maps, sampled=sampled, weight=0.01)
    assert isinstance(given.x, torch.Tensor)
    assert given.extras["weight"] == 0.01
    np.testing.assert_array_equal(reconstruct(y.numpy(), "zero-filled").x, zero_filled(y).numpy())
    for maps in ("walsh", "low-resolution"):
        assert reconstruct(y, "cg-sense", maps=maps).success


def test_one_coil_needs_no_middle():
    _, _, full = scan((32, 32), 1)
    y = full.clone()
    y[:, 15:18] = 0
    assert reconstruct(y, "total-variation").success
    with pytest.raises(ValueError, match="fully sampled middle"):
        reconstruct(torch.cat([y, y]), "total-variation")


def test_what_one_call_refuses():
    _, _, full = scan((24, 24), 2)
    nan = full.clone()
    nan[0, 0, 0] = float("nan")
    for arguments, options, what in (
        ((full, "best"), {}, "method is"),
        ((full,), {"maps": "best"}, "maps is"),
        ((full,), {"sampled": np.ones(5, bool)}, "the mask is"),
        ((full.real,), {}, "k-space is"),
        ((nan,), {}, "not finite"),
        ((0 * full,), {}, "zero everywhere"),
    ):
        with pytest.raises(ValueError, match=what):
            reconstruct(*arguments, **options)
    with pytest.raises(TypeError, match="takes no"):
        reconstruct(full, "zero-filled", rtol=1.0)
    with pytest.raises(TypeError):
        reconstruct(full, misspelt=1.0)


def test_info_tells_what_a_file_is(tmp_path):
    path = write(tmp_path / "a.h5", volume())
    told = run("info", path)
    assert told.exit_code == 0
    assert "fastmri: 3 slices of 4 coils, 48 x 40, centred, no mask" in told.output
    (tmp_path / "b.h5").write_text("no")
    failed = run("info", tmp_path / "b.h5", path)
    assert failed.exit_code == 1
    assert "fastmri: 3 slices" in failed.output


@pytest.mark.parametrize("method", ["l1-wavelet", "zero-filled"])
def test_volumes_are_reconstructed(tmp_path, method):
    k = volume()
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.h5", k)
    np.save(tmp_path / "in" / "b.npy", np.fft.ifftshift(k, (-2, -1)))
    options = ("--method", method, "--mask", "random", "--acceleration", 2, "--centre", 12, "--seed", 1)
    done = run("recon", tmp_path / "in", "--out", tmp_path / "out", *options, "--json")
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in done.output.splitlines()]
    assert [record["slices"] for record in records] == [3, 3]
    assert records[0]["factor"] == 2
    found = []
    for record in records:
        with h5py.File(record["out"]) as file:
            found.append(file["reconstruction"][:])
            about = json.loads(file.attrs["learnsolve"])
        assert about["method"] == method
        images = found[-1] if about["file"].endswith("a.h5") else np.fft.fftshift(found[-1], (-2, -1))
        errors = [nmse(zero_filled(torch.from_numpy(k[i])), images[i]) for i in range(3)]
        assert record["metrics"]["nmse"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert found[0].shape == (3, 48, 40)
    np.testing.assert_allclose(found[1], np.fft.ifftshift(found[0], (-2, -1)), rtol=1e-3, atol=1e-3)
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["a.h5", "b.h5", "batch.jsonl"]


def test_what_is_undersampled_needs_no_rule(tmp_path):
    k = volume(1)
    sampled = np.zeros(40, np.float32)
    sampled[::2] = sampled[12:28] = 1
    write(tmp_path / "a.h5", k * sampled)
    write(tmp_path / "b.h5", k, mask=sampled)
    done = run(
        "recon", tmp_path / "a.h5", tmp_path / "b.h5", "--out", tmp_path / "out", "--method", "cg-sense"
    )
    assert done.exit_code == 0, done.output
    assert "means over slices" not in done.output
    images = []
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / "out" / name) as file:
            images.append(file["reconstruction"][:])
    np.testing.assert_allclose(images[0], images[1], rtol=1e-5, atol=1e-6)


def test_bad_slices_are_skipped_and_said(tmp_path):
    k = volume(4)
    k[1, 0, 3, 3] = np.nan
    k[2] = 0
    write(tmp_path / "a.h5", k)
    done = run("recon", tmp_path / "a.h5", "--out", tmp_path / "out", "--method", "cg-sense")
    assert done.exit_code == 2
    assert "slice 1 skipped: k-space has numbers that are not finite" in done.output
    assert "slice 2 skipped: k-space is zero everywhere" in done.output
    with h5py.File(tmp_path / "out" / "a.h5") as file:
        images = file["reconstruction"][:]
    assert np.isfinite(images).all()
    assert [bool(image.any()) for image in images] == [True, False, False, True]


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    write(tmp_path / "a.h5", volume(4))
    arguments = ("recon", tmp_path / "a.h5", "--out", tmp_path / "out", "--method", "cg-sense", "--quiet")
    real, seen = scans._slice, []

    def watched(kspace, i, *more):
        seen.append(i)
        if len(seen) == 3:
            raise KeyboardInterrupt
        real(kspace, i, *more)

    monkeypatch.setattr(scans, "_slice", watched)
    assert run(*arguments).exit_code != 0
    assert not (tmp_path / "out" / "a.h5").exists()
    assert run(*arguments).exit_code == 0
    assert seen == [0, 1, 2, 2, 3]
    monkeypatch.undo()
    with h5py.File(tmp_path / "out" / "a.h5") as file:
        resumed = file["reconstruction"][:]
    # What is there is left alone, unless it is to be made otherwise.
    (tmp_path / "out" / "a.h5").unlink()
    assert run(*arguments).exit_code == 0
    with h5py.File(tmp_path / "out" / "a.h5") as file:
        np.testing.assert_array_equal(file["reconstruction"][:], resumed)
    written = (tmp_path / "out" / "a.h5").stat().st_mtime_ns
    assert run(*arguments).exit_code == 0
    assert (tmp_path / "out" / "a.h5").stat().st_mtime_ns == written
    assert run(*arguments, "--maps", "walsh").exit_code == 0
    assert (tmp_path / "out" / "a.h5").stat().st_mtime_ns > written


def test_files_in_processes_of_their_own(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        write(tmp_path / "in" / f"{name}.h5", volume(1))
    (tmp_path / "in" / "c.h5").write_text("no")
    arguments = ("recon", tmp_path / "in", "--out", tmp_path / "out", "--method", "zero-filled")
    done = run(*arguments, "--workers", 2, "--json")
    assert done.exit_code == 1 and "c.h5" in done.stderr
    assert [Path(json.loads(line)["file"]).name for line in done.stdout.splitlines()] == ["a.h5", "b.h5"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.h5")) == ["a.h5", "b.h5"]


def test_what_the_command_refuses(tmp_path):
    write(tmp_path / "a.h5", volume(1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "c").mkdir()
    write(tmp_path / "c" / "a.h5", volume(1))
    (tmp_path / "b.h5").write_text("no")
    out = ("--out", tmp_path / "out", "--method", "zero-filled")
    for arguments, what in (
        ((tmp_path / "none.h5", *out), "no file"),
        ((tmp_path / "b.h5", *out), "no HDF5 file"),
        ((tmp_path / "empty", *out), "in the folder"),
        ((tmp_path / "a.h5", "--out", tmp_path), "written over"),
        ((tmp_path / "a.h5", tmp_path / "c" / "a.h5", *out), "would both be written"),
        ((tmp_path / "a.h5", *out, "--mask", "random", "--acceleration", 0.5), "acceleration"),
        ((tmp_path / "a.h5", *out, "--mask", "random", "--acceleration", 8, "--centre", 30), "the middle"),
        ((tmp_path / "a.h5", *out, "--axes", "zz"), "axes"),
    ):
        refused = run("recon", *arguments)
        assert refused.exit_code == 1
        assert what in " ".join(refused.output.split()), refused.output
    # The others are done all the same.
    assert run("recon", tmp_path / "b.h5", tmp_path / "a.h5", *out).exit_code == 1
    assert (tmp_path / "out" / "a.h5").is_file()


def test_the_room_is_public():
    assert learnsolve.mri.reconstruct is reconstruct


@pytest.mark.skipif(sys.platform != "linux", reason="signals of POSIX")
def test_a_killed_process_leaves_no_half_file_and_goes_on(tmp_path):
    k = np.concatenate([volume(4)] * 3)
    write(tmp_path / "a.h5", k)
    arguments = [
        "recon",
        tmp_path / "a.h5",
        "--out",
        tmp_path / "out",
        "--method",
        "total-variation",
        "--quiet",
    ]
    code = f"from learnsolve.cli import app; app({['mri', *map(str, arguments)]!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(12000):
        if len(list(tmp_path.glob("out/.a.*.parts/*.npz"))) >= 2:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {part.name: part.stat().st_mtime_ns for part in tmp_path.glob("out/.a.*.parts/[0-9]*.npz")}
    assert 2 <= len(done) < 12
    assert not (tmp_path / "out" / "a.h5").exists()
    assert run(*arguments).exit_code == 0
    with h5py.File(tmp_path / "out" / "a.h5") as file:
        images = file["reconstruction"][:]
    np.testing.assert_allclose(images[:4], images[4:8], rtol=1e-3, atol=1e-4)
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["a.h5", "batch.jsonl"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_volume_three_times_the_memory(tmp_path):
    """Once all is loaded, 300 MB more are allowed, and the volume has 940."""
    k = np.concatenate([volume(1)] * 12).repeat(8, 1)[:, :, :40]
    one = np.tile(k[:1], (1, 1, 8, 8))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        large = file.create_dataset("kspace", (45, *one.shape[1:]), np.complex64)
        for i in range(45):
            large[i] = one[0]
        assert large.nbytes > 900e6
    write(tmp_path / "b.h5", one)
    code = r"""
        import pathlib, re, resource, sys
        from learnsolve.cli import app
        small, large, out = sys.argv[1:]
        options = ["--method", "zero-filled", "--quiet"]
        app(["mri", "recon", small, "--out", out, *options], standalone_mode=False)
        have = int(re.search(r"VmSize:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]) << 10
        resource.setrlimit(resource.RLIMIT_AS, (have + 300_000_000,) * 2)
        app(["mri", "recon", large, "--out", out, *options], standalone_mode=False)
    """
    files = [str(tmp_path / name) for name in ("b.h5", "a.h5", "out")]
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), *files], check=True)
    with h5py.File(tmp_path / "out" / "a.h5") as file:
        assert file["reconstruction"].shape == (45, *one.shape[2:])
        assert file["reconstruction"][44].max() > 0
