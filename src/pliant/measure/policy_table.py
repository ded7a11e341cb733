"""`PolicyTable`: policies and what was measured of them, as a file that other rooms and programs read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Self

from pliant.measure.document import read_document, write_document
from pliant.policy.confidence import ConfidencePolicy

__all__ = ["PolicyTable"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class PolicyTable:
    """One row a budget, and the policies themselves.

    Attributes:
        rows: for each policy `budget` and `gmacs`, what was asked for and what an image costs on average, 10^9
            multiply-accumulates; `acc1` in percent; `shares`, which part of the images each sub-network answered; and
            where it was timed `latency_ms_mean`, `latency_ms` (median) and `latency_ms_p95` of one image.
        anytime: for each sub-network `subnet`, `gmacs` and `acc1`, if it answered all images.
            Of an MSDNet, both have `paper_gmacs` too: the same by the counting of its papers, see `paper_rows`.
        policies: as many as rows.
        info: the circumstances.
        examples: which images one of the policies lets leave where, as `pliant.measure.examples` notes them; empty
            where none were noted.
    """

    rows: list[dict[str, Any]]
    anytime: list[dict[str, Any]]
    policies: list[ConfidencePolicy]
    info: dict[str, Any]
    examples: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON; a file that was there stays whole until the new one is complete.

        Raises:
            ValueError: it cannot be written; names the path.
        """
        policies = [policy.to_dict() for policy in self.policies]
        document = {"version": FORMAT_VERSION, "info": self.info, "rows": self.rows, "anytime": self.anytime}
        document |= {"policies": policies, "examples": self.examples}
        write_document(path, document, "policies")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or no policies; names the path.
        """
        match document := read_document(path, FORMAT_VERSION, "policies"):
            case {"info": dict(info), "rows": list(rows), "anytime": list(anytime), "policies": list(policies)}:
                examples = document.get("examples", [])  # files of before have none
                if isinstance(examples, list):
                    read = [ConfidencePolicy.from_dict(policy) for policy in policies]
                    return cls(rows, anytime, read, info, examples)
        raise ValueError(f"{path}: no policies can be read here (expected info, rows, anytime and policies)")
