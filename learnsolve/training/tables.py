"""Tables of a config file as dataclasses of options."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Options = TypeVar("Options")
KINDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


def from_table(kind: type[Options], table: Any, name: str, **given: Any) -> Options:
    """A dataclass from a table whose keys are the names of its fields.

    Parameters
    ----------
    kind : type
        A dataclass with fields of integers, floats, strings, booleans, ``Literal``, tuples of these, and
        strings or tuples.
    table : mapping
        As `tomllib` reads it.
    name : str
        Of the table, for messages.
    **given
        Fields that do not come from the table, and may not stand in it.

    Raises
    ------
    ValueError
        It is no table; a key is unknown or missing; or a value is of a wrong type or not accepted. The
        message says which, and what is.

    Examples
    --------
    >>> from learnsolve.training import FitOptions
    >>> from_table(FitOptions, {"steps": 10, "clip": 2}, "fit").clip
    2.0
    >>> from_table(FitOptions, {"steps": "ten"}, "fit")
    Traceback (most recent call last):
    ValueError: [fit] steps must be an integer, not 'ten'
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{name} must be a table, not {table!r}")
    # mypy has no type for a class that must be a dataclass.
    taken = {field.name: field for field in fields(kind) if field.name not in given}  # type: ignore[arg-type]
    unknown = [key for key in table if key not in taken]
    if unknown:
        raise ValueError(f"[{name}] has no key {unknown[0]!r}; its keys are {', '.join(taken)}")
    for key, field in taken.items():
        if key not in table and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"[{name}] lacks {key!r}")
    hints = get_type_hints(kind)
    values = {key: _converted(value, hints[key], f"[{name}] {key}") for key, value in table.items()}
    try:
        return kind(**values, **given)
    except ValueError as error:
        raise ValueError(f"[{name}] {error}") from None


def _converted(value: Any, hint: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{where} must be one of {', '.join(map(repr, inner))}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, not {value!r}")
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            raise ValueError(f"{where} must be a list of {len(inner)}, not of {len(value)}: {value!r}")
        return tuple(_converted(item, inner[0], f"{where}, item {i}:") for i, item in enumerate(value, 1))
    if origin in (Union, UnionType):
        parts = [part for part in inner if part is not NoneType]
        listed = [part for part in parts if (get_origin(part) is tuple) == isinstance(value, list | tuple)]
        return _converted(value, (listed or parts)[0], where)
    accepted = (int, float) if hint is float else (hint,)
    # A boolean is an integer for Python, and for no one else.
    if type(value) not in accepted:
        raise ValueError(f"{where} must be {KINDS[hint]}, not {value!r}")
    return hint(value)
