"""``learnsolve demo`` at sizes that take a moment."""

import pytest
from typer.testing import CliRunner

from learnsolve.cli import app


@pytest.mark.parametrize(
    "shape", [["24", "16"], ["24x16"], ["20", "16", "16"]], ids=["two words", "one word", "3d"]
)
def test_demo_writes_two_pictures(shape, tmp_path):
    output = tmp_path / "pictures"
    result = CliRunner().invoke(app, ["demo", "--shape", *shape, "--steps", "2", "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "pressure iterations" in result.output
    assert "multigrid CG" in result.output
    assert sorted(path.name for path in output.iterdir()) == ["demo_convergence.png", "demo_plume.png"]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--shape", "96", "64", "64", "64"], "2 or 3 numbers"),
        (["--shape", "8", "8"], "at least 16"),
        (["--shape", "many"], "number of cells"),
        (["96", "64"], "--shape"),
        (["--steps", "0"], "steps"),
    ],
)
def test_wrong_words_are_refused(words, advice):
    result = CliRunner().invoke(app, ["demo", *words])
    assert result.exit_code == 1
    assert advice in result.output
