"""What scripts that time things have in common: their options, and how two things are compared."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence

__all__ = ["median_ratio", "timing_arguments", "timing_parser"]


def timing_arguments(description: str | None, *, rounds: int, out: str) -> argparse.Namespace:
    """Read --rounds, --threads and --out from the command line; `rounds` and `out` are the defaults."""
    return timing_parser(description, rounds=rounds, out=out).parse_args()


def timing_parser(description: str | None, *, rounds: int, out: str) -> argparse.ArgumentParser:
    """Return a parser of these options, for scripts that have others, too."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default=out)
    return parser


def median_ratio(times: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """Return the median of `one` over `other`, round by round: a machine that slows down slows both alike."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))
