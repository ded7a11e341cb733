"""The checkpoints that the authors of Adaptive Depth Networks published: which they are, and how they name tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pliant.depth.config import Depth

__all__ = ["PUBLISHED", "Published", "has_second_sets"]

# (pattern, replacement); of the rules of one table the first that fits a name is used.
Rules = tuple[tuple[str, str], ...]

SECOND_SET: Rules = ((r"\.skip\.(\w+)$", r"_skip.\1"),)

# The patch embedding has a name of its own, so everything behind it counts from there.
SWIN: Rules = (
    (r"^features\.0\.", "pre."),
    *((rf"^features\.{index}\.", f"features.{index - 1}.") for index in range(1, 8)),
)

# Every convolution and norm is one module with named parts; torchvision's last pair of a block is two modules.
MOBILENET_LAYERS: Rules = (
    (r"^features\.1\.conv\.1\.weight$", "features.1.conv.1.conv_layer.weight"),
    (r"^features\.1\.conv\.2\.", "features.1.conv.1.norm."),
    (r"\.conv\.2\.weight$", ".conv.2.conv_layer.weight"),
    (r"\.conv\.3\.", ".conv.2.norm."),
    (r"^(features\.(?:\d+\.conv\.)?\d+)\.0\.", r"\1.conv_layer."),
    (r"^(features\.(?:\d+\.conv\.)?\d+)\.1\.", r"\1.norm."),
)
# The blocks of one stage lie in a container: (its place, torchvision's place of its first block, blocks).
MOBILENET_STAGES = ((2, 2, 2), (3, 4, 3), (4, 7, 4), (5, 11, 3), (6, 14, 3))
MOBILENET_PLACES: Rules = (
    *(
        (rf"^features\.{first + block}\.", f"features.{place}.{block}.")
        for place, first, blocks in MOBILENET_STAGES
        for block in range(blocks)
    ),
    (r"^features\.17\.", "features.7."),
    (r"^features\.18\.", "features.8."),
)


@dataclass(frozen=True)
class Published:
    """One architecture.

    Attributes:
        name: what it is called here.
        config: how the released code adapts it.
        tables: rules from our names of the adapted network's tensors to theirs, applied one after the other.
        options: in which their network differs from the library's default; no tensor shows it.
    """

    name: str
    config: Depth = field(default_factory=Depth)
    tables: tuple[Rules, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def their_names(self, names: Iterable[str]) -> dict[str, str]:
        """Return for each of our names theirs; turned round, it translates their files."""
        return {name: self._translate(name) for name in names}

    def _translate(self, name: str) -> str:
        for rules in (*self.tables, SECOND_SET):
            fitting = next(((pattern, new) for pattern, new in rules if re.search(pattern, name)), None)
            if fitting:
                name = re.sub(*fitting, name)
        return name


PUBLISHED = (
    Published("torchvision:resnet50"),
    Published("torchvision:resnet101"),
    Published("torchvision:mobilenet_v2", tables=(MOBILENET_LAYERS, MOBILENET_PLACES)),
    Published("torchvision:vit_b_16", Depth(groups=4)),
    Published("torchvision:vit_b_32", Depth(groups=4)),
    # Evaluation is the same at every rate; the library's own 0.2 would be another training.
    Published(
        "torchvision:swin_t", Depth(mandatory=(1, 1, 3, 1)), tables=(SWIN,), options={"stochastic_depth_prob": 0.1}
    ),
)


def has_second_sets(names: Iterable[str]) -> bool:
    """Whether tensors have the authors' names: their second sets of norms are called after the first ones."""
    return any(re.search(r"_skip\.\w+$", name) for name in names)
