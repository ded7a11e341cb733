"""DS-ResNet-50: torchvision's ResNet-50 with group norms, a reconstruction.

Li et al., "Dynamic Slimmable Network", 2021, and "DS-Net++", 2022, cut the channels of a ResNet-50 to a quarter, a half
and three quarters, but its code was not published. The layout is that of torchvision, whose widths cost what is
published for slimmable networks; the norms are those that papers and reviews speak of.
"""

from __future__ import annotations

from torch import nn

__all__ = ["ds_resnet50"]

# Channels of a group: a quarter of the narrowest layer, 64, so that every width has whole groups.
GROUP = 16


def ds_resnet50(num_classes: int = 1000) -> nn.Module:
    """Make torchvision's ResNet-50 with group norms of 16 channels a group, for `Width(gate=Gate())`.

    A group norm has no statistics that differ from width to width: none are kept, and none have to be taken anew.

    Args:
        num_classes: outputs of the classifier.
    """
    from torchvision.models import resnet50  # a network of ours needs no library until it is one of a library's

    return resnet50(num_classes=num_classes, norm_layer=_group_norm)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // GROUP, channels)
