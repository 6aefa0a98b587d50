"""What a reader says of a file that is not what it claims to be."""

import os


class DataError(ValueError):
    """A file is damaged, lies about itself, or holds what the reader refuses.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    what : str
        What was found and what was expected, in one sentence.
    line : int, optional
        The line, counted from one, for files of text.

    Examples
    --------
    >>> from learnsolve.datasets.errors import DataError
    >>> str(DataError("A.mtx", "expected 3 numbers, found 2", line=7))
    'A.mtx, line 7: expected 3 numbers, found 2'
    """

    def __init__(self, path: str | os.PathLike, what: str, line: int | None = None):
        super().__init__(path, what, line)
        self.path = path
        self.what = what
        self.line = line

    def __str__(self) -> str:
        place = "" if self.line is None else f", line {self.line}"
        return f"{os.fspath(self.path)}{place}: {self.what}"
