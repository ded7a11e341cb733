"""What `pliant` asks of a runtime that has loaded a file."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy

__all__ = ["OUTPUT", "SWITCHES", "TEXTS", "Session", "check_name", "only", "said_by", "switch_of"]

OUTPUT = "logits"
"""What files with names for their values call their answer."""

SWITCHES = ("skip", "width")
"""Inputs that choose the sub-network; a file has at most one of them."""

TEXTS = ("pliant_version", "torch_version", "subnet", "model", "data")
"""Metadata properties of an ONNX file are texts. These stand as they are; all others are JSON."""


class Session(Protocol):
    """A file in its runtime.

    Attributes:
        info: what the file says of itself; empty where `pliant` did not write it.
        version: name and version of the runtime, for people.
    """

    info: Mapping[str, Any]
    version: str

    def run(self, inputs: Sequence[numpy.ndarray], switch: Mapping[str, numpy.ndarray]) -> numpy.ndarray:
        """Map inputs, in the order of the file, and what chooses the sub-network, to logits `[batch, classes]`."""
        ...


def said_by(properties: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata properties of an ONNX file as values."""
    return {name: _value(name, text) for name, text in properties.items()}


def only(rows: Sequence[Mapping[str, Any]], subnets: Sequence[str] | None) -> list[Mapping[str, Any]]:
    """Return the rows of these sub-networks, in the order of the file; none = all.

    Raises:
        ValueError: it has none of that name, nothing was named, or one text was given in place of several.
    """
    known = [row["subnet"] for row in rows]
    if subnets is None:
        return [*rows]
    if isinstance(subnets, str):
        raise ValueError(f"subnets: got the text {subnets!r}, expected a list of texts")
    if not subnets:
        raise ValueError(f"subnets: got none, allowed are {', '.join(known)}")
    for subnet in subnets:
        check_name(subnet, known)
    return [row for row in rows if row["subnet"] in subnets]


def check_name(subnet: str, known: Collection[str]) -> None:
    """Refuse a sub-network that a file does not have.

    Raises:
        ValueError: it is not among `known`.
    """
    if subnet not in known:
        raise ValueError(f"no sub-network {subnet!r}: allowed are {', '.join(known)}")


def switch_of(row: Mapping[str, Any]) -> dict[str, numpy.ndarray]:
    """Return what to give a switchable file for the sub-network of a row of its `subnets`; empty for other files."""
    import numpy

    return {name: numpy.array(row[name]) for name in SWITCHES if name in row}


def _value(name: str, text: str) -> Any:
    try:
        return text if name in TEXTS else json.loads(text)
    except json.JSONDecodeError:
        return text  # of somebody else
