"""What commands leave behind where they are killed, and where the disk or the memory ends."""

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.robustness_commands import COMMANDS, Command, half_written, written

LONGEST = 300.0
# Of what a command writes, and of the addresses that it takes.
ROOM = (0.05, 0.3, 0.6, 0.95)
MEMORY = (0.5, 0.7, 0.85, 0.95)
# A disk of its own in a namespace of its own, which is gone with the process: what is on it is kept.
ON_A_DISK = (
    'mount -t tmpfs -o size="$1" tmpfs "$2" || exit 99; '
    'if [ "$3" = ro ]; then mount -o remount,ro "$2"; fi; '
    'out=$2; keep=$4; shift 4; "$@"; code=$?; cp -a "$out/." "$keep"; exit $code'
)


class Ended(NamedTuple):
    """How a command has ended."""

    code: int
    error: str
    seconds: float
    addresses: int = 0


class Place:
    """A folder with the inputs of a command, and one for what it writes."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command, self.folder = command, folder
        self.given, self.out = folder / "in", folder / "out"
        self.given.mkdir()
        command.make(self.given)
        self.emptied()

    def emptied(self) -> None:
        """Nothing is written yet."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def words(self) -> list[str]:
        """The command line."""
        places = {"{in}": str(self.given), "{out}": str(self.out)}
        words = shlex.split(self.command.words)
        for name, path in places.items():
            words = [word.replace(name, path) for word in words]
        return [sys.executable, "-m", "learnsolve", *words]

    def run(
        self, *, before: tuple[str, ...] = (), seconds: float = LONGEST, addresses: int | None = None
    ) -> Ended:
        """Run the command; after so many seconds all of its processes are killed."""

        def limited() -> None:
            if addresses is not None:
                resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))

        began, most = time.perf_counter(), 0
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [*before, *self.words()], stdout=subprocess.DEVNULL, stderr=said, preexec_fn=limited,
                start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
            )  # fmt: skip
            while process.poll() is None and time.perf_counter() - began < seconds:
                most = max(most, _addresses(process.pid))
                time.sleep(0.005)
            ended = process.poll()
            if ended is None:
                os.killpg(process.pid, signal.SIGKILL)
                ended = process.wait()
            took = time.perf_counter() - began
            said.seek(0)
            return Ended(ended, said.read().decode(errors="replace"), took, most)


def _addresses(process: int) -> int:
    """The most bytes of addresses that a process has had."""
    try:
        with open(f"/proc/{process}/status", encoding="ascii", errors="replace") as status:
            return next((1024 * int(line.split()[1]) for line in status if line.startswith("VmPeak")), 0)
    except OSError:
        return 0


def kind(ended: Ended) -> str:
    """In a word."""
    if ended.code in (0, 2):
        return "done"
    if "Traceback" in ended.error:
        return "traceback"
    if ended.code == 1 and ended.error.strip().splitlines()[-1:] and "learnsolve: " in ended.error:
        return "refused"
    return "hung" if ended.seconds >= LONGEST else "died"


def faults(name: str, kills: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Kill a command at random moments, take the disk and the memory from it; what it leaves behind."""
    row: dict[str, Any] = {"command": name, "problems": []}
    with tempfile.TemporaryDirectory() as folder:
        say(f"{name}: as it is")
        place = Place(COMMANDS[name], Path(folder))
        whole = place.run()
        if kind(whole) != "done" or half_written(place.out):
            raise RuntimeError(f"{name} does not work: {whole.error}")
        files, size = written(place.out), sum(p.stat().st_size for p in place.out.rglob("*") if p.is_file())
        row |= {"files": files, "seconds": whole.seconds, "bytes": size, "addresses": whole.addresses}
        say(f"{name}: killed")
        row["kills"] = _killed(place, kills, whole.seconds, files, row["problems"], seed)
        say(f"{name}: on a disk that is full, or not to be written to")
        row["disk"], row["read_only"] = _on_disks(place, size, files, row["problems"])
        say(f"{name}: with little memory")
        row["memory"] = _with_little_memory(place, whole, row["problems"])
    return row


def _killed(
    place: Place, kills: int, seconds: float, files: list[str], problems: list[str], seed: int
) -> int:
    """Kill it again and again in the same folder, and then let it end."""
    rng = np.random.default_rng(seed)
    place.emptied()
    hit = 0
    for moment in rng.uniform(0, seconds, kills):
        hit += place.run(seconds=moment).code == -signal.SIGKILL
        problems += [f"killed after {moment:.2f} s: half of {file}" for file in half_written(place.out)]
        if place.command.keeps and written(place.out):
            break
    _goes_on(place, files, "killed", problems)
    return hit


def _goes_on(place: Place, files: list[str], what: str, problems: list[str]) -> None:
    """The same command, without a fault, does what is missing."""
    there = place.command.keeps and sorted(written(place.out)) == files
    ended = place.run()
    if not there and kind(ended) != "done":
        problems.append(f"{what}, then again: {ended.error.strip()[-300:]}")
    missing = set(files) - set(written(place.out))
    problems += [f"{what}, then again: no {file}" for file in sorted(missing)]
    problems += [f"{what}, then again: half of {file}" for file in half_written(place.out)]


def _on_disks(
    place: Place, size: int, files: list[str], problems: list[str]
) -> tuple[dict[str, int] | None, str | None]:
    """How it ends on disks that are too small, and on one that is not to be written to."""

    def on(room: int, how: str) -> Ended:
        place.emptied()
        kept = place.folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        wrapped = ("sh", "-c", ON_A_DISK, "sh", str(room), str(place.out), how, str(kept))
        ended = place.run(before=(*unshared(), *wrapped))
        shutil.rmtree(place.out)
        kept.rename(place.out)
        return ended

    if unshared() is None:
        return None, None
    counts: Counter[str] = Counter()
    for share in ROOM:
        ended = on(max(int(share * size), 4096), "rw")
        counts[kind(ended)] += 1
        if kind(ended) not in ("done", "refused"):
            problems.append(f"disk full at {share:.0%}: {kind(ended)}: {ended.error.strip()[-300:]}")
        problems += [f"disk full at {share:.0%}: half of {file}" for file in half_written(place.out)]
        _goes_on(place, files, f"disk full at {share:.0%}", problems)
    ended = on(1 << 24, "ro")
    if kind(ended) != "refused" or written(place.out):
        problems.append(f"read-only: {kind(ended)}: {ended.error.strip()[-300:]}")
    return dict(counts), f"{kind(ended)} after {ended.seconds:.1f} s"


def _with_little_memory(place: Place, whole: Ended, problems: list[str]) -> dict[str, int]:
    """How it ends where addresses are refused; OpenBLAS, refused its buffers, asks again without end."""
    counts: Counter[str] = Counter()
    patience = 10 + 2 * whole.seconds
    for share in MEMORY:
        place.emptied()
        ended = place.run(addresses=int(share * whole.addresses), seconds=patience)
        counts["hung" if ended.seconds >= patience else kind(ended)] += 1
        problems += [f"memory {share:.0%}: half of {file}" for file in half_written(place.out)]
    return dict(counts)


def unshared() -> tuple[str, ...] | None:
    """By which a command gets mounts of its own; None where that is not allowed."""
    words = ("unshare", "--map-root-user", "--mount")
    try:
        tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    except OSError:
        return None
    return words if tried.returncode == 0 else None
