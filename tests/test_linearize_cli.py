"""The command that linearizes, and its benchmark."""

import json
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import linearize as benchmark
from learnsolve.cli import app
from learnsolve.linearize import load
from tests.liger_cases import converted, logits, offline, original, tokens_of

transformers = pytest.importorskip("transformers")
nothing_is_downloaded = pytest.fixture(offline, autouse=True)


def character_tokenizer(folder, text):
    """Of a text's own characters."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    marks = {mark: number for number, mark in enumerate(["<none>", *sorted(set(text))])}
    tokenizer = Tokenizer(models.WordLevel(marks, unk_token="<none>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return len(marks)


def run(*arguments):
    return CliRunner().invoke(app, ["linearize", *map(str, arguments)])


TEXT = "the cat sat on the mat and the rat sat on the cat\n" * 60


@pytest.fixture
def pretrained(tmp_path):
    folder = tmp_path / "original"
    original().save_pretrained(folder)
    assert character_tokenizer(folder, TEXT) <= 23
    (tmp_path / "text").write_text(TEXT)
    return folder


def test_the_command_converts(pretrained, tmp_path):
    found = run(pretrained, "--out", tmp_path / "new", "--gate", "gated-delta", "--window", 7)
    assert found.exit_code == 0, found.output
    assert f"wrote {tmp_path / 'new'}" in found.output
    model, tokens = load(tmp_path / "new"), tokens_of(1, 12)
    assert torch.equal(logits(model, tokens), logits(converted(gate="gated-delta", window=7), tokens))
    again = run(pretrained, "--out", tmp_path / "new")
    assert again.exit_code == 1 and "there already" in again.output


def test_the_command_tunes(pretrained, tmp_path):
    pytest.importorskip("peft")
    options = ["--text", tmp_path / "text", "--steps", 30, "--batch", 4, "--length", 24, "--rate", 0.02]
    found = run(pretrained, "--out", tmp_path / "new", "--window", 4, "--output", *options)
    assert found.exit_code == 0, found.output
    lines = [line for line in found.output.splitlines() if " right of " in line]
    shares = [float(line.split(": ")[1].split()[0]) for line in lines]
    assert len(shares) == 3 and shares[2] > shares[1] + 0.05
    assert "tuned by 2,880 tokens" in found.output
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "new").decode([1]) == "\n"
    assert load(tmp_path / "new").generate(tokens_of(1, 5), max_new_tokens=3).shape == (1, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{}/none"], "no file"),
        (["{}/original", "--gate", "none"], "gate is 'none'"),
        (["{}/original", "--text", "{}/none"], "none"),
        (["{}/original", "--text", "{}/text", "--length", "2000"], "has 3000 tokens"),
        (["{}/bare", "--text", "{}/text"], "no tokenizer"),
    ],
)
def test_what_the_command_refuses(pretrained, tmp_path, arguments, words):
    original().save_pretrained(tmp_path / "bare")
    found = run(*(one.format(tmp_path) for one in arguments), "--out", tmp_path / "new")
    assert found.exit_code == 1 and words in found.output
    assert not (tmp_path / "new").exists()


def test_without_its_packages_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("learnsolve.cli.linearize.find_spec", lambda name: None)
    found = run(tmp_path, "--out", tmp_path / "new")
    assert found.exit_code == 1 and "learnsolve[llm]" in found.output


def test_an_interrupted_tuning_writes_nothing(pretrained, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setattr("learnsolve.cli.linearize.signals", lambda: nullcontext(lambda: True))
    options = ["--text", tmp_path / "text", "--steps", 30, "--length", 24]
    found = run(pretrained, "--out", tmp_path / "new", *options)
    assert found.exit_code == 130 and "stopped at step 1 of 30" in found.output
    assert not (tmp_path / "new").exists()


def test_nothing_of_hugging_face_is_imported_before_it_is_needed():
    code = (
        "import sys, learnsolve, learnsolve.linearize, learnsolve.cli;"
        "print({'transformers', 'peft'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_benchmark_runs(tmp_path, capsys):
    pytest.importorskip("peft")
    sizes = {"width": 16, "context": 24, "batch": 4, "steps": 6, "tuned_batch": 2, "windows": 4, "count": 2}
    options = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    gates = ["--gate", "hgrn2", "none", "--tuned", "50", "--seeds", "1", "2", "--memory", "8", "600"]
    assert benchmark.main([*options, *gates, "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    for task in benchmark.TASKS:
        trained = [row for row in rows if row.get("task") == task]
        assert len(trained) == 2 * (1 + 2 * 2 + 1) and len({row["numbers"] for row in trained}) == 1
    found = {(row["kind"], row["length"]): row["remembered"] for row in rows if "length" in row}
    assert found["hgrn2", 8] == found["hgrn2", 600] and found["original", 600] == 75 * found["original", 8]
    assert "window alone" in capsys.readouterr().out


@pytest.mark.slow
def test_most_of_what_was_right_is_right_again():
    pytest.importorskip("peft")
    torch.set_num_threads(1)
    sizes = benchmark.Sizes(width=48, context=64, steps=800, windows=(16,), lengths=())
    rows = list(benchmark.Study("text", sizes, 0).rows(("gla", "none"), (5.0,)))
    found = {(row["kind"], row["tuned"]): row for row in rows}
    assert len({row["numbers"] for row in rows}) == 1
    tuned = found["gla", 5.0]["recovered"]
    assert tuned >= 0.93 and tuned > found["gla", 0.0]["recovered"] + 0.05
    # What the original's training is worth.
    assert tuned > found[benchmark.SCRATCH, 5.0]["recovered"] + 0.05


@pytest.mark.slow
def test_a_recurrence_recalls_what_left_the_window():
    pytest.importorskip("peft")
    torch.set_num_threads(1)
    sizes = benchmark.TASKS["recall"]
    rows = list(benchmark.Study("recall", sizes, 0).rows(("gla", "none"), (5.0,)))
    found = {(row["kind"], row["tuned"]): row["accuracy_32"] for row in rows}
    assert found["original", 100.0] > 0.95
    assert found["gla", 5.0] > 0.5 and found["none", 5.0] < 0.3
