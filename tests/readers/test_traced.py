"""A person's own network becomes adaptive with one example: what is found, what is not, and that the contracts hold."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import pliant
from pliant import readers
from pliant.core.anatomy import Anatomy
from pliant.core.inputs import example_input
from pliant.create import ModelSource
from pliant.outline import stage_lines
from pliant.readers import traced

FILE = Path(__file__).with_name("own_networks.py")


def _load_networks() -> ModuleType:
    # Not an import: pytest runs these files without their folder on the path.
    spec = importlib.util.spec_from_file_location("own_networks", FILE)
    assert spec is not None and spec.loader is not None
    sys.modules["own_networks"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


own = _load_networks()

pytestmark = pytest.mark.filterwarnings("ignore:.* one block, and nothing to skip")


@torch.no_grad()
def pretend_trained(model: nn.Module) -> nn.Module:
    """Vary what starts as zeros or ones: nothing is constant after a training."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.min() == parameter.max():
            parameter.uniform_(0.5, 1.5, generator=generator)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5, generator=generator)
    return model


def make(name: str) -> Any:
    torch.manual_seed(0)
    return pretend_trained(own.OWN[name].make()).eval()


def adapted(name: str, **options: Any) -> tuple[Any, Tensor]:
    """The network adapted, its second norm sets unlike the first ones; and its example."""
    example = own.OWN[name].example()
    model = pliant.adapt_(make(name), pliant.Depth(**options), example=example)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if ".skip." in key and tensor.is_floating_point():
                tensor.add_(0.1)
    return model, example


def logits(output: Any) -> Tensor:
    return output["logits"] if isinstance(output, dict) else output


def structure(anatomy: Anatomy) -> list[Any]:
    return [
        (stage.path, stage.channels, stage.channel_dim, [(b.path, set(b.norms), b.keeps_shape) for b in stage.blocks])
        for stage in anatomy.stages
    ]


@pytest.mark.parametrize("name", own.OWN)
def test_blocks_norms_channels_and_head_are_found(name):
    expected = own.OWN[name]
    anatomy = traced.read(make(name), expected.example())
    assert tuple((len(stage.blocks), stage.blocks[0].keeps_shape) for stage in anatomy.stages) == expected.blocks
    assert all(block.keeps_shape for stage in anatomy.stages for block in stage.blocks[1:])
    assert anatomy.stages[0].path == expected.container
    assert anatomy.stages[-1].channels == expected.channels[0]
    assert {stage.channel_dim for stage in anatomy.stages} == {expected.channels[1]}
    assert tuple(sum(len(block.norms) for block in stage.blocks) for stage in anatomy.stages) == expected.norms
    assert not any(
        "short" in norm or "downsample" in norm for s in anatomy.stages for b in s.blocks for norm in b.norms
    )
    assert anatomy.columnar == expected.columnar
    assert (anatomy.head, anatomy.num_classes) == ("layers.7" if name == "tabular" else "head", 5)


@torch.no_grad()
@pytest.mark.parametrize("name", own.OWN)
def test_contracts_1_to_3_hold(name, tmp_path):
    original, (model, x) = make(name), adapted(name)
    assert torch.equal(logits(model(x)), logits(original(x)))
    outputs = []
    for subnet in model.subnets:
        network = pliant.extract(model, subnet)
        outputs.append(logits(model(x, subnet=subnet)))
        assert torch.equal(logits(network(x)), outputs[-1]), subnet
        assert type(network) is type(original)
        assert not any(type(module).__module__.startswith("pliant") for module in network.modules())
    assert not any(torch.equal(one, other) for index, one in enumerate(outputs) for other in outputs[:index])
    original.load_state_dict(pliant.extract(model, "largest").state_dict(), strict=True)
    pliant.save(model, tmp_path)
    loaded = pliant.load(tmp_path, model=own.OWN[name].make())
    assert loaded.anatomy == model.anatomy and loaded.configs == model.configs
    for subnet, output in zip(model.subnets, outputs, strict=True):
        assert torch.equal(logits(loaded(x, subnet=subnet)), output)
    pooled = model(x, features=True)[1]
    assert [tuple(f.shape) for f in pooled] == [(len(x), stage.channels) for stage in model.anatomy.stages]


@pytest.mark.parametrize("name", ["basic", "pre-norm", "tabular"])
def test_an_own_network_learns_by_algorithm_1(name):
    model, x = adapted(name)
    loss = pliant.Objective(model.train())(x, torch.arange(len(x)) % 5)
    loss.backward()
    missing = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert torch.isfinite(loss) and not missing


class Restless(own.Cnn):
    """Counts its passes in a buffer, and draws random numbers in all of them."""

    def __init__(self) -> None:
        super().__init__(own.Basic)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes.add_(torch.rand(()))
        return super().forward(x)


def test_reading_leaves_no_trace():
    model = Restless().train()
    model.stages[0].eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    x = own.OWN["basic"].example()
    given = x.clone()
    traced.read(model, x)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random) and torch.equal(x, given)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("mobilenet_v2", 64), ("vit_b_16", 32), ("convnext_tiny", 64), ("swin_t", 64)]
)
def test_the_same_is_found_as_by_the_reader_of_the_library(name, size):
    options = {"image_size": size} if name == "vit_b_16" else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
    by_example, by_library = traced.read(model, torch.randn(1, 3, size, size)), readers.read(model)
    assert structure(by_example) == structure(by_library)
    assert by_example.columnar == by_library.columnar
    assert (by_example.head, by_example.num_classes) == (by_library.head, by_library.num_classes)


def test_a_reader_that_knows_the_model_is_asked_first():
    model = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth(), example=torch.zeros(1, 3, 8, 8))
    assert not model.anatomy.traced


# Networks of which nothing may be skipped.


class Plain(nn.Module):
    """As in a VGG: the shape stays, the input does not."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Concatenates(nn.Module):
    """As in a DenseNet."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(x)], 1)


class Shuffles(nn.Module):
    """As in a ShuffleNet: half of the input goes through, elsewhere."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(outputs // 2, 3, stride, 1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, 1)
        one = F.interpolate(one, scale_factor=1 / self.stride)
        one = one.repeat(1, (self.conv.out_channels + one.shape[1] - 1) // one.shape[1], 1, 1)
        return torch.stack([one[:, : self.conv.out_channels], self.conv(two)], 2).flatten(1, 2)


class Gates(nn.Module):
    """Scales its input: without it the network is another."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.keeps = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x).sigmoid() if self.keeps else self.conv(x)


@pytest.mark.parametrize("block", [Plain, Concatenates, Shuffles, Gates])
def test_blocks_that_do_not_hand_their_input_on_are_never_skipped(block):
    model = own.Cnn(block)
    if block is Concatenates:
        model.head = nn.LazyLinear(5)
    model(own.OWN["basic"].example())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"this Cnn has no residual blocks; found .*none of which hands") as error:
        pliant.adapt_(model, pliant.Depth(), example=own.OWN["basic"].example())
    assert f"{block.__name__}" in str(error.value) and "\n" not in str(error.value)
    assert type(model) is own.Cnn and list(model.state_dict()) == list(before)


def test_a_block_without_a_shortcut_within_a_run_begins_a_stage():
    model = own.Cnn(own.Basic)
    model.stages = nn.Sequential(own.Inverted(8, 8), own.Inverted(8, 8), own.Inverted(8, 8), own.Inverted(8, 8))
    model.stages[2].adds = False
    model.head = nn.Linear(8, 5)
    anatomy = traced.read(model, own.OWN["basic"].example())
    assert [[block.path for block in stage.blocks] for stage in anatomy.stages] == [
        ["stages.0", "stages.1"],
        ["stages.2", "stages.3"],
    ]
    assert not anatomy.stages[1].blocks[0].keeps_shape


def test_additions_outside_of_modules_cannot_be_skipped():
    class Outside(own.Column):
        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            for block in self.blocks:
                x = x + block.mlp(x)
            return self.head(x.mean(1))

    with pytest.raises(ValueError, match="no two modules of one class follow each other"):
        pliant.adapt_(Outside(), pliant.Depth(), example=torch.zeros(1, 3, 16, 16))


def test_values_that_a_network_cannot_do_without_are_said():
    class Needs(own.ColumnOfPairs):
        def forward(self, x: Tensor) -> Tensor:
            x, total = self.embed(x), 0
            for block in self.blocks:
                x, mixed = block(x)
                total = total + mixed
            return self.head((x + total).mean(1))

    with pytest.raises(ValueError, match="those of blocks return values that the network cannot do without"):
        pliant.adapt_(Needs(own.PostNorm), pliant.Depth(), example=torch.zeros(1, 3, 16, 16))


def test_shared_and_tied_blocks_are_refused_by_name():
    model = own.Column()
    model.blocks = nn.ModuleList([model.blocks[0]] * 4)
    with pytest.raises(ValueError, match=r"block 'blocks.0' is used 4 times in one pass: a shared block cannot"):
        pliant.adapt_(model, pliant.Depth(), example=torch.zeros(1, 3, 16, 16))
    model = own.Column()
    model.blocks[3].mlp[0].weight = model.blocks[1].mlp[0].weight
    with pytest.raises(ValueError, match=r"'blocks.1.mlp.0.weight' and 'blocks.3.mlp.0.weight' are tied weights"):
        pliant.adapt_(model, pliant.Depth(), example=torch.zeros(1, 3, 16, 16))


@pytest.mark.filterwarnings("error")
def test_a_stage_of_one_block_is_said_once_and_the_others_go_on():
    x = own.OWN["one block"].example()
    with pytest.warns(UserWarning, match=r"^stage 1 \(stages.0.0\) has one block, and nothing to skip") as said:
        model = pliant.adapt_(make("one block"), pliant.Depth(), example=x)
    assert len(said) == 1
    assert [str(subnet) for subnet in model.subnets] == ["FTT", "FFT", "FTF", "FFF"]
    pliant.adapt_(make("one block"), pliant.Depth(mandatory=(1, 1, 1)), example=x)


def test_a_second_adaptation_is_refused():
    model, x = adapted("basic")
    with pytest.raises(ValueError, match=r"this AdaptiveCnn is adapted already, with Depth"):
        pliant.adapt_(model, pliant.Depth(), example=x)


def test_columns_are_divided_into_groups_as_asked():
    model, x = adapted("pre-norm", groups=1)
    assert [str(subnet) for subnet in model.subnets] == ["T", "F"]
    with pytest.raises(ValueError, match=r"groups are for columnar networks"):
        pliant.adapt_(make("basic"), pliant.Depth(groups=2), example=x)


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ("image.png", "example: got a str, expected one input of the model"),
        (torch.zeros(1, 4, 16, 16), r"this Cnn, and it fails on the example \[1, 4, 16, 16\] with RuntimeError"),
        ({"image": torch.zeros(1, 3, 16, 16)}, "fails on the example .* with TypeError"),
    ],
)
def test_an_example_that_is_none_is_refused(example, said):
    with pytest.raises(ValueError, match=said):
        pliant.adapt_(make("basic"), pliant.Depth(), example=example)


def test_without_an_example_it_is_said_what_to_pass():
    with pytest.raises(ValueError, match="and your own: pass example=, one input of the model"):
        pliant.adapt_(make("basic"), pliant.Depth())


def test_keywords_and_several_arguments_are_examples_too():
    x = own.OWN["basic"].example()
    stages = traced.read(make("basic"), x).stages
    assert traced.read(make("basic"), (x,)).stages == traced.read(make("basic"), {"x": x}).stages == stages


# Names of networks in files.


@pytest.fixture
def my_net(tmp_path, monkeypatch) -> str:
    """`my_net.py:make_net` in the working directory, which imports a file beside it."""
    shutil.copy(FILE, tmp_path / "own_layers.py")
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n"
        "from own_layers import Basic, Cnn\n\n\n"
        "def make_net(num_classes=5, lengths=(2, 2, 3)):\n"
        "    model = Cnn(Basic, tuple(lengths))\n"
        "    model.head = nn.Linear(model.head.in_features, num_classes)\n"
        "    return model\n\n\n"
        "def make_text():\n"
        "    return 'no network'\n"
    )
    monkeypatch.chdir(tmp_path)
    yield "my_net.py:make_net"
    sys.modules.pop("own_layers", None)


def test_a_network_in_a_file_has_a_name(my_net):
    model = pliant.create_model(my_net, num_classes=7, lengths=[2, 3])
    assert model.head.out_features == 7 and len(model.stages[1]) == 3
    assert type(pliant.create_model(my_net)) is type(model)
    assert not any(Path(folder).resolve() == Path.cwd() for folder in sys.path if folder)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("other.py:make_net", {}, "other.py: no such file"),
        ("my_net.py:other", {}, "there is no function 'other' in my_net.py"),
        ("my_net.py:make_net", {"depth": 3}, r"options \{'depth': 3.* are not what it takes"),
        ("my_net.py:make_net", {"pretrained": True}, "has no pretrained weights"),
        ("my_net.py:make_text", {}, "returns a str, expected a torch.nn.Module"),
        ("broken.py:make_net", {}, "broken.py ends with SyntaxError"),
    ],
)
def test_names_of_no_network_are_refused(my_net, name, options, said):
    Path("broken.py").write_text("def make_net(:\n")
    with pytest.raises(ValueError, match=said):
        pliant.create_model(name, **options)


def test_saved_by_name_and_run_only_if_it_is_named_again(my_net):
    source = ModelSource(name=my_net, num_classes=7)
    model = source.create()
    x = example_input(model, 16)
    pliant.adapt_(model, pliant.Depth(), example=x).eval()
    pliant.save(model, "run", source=source)
    Path("my_net.py").write_text(
        "raise AssertionError('code of a saved network ran')\n" + Path("my_net.py").read_text()
    )
    with pytest.raises(ValueError, match=r"run was made by my_net.py:make_net, which is code: .*model='my_net.py:make"):
        pliant.load("run")
    with pytest.raises(ValueError, match=r"my_net\.py ends with AssertionError"):
        pliant.load("run", model=my_net)
    Path("my_net.py").write_text("".join(Path("my_net.py").read_text().splitlines(keepends=True)[1:]))
    loaded = pliant.load("run", model=my_net)
    for subnet in model.subnets:
        assert torch.equal(loaded(x, subnet=subnet), model(x, subnet=subnet))
    with pytest.raises(ValueError, match=r"run does not fit my_net.py:make_net"):
        pliant.load("run", model=own.Column())
    with pytest.raises(
        ValueError, match="model= is for checkpoint files of other people, and for networks of your own"
    ):
        pliant.load("run", model="pliant:resnet20")


def test_a_network_without_a_name_is_loaded_into_a_new_one(tmp_path):
    model, _ = adapted("basic")
    pliant.save(model, tmp_path)
    with pytest.raises(ValueError, match="holds a network without a name: pass model="):
        pliant.load(tmp_path)
    card = json.loads((tmp_path / "pliant.json").read_text())
    del card["anatomy"]["stages"]
    (tmp_path / "pliant.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="anatomy"):
        pliant.load(tmp_path, model=make("basic"))


def test_a_line_says_of_each_stage_what_was_found():
    assert stage_lines(adapted("one block")[0]) == [
        "stages.0.0: 1 Basic (nothing to skip), 8 channels",
        "stages.1.0-1: 2 Basic (1 mandatory, 1 skippable), 16 channels",
        "stages.2.0-1: 2 Basic (1 mandatory, 1 skippable), 32 channels",
    ]
    assert stage_lines(adapted("torch pre-norm")[0])[1] == (
        "blocks.layers.2-3: 2 TransformerEncoderLayer (1 mandatory, 1 skippable), 16 channels"
    )
    assert stage_lines(make("basic")) == []
