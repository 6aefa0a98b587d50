"""Curricula on made-up accuracies, and in a training that is stopped and goes on."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learnsolve.training import FitOptions, fit
from learnsolve.training.curriculum import CURRICULA, Curriculum
from tests.training_cases import assert_same_bits, batches, line, loss, stop_at, weights

SEEN = {
    "single": [(2,), (3,), (4,), (5,)],
    "cumulative": [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 5)],
    "sliding": [(2,), (2, 3), (3, 4), (4, 5)],
    "none": [(2, 3)] * 4,
}


def made(kind, **options):
    return Curriculum(kind, width=2 if kind in ("sliding", "none") else None, **options)


@pytest.mark.parametrize("kind", CURRICULA)
def test_sizes_when_all_are_mastered(kind):
    curriculum, seen = made(kind), []
    for _ in range(4):
        seen.append(curriculum.sizes)
        assert curriculum.newest == curriculum.sizes[-1]
        assert curriculum.update(dict.fromkeys(curriculum.sizes, 1.0)) == (kind != "none")
    assert seen == SEEN[kind]


@given(
    st.sampled_from(CURRICULA),
    st.integers(1, 5),
    st.floats(0.1, 0.95),
    st.lists(st.lists(st.floats(0, 1), min_size=12, max_size=12), max_size=10),
)
def test_advances_if_the_mean_and_the_newest_are_above(kind, first, threshold, rounds):
    curriculum = made(kind, first=first, threshold=threshold)
    for marks in rounds:
        sizes = curriculum.sizes
        asked = marks[: len(sizes)]
        wanted = kind != "none" and sum(asked) / len(asked) > threshold and asked[-1] > threshold
        assert curriculum.update(dict(zip(sizes, asked, strict=True))) == wanted
        assert curriculum.newest == sizes[-1] + wanted


@pytest.mark.parametrize(
    ("marks", "advances"),
    [
        ({2: 1.0, 3: 0.99}, True),
        ({2: 0.97, 3: 1.0}, True),
        ({2: 0.9, 3: 1.0}, False),
        ({2: 1.0, 3: 0.98}, False),
        ({2: math.nan, 3: 1.0}, False),
        ({1: 0.0, 2: 1.0, 3: 1.0, 4: 0.0}, True),
    ],
)
def test_two_sizes(marks, advances):
    curriculum = Curriculum("cumulative")
    curriculum.update({2: 1.0})
    assert curriculum.update(marks) == advances


@pytest.mark.parametrize("kind", CURRICULA)
def test_state_is_restored(kind):
    one, other = made(kind, first=3), made(kind, first=3)
    for _ in range(3):
        one.update(dict.fromkeys(one.sizes, 1.0))
    own = other.state
    other.restore(one.state)
    assert other.sizes == one.sizes and other.state is own
    one.update(dict.fromkeys(one.sizes, 1.0))
    assert (other.newest == one.newest) == (kind == "none")


def test_a_run_that_goes_on_has_its_curriculum_back(tmp_path):
    """The size says how many of the batch's rows are trained on, so that weights tell whether it was lost."""

    def trained(folder, callback=None):
        curriculum, network, seen = Curriculum("single"), line(), []

        def sized(number, generator):
            seen.append(curriculum.newest)
            x, y = batches(number, generator)
            return x[: curriculum.newest], y[: curriculum.newest]

        def validate(network):
            # Mastered at every second look.
            advanced = curriculum.update({curriculum.newest: float(len(looks) % 2)})
            looks.append(advanced)
            return {"size": curriculum.newest}

        options = FitOptions(steps=8, learning_rate=0.1, validate_every=1)
        fit(
            network, loss, sized, options, folder=folder, validate=validate, callback=callback,
            carried={"curriculum": curriculum.state},
        )  # fmt: skip
        return weights(network), seen

    looks = []
    whole, sizes = trained(tmp_path / "whole")
    assert sizes == [2, 2, 3, 3, 4, 4, 5, 5]
    looks = []
    _, before = trained(tmp_path / "parts", stop_at(5))
    parts, after = trained(tmp_path / "parts")
    assert before + after == sizes
    assert_same_bits(whole, parts)


@pytest.mark.parametrize(
    ("given_options", "words"),
    [
        ({"kind": "double"}, "there is no curriculum 'double'; there are single, cumulative, sliding, none"),
        ({"kind": "single", "first": 0}, "first is 0"),
        ({"kind": "single", "threshold": math.nan}, "threshold nan"),
        ({"kind": "sliding"}, "'sliding' needs one"),
        ({"kind": "cumulative", "width": 2}, "given width 2"),
        ({"kind": "sliding", "width": 0}, "width is 0"),
    ],
)
def test_what_is_refused(given_options, words):
    with pytest.raises(ValueError, match=words):
        Curriculum(**given_options)


def test_what_is_refused_later():
    curriculum = Curriculum("cumulative")
    curriculum.update({2: 1.0})
    with pytest.raises(ValueError, match=r"sizes \[2\]; \[3\] are missing"):
        curriculum.update({2: 1.0})
    for state in (torch.tensor([1]), torch.tensor([3.0]), torch.tensor([3, 4]), torch.tensor(3)):
        with pytest.raises(ValueError, match="is accepted"):
            curriculum.restore(state)
    with pytest.raises(ValueError, match="is accepted"):
        made("none").restore(torch.tensor([4]))
    assert curriculum.sizes == (2, 3)
