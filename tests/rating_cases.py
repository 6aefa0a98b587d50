"""Files of ratings, and what they said, for the tests of reading them."""

import gzip


def put(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def entries_of(ratings):
    """What the file said, by name."""
    rows, cols = ratings.row_labels[ratings.rows].tolist(), ratings.col_labels[ratings.cols].tolist()
    return list(zip(rows, cols, ratings.values.tolist(), strict=True))
