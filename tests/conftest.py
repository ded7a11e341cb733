import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Several workers share few cores: each takes one, which is also what makes numbers repeat."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    """A network has the same random weights whichever tests its worker ran before."""
    torch.manual_seed(0)
