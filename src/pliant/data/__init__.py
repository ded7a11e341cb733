"""Real images as batches: data sets by name, folders and archives of class folders, one loader for all."""

from pliant.data.augment import Augment
from pliant.data.load import ImageData, load_data
from pliant.data.split import Interpolation, Split

__all__ = ["Augment", "ImageData", "Interpolation", "Split", "load_data"]
