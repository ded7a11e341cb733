from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pliant.measure import energy


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
