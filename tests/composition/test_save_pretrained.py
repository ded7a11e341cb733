"""What transformers writes of a model would be loaded as the plain super-net: refused, with the ways out.

Here with the real libraries: a training by transformers' Trainer, and the mixin of huggingface_hub.
"""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

import pliant
from pliant.core.adaptive import AdaptiveModule

transformers = pytest.importorskip("transformers")

VISION = dict(
    hidden_size=32, num_attention_heads=4, num_hidden_layers=4, intermediate_size=64, image_size=32, patch_size=8
)
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit(*configs: Any) -> Any:
    torch.manual_seed(0)
    model = pliant.create_model("transformers:vit", num_classes=5, **VISION)
    return pliant.adapt_(model, *configs).eval()


@pytest.mark.parametrize("config", [pliant.Depth(), pliant.Exits(), pliant.Width(choices=(0.5, 1.0))], ids=str)
def test_save_pretrained_of_an_adapted_model_is_refused_with_the_ways_out(config, tmp_path):
    model = vit(config)
    with pytest.raises(ValueError, match=r"save_pretrained: this AdaptiveViTForImageClassification") as error:
        model.save_pretrained(tmp_path / "lost")
    assert "pliant.save(model" in str(error.value) and "pliant.extract(model" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "lost").exists()


def test_push_to_hub_is_refused_before_the_hub_is_asked():
    with pytest.raises(ValueError, match=r"push_to_hub: this AdaptiveViT.*pliant\.push"):
        vit(pliant.Depth()).push_to_hub("me/net")


@torch.no_grad()
def test_the_ways_out_are_ways_out(tmp_path):
    model = vit(pliant.Depth())
    loaded = pliant.load(pliant.save(model, tmp_path / "all"))
    one = pliant.extract(model, "smallest")
    one.save_pretrained(tmp_path / "one")
    again = type(one).from_pretrained(tmp_path / "one").eval()
    assert type(one) is transformers.ViTForImageClassification
    for network in (lambda x: loaded(x, subnet="smallest"), again):
        assert torch.equal(network(IMAGES).logits, model(IMAGES, subnet="smallest").logits)
    with pytest.raises(ValueError, match="save_pretrained"):
        loaded.save_pretrained(tmp_path / "lost")


def test_copies_and_pickles_refuse_too_and_are_adapted_models(tmp_path):
    model = vit(pliant.Depth())
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(copied, AdaptiveModule) and type(copied) is type(model)
        with pytest.raises(ValueError, match="save_pretrained"):
            copied.save_pretrained(tmp_path / "lost")


@pytest.fixture
def accelerate():
    """The library, and none of what it keeps for the whole process."""
    library = pytest.importorskip("accelerate")
    before = dict(os.environ)
    yield library
    library.state.AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.clear()
    os.environ.update(before)


class Own(nn.Module, PyTorchModelHubMixin):
    def __init__(self) -> None:
        super().__init__()
        self.net = pliant.create_model("pliant:resnet20")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_the_mixin_of_huggingface_hub_is_refused_too(tmp_path):
    model = pliant.adapt_(Own(), pliant.Depth(), example=IMAGES)
    with pytest.raises(ValueError, match="save_pretrained: this AdaptiveOwn"):
        model.save_pretrained(tmp_path / "lost")
    pliant.extract(model, "smallest").save_pretrained(tmp_path / "one")
    assert (tmp_path / "one" / "model.safetensors").exists()


def test_a_model_without_these_methods_does_not_get_them():
    model = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth())
    assert not hasattr(model, "save_pretrained") and not hasattr(model, "push_to_hub")


class Labelled(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": IMAGES[index % 2], "labels": index % 5}


def arguments(out: Path, **more: Any) -> Any:
    return transformers.TrainingArguments(
        str(out), max_steps=2, save_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, **more
    )


@pytest.mark.parametrize("bf16", [False, True])
def test_the_trainer_says_so_at_its_first_checkpoint_and_a_subclass_saves_with_pliant(accelerate, bf16, tmp_path):
    model = vit(pliant.Depth())
    trainer = transformers.Trainer(model, arguments(tmp_path / "plain", bf16=bf16), train_dataset=Labelled())
    with pytest.raises(ValueError, match="save_pretrained: this AdaptiveViT"):
        trainer.train()

    class Trainer(transformers.Trainer):
        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            if self.args.should_save:
                pliant.save(self.model, output_dir or self.args.output_dir)

    model = vit(pliant.Depth())
    Trainer(model, arguments(tmp_path / "saved", bf16=bf16), train_dataset=Labelled()).train()
    loaded = pliant.load(tmp_path / "saved" / "checkpoint-2")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    # A training goes on from such a checkpoint: the first step is not taken again.
    resumed = vit(pliant.Depth())
    Trainer(resumed, arguments(tmp_path / "saved", bf16=bf16), train_dataset=Labelled()).train(
        resume_from_checkpoint=str(tmp_path / "saved" / "checkpoint-1")
    )
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor)


@torch.no_grad()
def test_what_runs_in_accelerate_s_mixed_precision_is_saved_and_extracted_as_the_network_itself(accelerate, tmp_path):
    images = IMAGES
    model = vit(pliant.Depth())
    expected = model(images, subnet="smallest").logits
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    prepared = accelerator.prepare(model)
    rounded = prepared(images, subnet="smallest").logits
    assert not torch.equal(rounded, expected)
    loaded = pliant.load(pliant.save(prepared, tmp_path / "prepared"))
    assert torch.equal(loaded(images, subnet="smallest").logits, expected)
    assert torch.equal(pliant.extract(prepared, "smallest")(images).logits, expected)
    # It goes on as before.
    assert torch.equal(prepared(images, subnet="smallest").logits, rounded)
    bare = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    assert torch.equal(pliant.extract(bare, "smallest")(images).logits, expected)
