"""The gradients of every kind of layer that widths cut are those of a plain layer, whatever the processor can do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import pliant
from pliant.models.resnet import CifarResNet

GRID = Path(__file__).parent / "backward_grid.py"
# Threads that wait for each other take no time from other tests.
CALM = {"OMP_WAIT_POLICY": "PASSIVE"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.mark.parametrize("instructions", [AVX2, {}], ids=["avx2", "native"])
def test_gradients_of_cut_layers_are_those_of_plain_ones(instructions):
    """In a process of its own: where a library writes past its memory, that one dies and not the suite."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", GRID], env=os.environ | CALM | instructions, capture_output=True, text=True
    )
    assert done.returncode == 0, f"the process ended with {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.stdout.splitlines() == ["tried 94"]


TRAIN_NARROW = """
import sys, torch, pliant
torch.set_num_threads(1)
recipe = pliant.Recipe.load(sys.argv[1]).replace(epochs=1, only="width=0.25")
result = pliant.train(recipe, out=sys.argv[2], progress=False, log=None)
print(type(result.model).__name__, type(result.model.layer2[0].shortcut[0]).__name__)
"""


def test_a_narrow_network_on_its_own_is_trained_with_avx2_and_keeps_its_classes(tmp_path):
    recipe = Path(__file__).parents[2] / "recipes" / "digits_width.yaml"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAIN_NARROW, recipe, tmp_path / "run"],
        env=os.environ | CALM | AVX2, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["CifarResNet", "Conv2d"]


def test_an_extracted_network_has_plain_convolutions():
    model = pliant.adapt_(CifarResNet(20, shortcut="projection"), pliant.Width())
    for subnet in ("width=0.25", "width=1.0"):
        network = pliant.extract(model, subnet)
        strided = [part for part in network.modules() if isinstance(part, nn.Conv2d) and part.stride == (2, 2)]
        assert len(strided) == 4
        assert {type(part) for part in strided} == {nn.Conv2d}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_pass_with_gradients_computes_what_one_without_computes(layout):
    torch.manual_seed(0)
    model = pliant.adapt_(CifarResNet(20, shortcut="projection"), pliant.Width()).eval().to(memory_format=layout)
    x = torch.randn(4, 3, 32, 32).contiguous(memory_format=layout)
    with torch.no_grad():
        expected = model(x, subnet="width=0.25")
    torch.testing.assert_close(model(x, subnet="width=0.25"), expected, rtol=1e-4, atol=1e-5)
