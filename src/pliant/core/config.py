"""The base of every config: frozen, keyword-only, versioned, validated at birth, to and from a plain dict."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, Union

__all__ = ["Config", "of_type"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base class of frozen, keyword-only settings that check themselves when they are made.

    A subclass is a `@dataclass(frozen=True, kw_only=True)`; it may override `validate` to check more
    than the types of its fields. Lists given for tuple fields become tuples, integers given for
    float fields become floats, so that a config read from YAML or JSON equals the one written.

    Raises:
        ValueError: a field has the wrong type or value; names field, value and what is allowed.
    """

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = of_type(hints[field.name], getattr(self, field.name), f"{type(self).__name__}.{field.name}")
            object.__setattr__(self, field.name, value)
        self.validate()

    def validate(self) -> None:
        """Check what types cannot say; raise ValueError in one line."""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers; `from_dict` of the same class reads them."""
        return {"version": self.version} | {
            field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from what `to_dict` gave; fields that are absent take their defaults.

        Raises:
            ValueError: an unknown field, or a version newer than this library knows.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"{cls.__name__}: got {data!r}, expected a mapping of its fields")
        data = dict(data)
        version = data.pop("version", cls.version)
        if not isinstance(version, int) or version > cls.version:
            raise ValueError(
                f"{cls.__name__}: version {version!r} is newer than this pliant knows ({cls.version}); update pliant"
            )
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = [str(name) for name in data if name not in names]
        if unknown:
            raise ValueError(
                f"{cls.__name__}: unknown field {', '.join(map(repr, unknown))}; allowed: {', '.join(names)}"
            )
        missing = [field.name for field in dataclasses.fields(cls) if _required(field) and field.name not in data]
        if missing:
            raise ValueError(f"{cls.__name__}: field {', '.join(map(repr, missing))} is missing")
        return cls(**data)


def of_type(hint: Any, value: Any, name: str) -> Any:
    """Return a value as an annotation says, lists as tuples and integers as floats.

    Raises:
        ValueError: it is of another type; says what `name` got, and what is expected.
    """
    try:
        return _coerce(value, hint)
    except TypeError:
        raise ValueError(f"{name}: got {value!r}, expected {_name(hint)}") from None


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _coerce(value: Any, hint: Any) -> Any:
    """Return `value` as the type `hint` says, or raise TypeError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(value, arguments)
    if origin is Literal:
        if value in arguments and not (isinstance(value, bool) and True not in arguments):
            return value
    elif origin is tuple:
        return _coerce_tuple(value, arguments)
    elif origin is dict or hint is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif isinstance(hint, type) and issubclass(hint, Config):
        if isinstance(value, Mapping):
            return hint.from_dict(value)
        if isinstance(value, hint):
            return value
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, bool):
        raise TypeError
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise TypeError


def _coerce_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    for argument in arguments:
        if argument is type(None):
            if value is None:
                return None
            continue
        try:
            return _coerce(value, argument)
        except TypeError:
            continue
    raise TypeError


def _coerce_tuple(value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise TypeError
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_coerce(item, arguments[0]) for item in value)
    if len(value) != len(arguments):
        raise TypeError
    return tuple(_coerce(item, argument) for item, argument in zip(value, arguments, strict=True))


def _name(hint: Any) -> str:
    """How a person would say the type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_name(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        return "a list of " + _name(arguments[0])
    if hint is type(None):
        return "none"
    if hint is dict or origin is dict:
        return "a mapping"
    if isinstance(hint, type) and issubclass(hint, Config):
        return f"a mapping of {', '.join(field.name for field in dataclasses.fields(hint))}"
    return getattr(hint, "__name__", str(hint))
