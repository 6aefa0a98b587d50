"""Mappings written as TOML; the standard library reads it and does not write it."""

import json
import re
from collections.abc import Mapping
from typing import Any


def toml_text(mapping: Mapping[str, Any]) -> str:
    r"""The TOML document of a mapping, which ``tomllib.loads`` reads back.

    Parameters
    ----------
    mapping : mapping
        Names to strings, integers, floats, booleans, lists or tuples of these, and such mappings.
        A name whose value is None is left out, since TOML has no null.

    Raises
    ------
    TypeError
        A key is not a string, or a value is none of these.

    Examples
    --------
    >>> from learnsolve.training.toml import toml_text
    >>> print(toml_text({"steps": 10, "grid": {"shape": (8, 8), "name": "a"}}), end="")
    steps = 10
    <BLANKLINE>
    [grid]
    shape = [8, 8]
    name = "a"
    """
    return "\n".join(_table(mapping, "")).lstrip("\n") + "\n"


def _table(mapping: Mapping[str, Any], path: str) -> list[str]:
    tables = {_key(key): value for key, value in mapping.items() if isinstance(value, Mapping)}
    plain = {_key(key): value for key, value in mapping.items() if _key(key) not in tables}
    lines = [f"{key} = {_value(value)}" for key, value in plain.items() if value is not None]
    for key, table in tables.items():
        inner = f"{path}.{key}" if path else key
        lines += ["", f"[{inner}]", *_table(table, inner)]
    return lines


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"TOML wants strings as keys, not {key!r}")
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _string(text: str) -> str:
    # A JSON string is one of TOML but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        pairs = [f"{_key(key)} = {_value(inner)}" for key, inner in value.items() if inner is not None]
        return f"{{{', '.join(pairs)}}}"
    raise TypeError(f"TOML cannot hold {value!r} of type {type(value).__name__}")
