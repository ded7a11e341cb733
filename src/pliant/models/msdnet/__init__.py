"""MSDNet: many scales, dense connections, and a classifier every few layers.

Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification", 2018. The sizes of the CIFAR
networks with `lin_grow` steps and of the ImageNet networks are those of Li et al., "Improved Techniques for Training
Adaptive Deep Networks", 2019 (IMTA).
"""

from __future__ import annotations

from pliant.models.msdnet.counts import paper_counts
from pliant.models.msdnet.network import MSDNet, steps_of
from pliant.models.msdnet.parts import Classifier, Step
from pliant.models.msdnet.presets import PRESETS
from pliant.models.msdnet.schedule import step_lengths

__all__ = ["PRESETS", "Classifier", "MSDNet", "Step", "paper_counts", "step_lengths", "steps_of"]
