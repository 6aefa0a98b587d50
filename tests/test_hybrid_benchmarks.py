"""The benchmarks of TCNCA and SeqBoat run, and what they compare is the same."""

import json
import os

import pytest
import torch

from benchmarks import seqboat, tcnca
from learnsolve.sequence.layers import SeqBoat


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a benchmark sets for its process is set back."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("benchmarks.measure.keep_memory", lambda: None)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


def rows_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_averages_are_the_same_whichever_way():
    tasks = tcnca.smoothers()
    x = torch.randn(1, 60, tcnca.WIDTH)
    wanted = tasks["average, one pass"](x)
    for name in ("average, transforms", "average, transforms, kernel at hand"):
        torch.testing.assert_close(tasks[name](x.mT).mT, wanted, atol=1e-4, rtol=1e-4)


def test_tcnca_beside_mega(tmp_path, capsys):
    path = tmp_path / "found.json"
    arguments = "--lengths 64 --repeats 1 --recall-lengths 32 --vocabularies 16 --models mega plain-tcnca "
    arguments += f"--steps 2 --text-steps 2 --json {path}"
    assert tcnca.main(arguments.split()) == 0
    shown = capsys.readouterr().out
    assert "convolutions" in shown and "7.07" in shown
    found = json.dumps(rows_of(path))
    for word in ("speed", "recall", "text", "mega", "plain-tcnca"):
        assert word in found


def test_seqboat_beside_chunks(tmp_path, capsys):
    path = tmp_path / "found.json"
    arguments = f"--tasks recall --length 64 --width 16 --window 8 --repeats 1 --steps 2 --json {path}"
    assert seqboat.main(arguments.split()) == 0
    shown = capsys.readouterr().out
    assert "0.250" in shown and "chunks" in shown


def test_only_active_tokens_cost():
    """What is counted falls with the rate, whatever the clock says."""
    torch.manual_seed(0)
    layer, x = SeqBoat(16, 8), torch.randn(1, 200, 16)
    rows = []
    for bias in (-1e6, 1e6):
        with torch.no_grad():
            layer.choose.bias.copy_(torch.tensor([0.0, bias]))
        seen = []
        hook = layer.unit.register_forward_hook(lambda _, given, out, seen=seen: seen.append(len(given[0])))
        layer(x)
        hook.remove()
        rows += seen
    assert rows == [0, 200]


def test_the_choice_is_learned():
    torch.manual_seed(0)
    layer = SeqBoat(16, 8)
    layer(torch.randn(2, 50, 16))[0].square().sum().backward()
    assert layer.choose.weight.grad.abs().max() > 0 and layer.temperature.grad.abs() > 0
