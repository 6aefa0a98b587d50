"""Who may import whom: an arrow never runs back."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "problems", "datasets")
HEAVY = {"matplotlib", "numba", "pyamg", "h5py", "triton", "typer", "rich", "safetensors"}
HEAVY |= {"transformers", "peft"}

NOBODY: set[str] = set()
GROUND = {"kernels", "result", "arrays", "files"}
ITERATION = GROUND | {"operators", "loop"}
SOLVERS = ITERATION | {"methods", "preconditioners", "training"}
FACE = "__init__"
TOP = SOLVERS | {"gradient", "linear"}

# For each room of the package the rooms that it may import, besides itself.
MAY_IMPORT = {
    "kernels": NOBODY,
    "result": NOBODY,
    "arrays": NOBODY,
    "files": NOBODY,
    "workers": NOBODY,
    "training": {"files", "kernels", "plots"},
    "plots": {"result"},
    "operators": GROUND,
    "loop": GROUND | {"operators"},
    "methods": ITERATION | {"preconditioners", "training"},
    "preconditioners": ITERATION | {"methods", "training"},
    "door": GROUND | {"operators", "preconditioners"},
    "automatic": SOLVERS,
    "gradient": SOLVERS,
    "linear": SOLVERS | {"automatic", "door", "gradient"},
    "online": TOP,
    "completion": TOP,
    "mri": TOP | {"workers"},
    "dynamics": TOP | {"plots"},
    "sequence": TOP,
    "forecasting": TOP | {"sequence"},
    "linearize": TOP | {"sequence"},
    "distributed": TOP,
    "batch": TOP | {"completion", "datasets", "mri", "workers"},
    # The smoke simulation calls the package's public solve; no solver knows a problem.
    "problems": GROUND | {"operators", FACE},
    "datasets": {"files", "operators"},
    FACE: TOP | {"online", "completion", "mri", "dynamics", "sequence", "batch"},
    "__main__": {"cli"},
    "cli": TOP
    | {FACE, "online", "completion", "mri", "dynamics", "sequence", "forecasting", "linearize"}
    | {"batch", "distributed"}
    | {"problems", "datasets", "plots"},
}


def sources():
    """Name and path of every module of the package."""
    for path in sorted((ROOT / "learnsolve").rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path
    for room in ROOMS:
        for path in sorted((ROOT / room).glob("*.py")):
            yield f"learnsolve.{room}.{path.stem}", path


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else FACE


def only_for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def nodes(tree):
    """All nodes below one, but for those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if not only_for_types(node):
            yield node
            yield from nodes(node)


def imported(path):
    """Modules of the package that a file imports, wherever in the file, with the line."""
    for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            if node.module == "learnsolve":
                for name in node.names:
                    known = name.name in MAY_IMPORT
                    yield f"learnsolve.{name.name}" if known else "learnsolve", node.lineno
            else:
                yield node.module, node.lineno


MODULES = dict(sources())


@pytest.mark.parametrize("module", MODULES)
def test_arrows_never_run_back(module):
    room = room_of(module)
    assert room in MAY_IMPORT, f"{room} is not in the table above: say what it may import"
    path = MODULES[module]
    for name, line in imported(path):
        if name.split(".")[0] != "learnsolve":
            assert name.split(".")[0] not in ROOMS, f"{path}:{line}: write learnsolve.{name}"
            continue
        target = room_of(name)
        allowed = MAY_IMPORT[room] | {room}
        assert target in allowed, f"{path}:{line}: {room} may not import {target}"


def test_the_table_has_no_circle():
    """But for methods and preconditioners, which build on each other file by file."""
    below = {room: set(targets) for room, targets in MAY_IMPORT.items()}
    below["preconditioners"].discard("methods")
    while below:
        free = {room for room, targets in below.items() if not targets & below.keys()}
        assert free, f"a circle among {sorted(below)}"
        below = {room: targets for room, targets in below.items() if room not in free}


def test_modules_import_each_other_without_a_circle():
    edges = {
        module: {name for name, _ in imported(path) if name in MODULES} for module, path in MODULES.items()
    }
    edges = {module: targets for module, targets in edges.items() if module != "learnsolve.__init__"}
    while edges:
        free = {module for module, targets in edges.items() if not (targets - {module}) & edges.keys()}
        assert free, f"a circle among {sorted(edges)}"
        edges = {module: targets for module, targets in edges.items() if module not in free}


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_importing_the_package_adds_less_than_a_second_to_torch():
    # In processor time, so that a busy machine does not count.
    code = "import time, torch; t = time.process_time(); import learnsolve; print(time.process_time() - t)"
    assert any(float(run(code)) < 1.0 for _ in range(3))


def test_importing_the_package_makes_no_heavy_import():
    loaded = run("import sys, learnsolve; learnsolve.solve; print(' '.join(sys.modules))").split()
    heavy = HEAVY & set(loaded)
    assert not heavy, heavy
