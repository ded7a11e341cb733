"""Two threads that use one model at the same time: the second is refused, and the first has its own answer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

import pliant


@torch.no_grad()
@pytest.mark.parametrize(
    ("config", "subnet"),
    [
        (pliant.Depth(), "FFF"),
        (pliant.Exits(), "exit=1"),
        (pliant.Width(choices=(0.5, 1.0)), "width=0.5"),
    ],
)
def test_a_second_thread_is_refused_while_a_pass_runs(config, subnet):
    model: Any = pliant.adapt_(pliant.create_model("pliant:resnet20", shortcut="projection"), config).eval()
    x, inside, goes_on = torch.rand(2, 3, 32, 32), threading.Event(), threading.Event()
    expected = model(x, subnet=subnet)

    def wait(module: nn.Module, args: tuple[Any, ...]) -> None:
        inside.set()
        assert goes_on.wait(10)

    answers = []
    hook = model.layer1[0].register_forward_pre_hook(wait)
    thread = threading.Thread(target=lambda: answers.append(model(x, subnet=subnet)))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(ValueError, match=r"two threads.*extract\(model, subnet, share=True\)"):
        model(x)
    goes_on.set()
    thread.join()
    hook.remove()
    assert torch.equal(answers[0], expected)
    assert torch.equal(model(x, subnet=subnet), expected)
