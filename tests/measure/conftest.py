from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import pliant


@dataclass
class FixedSplit:
    """A split of given images: what measure needs of one."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, *, device="cpu", dtype=torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.images.to(device, dtype), self.labels.to(device)
        yield from zip(images.split(batch_size), labels.split(batch_size), strict=True)


@dataclass
class FixedData:
    class_names: tuple[str, ...]
    val: FixedSplit
    test: FixedSplit | None
    name: str = "fixed"
    image_size: int = 32
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


@pytest.fixture(scope="session")
def adapted() -> nn.Module:
    """A CIFAR ResNet-20 of ten classes whose two sets of norms differ."""
    torch.manual_seed(0)
    model = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".skip." in name:
                parameter.add_(0.3 * torch.rand_like(parameter))
    return model.eval()


@pytest.fixture
def data() -> FixedData:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(12, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (12,), generator=generator)
    names = tuple(map(str, range(10)))
    return FixedData(names, val=FixedSplit(images[:7], labels[:7]), test=FixedSplit(images, labels))
