from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import pliant
from pliant.core.adaptive import AdaptiveModule
from pliant.create import ModelSource
from pliant.measure import energy

HUGE = ModelSource(
    name="timm:vit_tiny_patch16_224",
    num_classes=3,
    options={"img_size": 32, "patch_size": 16, "depth": 64, "embed_dim": 16, "num_heads": 2},
)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Several workers share few cores: each takes one, which is also what makes numbers repeat."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    """A network has the same random weights whichever tests its worker ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _no_energy_counters() -> Iterator[None]:
    """Reading the counters of the machine takes seconds a sub-network, and would make numbers of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy, "POWERCAP", Path("no", "counters"))
        yield


@pytest.fixture
def huge_source() -> ModelSource:
    """A ViT of 64 small blocks, for images of 32 pixels."""
    return HUGE


@pytest.fixture
def huge() -> AdaptiveModule:
    """That ViT in 32 groups: 2^32 sub-networks, which no test lists."""
    model = pliant.adapt_(HUGE.create(), pliant.Depth(groups=32)).eval()
    assert isinstance(model, AdaptiveModule)
    return model
