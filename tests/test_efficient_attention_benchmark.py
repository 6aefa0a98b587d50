"""The benchmark of efficient attentions, in miniature."""

import json

import pytest
import torch

from benchmarks import efficient_attention


@pytest.fixture
def threads():
    """What the benchmark sets is set back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_the_benchmark_measures_and_draws(tmp_path, capsys):
    command = "--tasks parity --mixers attention performer --steps 1 --lengths 32 64 128 --repeats 1"
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")]
    assert efficient_attention.main([*command.split(), *files]) == 0
    assert "performer" in capsys.readouterr().out
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    learned, costs = ([row for row in rows if row["what"] == what] for what in ("quality", "cost"))
    assert [row["mixer"] for row in learned] == ["attention", "performer"]
    assert all(0 <= row["right"] <= 1 for row in learned)
    assert all(row[name] > 0 for row in costs for name in ("forward", "both", "token", "megabytes"))
    states = {(row["mixer"], row["length"]): row["state"] for row in costs}
    # Keys and values of 64 numbers of 4 bytes for each token, or sums of a size that stays.
    assert states["attention", 128] == 128 * 2 * 64 * 4
    assert states["performer", 128] == states["performer", 32]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_not_measured_is_not_drawn(tmp_path):
    learned = {"what": "quality", "mixer": "window", "task": "parity", "seconds": 2.0, "right": 0.5}
    cost = {"what": "cost", "mixer": "window", "length": 8, "both": 0.1, "megabytes": 1.0}
    widths = []
    for number, rows in enumerate([[learned], [cost], [learned, cost]]):
        path = tmp_path / f"{number}.png"
        efficient_attention.plot(rows, path)
        widths.append(int.from_bytes(path.read_bytes()[16:20], "big"))
    # Panels of four inches, and three for the names.
    assert widths == [700, 1100, 1500]


def test_the_benchmark_counts_what_is_held_at_once():
    def task():
        for _ in range(4):
            torch.zeros(2**18)
        return [torch.zeros(2**18) for _ in range(3)]

    assert 3 * 2**20 <= efficient_attention.peak(task) < 3.2 * 2**20


def test_exponents_leave_the_first_length_out():
    rows = [{"length": n, "seconds": s} for n, s in ((1, 50.0), (2, 3.0), (4, 12.0), (8, 48.0))]
    assert efficient_attention.exponent(rows, "seconds") == "2.00"
    assert efficient_attention.exponent(rows[:2], "seconds") == ""


@pytest.mark.usefixtures("threads")
def test_the_benchmark_refuses_what_there_is_not():
    with pytest.raises(SystemExit, match="no mixer nothing"):
        efficient_attention.main(["--mixers", "nothing"])
    with pytest.raises(SystemExit, match="no tasks and no lengths"):
        efficient_attention.main(["--tasks", "--lengths"])
