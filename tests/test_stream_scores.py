"""What is read off a matrix of scores, by hand and by loops."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from learnsolve.training.stream_scores import StreamScores, score_table

MATRIX = [[0.9, 0.3, 0.2], [0.6, 0.8, 0.4], [0.5, 0.7, 1.0]]
UNTRAINED = [0.1, 0.2, 0.5]


def test_scores_by_hand():
    scores = StreamScores(["a", "b", "c"], MATRIX, UNTRAINED)
    assert scores.average == pytest.approx((0.5 + 0.7 + 1.0) / 3)
    assert scores.average_incremental == pytest.approx((0.9 + 0.7 + 2.2 / 3) / 3)
    assert scores.backward_transfer == pytest.approx(((0.5 - 0.9) + (0.7 - 0.8)) / 2)
    assert scores.forward_transfer == pytest.approx(((0.3 - 0.2) + (0.4 - 0.5)) / 2)


def test_where_less_is_better_transfers_change_their_sign():
    """Ten iterations that become fifteen are forgetting; thirty before that become twenty, a gain."""
    scores = StreamScores(["a", "b"], [[10, 20], [15, 8]], [40, 30], better="less")
    assert scores.average == 11.5 and scores.average_incremental == 10.75
    assert scores.backward_transfer == -5 and scores.forward_transfer == 10


def test_a_single_task_has_no_transfer():
    scores = StreamScores(["a"], [[0.5]], [0.1])
    assert scores.average == scores.average_incremental == 0.5
    assert math.isnan(scores.backward_transfer) and math.isnan(scores.forward_transfer)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1), st.sampled_from(["more", "less"]))
def test_scores_against_loops(tasks, seed, better):
    rng = np.random.default_rng(seed)
    R, b = rng.normal(size=(tasks, tasks)), rng.normal(size=tasks)
    scores = StreamScores([f"task {j}" for j in range(tasks)], R, b, better)
    sign = 1 if better == "more" else -1
    backward = sum(R[tasks - 1][j] - R[j][j] for j in range(tasks - 1)) / (tasks - 1)
    forward = sum(R[j - 1][j] - b[j] for j in range(1, tasks)) / (tasks - 1)
    so_far = sum(sum(R[i][j] for j in range(i + 1)) / (i + 1) for i in range(tasks)) / tasks
    assert scores.backward_transfer == pytest.approx(sign * backward, abs=1e-12)
    assert scores.forward_transfer == pytest.approx(sign * forward, abs=1e-12)
    assert scores.average_incremental == pytest.approx(so_far, abs=1e-12)


def test_table_says_what_the_scores_are():
    table = score_table({"fine-tune": StreamScores(["a", "b", "c"], MATRIX, UNTRAINED)}, "digits")
    shown = io.StringIO()
    Console(file=shown, width=120).print(table)
    words = shown.getvalue().split()
    assert "digits: scores after the last task; more is better" in shown.getvalue()
    for word in ("fine-tune", "0.5", "0.7", "1", "0.7333", "-0.25", "+0", "0.7778"):
        assert word in words


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: StreamScores([], [], []), "there are 0 names"),
        (lambda: StreamScores(["a"], [[1, 2]], [1]), r"shape \(1, 2\) and untrained \(1,\)"),
        (lambda: StreamScores(["a"], [[1]], [1, 2]), r"untrained \(2,\); T names"),
        (lambda: StreamScores(["a"], [[1]], [1], "up"), "better is 'up'"),
        (lambda: score_table({}, "none"), "scores of 0 streams"),
        (
            lambda: score_table({n: StreamScores([n], [[1]], [1]) for n in "ab"}, "two"),
            "scores of 2 streams; those of one",
        ),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
