import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnsolve.problems.sequence_tasks import TASKS, Text
from learnsolve.problems.text import CHARACTERS, LIBRARY, OTHER, PIECE, decode, encode, library


@pytest.fixture
def story(tmp_path):
    """A file in which each piece is told by its characters: piece n is of the n-th one only."""
    path = tmp_path / "story.txt"
    path.write_text(
        "".join(CHARACTERS[n] * PIECE for n in range(49)) + "the end", encoding="utf-8", newline=""
    )
    return str(path)


@given(st.text(alphabet=CHARACTERS))
def test_what_has_a_token_comes_back(text):
    assert decode(encode(text)) == text


@given(st.text())
def test_each_character_is_a_token(text):
    tokens = encode(text)
    assert tokens.dtype == np.int64 and len(tokens) == len(text)
    assert decode(tokens) == "".join(one if one in CHARACTERS else "\ufffd" for one in text)


def test_windows_are_of_the_text_and_targets_one_further():
    text = library()
    tokens, targets = Text().batch(8, 300, 0)
    for row, asked in zip(tokens, targets, strict=True):
        window = decode(row.tolist() + asked[-1:].tolist())
        assert decode(asked) == window[1:]
        assert "\ufffd" in window or window in text


def test_what_is_held_out_is_never_learned_from(story):
    task = Text(story)
    learned, judged = ({*part.batch(500, 3, 0).tokens.flatten().tolist()} for part in (task, task.judged))
    assert judged == {9, 19, 29, 39} and learned == set(range(49)) - judged
    half = Text(story, held_out=0.5)
    assert (half.judged.pieces()[:, 0] == np.arange(1, 49, 2)).all()
    assert half.judged.judged == half.judged and half.judged.vocabulary == OTHER + 1
    # A rest that is no piece is in neither.
    assert len(half.pieces()) + len(half.judged.pieces()) == 49
    assert Text(story, held_out=1 / 49).judged.pieces()[0, 0] == 48


def test_windows_reach_both_ends_of_a_piece(tmp_path):
    path = tmp_path / "text"
    path.write_text("a" + "b" * (PIECE - 2) + "c" + "d" * PIECE, encoding="utf-8")
    windows = {decode(row) for row in Text(str(path), held_out=0.5).batch(200, PIECE - 2, 0).tokens.tolist()}
    assert windows == {"a" + "b" * (PIECE - 3), "b" * (PIECE - 2)}


def test_a_file_that_changes_is_read_anew(tmp_path):
    path = tmp_path / "text"
    for character in "xy":
        path.write_text(character * 2 * PIECE + character * (character == "y"), encoding="utf-8")
        assert decode(Text(str(path), held_out=0.5).batch(1, 3, 0).tokens[0]) == 3 * character


def test_the_library_is_there():
    assert 10**6 < len(library()) <= LIBRARY and "\ndef " in library()
    assert TASKS["text"] is Text


@pytest.mark.parametrize("path", ["{}/none.txt", "{}"])
def test_a_missing_file_is_refused(tmp_path, path):
    with pytest.raises(FileNotFoundError, match="no file"):
        Text(path.format(tmp_path))


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", {}, "fewer than 40960"),
        (b"x" * (10 * PIECE - 1), {}, "fewer than 40960"),
        (b"x" * (2 * PIECE - 1), {"held_out": 0.9}, "fewer than 8192"),
        (b"\xff" * 10 * PIECE, {}, "UTF-8"),
        (b"x" * 10 * PIECE, {"held_out": 0.0}, "held_out is 0"),
        (b"x" * 10 * PIECE, {"held_out": 1.0}, "held_out is 1"),
        (b"x" * 10 * PIECE, {"part": "all"}, "learned and judged"),
    ],
)
def test_what_is_refused(tmp_path, content, options, words):
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        Text(str(path), **options)


def test_no_such_window_or_token():
    with pytest.raises(ValueError, match="length is 4096"):
        Text().batch(1, PIECE, 0)
    with pytest.raises(ValueError, match="a token is 97"):
        decode([0, 97])
