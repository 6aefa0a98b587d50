"""The model of scaling: formulas by hand, counts by the exchange's own index sets, workers by events."""

import json
from dataclasses import replace

import pytest

from benchmarks import scaling_model as model
from benchmarks import scaling_model_measure as measuring

MACHINE = model.Machine(latency=1e-6, bandwidth=1e9, copy=2e9, memory=1e9, ranks_per_node=4)
LAWS = {
    "setup": model.Law(3e-7, 1.0, 10**9),
    "iteration": model.Law(6e-8, 1.0, 10**9),
    "fine": model.Law(2e-8, 1.0, 10**9),
    "coarse": model.Law(1e-8, 1.0, 10**9),
    "rest": model.Law(3e-8, 1.0, 10**9),
    "whole": model.Law(100.0, 1.0, 10**9),
}
COSTS = model.Costs(LAWS, 5, 0.125, 1.0, (1.0, 0.5, 0.1, 0.02), 1e8)


def test_a_law_is_found_and_is_in_proportion_beyond_what_was_measured():
    law = model.Law.fitted([10, 100, 1000], [3e-2 * n**0.5 for n in (10, 100, 1000)])
    assert law.power == pytest.approx(0.5)
    assert law(100) == pytest.approx(0.3)
    assert law(4000) == pytest.approx(4 * law(1000))
    assert model.Law.fitted([10, 1000], [1.0, 1e4])(10_000) == pytest.approx(1e5)
    assert model.Law.fitted([20], [5.0])(40) == 10.0


@pytest.mark.parametrize(
    ("ranks", "axes"),
    [
        (1, (1, 1, 1)),
        (6, (3, 2, 1)),
        (7, (7, 1, 1)),
        (8, (2, 2, 2)),
        (48, (4, 4, 3)),
        (512, (8, 8, 8)),
        (4096, (16, 16, 16)),
    ],
)
def test_ranks_are_cut_nearly_into_cubes(ranks, axes):
    assert model.near_cubic(ranks) == axes


def test_traffic_by_hand():
    # 23^3 - 16^3 = 8071 and 18^3 - 16^3 = 1736 cells; 7 neighbours, 8 ranks, 3 rounds of each of 4 sums.
    assert model.traffic((16, 16, 16), (1, 1, 1), 8, 4096, 512) == {
        "halo": 8 * (2 * 8071 + 1736),
        "gather": 8 * 3584,
        "sums": 4 * 8 * 3,
        "messages": 3 * 7 + 7 + 4 * 3,
    }
    # Too narrow: only the matrix exchanges, 10^3 - 6^3 cells with 26 neighbours.
    narrow = model.traffic((6, 6, 6), (2, 2, 2), 64, 24**3, 216)
    assert narrow["halo"] == 8 * (10**3 - 6**3)
    assert narrow["messages"] == 26 + 63 + 4 * 6
    alone = model.traffic((9, 9, 9), (0, 0, 0), 1, 100, 100)
    assert not any(alone.values())


@pytest.mark.parametrize("family", ["box", "obstacles"])
@pytest.mark.parametrize("counts", [[[16, 16]] * 3, [[8, 9, 15], [15, 17], [32]]])
def test_the_index_sets_of_the_exchange_are_the_formula(family, counts):
    found = measuring.counted(family, counts)
    places = [
        (z, y, x) for z in range(len(counts[0])) for y in range(len(counts[1])) for x in range(len(counts[2]))
    ]
    assert len(found) == len(places)
    assert sum(one["own"] for one in found) == found[0]["gathered"]
    if family == "box":
        assert found[0]["gathered"] == 16**3
    for at, one in zip(places, found, strict=True):
        box = tuple(row[i] for row, i in zip(counts, at, strict=True))
        sides = tuple((i > 0) + (i + 1 < len(row)) for row, i in zip(counts, at, strict=True))
        formula = model.traffic(box, sides, len(found), one["gathered"], one["own"])
        assert one["halo"] == formula["halo"]
        assert one["gather"] == formula["gather"]


def test_a_point_by_hand():
    found = model.point(1e6, 8, COSTS, MACHINE)
    own, tile = 50**3, 56**3
    held = 1e8 + 100e6 + 72 * own + 64 * tile
    assert found["held"] == pytest.approx(held)
    assert (found["fits"], found["on_node"], found["nodes"]) == (True, 4, 2)
    halo = 8 * (2 * (57**3 - own) + 52**3 - own)
    gather = 8 * 125_000 * 7 / 8
    assert found["sent"] == pytest.approx(halo + gather + 96)
    assert found["messages"] == 40
    computing = 2e-8 * tile + 1e-8 * 1e6 + 3e-8 * own
    communicating = 40e-6 + (halo + 96) / (1e9 / 4) + gather / 2e9 + gather / 2 / 1e9
    assert found["computing"] == pytest.approx(computing)
    assert found["communicating"] == pytest.approx(communicating)
    answer = 7e-6 + 7e6 / 2e9 + 3.5e6 / 1e9
    assert found["total"] == pytest.approx(0.3 + 5 * (computing + communicating) + answer)


def test_one_rank_sends_nothing():
    found = model.point(1e6, 1, COSTS, MACHINE)
    assert found["sent"] == found["messages"] == found["communicating"] == 0
    assert found["computing"] == pytest.approx(0.06)
    assert found["total"] == pytest.approx(0.3 + 5 * 0.06)


def test_boxes_too_narrow_gather_everything():
    found = model.point(64**3, 4096, COSTS, MACHINE)
    assert found["sent"] == pytest.approx(8 * (8**3 - 4**3) + 8 * 64**3 * 4095 / 4096 + 32 * 12)
    assert found["computing"] == pytest.approx(3e-8 * 64**3 + 3e-8 * 4**3)
    assert model.point(64**3, 4096, COSTS, MACHINE, 2)["shared"] == 0


def test_what_does_not_fit():
    assert model.point(1e8, 64, COSTS, MACHINE)["fits"] is False
    roomy = replace(MACHINE, memory=5e9)
    assert model.point(1e7, 64, COSTS, roomy)["on_node"] == 4
    assert model.point(1.5e7, 64, COSTS, roomy)["on_node"] == 3
    most = model.most_unknowns(64, 1, COSTS, MACHINE)
    assert model.point(most, 64, COSTS, MACHINE)["held"] <= MACHINE.memory
    assert model.point(1.03 * most, 64, COSTS, MACHINE)["held"] > MACHINE.memory
    assert model.most_unknowns(64, 4, COSTS, MACHINE) < most < model.most_unknowns(64, 1, COSTS, MACHINE, 2)


def test_levels_that_are_shared():
    one, two, three = (model.point(128**3, 8, COSTS, MACHINE, depth) for depth in (1, 2, 3))
    as_it_is = model.point(128**3, 8, COSTS, MACHINE)
    assert [found["shared"] for found in (one, two, three)] == [1, 2, 3]
    assert one["sent"] == as_it_is["sent"]
    assert one["computing"] == as_it_is["computing"]
    assert as_it_is["held"] > one["held"] > two["held"] > three["held"]
    # The first coarse level has boxes of 32^3, tiles of 38^3, two visits; the second is gathered twice.
    repeated = 1e-8 * 128**3
    saved = repeated - (0.75 * repeated * 38**3 / 64**3 + repeated / 4)
    assert one["computing"] - two["computing"] == pytest.approx(saved)
    more = 2 * 2 * 8 * (39**3 - 32**3) - 0.75 * 8 * 64**3 * 7 / 8
    assert two["sent"] - one["sent"] == pytest.approx(more)
    assert two["messages"] - one["messages"] == 2 * 2 * 7 + 7
    assert three["messages"] - two["messages"] == 4 * 2 * 7 + 2 * 7


def test_files_by_hand():
    files = measuring.Files((1.0, 3.0), 1e6, 0.25, 3.0)
    # A file keeps a worker for 2 + 0.25 + 0.25 s.
    assert files.elapsed(100, 4, 4e6) == (3 + 62.5, "computing")
    assert files.elapsed(1000, 1000, 2e6) == (3 + 500, "storage")
    assert files.elapsed(5, 1000, 4e6) == (3 + 3.5, "longest")
    assert files.elapsed(1000, 1000, 1e9) == (3 + 250, "records")
    alike = measuring.Files((2.0, 2.0), 0.0, 0.0, 3.0)
    assert alike.simulated(100, 4, 1e9) == alike.elapsed(100, 4, 1e9)[0] == 53


@pytest.mark.parametrize("workers", [1, 7, 64, 500])
@pytest.mark.parametrize("storage", [1e7, 1e9])
def test_the_simulation_of_workers_is_near_the_formula(workers, storage):
    files = measuring.Files((1.0, 1.5, 2.5), 1e6, 1e-3, 3.0)
    simulated = files.simulated(3000, workers, storage)
    formula, _ = files.elapsed(3000, workers, storage)
    # Drawn times differ in sum from their mean; in the end some wait for a file and a turn of all.
    assert 0.98 * formula <= simulated <= 1.02 * formula + 2.5 + workers * (1e6 / storage + 1e-3)


def played(spec):
    """A measurement in this process, without the slow figures of the machine."""
    if spec["what"] == "machine":
        return {**spec, "copy": 5e9, "record": 1e-4, "start": 2.0}
    return measuring.TASKS[spec["what"]](spec)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measuring, "measured", played)
    path, again = tmp_path / "first.json", tmp_path / "again.json"
    sizes = "--sides 16 20 24 --methods multigrid --repeats 1 --scan-methods l1-wavelet --scan 2 1 4 32"
    asked = "--unknowns 1e6 1e9 --ranks 1 8 --files 100 --workers 1 8 --simulate 50 --shared-levels 2"
    words = [*sizes.split(), *asked.split()]
    assert model.main([*words, "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "24^3 held out" in shown
    assert "143024" in shown
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = record["measured"]["solve"]["multigrid"]
    assert [row["cells"] for row in rows] == [16**3, 20**3, 24**3]
    assert all(row["converged"] and row["setup_bytes"] >= 0 and row["fine"] > 0 for row in rows)
    assert len(record["solve"]["multigrid"]["points"]) == 4 + 2
    assert not record["measured"]["scans"]["l1-wavelet"]["failed"]
    assert len(record["measured"]["scans"]["l1-wavelet"]["seconds"]) == 2
    assert model.main([*words, "--measured", str(path), "--json", str(again)]) == 0
    assert json.loads(again.read_text(encoding="utf-8"))["solve"] == record["solve"]


def test_wrong_options():
    for words in (["--sides", "8"], ["--ranks", "0"], ["--shared-levels", "0"]):
        with pytest.raises(SystemExit):
            model.main(words)


@pytest.mark.slow
def test_a_measurement_has_a_process_of_its_own():
    found = measuring.measured({"what": "machine", "megabytes": 1, "files": 5})
    assert min(found["copy"], found["record"], found["start"]) > 0
