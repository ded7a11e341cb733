"""Contract 3. What is saved is the same function, or saving is refused; the model keeps no trace of the proof."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import pliant
from pliant import proof
from pliant.checkpoint import CheckpointError, DifferentNetworkError, read_info
from pliant.core.inputs import example_input, logits_of
from pliant.create import ModelSource

TEXT = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def moved(model: nn.Module) -> nn.Module:
    """Give it weights that are not those of a new network, whose classifier may be zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def resnet(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=4, **options), pliant.Depth()).eval()


def dilate(model: nn.Module) -> None:
    """Let it compute something else with the same tensors."""
    conv = model.get_submodule("layer1.0.conv1")
    conv.padding = conv.dilation = (2, 2)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@torch.no_grad()
def same(one: nn.Module, other: nn.Module, x: Tensor, subnets: tuple[str, ...] = ("smallest", "largest")) -> bool:
    return all(torch.equal(logits_of(one(x, subnet=name)), logits_of(other(x, subnet=name))) for name in subnets)


# Settings that stand in no tensor and no repr.


def vit_of_torchvision() -> nn.Module:
    from torchvision.models import VisionTransformer

    sizes = {"image_size": 32, "patch_size": 16, "num_layers": 12, "hidden_dim": 768, "mlp_dim": 3072}
    return VisionTransformer(**sizes, num_heads=6, num_classes=5)


def vit_of_other_heads() -> nn.Module:
    return pliant.create_model("timm:vit_tiny_patch16_224", img_size=32, num_classes=5, num_heads=6)


def vit_of_other_pooling() -> nn.Module:
    options = {"global_pool": "avg", "fc_norm": False}
    return pliant.create_model("timm:vit_tiny_patch16_224", img_size=32, num_classes=5, **options)


def eva_of_another_grid() -> nn.Module:
    return pliant.create_model("timm:eva02_tiny_patch14_224", img_size=28, num_classes=5, ref_feat_shape=(8, 8))


def swin_without_shifts() -> nn.Module:
    model = pliant.create_model("torchvision:swin_t", num_classes=5)
    for module in model.modules():
        if "shift_size" in vars(module):
            vars(module)["shift_size"] = [0, 0]
    return model


def bert_of_other_heads() -> nn.Module:
    pytest.importorskip("transformers")
    model = pliant.create_model("transformers:bert", **TEXT)
    for module in model.modules():
        if "attention_head_size" in vars(module):
            vars(module).update(num_attention_heads=2, attention_head_size=16, scaling=0.25)
    return model


def llama_of_other_positions() -> nn.Module:
    pytest.importorskip("transformers")
    model = pliant.create_model("transformers:llama", **TEXT)
    model.get_buffer("model.rotary_emb.inv_freq").mul_(0.5)
    return model


LOST = [
    vit_of_torchvision,
    vit_of_other_heads,
    vit_of_other_pooling,
    eva_of_another_grid,
    swin_without_shifts,
    bert_of_other_heads,
    llama_of_other_positions,
]


@pytest.mark.parametrize("make", LOST)
def test_a_setting_that_would_be_lost_is_refused(make, tmp_path):
    torch.manual_seed(0)
    model = pliant.adapt_(moved(make()), pliant.Depth())
    with pytest.raises(
        DifferentNetworkError, match=r"would compute something else: .* pass source=ModelSource"
    ) as error:
        pliant.save(model, tmp_path / "run")
    library = type(model).__module__.partition(".")[0]
    assert f"{library}:" in str(error.value) and "FILE.py:FUNCTION" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("make", [vit_of_other_heads, vit_of_other_pooling, eva_of_another_grid])
def test_a_new_network_whose_classifier_is_zero_hides_no_setting(make, tmp_path):
    model = make()
    with torch.no_grad():
        for parameter in model.get_classifier().parameters():
            parameter.zero_()
    with pytest.raises(DifferentNetworkError, match="which these weights hide from its output"):
        pliant.save(pliant.adapt_(model, pliant.Depth()), tmp_path)
    assert not files_of(tmp_path)


def test_with_the_right_source_it_is_saved_and_with_a_wrong_one_refused(tmp_path):
    name, options = "timm:vit_tiny_patch16_224", {"img_size": 32, "num_heads": 6}
    torch.manual_seed(0)
    model = pliant.adapt_(moved(vit_of_other_heads()), pliant.Depth()).eval()
    right = ModelSource(name=name, num_classes=5, options=options)
    pliant.save(model, tmp_path, source=right)
    assert read_info(tmp_path)["verified"] is True
    assert same(pliant.load(tmp_path), model, torch.randn(2, 3, 32, 32))
    before = files_of(tmp_path)
    for wrong, message in [
        (right.replace(options={"img_size": 32, "num_heads": 3}), "gives another output, off by"),
        (right.replace(num_classes=7), r"could not be loaded: .*head\.weight is \[5, 192\], expected \[7, 192\]"),
        (right.replace(name="timm:vit_tiny"), "could not be loaded: .*unknown model 'timm:vit_tiny'"),
    ]:
        with pytest.raises(DifferentNetworkError, match=message) as error:
            pliant.save(model, tmp_path, source=wrong)
        assert wrong.name in str(error.value)
        assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "options", "configs"),
    [
        ("pliant:resnet20", {}, [pliant.Exits(), pliant.Depth()]),
        ("pliant:resnet20", {"shortcut": "projection"}, [pliant.Width(choices=(0.5, 1.0))]),
        ("pliant:resnet20", {"shortcut": "projection"}, [pliant.Width(choices=(0.5, 1.0), gate=pliant.Gate())]),
        ("pliant:ds_mbnet_cifar10", {}, [pliant.Width()]),
        (
            "timm:vit_tiny_patch16_224",
            {"img_size": 32, "num_heads": 6},
            [pliant.Width(choices=(0.5, 1.0)), pliant.Depth()],
        ),
        ("pliant:msdnet_cifar10_k6", {}, [pliant.Exits()]),
        ("timm:vit_tiny_patch16_224", {"img_size": 32}, [pliant.Exits()]),
        ("transformers:llama", TEXT, [pliant.Depth()]),
        ("transformers:bert", TEXT, [pliant.Depth()]),
    ],
)
def test_what_can_be_made_again_is_verified(name, options, configs, tmp_path):
    torch.manual_seed(0)
    model = pliant.adapt_(moved(pliant.create_model(name, **options)), *configs)
    pliant.save(model, tmp_path, source=ModelSource(name=name, options=options))
    assert read_info(tmp_path)["verified"] is True


def test_one_sub_network_on_its_own_is_verified(tmp_path):
    model, source = resnet(), ModelSource(name="pliant:resnet20", num_classes=4)
    small = pliant.extract(model, "TFT")
    pliant.save(small, tmp_path / "run", only="TFT", adapted_with=model.configs, source=source)
    assert read_info(tmp_path / "run")["verified"] is True
    dilate(small)
    with pytest.raises(DifferentNetworkError, match="gives another output"):
        pliant.save(small, tmp_path / "run", only="TFT", adapted_with=model.configs, source=source)


# What is not verified.


def test_it_is_written_down_that_it_was_not_verified(tmp_path):
    torch.manual_seed(0)
    model = pliant.adapt_(moved(vit_of_other_heads()), pliant.Depth())
    pliant.save(model, tmp_path, verify=False)
    assert read_info(tmp_path)["verified"] is False


def test_without_verifying_nothing_is_run_and_nothing_is_made(tmp_path, monkeypatch):
    model = resnet()
    monkeypatch.setattr(ModelSource, "create", lambda *args, **kwargs: pytest.fail("made again"))
    model.register_forward_hook(lambda *args: pytest.fail("run"))
    pliant.save(model, tmp_path, source=ModelSource(name="pliant:resnet20", num_classes=4), verify=False)


def test_older_files_say_nothing_and_load_as_before(tmp_path):
    model = resnet()
    path = pliant.save(model, tmp_path) / "pliant.json"
    card = json.loads(path.read_text())
    del card["verified"]
    path.write_text(json.dumps(card))
    assert same(pliant.load(tmp_path), model, torch.randn(2, 3, 32, 32))


class Pair(nn.Module):
    """Takes what nobody can guess."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[Block() for _ in range(4)])
        self.head = nn.Linear(8, 3)
        self.weight_of_second = 2.0

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.head(self.blocks(first + self.weight_of_second * second))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.norm(x))


@pytest.fixture
def pair(tmp_path, monkeypatch) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A network of two inputs, which `pair.py:Pair` makes, and inputs."""
    monkeypatch.setitem(sys.modules, "pair_classes", sys.modules[__name__])
    (tmp_path / "pair.py").write_text("from pair_classes import Pair\n")
    monkeypatch.chdir(tmp_path)
    x = (torch.randn(2, 8), torch.randn(2, 8))
    return pliant.adapt_(Pair(), pliant.Depth(groups=2), example=x), x


def test_an_input_that_nobody_can_guess_is_said(pair, tmp_path):
    (model, _), source = pair, ModelSource(name="pair.py:Pair")
    pliant.save(model, tmp_path / "run", source=source)
    assert read_info(tmp_path / "run")["verified"] is True  # by an input like that which it was adapted with
    loaded = pliant.load(tmp_path / "run", model="pair.py:Pair")
    pliant.save(loaded, tmp_path / "again", source=source)
    assert read_info(tmp_path / "again")["verified"] is True  # the card remembers what such an input is
    plain, said = pliant.extract(model, "smallest"), {"adapted_with": model.configs, "anatomy": model.anatomy}
    with pytest.warns(UserWarning, match=r"not verified that pair\.py:Pair .* no input .* 'second'.* pass example="):
        pliant.save(plain, tmp_path / "plain", only="smallest", source=source, **said)
    assert read_info(tmp_path / "plain")["verified"] is False
    assert type(pliant.load(tmp_path / "plain", model="pair.py:Pair")).__name__ == "Pair"


def test_an_example_takes_the_place_of_a_guess(pair, tmp_path):
    (model, x), source = pair, ModelSource(name="pair.py:Pair")
    pliant.save(model, tmp_path / "run", source=source, example=x)
    assert read_info(tmp_path / "run")["verified"] is True
    pliant.save(model, tmp_path / "run", source=source, example={"second": x[1], "first": x[0]})
    assert read_info(tmp_path / "run")["verified"] is True
    with pytest.raises(ValueError, match=r"example: .* fails on it"):
        pliant.save(model, tmp_path / "run", source=source, example=x[0])
    model.weight_of_second = 3.0
    with pytest.raises(DifferentNetworkError, match=r"pair\.py:Pair, its source, gives another output"):
        pliant.save(model, tmp_path / "run", source=source, example=x)


def test_an_output_that_is_not_finite_proves_nothing(tmp_path):
    model = resnet()
    with torch.no_grad():
        model.fc.bias.fill_(float("nan"))
    with pytest.warns(UserWarning, match="not verified that .*its output is not finite"):
        pliant.save(model, tmp_path)
    assert read_info(tmp_path)["verified"] is False


def test_a_network_without_a_name_is_not_verified_and_nobody_is_warned(tmp_path):
    model = pliant.adapt_(Pair(), pliant.Depth(groups=2), example=(torch.randn(2, 8), torch.randn(2, 8)))
    pliant.save(model, tmp_path)
    assert read_info(tmp_path)["verified"] is False


def test_what_does_not_fit_into_json_is_refused(tmp_path):
    source = ModelSource(name="torchvision:resnet18", options={"norm_layer": nn.BatchNorm2d})
    with pytest.raises(ValueError, match=r"source= or info= holds something that does not fit into JSON"):
        pliant.save(pliant.adapt_(source.create(), pliant.Depth()), tmp_path / "run", source=source)
    assert not (tmp_path / "run").exists()


# A person's own file.

OWN_FILE = """
import random
import numpy, torch
from torch import nn


class Block(nn.Module):
    def __init__(self, slope):
        super().__init__()
        self.conv, self.norm, self.slope = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), slope

    def forward(self, x):
        return x + nn.functional.leaky_relu(self.norm(self.conv(x)), self.slope)


class Net(nn.Module):
    def __init__(self, slope, num_classes, reads_weights):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*[Block(slope) for _ in range(4)])
        self.head = nn.Linear(8, num_classes)
        # Values that are computed from weights, where nobody looks for tensors, and everybody's random numbers.
        self.ones = [self.stem.weight.detach() * 0 + 1]
        self.start = random.random() * 0 + numpy.random.rand() * 0
        if reads_weights:
            self.start += float(self.stem.weight.detach().abs().max()) * 0

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3))) * self.ones[0].mean() + self.start


def make_net(slope=0.01, num_classes=5, reads_weights=False):
    return Net(slope, num_classes, reads_weights)
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    (tmp_path / "my_leaky_net.py").write_text(OWN_FILE)
    monkeypatch.chdir(tmp_path)
    return "my_leaky_net.py:make_net"


@pytest.mark.parametrize("reads_weights", [False, True])
def test_the_options_of_a_function_of_ones_own_count(own, tmp_path, reads_weights):
    source = ModelSource(name=own, num_classes=3, options={"slope": 0.3, "reads_weights": reads_weights})
    torch.manual_seed(0)
    model = source.create()
    x = example_input(model, 16)
    pliant.adapt_(model, pliant.Depth(groups=2), example=x).eval()
    with pytest.raises(DifferentNetworkError, match=r"my_leaky_net\.py:make_net \(num_classes=3\), its source, gives"):
        pliant.save(model, tmp_path / "run", source=source.replace(options={}))
    assert not (tmp_path / "run").exists()
    pliant.save(model, tmp_path / "run", source=source)
    assert read_info(tmp_path / "run")["verified"] is True
    assert same(pliant.load(tmp_path / "run", model=own), model, x)


# No trace is left.


class Restless(nn.Module):
    """Counts its passes in one buffer, replaces another, and draws random numbers of three kinds in every pass."""

    def __init__(self, restless: bool = True) -> None:
        super().__init__()
        self.network, self.restless = pliant.create_model("pliant:resnet20", num_classes=4), restless
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.restless:
            return self.network(x)
        self.passes.add_(1)
        self.last = torch.rand(()) + random.random() + np.random.rand()
        return self.network(x) + self.last * self.passes


def test_the_model_and_the_random_numbers_are_as_before(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pliant_restless", sys.modules[__name__])
    monkeypatch.chdir(tmp_path)
    Path("restless.py").write_text("from pliant_restless import Restless\n")
    model = Restless(restless=False)  # while its blocks are looked for
    pliant.adapt_(model, pliant.Depth(), example=torch.randn(1, 3, 16, 16)).train()
    model.restless = True
    model.network.layer1.eval()
    model.network.conv1.weight.requires_grad_(False)
    model.network.fc.weight.grad = torch.ones_like(model.network.fc.weight)
    before = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    tensors = {name: id(tensor) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    versions = {name: tensor._version for name, tensor in model.named_buffers() if not name.startswith("passes")}
    training = [module.training for module in model.modules()]
    learning = [parameter.requires_grad for parameter in model.parameters()]
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()
    pliant.save(model, "run", source=ModelSource(name="restless.py:Restless"))
    assert read_info("run")["verified"] is True
    after = dict([*model.named_parameters(), *model.named_buffers()])
    assert {name: id(tensor) for name, tensor in after.items()} == tensors
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(after[name]._version == version for name, version in versions.items())
    assert [module.training for module in model.modules()] == training
    assert [parameter.requires_grad for parameter in model.parameters()] == learning
    assert torch.equal(model.network.fc.weight.grad, torch.ones_like(model.network.fc.weight))
    assert torch.equal(torch.get_rng_state(), drawn[0]) and random.getstate() == drawn[1]
    assert all(np.array_equal(one, other) for one, other in zip(np.random.get_state(), drawn[2], strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_no_weights_are_copied_to_verify(tmp_path, monkeypatch):
    model, lent = resnet(), []
    difference = proof.difference

    def seen(model: nn.Module, again: nn.Module, *args: object, **kwargs: object) -> str | None:
        lent.extend(parameter.data_ptr() for parameter in again.parameters())
        return difference(model, again, *args, **kwargs)

    monkeypatch.setattr("pliant.checkpoint.difference", seen)
    pliant.save(model, tmp_path)
    assert lent == [parameter.data_ptr() for parameter in model.parameters()]


def test_a_refused_network_leaves_what_was_there(tmp_path):
    pliant.save(resnet(), tmp_path)
    before = files_of(tmp_path)
    model = resnet()
    dilate(model)
    with pytest.raises(CheckpointError):
        pliant.save(model, tmp_path, source=ModelSource(name="pliant:resnet20", num_classes=4))
    assert files_of(tmp_path) == before


# Half precision.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_rounding_hides_no_setting(dtype, tmp_path):
    model = pliant.adapt_(llama_of_other_positions().to(dtype), pliant.Depth())
    with pytest.raises(DifferentNetworkError):
        pliant.save(model, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_another_implementation_of_attention_is_no_other_network(dtype, tmp_path):
    pytest.importorskip("transformers")
    model = pliant.create_model("transformers:llama", **TEXT).to(dtype)
    model.set_attn_implementation("eager")
    pliant.save(pliant.adapt_(model, pliant.Depth()), tmp_path)
    assert read_info(tmp_path)["verified"] is True


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("pliant:resnet20", {}, 32),
        ("timm:eva02_tiny_patch14_224", {"img_size": 28}, 28),  # buffers that are in no file
        ("transformers:llama", TEXT, 6),
    ],
)
def test_the_floating_point_type_comes_back(name, options, size, dtype, tmp_path):
    torch.manual_seed(0)
    source = ModelSource(name=name, options=options)
    model = pliant.adapt_(source.create(), pliant.Depth()).to(dtype).eval()
    pliant.save(model, tmp_path, source=source)
    assert read_info(tmp_path)["verified"] is True
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} <= {dtype, torch.int64}
    loaded = pliant.load(tmp_path)
    types = {name: tensor.dtype for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    assert {name: tensor.dtype for name, tensor in [*loaded.named_parameters(), *loaded.named_buffers()]} == types
    x = example_input(model, size)
    assert same(loaded, model, x.to(dtype) if x.is_floating_point() else x)
    single = pliant.load(tmp_path, dtype=torch.float32)
    assert {parameter.dtype for parameter in single.parameters()} == {torch.float32}
    assert logits_of(single(x)).dtype == torch.float32


def test_norms_that_stayed_in_single_precision_do_so_when_loaded(tmp_path):
    model = resnet()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.bfloat16()
    pliant.save(model, tmp_path, verify=False)
    loaded = pliant.load(tmp_path)
    types = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert {name: parameter.dtype for name, parameter in loaded.named_parameters()} == types


def test_older_files_of_half_precision_load_in_single_precision_as_before(tmp_path):
    path = pliant.save(resnet().half(), tmp_path) / "pliant.json"
    card = json.loads(path.read_text())
    del card["verified"]
    path.write_text(json.dumps(card))
    assert {parameter.dtype for parameter in pliant.load(tmp_path).parameters()} == {torch.float32}


# Tolerance.


def test_rounding_is_no_difference_and_another_function_is_one():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(4, 8)
    again = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        again[0].weight.mul_(1 + 1e-6)
    assert proof.difference(model, again, [None], size=None, example=x) is None
    with torch.no_grad():
        again[0].weight.mul_(1 + 1e-2)
    assert "gives another output" in str(proof.difference(model, again, [None], size=None, example=x))
