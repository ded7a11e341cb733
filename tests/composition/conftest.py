"""Small networks of every kind, with norm sets that differ; two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

import pliant
from pliant.core.anatomy import Anatomy, Block, Stage


class OwnBlock(nn.Module):
    """A residual block of a person's own network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class OwnNetwork(nn.Module):
    """A person's own: torch.utils.checkpoint around pairs of blocks, so that one of them has a stage's end inside."""

    def __init__(self, blocks: int = 8, width: int = 16) -> None:
        super().__init__()
        self.inp = nn.Linear(6, width)
        self.blocks = nn.ModuleList(OwnBlock(width) for _ in range(blocks))
        self.head = nn.Linear(width, 10)
        self.checkpointing: dict[str, Any] | None = None

    def pair(self, x: Tensor, number: int) -> Tensor:
        for block in list(self.blocks)[number : number + 2]:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for number in range(0, len(self.blocks), 2):
            if self.checkpointing is None:
                x = self.pair(x, number)
            else:
                x = torch.utils.checkpoint.checkpoint(self.pair, x, number, **self.checkpointing)
        return self.head(x)

    def anatomy(self) -> Anatomy:
        blocks = tuple(
            Block(path=f"blocks.{number}", norms=(f"blocks.{number}.norm",), keeps_shape=True)
            for number in range(len(self.blocks))
        )
        column = Stage(path="blocks", channels=self.head.in_features, blocks=blocks, channel_dim=-1)
        return Anatomy(family="own network", stages=(column,), head="head", num_classes=10, columnar=True)


def small(library: str) -> nn.Module:
    """A network of a library, not adapted."""
    torch.manual_seed(0)
    if library == "own":
        return OwnNetwork()
    if library == "pliant":
        return pliant.create_model("pliant:resnet20")
    if library == "timm ViT":
        import timm

        options: dict[str, Any] = dict(img_size=32, patch_size=8, embed_dim=48, num_heads=3, depth=8)
        return timm.create_model("vit_tiny_patch16_224", num_classes=10, drop_path_rate=0.3, **options)
    if library == "timm ResNet":
        from timm.models.resnet import BasicBlock, ResNet

        return ResNet(BasicBlock, (2, 3, 2, 2), num_classes=10, channels=(8, 16, 24, 32))
    if library == "torchvision ViT":
        from torchvision.models import VisionTransformer

        return VisionTransformer(32, 8, num_layers=8, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=10)
    import transformers

    sizes: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=8, num_attention_heads=2, intermediate_size=64)
    if library == "transformers ViT":
        vit = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=10, **sizes)
        return transformers.ViTForImageClassification(vit)
    if library == "transformers BERT":
        return transformers.BertForSequenceClassification(
            transformers.BertConfig(vocab_size=50, num_labels=10, **sizes)
        )
    if library == "transformers Swin":
        swin = transformers.SwinConfig(
            image_size=32, patch_size=2, embed_dim=16, depths=[2, 3], num_heads=[2, 2], window_size=4, num_labels=10
        )
        return transformers.SwinForImageClassification(swin)
    assert library == "transformers Llama"
    llama = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, pad_token_id=0, bos_token_id=1, **sizes)
    return transformers.LlamaForCausalLM(llama)


@torch.no_grad()
def differ(model: nn.Module) -> None:
    """Let the second norm sets, and whatever else starts as zeros or ones, differ from everything else."""
    generator = torch.Generator().manual_seed(1)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))


@pytest.fixture
def make() -> Callable[..., Any]:
    """Make a small network of a library, adapted unless told otherwise, in eval mode."""

    def build(library: str, *, adapted: bool = True) -> nn.Module:
        model = small(library)
        if adapted:
            pliant.adapt_(model, pliant.Depth())
            differ(model)
        return model.eval()

    return build


@pytest.fixture
def inputs() -> Callable[[str], Tensor]:
    """Make three samples of what a network of a library takes."""

    def build(library: str) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        if library == "own":
            return torch.rand(3, 5, 6, generator=generator).mean(1)
        if library in ("transformers Llama", "transformers BERT"):
            return torch.randint(2, 50, (3, 7), generator=generator)
        return torch.rand(3, 3, 32, 32, generator=generator)

    return build


@pytest.fixture
def two_processes(tmp_path: Path) -> Callable[[str], None]:
    """Run a script in two processes under torchrun, in a folder of its own; it fails when one of them fails."""

    def run(script: str) -> None:
        (tmp_path / "script.py").write_text(script)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")]
        )
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py"]
        result = subprocess.run(command, env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=240)
        assert result.returncode == 0, result.stdout + result.stderr

    return run
