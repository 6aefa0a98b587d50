"""Structural recursion: rules and machines agree, tasks ask it, and marks are those of decoding."""

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import measure
from benchmarks import structural_recursion as benchmark
from learnsolve.problems.sequence_tasks import NOTHING
from learnsolve.problems.structural_recursion import (
    ORDERS,
    SUCCESSOR,
    Call,
    Recursion,
    Successor,
    SuccessorMachine,
    Traversal,
    TraversalMachine,
    output,
    positive,
    traversal,
)
from learnsolve.sequence.backbone import BackboneOptions
from learnsolve.sequence.recursion import by_depth, greedy, mark

LEAF = (".",)


def written(number):
    """A number's words, by Python's digits."""
    digits = bin(number)[2:]
    return ("01", *(f"X{digit}" for digit in digits[1:]))[::-1]


@st.composite
def trees(draw, most=9):
    """Trees with different labels."""
    names = iter(draw(st.permutations([f"n{number}" for number in range(most)])))

    def grown(nodes):
        if not nodes:
            return LEAF
        left = draw(st.integers(0, nodes - 1))
        return "node", (next(names),), grown(left), grown(nodes - 1 - left)

    return grown(draw(st.integers(0, most)))


def labels(tree, order):
    if tree == LEAF:
        return ()
    _, (label,), left, right = tree
    parts = {"l": labels(left, order), "r": labels(right, order), "n": (label,)}
    return tuple(word for part in {"pre": "nlr", "in": "lnr", "post": "lrn"}[order] for word in parts[part])


def height(tree):
    return 0 if tree == LEAF else 1 + max(height(tree[2]), height(tree[3]))


@given(st.integers(1, 2**70))
def test_the_successor_by_rules_and_by_machines_is_that_of_python(number):
    term = positive(number)
    assert SUCCESSOR.text(term) == written(number)
    assert SUCCESSOR.value(term) == written(number + 1)
    assert output(SuccessorMachine().moves(written(number))) == written(number + 1)
    turned = output(SuccessorMachine(reverse=True).moves(written(number)[::-1]))
    assert turned == written(number + 1)[::-1]


@given(st.integers(1, 2**20))
def test_the_machine_carries_as_deep_as_the_recursion_calls(number):
    ones = len(bin(number)) - len(bin(number).rstrip("1"))
    carry = min(ones, number.bit_length() - 1)
    assert SUCCESSOR.depth(positive(number)) == carry
    for reverse in (False, True):
        states = [
            move.state for move in SuccessorMachine(reverse).moves(written(number)[:: -1 if reverse else 1])
        ]
        assert states.count("carry") == carry + 1


@given(number=st.integers(1, 2**12))
def test_a_reduction_counts_up_where_it_has_come_to(number):
    steps = list(SUCCESSOR.reduction(positive(number)))
    carry = SUCCESSOR.depth(positive(number))
    assert len(steps) == carry + 2 and steps[-1] == SUCCESSOR.value(positive(number))
    for place, step in enumerate(steps[:-1]):
        assert SUCCESSOR.written(step) == ("X0",) * place + ("s", *written(number)[place:])


@pytest.mark.parametrize("reverse", [False, True])
@given(number=st.integers(1, 2**12))
def test_the_machine_makes_each_step_of_a_reduction(reverse, number):
    steps = [
        SUCCESSOR.written(step)[:: -1 if reverse else 1] for step in SUCCESSOR.reduction(positive(number))
    ]
    for step, following in pairwise(steps):
        moves = list(SuccessorMachine(reverse).unfold(step))
        assert output(moves) == following and tuple(move.read for move in moves) == step


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("encoding", ["brackets", "polish"])
@pytest.mark.parametrize("order", ORDERS)
@given(tree=trees())
def test_the_machine_makes_each_step_of_a_traversal(order, encoding, parallel, tree):
    recursion, machine = traversal(order, encoding), TraversalMachine(order)
    steps = [recursion.written(step) for step in recursion.reduction(tree, parallel=parallel)]
    for step, following in pairwise(steps):
        moves = list(machine.unfold(step, parallel=parallel))
        assert output(moves) == following and tuple(move.read for move in moves) == step
    assert output(machine.unfold(steps[-1], parallel=parallel)) == steps[-1]


@pytest.mark.parametrize("encoding", ["brackets", "polish"])
@pytest.mark.parametrize("order", ORDERS)
@given(tree=trees())
def test_traversals_by_rules_and_by_the_machine_are_those_of_python(order, encoding, tree):
    recursion = traversal(order, encoding)
    text = recursion.text(tree)
    assert recursion.value(tree) == labels(tree, order)
    assert output(TraversalMachine(order).moves(text)) == labels(tree, order)
    assert recursion.depth(tree) == height(tree)
    assert (text.count("("), text.count(")")) == (
        (text.count(".") - 1,) * 2 if encoding == "brackets" else (0, 0)
    )


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("order", ORDERS)
@given(tree=trees())
def test_steps_of_a_traversal_unfold_one_call_or_all(order, parallel, tree):
    recursion = traversal(order)
    steps = list(recursion.reduction(tree, parallel=parallel))
    nodes = len(labels(tree, order))
    assert len(steps) - 1 == (height(tree) + 1 if parallel else 2 * nodes + 1)
    assert steps[-1] == labels(tree, order)
    # What is written already stays in its order.
    for step in steps:
        done = [item for item in step if isinstance(item, str)]
        assert done == [label for label in labels(tree, order) if label in done]
        assert recursion.written(step).count(order) == len(step) - len(done)


def test_long_numbers_and_deep_trees_reduce():
    assert SUCCESSOR.value(positive(2**5000 - 1)) == written(2**5000)
    tree = LEAF
    for _ in range(5000):
        tree = ("node", ("a",), tree, LEAF)
    assert traversal("in").depth(tree) == 5000
    assert traversal("in").value(tree) == ("a",) * 5000


@pytest.mark.parametrize(
    ("syntax", "rules", "message"),
    [
        ({"nil": ("nil",)}, {}, "one for each of nil"),
        ({"b": ("b", 0)}, {"b": (1,)}, r"names arguments \{1\}"),
        ({"b": ("b", 0)}, {"b": (Call(2),)}, r"names arguments \{2\}"),
    ],
)
def test_rules_that_do_not_fit_are_refused(syntax, rules, message):
    with pytest.raises(ValueError, match=message):
        Recursion("f", syntax, rules)


TASKS = [
    Successor(),
    Successor(reverse=True),
    Successor("reduction"),
    Successor("reduction", reverse=True, oversampled=0.5),
    *(Traversal(order=order, encoding="polish") for order in ORDERS),
    Traversal("reduction", parallel=True),
    Traversal("reduction", order="pre", encoding="polish"),
]


def split(task, tokens, targets):
    """Words given and asked, of one sequence."""
    asked = targets != NOTHING
    begin = int(asked.long().argmax())
    return task.text(tokens[:begin]).split(), task.text(targets[asked]).split(), begin


@pytest.mark.parametrize("task", TASKS, ids=repr)
@pytest.mark.parametrize("length", [100, 151])
def test_what_is_asked_are_the_words_that_follow(task, length):
    tokens, targets = task.batch(40, length, 5)
    for row, asked in zip(tokens, targets, strict=True):
        given, answer, begin = split(task, row, asked)
        line = task.text(row).split()
        assert line == [*given, "=", *answer] and answer[-1] == ";"
        assert (asked[begin + len(answer) :] == NOTHING).all()
        assert (row[len(line) :] == task.vocabulary - 1).all()
        if isinstance(task, Successor):
            turned = slice(None, None, -1 if task.reverse else 1)
            words = [word for word in given if word != "s"][turned]
            last = " ".join(answer[:-1]).split("=")[-1].split()[turned]
            number = int("1" + "".join(word[1] for word in words[:-1])[::-1], 2)
            assert tuple(words) == written(number) and tuple(last) == written(number + 1)


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_sequences_of_a_depth_have_it(task):
    count = 12
    tokens, targets = task.stratified((1, 3), count, 140, seed=0)
    assert tokens.shape == (2 * count, 140)
    for number, (row, asked) in enumerate(zip(tokens, targets, strict=True)):
        given, answer, _ = split(task, row, asked)
        depth = 1 if number < count else 3
        if task.mode == "reduction" and (isinstance(task, Successor) or task.parallel):
            assert answer.count("=") == depth
        elif isinstance(task, Successor):
            words = given[:: -1 if task.reverse else 1]
            assert words[:depth] == ["X1"] * depth and words[depth] != "X1"


@given(st.integers(0, 10**6))
def test_trees_have_their_depth_nodes_and_labels(seed):
    task = Traversal(order="pre", depths=(2, 5), nodes=6, labels=8)
    (row,), _ = task.batch(1, 34, seed)
    words = task.text(row).split(" = ")[0].split()
    depths = [words[: at + 1].count("(") - words[: at + 1].count(")") for at in range(len(words))]
    names = [word for word in words if word.startswith("n")]
    assert 2 <= max(depths) <= 5 and max(depths) <= len(names) <= 6
    assert len(set(names)) == len(names)
    assert words.count(".") == len(names) + 1


def carries(task, count=1500, length=27):
    tokens, _ = task.batch(count, length, 0)
    ones = (tokens == task.words.index("X1")).long()
    return torch.bincount(ones.cumprod(1).sum(1), minlength=12) / count


def test_long_carries_are_rare_unless_oversampled():
    plain, over = carries(Successor()), carries(Successor(oversampled=1.0))
    assert plain[:3] == pytest.approx([0.5, 0.25, 0.125], abs=0.12)
    assert plain[8:].sum() < 0.01 < 0.05 < over[8:].sum()
    assert carries(Successor(carries=(2, 4)))[2:5].sum() == 1
    task = Successor(oversampled=0.5, carries=(0, 3))
    assert task.judged == Successor()
    # The numbers of four digits are as often drawn as each other.
    tokens, _ = Successor(carries=(3, 3)).batch(50, 11, 0)
    assert {Successor().text(row) for row in tokens} == {"X1 X1 X1 01 = X0 X0 X0 X0 01 ;"}


def test_numbers_are_drawn_evenly():
    tokens, _ = Successor().batch(3000, 9, 0)
    texts = [Successor().text(row).split(" =")[0] for row in tokens]
    shares = {text: texts.count(text) / len(texts) for text in set(texts)}
    assert len(shares) == 7
    for text, share in shares.items():
        assert share == pytest.approx(1 / 3 / 2 ** (len(text.split()) - 1), abs=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: positive(0), "number is 0"),
        (lambda: Successor("half"), "mode is 'half'"),
        (lambda: Successor(oversampled=1.5), "oversampled is 1.5"),
        (lambda: Successor(carries=(3, 2)), "carries are"),
        (lambda: Successor(carries=(3,)), "carries are"),
        (lambda: Successor().at(-1), "carries are"),
        (lambda: Successor().at(9).batch(1, 20, 0), "23 or more is accepted for a carry of 9"),
        (lambda: Successor().batch(1, 4, 0), "length 4"),
        (lambda: Traversal(order="level"), "order is 'level'"),
        (lambda: Traversal(encoding="lisp"), "encoding is 'lisp'"),
        (lambda: TraversalMachine("level"), "order is 'level'"),
        (lambda: Traversal(depths=(0, 3)), "depths are"),
        (lambda: Traversal(depths=(1, 8), nodes=7), "depths are"),
        (lambda: Traversal(labels=3), "labels"),
        (lambda: Traversal().at(3).batch(1, 15, 0), "18 or more is accepted for the depth 3"),
    ],
)
def test_what_is_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("mixer", "task", "length"),
    [
        ("attention", Successor(), 13),
        ("deltanet", Successor(), 13),
        ("lstm", Traversal("reduction", parallel=True, depths=(1, 2), nodes=2), 44),
    ],
)
def test_marks_are_those_of_greedy_decoding(mixer, task, length):
    torch.manual_seed(0)
    options = BackboneOptions(task.vocabulary, task.classes, width=8, layers=1, mixers=(mixer,))
    network = options.build().double()
    tokens, targets = task.batch(12, length, 1)
    own = greedy(network, tokens, targets)
    asked = targets != NOTHING
    assert torch.equal(own != NOTHING, asked)
    # Answers of its own, some of them whole, so that not all are wrong from the first word on.
    for row in range(0, 12, 2):
        begin, count = int(asked[row].long().argmax()), int(asked[row].sum())
        kept = count if row % 4 else row % count
        targets[row, begin : begin + kept] = own[row, begin : begin + kept]
        tokens[row, begin + 1 : begin + count] = targets[row, begin : begin + count - 1]
    said = greedy(network, tokens, targets)
    marks = mark(network, tokens, targets, chunk=5)
    for row in range(12):
        right = (said[row] == targets[row])[asked[row]].tolist()
        assert bool(marks.exact[row]) == all(right)
        assert int(marks.first[row]) == (right.index(False) if False in right else len(right))
        assert marks.first[row] / len(right) - 1e-6 <= marks.right[row] <= 1
    assert bool(marks.exact.any()) and not bool(marks.exact.all())


def test_a_short_cut_is_told_by_its_depths():
    """What turns three words and copies the rest is right where the carry is short."""
    task = Successor()

    class Short(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, task.classes)
            for row, line in enumerate(tokens.tolist()):
                words = [task.words[token] for token in line]
                begin = words.index("=")
                carry = next(at for at, word in enumerate(words) if word != "X1")
                answer = [*words[:begin], ";"]
                if carry <= 3:
                    answer = [*output(SuccessorMachine().moves(words[:begin])), ";"]
                for at, word in enumerate(answer[: len(words) - begin]):
                    logits[row, begin + at, task.words.index(word)] = 1
            return logits, []

    found = by_depth(Short(), task, (0, 3, 4, 7), length=25, count=10)
    assert [marks.exact.float().mean().item() for marks in found.values()] == [1, 1, 0, 0]
    assert (found[4].first == 0).all() and (found[3].right == 1).all()
    assert 0.1 < found[4].right.mean() < 0.9


def test_marks_refuse_sequences_of_which_nothing_is_asked():
    task = Successor()
    network = BackboneOptions(task.vocabulary, task.classes, width=8).build()
    tokens, targets = task.batch(2, 15, 0)
    for wrong in (targets[:, :-1], torch.full_like(targets, NOTHING)):
        for function in (mark, greedy):
            with pytest.raises(ValueError, match="something asked in each sequence"):
                function(network, tokens, wrong)


def test_the_benchmark_trains_and_marks(tmp_path, capsys, monkeypatch):
    for name, few in (("COMING", 6), ("EACH", 2)):
        monkeypatch.setattr(benchmark, name, few)
    monkeypatch.setattr(measure, "keep_memory", lambda: None)
    path = tmp_path / "rows.json"
    small = ["--steps", "2", "--batch", "2", "--width", "8", "--layers", "1", "--json", str(path)]
    command = [*small, "--case", "reversed", "traversal", "--models", "lstm", "--seeds", "3"]
    assert benchmark.main(command) == 0
    told = capsys.readouterr()
    assert "carry 12 to 15" in told.out and "depth 6 to 7" in told.out
    assert "traversal, lstm, seed 3" in told.err
    rows = json.loads(path.read_text())["rows"]
    assert [(row["case"], row["seed"]) for row in rows] == [("reversed", 3), ("traversal", 3)]
    for row in rows:
        assert len(row["exact_at"]) == (16 if row["case"] == "reversed" else 7)
        assert 0 <= row["exact"] <= row["words"] <= 1
    with pytest.raises(SystemExit):
        benchmark.main(["--models", "unheard-of"])
    assert "takes deltanet" in capsys.readouterr().err
