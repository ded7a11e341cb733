"""Run exported files, each in the runtime it is for. What ONNX Runtime and OpenVINO run needs no PyTorch."""

from pliant.runtime.file import ExportedFile, load

__all__ = ["ExportedFile", "load"]
