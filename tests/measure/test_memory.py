import pytest
import torch
from torch import nn

from pliant.measure.memory import peak_bytes, peak_memory_mb

FLOAT = 4


def bytes_of(network: nn.Module) -> int:
    return sum(tensor.numel() * FLOAT for tensor in network.parameters())


def test_the_peak_is_the_two_largest_neighbours():
    network = nn.Sequential(nn.Linear(3, 100), nn.ReLU(), nn.Linear(100, 10), nn.ReLU()).eval()
    x = torch.randn(7, 3)
    # While the first ReLU runs its input and its output are alive.
    computed = 7 * 2 * 100 * FLOAT
    assert peak_memory_mb(network, x) == (bytes_of(network) + 7 * 3 * FLOAT + computed) / 1e6


def test_what_works_in_place_needs_no_second_tensor():
    network = nn.Sequential(nn.Linear(3, 100), nn.ReLU(inplace=True), nn.Linear(100, 10)).eval()
    x = torch.randn(7, 3)
    computed = 7 * (100 + 10) * FLOAT
    assert peak_memory_mb(network, x) == (bytes_of(network) + 7 * 3 * FLOAT + computed) / 1e6


def test_a_residual_is_held_while_its_branch_runs():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(50, 200, bias=False)
            self.outer = nn.Linear(200, 50, bias=False)

        def forward(self, x):
            x = x * 2
            return x + self.outer(self.inner(x))

    network, x = Residual(), torch.randn(1, 50)
    computed = (50 + 200 + 50) * FLOAT
    assert peak_memory_mb(network, x) == pytest.approx((bytes_of(network) + 50 * FLOAT + computed) / 1e6)


def test_views_and_weights_are_not_counted_twice():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 40))

        def forward(self, x):
            return self.token.expand(5, -1), x.view(-1), x.add_(1)

    network, x = Viewing(), torch.randn(5, 2)
    assert peak_memory_mb(network, x) == (40 + 10) * FLOAT / 1e6


def test_a_training_step_holds_activations_and_gradients():
    layer = nn.Linear(20, 30, bias=False)
    x = torch.randn(50, 20)

    def step():
        layer.weight.grad = None
        layer(x).square().sum().backward()

    step()
    # Forward: output, its square, their sum. Backward starts from 1 and holds two gradients of the output
    # besides the output that the square keeps; then the weight's gradient stays.
    most = (3 * 50 * 30 + 2) * FLOAT
    assert most <= peak_bytes(step) <= most + 2 * 50 * 30 * FLOAT


def test_repeats_exactly():
    network, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), torch.randn(1, 3, 16, 16)
    assert peak_memory_mb(network, x) == peak_memory_mb(network, x)


@pytest.mark.gpu
def test_cuda_counters_see_at_least_the_tensors():
    network = nn.Sequential(nn.Linear(256, 4096), nn.ReLU(), nn.Linear(4096, 256)).cuda().eval()
    x = torch.randn(64, 256, device="cuda")
    tensors = bytes_of(network) + 64 * (256 + 2 * 4096) * FLOAT
    assert tensors / 1e6 <= peak_memory_mb(network, x) <= 1.5 * tensors / 1e6 + 16
