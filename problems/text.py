"""Text as a task: which character comes next."""

import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from learnsolve.problems.tasks import Array, Task

# Printable ASCII in its order, then the end of a line; whatever else there is shares one token more.
CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"
OTHER = len(CHARACTERS)
# Characters that stay together when text is held out: long enough for contexts, short enough that a text of
# forty thousand characters has some of either part.
PIECE = 4096
# Of the library's sources: enough that a small model does not learn them by heart.
LIBRARY = 4 * 2**20


def encode(text: str) -> Array:
    r"""Tokens of characters: 0 to 94 are ASCII's from blank to tilde, 95 is a new line, 96 all others.

    Examples
    --------
    >>> encode(" A~\né\t").tolist()
    [0, 33, 94, 95, 96, 96]
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
    tokens = np.where((codes >= 32) & (codes < 127), codes - 32, OTHER)
    tokens[codes == ord("\n")] = OTHER - 1
    return tokens


def decode(tokens: Iterable[int]) -> str:
    r"""Characters of tokens; the token of all others is the replacement character ``"\ufffd"``.

    Raises
    ------
    ValueError
        There is no such token.

    Examples
    --------
    >>> decode(encode("def f(x):\n"))
    'def f(x):\n'
    """
    found = [int(token) for token in tokens]
    for token in found:
        if not 0 <= token <= OTHER:
            raise ValueError(f"a token is {token}; 0 to {OTHER} are accepted")
    return "".join((CHARACTERS + "\ufffd")[token] for token in found)


@cache
def library() -> str:
    """Text that is wherever Python is: sources of its standard library, one after the other by their names.

    Modules outside of packages, up to 4 MiB of them; which text it is depends on the version of Python.

    Raises
    ------
    FileNotFoundError
        Python was installed without sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    parts: list[str] = []
    size = 0
    for path in sorted(folder.glob("*.py")):
        parts.append(path.read_text(encoding="utf-8"))
        size += len(parts[-1])
        if size >= LIBRARY:
            break
    if not parts:
        raise FileNotFoundError(f"{folder} has no sources of modules; give a file of text instead")
    return "".join(parts)[:LIBRARY]


@cache
def _pieces(path: str, size: int, changed: int) -> NDArray[np.uint8]:
    """Pieces of a text, one a row; size and time of the file are there to read it anew when it changes."""
    try:
        text = Path(path).read_text(encoding="utf-8") if path else library()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from None
    tokens = encode(text).astype(np.uint8)
    return tokens[: len(tokens) // PIECE * PIECE].reshape(-1, PIECE)


@dataclass(frozen=True)
class Text(Task):
    """The next character, asked everywhere.

    A text is cut into pieces of 4096 characters, a rest shorter than that left out. Sequences are windows of
    pieces, any of them as likely as any other.

    Parameters
    ----------
    path : str
        A file of text in UTF-8; none for sources of Python's standard library.
    held_out : float
        Share of the pieces that `judged` draws from, spread evenly; the others are learned from.
    part : {"learned", "judged"}

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is not text, or too short to hold out a piece, or another parameter is none of the above.

    Examples
    --------
    >>> from learnsolve.problems.sequence_tasks import Text
    >>> task = Text()
    >>> tokens, targets = task.batch(2, 64, seed=0)
    >>> tokens.shape, task.vocabulary, bool((tokens[:, 1:] == targets[:, :-1]).all())
    (torch.Size([2, 64]), 97, True)
    """

    name: ClassVar[str] = "text"
    path: str = ""
    held_out: float = 0.1
    part: Literal["learned", "judged"] = "learned"

    def __post_init__(self) -> None:
        if self.part not in ("learned", "judged"):
            raise ValueError(f"part is {self.part!r}; learned and judged are accepted")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; more than 0 and less than 1 is accepted")
        if self.path and not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path} is no file of text")
        # Either part has its first piece by then.
        least = max(2, int(np.ceil(1 / self.held_out - 1e-9)))
        if len(self._all()) < least:
            raise ValueError(
                f"{self.path or 'the library'} has fewer than {least * PIECE} characters, of which no share "
                f"of {self.held_out} can be held out; more text is accepted, or a larger share"
            )

    @property
    def vocabulary(self) -> int:
        """Of tokens."""
        return OTHER + 1

    @property
    def classes(self) -> int:
        """Of answers."""
        return OTHER + 1

    @property
    def judged(self) -> "Text":
        """The pieces that are not learned from."""
        return replace(self, part="judged")

    def pieces(self) -> NDArray[np.uint8]:
        """All tokens of this part.

        Returns
        -------
        (n, 4096) uint8 array
        """
        pieces = self._all()
        # One of the first 1 / held_out, one of the next, and so on. In floats 49 * (1 / 49) is below one.
        judged = np.diff(np.floor(np.arange(len(pieces) + 1) * self.held_out + 1e-9)) > 0
        return pieces[judged if self.part == "judged" else ~judged]

    def _all(self) -> NDArray[np.uint8]:
        if not self.path:
            return _pieces("", 0, 0)
        found = Path(self.path).stat()
        return _pieces(self.path, found.st_size, found.st_mtime_ns)

    def _made(self, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
        if length >= PIECE:
            raise ValueError(f"length is {length}; up to {PIECE - 1} is accepted")
        pieces = self.pieces()
        rows = rng.integers(0, len(pieces), count)
        starts = rng.integers(0, PIECE - length, count)
        windows = pieces[rows[:, None], starts[:, None] + np.arange(length + 1)].astype(np.int64)
        return windows[:, :-1].copy(), windows[:, 1:].copy()
