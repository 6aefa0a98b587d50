"""The benchmark of damaged files, long runs, and solves at once."""

import json
import sys

import pytest

from benchmarks import robustness
from benchmarks.robustness_files import READERS

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
    assert robustness.main(["--mutations", "60", "--solves", "20", *readers, "--json", str(out)]) == 0
    record = json.loads(out.read_text())
    for row in record["fuzz"]:
        assert sum(row[outcome] for outcome in robustness.OUTCOMES) == row["mutations"] == 60
        assert row["refused"] > 30
    assert record["soak"]["failed"] == 0 and len(record["soak"]["resident_mib"]) == 11
    assert record["together"]["other_answers"] == {"threads": 0, "processes": 0}
