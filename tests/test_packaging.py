"""The wheel holds what the checkout holds."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import learnsolve

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "problems", "datasets")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def modules():
    """Every module of the package, by its path in a wheel."""
    for path in (ROOT / "learnsolve").rglob("*.py"):
        yield path.relative_to(ROOT).as_posix()
    for room in ROOMS:
        for path in (ROOT / room).glob("*.py"):
            yield f"learnsolve/{room}/{path.name}"


def test_the_list_of_packages_is_complete():
    found = {Path(name).parent.as_posix().replace("/", ".") for name in modules()} | {"learnsolve.weights"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_the_version_is_one():
    assert learnsolve.__version__ == PROJECT["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {learnsolve.__version__}" in citation


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_root_folders_are_flat_and_no_packages(room):
    """So that the `datasets` of Hugging Face and others win, and the mapping holds."""
    assert not (ROOT / room / "__init__.py").exists()
    if room != "tests":
        inner = {path.parent for path in (ROOT / room).rglob("*.py")}
        assert inner <= {ROOT / room}


def test_packages_below_learnsolve_have_an_init():
    for path in (ROOT / "learnsolve").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path


def test_constraints_pin_every_direct_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in PROJECT["project"]["dependencies"] + extras["test"] + extras["docs"]:
        name = requirement.split(">=")[0].split("[")[0].lower()
        assert name in pinned, f"{name} has no pin in constraints.txt"
    assert "torch==2.13.0" in lines


def test_the_oldest_versions_are_those_that_are_asked_for():
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    asked = dict(requirement.split(">=") for requirement in PROJECT["project"]["dependencies"])
    for name in asked.keys() - {"torch"}:
        assert pins[name].startswith(asked[name]), name


def test_readme_commands_are_the_two_that_ci_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install -c constraints.txt -e . && learnsolve demo\n" in readme
    assert 'pip install -c constraints.txt -e ".[test]" && pytest -n auto\n' in readme
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel built from a copy of the checkout, so that no old build folder leaks in."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("learnsolve", *ROOMS):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*command, "-w", str(folder), str(copy)], capture_output=True, text=True, timeout=300, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {
            name: archive.read(name) if name.endswith(("METADATA", "entry_points.txt")) else b""
            for name in archive.namelist()
        }


def test_wheel_holds_every_module_and_nothing_else(wheel):
    assert {name for name in wheel if name.endswith(".py")} == set(modules())


def test_wheel_is_typed_licensed_and_has_the_command(wheel):
    assert "learnsolve/py.typed" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
    entry_points = next(text for name, text in wheel.items() if name.endswith("entry_points.txt"))
    assert b"learnsolve = learnsolve.cli:main" in entry_points


def test_wheel_holds_the_weights_with_their_cards_and_configs(wheel):
    folder = ROOT / "learnsolve" / "weights"
    paths = [path for kind in ("safetensors", "md", "toml") for path in folder.glob(f"*.{kind}")]
    assert paths
    for path in paths:
        assert f"learnsolve/weights/{path.name}" in wheel
