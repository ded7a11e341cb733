"""Ship a network as one file: ONNX or a PyTorch program, re-run and compared before it is kept."""

from pliant.export.report import ExportReport
from pliant.export.ship import export, read_metadata
from pliant.export.verify import ExportError

__all__ = ["ExportError", "ExportReport", "export", "read_metadata"]
