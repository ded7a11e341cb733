"""A page a person is glad to look at, from the files of a run folder."""

from pliant.report.page import report

__all__ = ["report"]
