"""Every example of the documentation runs, and every command that it shows has the options that it shows."""

import importlib
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer

from learnsolve import cli

ROOT = Path(__file__).parents[1]
GENERATED = {ROOT / "docs" / "api" / "generated", ROOT / "docs" / "gallery"}
PAGES = [page for page in sorted(ROOT.glob("docs/**/*.rst")) if not GENERATED & set(page.parents)]
DIRECTIVE = re.compile(r"( *)\.\. ([a-z:-]+):: *(.*)")
OPTION = re.compile(r" +:([a-z-]+): *(.*)")
# torchrun takes a path.
PROGRAM = "$(which learnsolve)"


class Block(NamedTuple):
    """A directive: its name, what stands behind it, its options, and its text from a line of the page on."""

    name: str
    argument: str
    options: dict[str, str]
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text("utf-8").split("\n")
    for number, line in enumerate(lines):
        if not (directive := DIRECTIVE.fullmatch(line)):
            continue
        margin, name, argument = directive.groups()
        begin, options = number + 1, {}
        while begin < len(lines) and (option := OPTION.fullmatch(lines[begin])):
            options[option[1]] = option[2]
            begin += 1
        end = begin
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith(margin + " ")):
            end += 1
        yield Block(name, argument, options, textwrap.dedent("\n".join(lines[begin:end])), begin)


def examples(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.name in ("testsetup", "testcode")]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=named)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = [block for block in examples(page) if not eval(block.options.get("skipif", "False"), {})]
    if not wanted:
        pytest.skip("what the examples need is not installed")
    torch.manual_seed(0)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in wanted:
        # A traceback shows the page's own lines.
        code = compile("\n" * block.line + block.text, str(page), "exec")
        exec(code, namespace)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_example_escapes(page):
    found = {f"{block.name}:: {block.argument}".strip() for block in blocks(page)}
    assert not found & {
        *("code-block:: python", "code:: python", "sourcecode:: python", "doctest::", "testoutput::"),
        *("code-block:: sh", "code-block:: shell", "code-block:: console"),
    }


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell script, without what stands before a program of ours."""
    for line in text.replace("\\\n", " ").replace(PROGRAM, "learnsolve").split("\n"):
        words = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if not set(word) <= set("&|;<>"):
                command.append(word)
                continue
            for place, known in enumerate(command):
                if known == "learnsolve" or known.startswith("benchmarks."):
                    yield command[place:]
                    break
            command = []


def scripts(page: Path) -> Iterator[str]:
    """What a page shows to be typed into a shell: blocks, and single commands within sentences."""
    text = page.read_text("utf-8")
    if page.suffix == ".md":
        yield from re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    else:
        yield from (
            block.text for block in blocks(page) if block.argument in ("bash", "sh", "shell", "console")
        )
        inline = re.findall(r"``([^`]+)``", text)
    for one in inline:
        if re.search(r"(^|\s)(learnsolve\s+[a-z]|-m\s+benchmarks\.)", one):
            yield " ".join(one.split())


def check_own(words: list[str]) -> None:
    """A command of ours exists, takes these options, and no more arguments than these."""
    command = typer.main.get_command(cli.app)
    words = words[1:]
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command = command.commands[words.pop(0)]
    context = command.make_context(command.name, [], resilient_parsing=True)
    _, left, _ = command.make_parser(context).parse_args(list(words))
    assert not left, f"{left} are arguments too many"


def check_benchmark(words: list[str]) -> None:
    """A benchmark exists and takes these options."""
    name, *options = words
    path = ROOT / f"{name.replace('.', '/')}.py"
    assert path.is_file(), f"no file {path}"
    if not options:
        return
    module = importlib.import_module(name)
    try:
        module.parser().parse_args(options)
    except SystemExit as error:
        raise AssertionError(f"{name} does not take {options}") from error


def shown(page: Path) -> list[list[str]]:
    return [words for script in scripts(page) for words in commands(script)]


@pytest.mark.parametrize(
    "page",
    [page for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"] if shown(page)],
    ids=named,
)
def test_commands_exist(page):
    wrong = []
    for words in shown(page):
        try:
            check_own(words) if words[0] == "learnsolve" else check_benchmark(words)
        except (AssertionError, typer.exceptions.TyperException) as error:
            wrong.append(f"{shlex.join(words)}: {error}")
    assert not wrong, "\n".join(wrong)


def test_what_a_shell_would_run():
    script = f"""
    OMP_NUM_THREADS=1 mpiexec -n 2 learnsolve solve A.mtx --mpi \\
        -M gamg  # not run
    pip install learnsolve[llm] && learnsolve demo > log.txt; echo learnsolver
    torchrun --nproc-per-node 2 {PROGRAM} train dcdm
    python -m benchmarks.poisson --case "a box"
    """
    assert list(commands(script)) == [
        ["learnsolve", "solve", "A.mtx", "--mpi", "-M", "gamg"],
        ["learnsolve", "demo"],
        ["learnsolve", "train", "dcdm"],
        ["benchmarks.poisson", "--case", "a box"],
    ]


@pytest.mark.parametrize(
    "script",
    [
        "learnsolve slove A.mtx",
        "learnsolve solve A.mtx --rtoll 1e-8",
        "learnsolve train dcmd --out run",
        "learnsolve methods one two three",
    ],
)
def test_a_wrong_command_is_noticed(script):
    [words] = commands(script)
    with pytest.raises((AssertionError, typer.exceptions.TyperException)):
        check_own(words)


@pytest.mark.parametrize(
    "script", ["python -m benchmarks.poison", "python -m benchmarks.poisson --cases box"]
)
def test_a_wrong_benchmark_is_noticed(script, capsys):
    [words] = commands(script)
    with pytest.raises(AssertionError):
        check_benchmark(words)
