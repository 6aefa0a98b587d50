"""One task a file, on any executor: bad files are recorded, the rest is done, a second call goes on."""

import faulthandler
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from learnsolve.workers import cores, pool

RECORDS = "batch.jsonl"
DIED = "its process died: it was killed, ran out of memory, crashed or took longer than the timeout"


class Task(Protocol):
    """What is done to a file; it can be pickled, and its repr says all that its results depend on."""

    @property
    def suffix(self) -> str:
        """Of the files that it makes."""

    def __call__(self, path: Path, target: Path) -> dict[str, Any]:
        """Make ``target`` of ``path``, whole or not at all; what to say of it, as JSON can hold it."""


@dataclass(frozen=True)
class Record:
    """What came of a file.

    Attributes
    ----------
    file : str
        Its path.
    out : str
        The path of what was made of it.
    status : {"done", "present", "failed"}
        ``"present"``: an earlier call had made it.
    error : str
        Why it failed.
    seconds : float
        That it took.
    result : dict
        What the task says of it.
    """

    file: str
    out: str
    status: Literal["done", "present", "failed"]
    error: str = ""
    seconds: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)


def map_files(
    task: Task,
    files: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    timeout: float | None = None,
    progress: Callable[[Record], Any] | None = None,
) -> list[Record]:
    """Do a task to each of many files.

    A file that the task can't take is recorded and the rest is finished, also where its process dies with
    it: what was under way in other processes then is done again. Records are kept in ``out/batch.jsonl``;
    a second call does only what is missing, has failed or has changed.

    Parameters
    ----------
    task : Task
        `SolveFile`, `CompleteFile`, or a function of your own with a ``suffix``.
    files : iterable of paths
        No two of one name.
    out : path
        The folder for what is made, created if need be.
    executor : concurrent.futures.Executor, optional
        Where to work: that of a dask client (``Client(...).get_executor()``), or
        ``mpi4py.futures.MPIPoolExecutor()``. The files must be seen from there by the same paths. By default
        processes of this machine, which a script that calls this must allow for as `multiprocessing` asks:
        under ``if __name__ == "__main__":``.
    workers : int, optional
        How many processes of this machine; by default one for each core. 0: all is done in this process, one
        file after another.
    timeout : float, optional
        Seconds after which a file's process on this machine is ended, and the file has failed.
    progress : callable, optional
        Called with each record.

    Returns
    -------
    list of Record
        In the order of the files.

    Raises
    ------
    ValueError
        Two files have one name, or a number is not positive.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from pathlib import Path
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from learnsolve.batch import SolveFile, map_files
    >>> from learnsolve.datasets import matrix_market
    >>> folder = Path(tempfile.mkdtemp())
    >>> matrix_market.write(folder / "good.mtx", np.eye(3))
    >>> _ = (folder / "bad.mtx").write_text("nothing")
    >>> with ThreadPoolExecutor() as pool:
    ...     records = map_files(SolveFile(), sorted(folder.glob("*.mtx")), folder / "x", executor=pool)
    >>> [(Path(record.file).name, record.status) for record in records]
    [('bad.mtx', 'failed'), ('good.mtx', 'done')]
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers is {workers}; a number that is not negative is accepted")
    if timeout is not None and not (timeout > 0 and workers != 0):
        raise ValueError(
            f"timeout is {timeout} and workers {workers}; a positive timeout, with workers, is accepted"
        )
    if executor is not None and (workers is not None or timeout is not None):
        raise ValueError("workers and timeout are for processes of this machine; the executor has its own")
    folder = Path(out)
    paths = [Path(path) for path in files]
    targets = _targets(paths, folder, task.suffix)
    folder.mkdir(parents=True, exist_ok=True)
    known = read_records(folder)
    found: dict[Path, Record] = {}
    missing: list[tuple[Path, Path]] = []
    digests = {path: _digest(task, path) for path in paths}
    for path, target in zip(paths, targets, strict=True):
        digest, before = known.get(str(target), ("", None))
        if before is not None and before.status == "done" and digest == digests[path] and target.is_file():
            found[path] = Record(**{**asdict(before), "status": "present"})
            if progress is not None:
                progress(found[path])
        else:
            missing.append((path, target))
    if missing:
        if executor is not None:
            outcomes = _on(executor, task, missing)
        elif workers == 0:
            outcomes = ((path, _attempt(task, path, target)) for path, target in missing)
        else:
            count = min(workers or cores(), len(missing))
            outcomes = _in_processes(task, missing, count, timeout)
        with open(folder / RECORDS, "ab") as log:
            for path, record in outcomes:
                found[path] = record
                # On a line of its own, whatever a killed call has left.
                log.write(b"\n" + json.dumps({"of": digests[path], **asdict(record)}).encode())
                log.flush()
                if progress is not None:
                    progress(record)
    return [found[path] for path in paths]


def read_records(out: str | os.PathLike) -> dict[str, tuple[str, Record]]:
    """The last record of each file that `map_files` made in a folder, and by what its task is known.

    Lines that a killed call left half-written are passed over.
    """
    path = Path(out) / RECORDS
    found: dict[str, tuple[str, Record]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                held = json.loads(line)
                digest = held.pop("of")
                record = Record(**held)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
            found[record.out] = (digest, record)
    return found


def _targets(paths: list[Path], folder: Path, suffix: str) -> list[Path]:
    names: dict[str, Path] = {}
    for path in paths:
        name = path.name.removesuffix(".gz")
        name = name[: -len(Path(name).suffix)] if Path(name).suffix else name
        if name in names:
            raise ValueError(f"{names[name]} and {path} would both be written to {folder / name}{suffix}")
        names[name] = path
        if (folder / f"{name}{suffix}").resolve() == path.resolve():
            raise ValueError(f"{path} would be written over: the folder must be another one")
    return [folder / f"{name}{suffix}" for name in names]


def _digest(task: Task, path: Path) -> str:
    """By which a task and the state of a file are known."""
    try:
        about = path.stat()
        state = f"{about.st_size} {about.st_mtime_ns}"
    except OSError:
        state = "missing"
    return hashlib.sha256(f"{task!r} {path.resolve()} {state}".encode()).hexdigest()[:16]


def _attempt(task: Task, path: Path, target: Path, timeout: float | None = None) -> Record:
    """In a worker: what came of a file, an exception included."""
    began = time.perf_counter()
    where = str(path.resolve()), str(target)
    with _watched(timeout):
        try:
            result = task(path, target)
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return Record(*where, "failed", text, time.perf_counter() - began)
    return Record(*where, "done", "", time.perf_counter() - began, result)


@contextmanager
def _watched(timeout: float | None) -> Iterator[None]:
    """A watchdog that ends the process, also where it hangs in a library."""
    if timeout is None:
        yield
        return
    with open(os.devnull, "w") as silent:
        faulthandler.dump_traceback_later(timeout, exit=True, file=silent)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _in_processes(
    task: Task, missing: list[tuple[Path, Path]], workers: int, timeout: float | None
) -> Iterator[tuple[Path, Record]]:
    """Work in processes of this machine; where one dies, what was under way is tried one by one, twice."""
    waiting, suspects = deque(missing), deque[tuple[Path, Path]]()
    alone: set[tuple[Path, Path]] = set()
    running: dict[Future, tuple[Path, Path]] = {}
    current = pool(workers)
    try:
        while waiting or suspects or running:
            while waiting and len(running) < workers:
                item = waiting.popleft()
                running[current.submit(_attempt, task, *item, timeout)] = item
            if not running:
                item = suspects.popleft()
                running[current.submit(_attempt, task, *item, timeout)] = item
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            died = []
            for future in finished:
                item = running.pop(future)
                try:
                    yield item[0], future.result()
                except BrokenExecutor:
                    died.append(item)
            if died:
                died += running.values()
                running.clear()
                current.shutdown(wait=False, cancel_futures=True)
                current = pool(workers)
                if len(died) == 1 and died[0] in alone:
                    path, target = died[0]
                    yield path, Record(str(path.resolve()), str(target), "failed", DIED)
                    continue
                alone |= set(died) if len(died) == 1 else set()
                suspects.extend(died)
    finally:
        # What is under way ends: an interpreter that ended before it would tell of broken pipes.
        current.shutdown(wait=True, cancel_futures=True)


def _on(executor: Executor, task: Task, missing: list[tuple[Path, Path]]) -> Iterator[tuple[Path, Record]]:
    """Work on an executor that was given; where it breaks, what is left has failed."""
    running: dict[Future, tuple[Path, Path]] = {}
    left = dict(missing)
    why = ""
    try:
        for item in missing:
            running[executor.submit(_attempt, task, *item)] = item
    except (BrokenExecutor, RuntimeError) as error:
        why = f"the executor took no more: {error}"
    while running:
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            path, target = running.pop(future)
            del left[path]
            try:
                record = future.result()
            except Exception as error:
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                record = Record(str(path.resolve()), str(target), "failed", text)
            yield path, record
    for path, target in left.items():
        yield path, Record(str(path.resolve()), str(target), "failed", why)
