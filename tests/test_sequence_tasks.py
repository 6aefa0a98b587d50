import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learnsolve.problems.expressions import LISTS
from learnsolve.problems.sequence_tasks import (
    GROUPS,
    NOTHING,
    TASKS,
    Digits,
    ListOps,
    ModularArithmetic,
    Parity,
    Recall,
    SelectiveCopying,
    Window,
    WordProblem,
)


@pytest.mark.parametrize("name", sorted(TASKS.keys() - {"digits"}))
@pytest.mark.parametrize("length", [40, 77])
def test_tokens_and_targets_are_in_range_and_repeat(name, length):
    task = TASKS[name]()
    one, same, other = (task.batch(16, length, seed) for seed in (3, 3, 4))
    assert one.tokens.shape == one.targets.shape == (16, length)
    assert one.tokens.dtype == one.targets.dtype == torch.int64
    assert one.tokens.min() >= 0 and one.tokens.max() < task.vocabulary
    asked = one.targets[one.targets != NOTHING]
    assert len(asked) and asked.min() >= 0 and asked.max() < task.classes
    assert torch.equal(one.tokens, same.tokens) and torch.equal(one.targets, same.targets)
    assert not torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("everywhere", [True, False])
def test_parity(everywhere):
    tokens, targets = Parity(everywhere).batch(8, 13, 0)
    for row, asked in zip(tokens.tolist(), targets.tolist(), strict=True):
        expected = [sum(row[: t + 1]) % 2 for t in range(13)]
        assert asked == (expected if everywhere else [NOTHING] * 12 + expected[-1:])


@pytest.mark.parametrize("brackets", [True, False])
@pytest.mark.parametrize("modulus", [2, 5])
@given(length=st.integers(2, 40), seed=st.integers(0, 10**6))
def test_values_are_those_of_python(brackets, modulus, length, seed):
    task = ModularArithmetic(modulus, brackets)
    (row,), (asked,) = task.batch(1, length, seed)
    text = task.text(row).strip()
    assert text.endswith("=") and len(text) >= length - 1
    assert eval(text[:-1]) % modulus == asked[-1]
    assert (asked[:-1] == NOTHING).all()


def test_values_so_far_are_those_of_what_stands_before():
    task = ModularArithmetic(everywhere=True)
    (row,), (asked,) = task.batch(1, 20, 3)
    text = task.text(row)
    for t, sign in enumerate(text):
        if sign.isdigit():
            assert eval(text[: t + 1].strip()) % 5 == asked[t]
        elif sign != "=":
            assert asked[t] == NOTHING
    assert asked[-1] == asked[-2]
    with pytest.raises(ValueError, match="brackets"):
        ModularArithmetic(brackets=True, everywhere=True)


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_words_are_permutations_that_follow_each_other(group):
    elements = GROUPS[group]()
    tokens, targets = WordProblem(group).batch(4, 9, 0)
    for row, asked in zip(tokens.tolist(), targets.tolist(), strict=True):
        places = np.arange(len(elements[0]))
        for token, answer in zip(row, asked, strict=True):
            places = np.array(elements[token])[places]
            assert tuple(places) == elements[answer]
    assert len(elements) == {"S3": 6, "A5": 60, "S5": 120}[group]


@pytest.mark.parametrize("length", [32, 64, 65])
def test_what_is_asked_was_shown(length):
    tokens, targets = Recall(pairs=8, vocabulary_size=64).batch(50, length, 0)
    for row, asked in zip(tokens.tolist(), targets.tolist(), strict=True):
        shown = dict(zip(row[:16:2], row[1:16:2], strict=True))
        found = {row[t]: asked[t] for t in range(length) if asked[t] != NOTHING}
        assert len(shown) == 8 and found == shown
        assert max(shown) < 32 <= min(shown.values())


def test_what_is_copied_was_memorized():
    tokens, targets = SelectiveCopying(5, 4).batch(20, 30, 0)
    for row, asked in zip(tokens.tolist(), targets.tolist(), strict=True):
        assert [token for token in row if token < 4] == asked[25:]
        assert row[25:] == [5] * 5 and asked[:25] == [NOTHING] * 25


@pytest.mark.parametrize("match", [True, False])
@pytest.mark.parametrize("n", [2, 5])
def test_windows(n, match):
    tokens, targets = Window(n, match).batch(4, 12, 0)
    for row, asked in zip(tokens.tolist(), targets.tolist(), strict=True):
        for t in range(12):
            last = row[t - n + 1 : t + 1]
            expected = NOTHING if t < n - 1 else int(last[0] == last[-1]) if match else sum(last) % 2
            assert asked[t] == expected


def value_of(words):
    word = words.pop(0)
    if word not in LISTS:
        return int(word)
    found = []
    while words[0] != "]":
        found.append(value_of(words))
    words.pop(0)
    return {"[MIN": min, "[MAX": max, "[MED": lambda x: int(np.median(x)), "[SM": lambda x: sum(x) % 10}[
        word
    ](found)


@given(length=st.integers(4, 200), seed=st.integers(0, 10**6), depth=st.integers(1, 6))
def test_values_of_lists(length, seed, depth):
    task = ListOps(depth, arguments=5)
    (row,), (asked,) = task.batch(1, length, seed)
    words = task.text(row).split()
    depths = np.cumsum([word in LISTS for word in words]) - np.cumsum([word == "]" for word in words])
    assert depths.max() <= depth
    assert value_of(words) == asked[-1] and not words


def test_lists_nest():
    task = ListOps(depth=4, arguments=5)
    texts = [task.text(row) for row in task.batch(50, 60, 0).tokens]
    assert sum(len(re.findall(r"\[", text)) > 3 for text in texts) > 25


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Parity().batch(0, 4, 0), "0 sequences"),
        (lambda: Parity().batch(1, 0, 0), "length 0"),
        (lambda: ModularArithmetic(1), "modulus is 1"),
        (lambda: WordProblem("Z2"), "A5"),
        (lambda: Recall(pairs=40, vocabulary_size=64), "pairs is 40"),
        (lambda: Recall(pairs=8).batch(1, 20, 0), "32 or more"),
        (lambda: SelectiveCopying(8).batch(1, 12, 0), "16 or more"),
        (lambda: Window(1), "n is 1"),
        (lambda: Window(5).batch(1, 4, 0), "5 or more"),
        (lambda: ListOps(0), "depth is 0"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_digits_are_judged_by_others_than_are_learned_from():
    task = Digits()
    learned, judged = task.batch(1437, 64, 0), task.judged.batch(360, 64, 0)
    assert learned.tokens.shape == (1437, 64, 1) and judged.tokens.dtype == torch.float32
    rows = [{tuple(row) for row in batch.tokens[..., 0].tolist()} for batch in (learned, judged)]
    # Each once, and none in both.
    assert len(rows[0]) == 1437 and len(rows[1]) == 360 and not rows[0] & rows[1]
    assert (judged.targets[:, :-1] == NOTHING).all()
    assert judged.targets[:, -1].unique().tolist() == list(range(10))
    assert task.batch(3, 64, 1).tokens.equal(task.batch(3, 64, 1).tokens)
    with pytest.raises(ValueError, match="64 pixels"):
        task.batch(3, 65, 0)
    with pytest.raises(ValueError, match="are accepted"):
        Digits("all")
