"""Many files: bad ones recorded, dead workers outlived, what is there left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import distributed
import numpy as np
import pytest
import scipy.sparse

from learnsolve.batch import CompleteFile, map_files, read_records
from learnsolve.datasets import matrix_market


@dataclass(frozen=True)
class Double:
    """Writes twice the number that a file holds; of some words other things come."""

    suffix: str = ".txt"

    def __call__(self, path, target):
        text = path.read_text()
        if text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "hang":
            time.sleep(100)
        if text.startswith("once"):
            # Dies the first time only.
            mark = path.with_suffix(".mark")
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            text = text.removeprefix("once ")
        target.write_text(str(2 * int(text)))
        return {"number": 2 * int(text)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()

    def write(texts):
        paths = []
        for name, text in texts.items():
            path = tmp_path / "in" / f"{name}.in"
            path.write_text(text)
            paths.append(path)
        return paths

    return write, tmp_path / "out"


def statuses(records):
    return {Path(record.file).stem: record.status for record in records}


@pytest.mark.parametrize("pool", ["here", "processes", "threads"])
def test_a_bad_file_is_recorded_and_the_rest_is_done(folder, pool):
    write, out = folder
    paths = [*write({"a": "1", "b": "none", "c": "3"}), out / "absent.in"]
    seen = []
    with ThreadPoolExecutor(2) as threads:
        options = {"here": {"workers": 0}, "processes": {"workers": 2}, "threads": {"executor": threads}}
        records = map_files(Double(), paths, out, progress=seen.append, **options[pool])
    assert [record.status for record in records] == ["done", "failed", "done", "failed"]
    assert sorted(r.file for r in seen) == sorted(r.file for r in records)
    assert "ValueError" in records[1].error and "FileNotFoundError" in records[3].error
    assert records[2].result == {"number": 6} and Path(records[2].out).read_text() == "6"
    assert {record.file for _, record in read_records(out).values()} == {record.file for record in records}


def test_a_second_call_does_what_is_missing(folder):
    write, out = folder
    paths = write({"a": "1", "b": "none", "c": "3", "d": "4"})
    map_files(Double(), paths, out, workers=0)
    (out / "c.txt").unlink()
    write({"b": "2", "d": "40"})
    records = map_files(Double(), paths, out, workers=0)
    assert [record.status for record in records] == ["present", "done", "done", "done"]
    assert records[3].result == {"number": 80} and records[0].result == {"number": 2}
    # Another task has other results; and those of the first one are still there.
    assert statuses(map_files(Double(".dat"), paths, out, workers=0)) == dict.fromkeys("abcd", "done")
    assert statuses(map_files(Double(), paths, out, workers=0)) == dict.fromkeys("abcd", "present")


def test_a_torn_line_of_the_records_is_passed_over(folder):
    write, out = folder
    paths = write({"a": "1", "b": "2"})
    map_files(Double(), paths, out, workers=0)
    log = out / "batch.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    assert len(read_records(out)) == 1
    assert [r.status for r in map_files(Double(), paths, out, workers=0)] == ["present", "done"]
    for line in (b"[1]\n", b'{"of": 3}\n', b"\xff\n", b"null\n"):
        log.write_bytes(log.read_bytes() + b"\n" + line)
    assert [r.status for r in map_files(Double(), paths, out, workers=0)] == ["present", "present"]


def test_files_that_kill_their_process(folder):
    write, out = folder
    texts = {"a": "1", "b": "die", "c": "once 3", "d": "4", "e": "die", "f": "6"}
    records = map_files(Double(), write(texts), out, workers=2)
    expected = {"a": "done", "b": "failed", "c": "done", "d": "done", "e": "failed", "f": "done"}
    assert statuses(records) == expected
    assert "its process died" in records[1].error


def test_a_file_that_hangs(folder):
    write, out = folder
    records = map_files(Double(), write({"a": "hang", "b": "2"}), out, workers=2, timeout=6)
    assert statuses(records) == {"a": "failed", "b": "done"}


class Breaking(Executor):
    """Takes two tasks, and the second comes to nothing."""

    def __init__(self):
        self.count = 0

    def submit(self, function, /, *arguments, **named):
        self.count += 1
        if self.count > 2:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = Future()
        if self.count == 1:
            future.set_result(function(*arguments, **named))
        else:
            future.set_exception(OSError("the connection is lost"))
        return future


def test_an_executor_that_breaks(folder):
    write, out = folder
    paths = write({"a": "1", "b": "2", "c": "3"})
    records = map_files(Double(), paths, out, executor=Breaking())
    assert statuses(records) == {"a": "done", "b": "failed", "c": "failed"}
    assert "connection" in records[1].error and "no more" in records[2].error
    assert statuses(map_files(Double(), paths, out, workers=0)) == {"a": "present", "b": "done", "c": "done"}


def test_bad_calls(folder):
    write, out = folder
    paths = write({"a": "1"})
    for options in ({"workers": -1}, {"timeout": 0}, {"timeout": 1, "workers": 0}):
        with pytest.raises(ValueError, match="accepted"):
            map_files(Double(), paths, out, **options)
    with pytest.raises(ValueError, match="its own"), ThreadPoolExecutor(1) as pool:
        map_files(Double(), paths, out, executor=pool, workers=2)
    with pytest.raises(ValueError, match="both"):
        map_files(Double(), [*paths, out / "a.out"], out, workers=0)
    with pytest.raises(ValueError, match="written over"):
        map_files(Double(".in"), paths, paths[0].parent, workers=0)


def systems(folder, count, damaged):
    """Systems of Matrix Market, every one of ``damaged`` cut off in the middle."""
    folder.mkdir()
    for i in range(count):
        size = 5 + i % 7
        matrix = scipy.sparse.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(size, size))
        path = folder / f"system{i:03}.mtx"
        matrix_market.write(path, matrix)
        matrix_market.write(folder / f"system{i:03}_b.mtx", np.arange(1.0, size + 1))
        if i in damaged:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder


def command(*words, launcher=("-m", "learnsolve")):
    return subprocess.run(
        [sys.executable, *launcher, *map(str, words)], capture_output=True, text=True, timeout=300
    )


def test_the_command_solves_systems(tmp_path):
    folder = systems(tmp_path / "in", 6, {2})
    out = tmp_path / "out"
    done = command("batch", "solve", folder, "--out", out, "--workers", 2, "--json")
    assert done.returncode == 1, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["status"] for record in records] == ["done", "done", "failed", "done", "done", "done"]
    A = matrix_market.read(folder / "system004.mtx")
    b = matrix_market.read(folder / "system004_b.mtx")
    x = matrix_market.read(out / "system004.mtx")
    assert np.linalg.norm(b - A @ x) <= 1e-5 * np.linalg.norm(b)
    assert records[4]["result"]["right_hand_side"].endswith("system004_b.mtx")
    again = command("batch", "solve", folder, "--out", out, "--workers", 2)
    assert again.returncode == 1
    assert "6 files: 0 done, 5 were there, 1 failed" in again.stdout
    assert "system002.mtx" in again.stderr and "Traceback" not in again.stderr


def test_completion_of_files(tmp_path):
    generator = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(2):
        low = generator.standard_normal((40, 2)) @ generator.standard_normal((2, 30))
        known = generator.random((40, 30)) < 0.5
        matrix_market.write(folder / f"m{i}.mtx", scipy.sparse.coo_array(low * known))
    (folder / "bad.csv").write_text("what,is,this\n")
    records = map_files(CompleteFile(rank=2), sorted(folder.iterdir()), tmp_path / "out", workers=0)
    assert statuses(records) == {"bad": "failed", "m0": "done", "m1": "done"}
    assert records[1].result["relative_residual"] < 1e-4
    with np.load(tmp_path / "out" / "m0.npz") as held:
        assert held["U"].shape == (40, 2) and held["V"].shape == (30, 2)


def test_what_did_not_converge_has_its_own_exit_code(tmp_path):
    folder = systems(tmp_path / "in", 2, set())
    done = command(
        "batch", "solve", folder, "--out", tmp_path / "out", "--method", "cg", "--maxiter", 1, "--workers", 1
    )
    assert done.returncode == 2 and "2 did not converge" in done.stdout


@pytest.mark.parametrize("wrong", ["nothing there", "both"])
def test_wrong_usage(tmp_path, wrong):
    (tmp_path / "in").mkdir()
    words = ["batch", "solve", tmp_path / "in", "--out", tmp_path / "out"]
    if wrong == "both":
        (tmp_path / "in" / "a.mtx").touch()
        words += ["--scheduler", "tcp://localhost:1", "--mpi"]
    done = command(*words)
    assert done.returncode == 1
    assert done.stderr.startswith("learnsolve: ") and "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_hundred_files_ten_damaged_one_worker_killed(tmp_path):
    damaged = set(range(7, 200, 20))
    folder, out = systems(tmp_path / "in", 200, damaged), tmp_path / "out"
    words = [sys.executable, "-m", "learnsolve", "batch", "solve", folder, "--out", out, "--workers", "2"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = None
    while killed is None and running.poll() is None:
        time.sleep(0.05)
        log = out / "batch.jsonl"
        if log.is_file() and log.read_text().count("\n") > 20:
            killed = workers_of(running.pid)[-1]
            os.kill(killed, signal.SIGKILL)
    output, errors = running.communicate(timeout=300)
    assert killed is not None
    assert running.returncode == 1 and "190 done, 0 were there, 10 failed" in output
    assert errors.count("learnsolve: ") == 10
    records = read_records(out)
    assert sum(record.status == "failed" for _, record in records.values()) == 10
    assert len(list(out.glob("*.mtx"))) == 190
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.mtx")}
    again = command("batch", "solve", folder, "--out", out, "--workers", "2")
    assert again.returncode == 1 and "0 done, 190 were there, 10 failed" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*.mtx")}


def workers_of(pid):
    """The processes below one that work for its pool."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            line = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"spawn_main" in line:
            found.append(int(path.name))
    return sorted(found)


def test_dask(folder):
    write, out = folder
    paths = write({"a": "1", "b": "none", "c": "3"})
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        records = map_files(Double(), paths, out, executor=client.get_executor())
        assert statuses(records) == {"a": "done", "b": "failed", "c": "done"}


def test_mpi(tmp_path):
    folder, out = systems(tmp_path / "systems", 3, {1}), tmp_path / "out"
    mpiexec = Path(sys.executable).with_name("mpiexec")
    launcher = ("-m", "mpi4py.futures", "-m", "learnsolve")
    words = ["batch", "solve", str(folder), "--out", str(out), "--mpi"]
    done = subprocess.run(
        [mpiexec, "-n", "3", sys.executable, *launcher, *words], capture_output=True, text=True, timeout=300
    )
    assert "3 files: 2 done, 0 were there, 1 failed" in done.stdout, done.stderr
    assert done.returncode == 1
