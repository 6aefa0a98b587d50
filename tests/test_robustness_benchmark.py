"""The benchmark of damaged files, long runs, and solves at once."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import robustness
from benchmarks.robustness_commands import half_written, written
from benchmarks.robustness_files import READERS
from learnsolve.datasets.kspace_writers import write_kspace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")


@pytest.mark.parametrize("name", READERS)
def test_every_reader_reads_its_own_file(name, tmp_path):
    reader = READERS[name]
    reader.make(tmp_path)
    assert reader.read(tmp_path / reader.file) == reader.read(tmp_path / reader.file)


def test_damage_is_repeatable_and_does_something():
    content = bytes(range(256)) * 4
    damaged = [robustness.mutated(content, seed) for seed in range(200)]
    assert damaged == [robustness.mutated(content, seed) for seed in range(200)]
    assert sum(one != content for one in damaged) > 190
    assert robustness.mutated(b"", 0) == b""


def test_the_command_counts_what_came(tmp_path):
    out = tmp_path / "r.json"
    readers = ["--reader", "Matrix Market", "weights, safetensors"]
    what = ["--what", "fuzz", "soak", "together", "--mutations", "60", "--solves", "20"]
    assert robustness.main([*what, *readers, "--json", str(out)]) == 0
    record = json.loads(out.read_text())
    for row in record["fuzz"]:
        assert sum(row[outcome] for outcome in robustness.OUTCOMES) == row["mutations"] == 60
        assert row["refused"] > 30
    assert record["soak"]["failed"] == 0 and len(record["soak"]["resident_mib"]) == 11
    assert record["together"]["other_answers"] == {"threads": 0, "processes": 0}


@pytest.mark.slow
def test_a_command_is_killed_and_left_without_room(tmp_path):
    out = tmp_path / "r.json"
    options = ["--what", "faults", "--command", "mri mask", "--kills", "1", "--json", str(out)]
    assert robustness.main(options) == 0
    (row,) = json.loads(out.read_text())["faults"]
    assert row["files"] == ["m.npy"] and row["problems"] == [] and sum(row["memory"].values()) == 4
    assert row["read_only"] is None or row["read_only"].startswith("refused")


def test_half_of_a_file_is_seen(tmp_path):
    names = "a.npy b.npz c.h5 d.png e.safetensors f.toml g.json h.csv i.md j.mtx".split()
    for name in names:
        (tmp_path / name).write_bytes(b"\x89PNG a,b\n1")
    (tmp_path / ".k.npy.part").write_bytes(b"")
    (tmp_path / ".l.parts").mkdir()
    (tmp_path / ".l.parts" / "0.npz").write_bytes(b"")
    np.save(tmp_path / "whole.npy", np.ones(3))
    assert half_written(tmp_path) == names
    assert written(tmp_path)[-1] == "whole.npy"


def test_hdf5_is_not_begun_where_there_is_no_room(tmp_path, monkeypatch):
    """Its library ends the process where the disk becomes full."""
    usage = SimpleNamespace(total=1 << 20, used=1 << 20, free=100)
    monkeypatch.setattr("learnsolve.files.shutil.disk_usage", lambda _: usage)
    kspace = np.ones((1, 2, 8, 8), np.complex64)
    with pytest.raises(OSError, match="1280 bytes are to be written, and there is room for 100"):
        write_kspace(tmp_path / "a.h5", iter(kspace), kspace.shape, "fastmri")
    assert not list(tmp_path.iterdir())
