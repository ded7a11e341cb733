"""One quantity a file, and the table that holds them all."""

from pliant.measure.file import measure_file
from pliant.measure.run import measure

__all__ = ["measure", "measure_file"]
