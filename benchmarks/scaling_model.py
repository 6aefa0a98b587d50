r"""A model of solves and reconstructions on many processes, from figures of one process.

**Measured** on one thread (`benchmarks.scaling_model_measure`): seconds of the set-up, of an application on
the finest level and below it, and of the rest of an iteration; bytes; files of simulated scans.

**Fitted**: ``t(n) = c n^p`` by least squares of the logarithms, for ``n`` cells up to the largest measured
size, and in proportion to ``n`` beyond. Bytes are in proportion throughout.

**Modelled**: ``P`` ranks, each with a box of ``n_1 x n_2 x n_3`` of ``N`` cells that has ``s_i <= 2``
neighbours along axis ``i``, as `learnsolve.distributed` has it.

* Cells that a box receives, ``w`` wide: ``H(w) = prod(n_i + w s_i) - prod(n_i)``; as many are sent.
* Bytes an iteration: ``8 (2 H(7) + H(2)) + 8 C (P - 1) / P + 32 ceil(log2 P)``, for ``C`` unknowns of the
  first coarse level: two exchanges of the preconditioner, one of the matrix, one gathering, four sums.
* Messages: ``3 (prod(1 + s_i) - 1) + P - 1 + 4 ceil(log2 P)``, where the gathering is a ring.
* Computing: ``fine(prod(n_i + 6 s_i)) + coarse(N) + rest(prod(n_i))``.
* Where a box is not wider than 6 cells, the whole residual is gathered, ``C = N``, instead of two exchanges,
  and every rank does the whole cycle.
* Bytes of a rank: ``process + whole(N) + 72 prod(n_i) + 64 prod(n_i + 6 s_i)``. ``whole`` is the operator,
  all levels, the right-hand side twice, what is gathered, and the larger of set-up and gathered answer.
* With ``d`` levels shared, which the package does not do: their set-up and bytes are divided among ranks,
  level ``l`` has ``2^l`` visits of two exchanges, and level ``d`` is gathered ``2^(d - 1)`` times.

A message costs ``latency``; a halo's bytes pass at ``bandwidth / ranks_per_node``, within one node at what a
core copies; what is gathered enters each node once at ``bandwidth``, and each rank copies it.

**Files**: ``start + max(F (t + b + r) / W, F b, F r, longest + b + r)`` for ``F`` files of ``t`` seconds on
``W`` workers; ``b`` seconds of the storage and ``r`` of keeping records go one file after another.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from math import ceil, log2, prod
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import CASES, consoles
from benchmarks.scaling_model_measure import METHODS, NARROW, Files, Row, counted, taken

# Cells that two sweeps and a residual reach, and how wide an exchange of the preconditioner is.
REACH, WIDE = 6, 7
# Of PETSc's vectors and of the tile's arrays, a cell; counted in the code.
OWN_BYTES, TILE_BYTES = 72, 64
# Of a right-hand side twice, of the gathered answer thrice; of a gathered unknown, its order and copies.
RIGHT_BYTES, ANSWER_BYTES, COARSE_BYTES = 16, 24, 28
Shown = tuple[list[Table], Row]
PARTS = ("setup", "iteration", "fine", "coarse", "rest", "whole")


@dataclass(frozen=True)
class Law:
    """``factor * n ** power``, and beyond ``largest`` in proportion to ``n``."""

    factor: float
    power: float
    largest: int

    @classmethod
    def fitted(cls, sizes: list[int], values: list[float]) -> "Law":
        """By least squares of the logarithms; in proportion where there is one size."""
        if len(set(sizes)) < 2:
            return cls(values[0] / sizes[0], 1.0, sizes[0])
        power, offset = np.polyfit(np.log(sizes), np.log(values), 1)
        return cls(float(np.exp(offset)), float(power), max(sizes))

    def __call__(self, n: float) -> float:
        return self.factor * min(n, self.largest) ** self.power * max(n / self.largest, 1.0)


@dataclass(frozen=True)
class Machine:
    """Nodes and what joins them: seconds, bytes, bytes a second."""

    latency: float
    bandwidth: float
    copy: float
    memory: float
    ranks_per_node: int


@dataclass(frozen=True)
class Costs:
    """The laws of a method, by cells, and what it holds.

    ``gathered`` and ``share``: unknowns of the first coarse level and of the finest, for each cell;
    ``below[d]``: the share of the levels' bytes from level ``d`` on; ``process``: bytes before any problem.
    """

    laws: dict[str, Law]
    iterations: int
    gathered: float
    share: float
    below: tuple[float, ...]
    process: float

    @classmethod
    def of_rows(cls, rows: list[Row]) -> "Costs":
        """From what was measured, the largest last."""
        cells, last = [row["cells"] for row in rows], rows[-1]
        held = last["level_bytes"]
        laws = {part: Law.fitted(cells, [value(row, part) for row in rows]) for part in PARTS}
        return cls(
            laws | {"whole": Law.fitted(cells[-1:], [value(last, "whole")])},
            max(row["iterations"] for row in rows),
            last["gathered"] / last["cells"],
            last["unknowns"] / last["cells"],
            tuple(sum(held[d:]) / sum(held) for d in range(len(held))),
            last["process_bytes"],
        )


def value(row: Row, part: str) -> float:
    """A figure of a size; ``whole``: bytes that each rank holds of the whole grid."""
    if part != "whole":
        return max(float(row[part]), 1e-9)
    cells = row["cells"]
    largest = max(row["setup_bytes"], sum(row["level_bytes"]) + ANSWER_BYTES * cells)
    return float(row["operator_bytes"] + RIGHT_BYTES * cells + COARSE_BYTES * row["gathered"] + largest)


def near_cubic(ranks: int) -> tuple[int, int, int]:
    """Three factors as near to each other as can be."""
    triples = [
        (ranks // (a * b), b, a)
        for a in range(1, ranks + 1)
        if ranks % a == 0 and a**3 <= ranks
        for b in range(a, ranks // a + 1)
        if ranks // a % b == 0 and b * b <= ranks // a
    ]
    return min(triples, key=lambda axes: axes[0] - axes[2])


def grown(box: tuple[int, ...], sides: tuple[int, ...], width: int) -> int:
    """Cells of a box and ``width`` around it, towards so many neighbours along each axis."""
    return prod(n + width * s for n, s in zip(box, sides, strict=True))


def halo(box: tuple[int, ...], sides: tuple[int, ...], width: int) -> int:
    """Cells that a box receives."""
    return grown(box, sides, width) - prod(box)


def traffic(box: tuple[int, ...], sides: tuple[int, ...], ranks: int, gathered: float, own: float) -> Row:
    """Bytes and messages of a rank in an iteration; ``own`` is its part of what is gathered."""
    cut = min(box) > REACH
    rounds = ceil(log2(ranks))
    return {
        "halo": 8 * (halo(box, sides, NARROW) + 2 * cut * halo(box, sides, WIDE)),
        "gather": 8 * (gathered - own),
        "sums": 32 * rounds,
        "messages": (1 + 2 * cut) * (prod(1 + s for s in sides) - 1) + ranks - 1 + 4 * rounds,
    }


def exchange_seconds(sent: Row, ranks: int, on_node: int, machine: Machine) -> float:
    """What `traffic` takes."""
    gather, rate = sent["gather"] / machine.copy, machine.copy
    if ranks > on_node:
        rate = machine.bandwidth / on_node
        gather += sent["gather"] * (1 - on_node / ranks) / machine.bandwidth
    return float(sent["messages"] * machine.latency + (sent["halo"] + sent["sums"]) / rate + gather)


def point(unknowns: float, ranks: int, costs: Costs, machine: Machine, depth: int = 0) -> Row:
    """Memory, traffic and seconds of a solve; with ``depth`` as if so many levels were shared throughout."""
    side = round((unknowns / costs.share) ** (1 / 3))
    cells, axes, laws = side**3, near_cubic(ranks), costs.laws
    box = tuple(ceil(side / count) for count in axes)
    sides = tuple(min(count - 1, 2) for count in axes)
    own, tile = prod(box), grown(box, sides, REACH)
    cut = ranks == 1 or min(box) > REACH
    shared = depth if cut else 0
    gathered = costs.gathered * cells if cut else cells
    sent = traffic(box, sides, ranks, gathered, gathered / ranks)
    # Level l does 3/4 of 4^(1 - l) of the work below the finest: 2^l visits of 8^-l of the cells.
    repeated, divided = laws["coarse"](cells), 0.0
    for level in range(1, shared):
        lower = tuple(ceil(n / 2**level) for n in box)
        if min(lower) <= REACH:
            shared = level
            break
        part = grown(lower, sides, REACH) / (cells / 8**level)
        divided += 0.75 * repeated * min(part, 1.0)
        repeated /= 4
        sent["halo"] += 2**level * 2 * 8 * halo(lower, sides, WIDE)
        sent["messages"] += 2**level * 2 * (prod(1 + s for s in sides) - 1) + 2 ** (level - 1) * (ranks - 1)
        sent["gather"] /= 4
    left = costs.below[min(shared, len(costs.below) - 1)]
    spread = left + (1 - left) * min(tile / cells, 1.0)
    held = costs.process + laws["whole"](cells) * spread + OWN_BYTES * own + TILE_BYTES * tile
    room = int(machine.memory // held)
    on_node = min(ranks, machine.ranks_per_node, max(room, 1))
    computing = laws["fine"](tile if cut else cells) + repeated + divided + laws["rest"](own)
    communicating = exchange_seconds(sent, ranks, on_node, machine)
    answer = {"halo": 0, "sums": 0, "messages": ranks - 1, "gather": 8 * cells * (1 - 1 / ranks)}
    setup = laws["setup"](cells) * spread
    solving = costs.iterations * (computing + communicating)
    return {
        "unknowns": unknowns,
        "ranks": ranks,
        "depth": depth,
        "shared": shared,
        "held": held,
        "fits": room >= 1,
        "on_node": on_node,
        "nodes": ceil(ranks / on_node),
        "sent": sent["halo"] + sent["gather"] + sent["sums"],
        "messages": sent["messages"],
        "computing": computing,
        "communicating": communicating,
        "setup": setup,
        "total": setup + solving + exchange_seconds(answer, ranks, on_node, machine),
    }


def most_unknowns(ranks: int, on_node: int, costs: Costs, machine: Machine, depth: int = 0) -> float:
    """The most of which a node holds so many of the ranks, to a percent."""
    found = 1e3
    while point(1.01 * found, ranks, costs, machine, depth)["held"] * on_node <= machine.memory:
        found *= 1.01
    return found


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        "python -m benchmarks.scaling_model", description=__doc__.split("\n")[0]
    )
    add = command.add_argument
    add("--measured", type=Path, help="the record of an earlier call, instead of measuring")
    add("--family", choices=CASES, default="obstacles")
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add("--sides", nargs="+", type=int, default=[56, 64, 80, 96, 128], help="the largest is held out, too")
    add("--rtol", type=float, default=1e-6)
    add("--repeats", type=int, default=15)
    add("--scan-methods", nargs="*", default=["l1-wavelet", "recurrentvarnet"])
    add("--scan", nargs=4, type=int, default=[6, 4, 8, 128], help="files, slices, coils, side")
    add("--unknowns", nargs="+", type=float, default=[1e6, 1e7, 1e8, 1e9])
    add("--ranks", nargs="+", type=int, default=[1, 8, 64, 512, 4096])
    add("--shared-levels", nargs="*", type=int, default=[1, 2, 3], help="as if so many were shared")
    add("--files", nargs="+", type=int, default=[10**3, 10**4, 10**5, 10**6])
    add("--workers", nargs="+", type=int, default=[1, 4, 16, 64, 256, 1024])
    add("--simulate", type=int, default=10_000, help="files of the simulation")
    add("--latency", type=float, default=2e-6, help="assumed: seconds a message")
    add("--bandwidth", type=float, default=12.5e9, help="assumed: bytes/s of a node")
    add("--memory", type=float, default=256e9, help="assumed: bytes of a node")
    add("--ranks-per-node", type=int, default=64)
    add("--storage", type=float, default=5e9, help="assumed: bytes/s of a file system that all share")
    add("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


def shown(title: str, headings: str, rows: list[list[Any]]) -> Table:
    """A table; bars separate the headings."""
    table = Table(title=title, title_justify="left")
    for heading in headings.split("|"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    return table


def solve_tables(method: str, rows: list[Row], options: argparse.Namespace, machine: Machine) -> Shown:
    """What was measured, how well it foretells the largest size, and what it says of larger ones."""
    costs, earlier, last = Costs.of_rows(rows), Costs.of_rows(rows[:-1] or rows), rows[-1]
    checks, many = [], max(options.ranks)
    for part, law in costs.laws.items():
        foretold, real = earlier.laws[part](last["cells"]), value(last, part)
        checks.append([part, law.factor, f"{law.power:.3f}", foretold, real, f"{foretold / real - 1:+.1%}"])
    depths = [(0, options.ranks), *((depth, [many]) for depth in options.shared_levels)]
    asked = [
        (depth, unknowns, ranks) for depth, rs in depths for unknowns in options.unknowns for ranks in rs
    ]
    points = [point(unknowns, ranks, costs, machine, depth) for depth, unknowns, ranks in asked]
    limits = [
        [depth, on_node, most_unknowns(many, on_node, costs, machine, depth)]
        for depth, _ in depths
        for on_node in sorted({1, machine.ranks_per_node})
    ]

    names = ("computing", "communicating", "setup", "total")
    measures = []
    for row in rows:
        figures = [1e9 * row[part] for part in PARTS[:-1]] + [value(row, "whole"), row["setup_bytes"]]
        measures.append([f"{row['side']}^3", row["iterations"], *(one / row["cells"] for one in figures)])
    large = [
        [f"{p['unknowns']:.0e}", p["ranks"], p["shared"] if p["depth"] else "", p["held"] / 1e9]
        + [p["on_node"] if p["fits"] else "too large", p["nodes"], p["sent"] / 1e6, p["messages"]]
        + [float(p[name]) for name in names]
        for p in points
    ]
    sides = f"{method}, {last['side']}^3 held out"
    tables = [
        shown(
            f"{method}: ns and bytes a cell", "|".join(("cells", "iterations", *PARTS, "set-up's")), measures
        ),
        shown(f"{sides}: c n^p of all sizes", "part|c|p|foretold|measured|error", checks),
        shown(
            f"{method}: a rank; as it is, then as if levels were shared",
            "unknowns|ranks|shared|GB|on a node|nodes|MB sent|messages|" + "|".join(names),
            large,
        ),
        shown(f"{method}: the most on {many} ranks", "levels shared|ranks on a node|unknowns", limits),
    ]
    return tables, {"costs": asdict(costs), "held_out": checks, "points": points, "limits": limits}


def traffic_table(family: str) -> tuple[Table, list[Row]]:
    """Counted in the index sets, and by the formula: 32 x 32 x 32 cells on 8 ranks."""
    found = counted(family, [[16, 16]] * 3)
    rows = []
    for rank, one in enumerate(found):
        formula = traffic((16, 16, 16), (1, 1, 1), 8, one["gathered"], one["own"])
        rows.append([rank, one["halo"], formula["halo"], one["gather"], formula["gather"]])
    title = f"bytes that a rank receives, {family}, 32^3 cells on 8 ranks: counted, and by the formula"
    return shown(title, "rank|halos|formula|gathered|formula", rows), found


def scan_tables(method: str, found: Row, machine: Row, options: argparse.Namespace) -> Shown:
    """A file; hours by files and workers; formula and simulation."""
    # Slices are written one by one, and then once more into one file.
    moved = found["read"] + 2 * found["written"]
    files = Files(tuple(found["seconds"]), moved, machine["record"], machine["start"])
    points = [
        {"files": count, "workers": workers, "elapsed": files.elapsed(count, workers, options.storage)}
        for count in options.files
        for workers in options.workers
    ]
    checks = []
    for workers in options.workers:
        formula, limit = files.elapsed(options.simulate, workers, options.storage)
        events = files.simulated(options.simulate, workers, options.storage)
        checks.append([workers, formula, limit, events, f"{formula / events - 1:+.1%}"])
    busy = files.busy(options.storage)
    limits = [busy * options.storage / moved, busy / files.record]
    one = [busy, min(files.seconds), max(files.seconds), found["bytes"] / 2**20, found["read"] / 1e6]
    hours = [
        [f"{count:,}", count * found["read"] / 1e9, count * 2 * found["written"] / 1e9]
        + [p["elapsed"][0] / 3600 for p in points if p["files"] == count]
        for count in options.files
    ]
    size = f"{found['slices']} slices, {found['coils']} coils, {found['side']}^2"
    columns = "|".join(f"{workers} workers" for workers in options.workers)
    tables = [
        shown(
            f"{method}: a file of {size}; storage or records limit at so many workers",
            "s|shortest|longest|MiB|MB read|MB written|storage|records",
            [[*one, 2 * found["written"] / 1e6, *limits]],
        ),
        shown(f"{method}: hours", "files|GB read|GB written|" + columns, hours),
        shown(f"{method}: {options.simulate} files, s", "workers|formula|limit|simulated|error", checks),
    ]
    return tables, {"limits": limits, "points": points, "simulated": checks}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    command = parser()
    options = command.parse_args(arguments)
    counts = [options.ranks_per_node, options.repeats, options.simulate, *options.ranks, *options.workers]
    counts += [*options.files, *options.scan, *options.unknowns, *options.shared_levels]
    if min(counts) < 1 or min(options.sides) < 16:
        command.error("all counts are positive, and --sides at least 16")
    console, progress = consoles()
    if options.measured is None:
        found = taken(options, lambda line: progress.print(f"[dim]{line}[/]", highlight=False))
        conditions = measure.conditions(1)
    else:
        earlier = json.loads(options.measured.read_text(encoding="utf-8"))
        found, conditions = earlier["measured"], earlier["conditions"]
    assumed = {name: getattr(options, name) for name in ("latency", "bandwidth", "memory", "ranks_per_node")}
    machine = Machine(copy=found["machine"]["copy"], **assumed)
    about = {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}
    record: Row = {"conditions": conditions, "options": about, "measured": found, "solve": {}, "scans": {}}
    table, record["traffic"] = traffic_table(options.family)
    tables = [table]
    for method, rows in found["solve"].items():
        more, record["solve"][method] = solve_tables(method, rows, options, machine)
        tables += more
    for method, one in found["scans"].items():
        more, record["scans"][method] = scan_tables(method, one, found["machine"], options)
        tables += more
    for table in tables:
        console.print(table)
    console.print(f"{machine}; all but copy is assumed, and --storage too", highlight=False)
    path = measure.write("scaling_model", options.json, record)
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
