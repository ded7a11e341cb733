"""Networks of transformers are read, run and extracted; their configs follow the blocks that are left."""

import copy

import pytest
import torch

import pliant

transformers = pytest.importorskip("transformers")

VISION = dict(
    hidden_size=32, num_attention_heads=2, intermediate_size=64, num_hidden_layers=6, image_size=32, patch_size=8
)
TEXT = dict(hidden_size=32, num_attention_heads=2, intermediate_size=64, num_hidden_layers=6, vocab_size=100)
DECODER = TEXT | dict(num_key_value_heads=1, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def adapted(kind: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    model = pliant.create_model(f"transformers:{kind}", **options).eval()
    return pliant.adapt_(model, pliant.Depth())


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_decoder_generates_with_every_sub_network_and_its_cache_is_right(kind):
    model = adapted(kind, **DECODER)
    prompt = torch.randint(3, 100, (2, 5))
    for subnet in model.subnets:
        network = pliant.extract(model, subnet, share=True)
        settings = dict(max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(prompt))
        with_cache = network.generate(prompt, use_cache=True, **settings)
        assert torch.equal(with_cache, network.generate(prompt, use_cache=False, **settings)), subnet
        assert torch.equal(with_cache, model.generate(prompt, use_cache=True, subnet=str(subnet), **settings)), subnet


def test_the_blocks_that_are_left_are_numbered_anew():
    model = adapted("qwen3", **DECODER)
    network = pliant.extract(model, "TTT")
    assert network.config.num_hidden_layers == len(network.model.layers) == 3
    assert [layer.self_attn.layer_idx for layer in network.model.layers] == [0, 1, 2]
    assert len(network.config.layer_types) == 3
    assert model.config.num_hidden_layers == 6
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(6))


@torch.no_grad()
def test_what_is_extracted_is_what_its_config_makes(tmp_path):
    for kind, options, inputs in (
        ("bert", TEXT, torch.randint(3, 100, (2, 6))),
        (
            "swin",
            dict(embed_dim=8, depths=[2, 4], num_heads=[2, 2], image_size=32, window_size=4),
            torch.rand(1, 3, 32, 32),
        ),
    ):
        network = pliant.extract(adapted(kind, num_classes=7, **options), "smallest")
        network.save_pretrained(tmp_path / kind)
        loaded = type(network).from_pretrained(tmp_path / kind).eval()
        torch.testing.assert_close(loaded(inputs).logits, network(inputs).logits)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("vit", dict(VISION, hidden_size=64, num_attention_heads=4, intermediate_size=96)),
        ("bert", dict(TEXT, hidden_size=64, num_attention_heads=4, intermediate_size=96)),
        ("llama", dict(TEXT, hidden_size=64, num_attention_heads=4, num_key_value_heads=4, intermediate_size=96)),
    ],
)
@pytest.mark.parametrize("depth", [False, True])
def test_a_narrow_network_is_what_its_config_makes(tmp_path, kind, options, depth):
    torch.manual_seed(0)
    model = pliant.create_model(f"transformers:{kind}", **options)
    pliant.adapt_(model, pliant.Width(choices=(0.5, 1.0)), *([pliant.Depth()] if depth else []))
    network = pliant.extract(model.eval(), "smallest")
    assert (network.config.hidden_size, network.config.num_attention_heads) == (32, 2)
    assert (model.config.hidden_size, model.config.num_attention_heads) == (64, 4)
    network.save_pretrained(tmp_path)
    loaded = type(network).from_pretrained(tmp_path).eval()
    inputs = torch.rand(1, 3, 32, 32) if kind == "vit" else torch.randint(3, 100, (2, 6))
    torch.testing.assert_close(loaded(inputs).logits, network(inputs).logits)


def test_merging_norms_of_swin_follow_the_stage_behind_them():
    with torch.device("meta"):
        model = pliant.create_model("transformers:swin")
        pliant.adapt_(model, pliant.Depth(mandatory=(1, 1, 3, 1)))
    norms = [stage.norms for stage in model.anatomy.stages]
    assert norms == [(), *((f"swin.encoder.layers.{number}.downsample.norm",) for number in range(3))]


@torch.no_grad()
def test_other_outputs_stay_what_they_were():
    model = adapted("vit", num_classes=5, **VISION)
    original = pliant.extract(model, "largest")
    images = torch.rand(2, 3, 32, 32)
    for name in ("hidden_states", "attentions"):
        wanted = {f"output_{name}": True}
        if name == "attentions":
            model.set_attn_implementation("eager")
            original.set_attn_implementation("eager")
        ours, theirs = getattr(model(images, **wanted), name), getattr(original(images, **wanted), name)
        assert len(ours) == len(theirs) > 5
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_name_from_a_folder_and_its_weights(tmp_path):
    model = pliant.create_model("transformers:vit", num_classes=5, **VISION).eval()
    model.save_pretrained(tmp_path / "vit")
    again = pliant.create_model(f"transformers:{tmp_path / 'vit'}", pretrained=True).eval()
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again(images).logits, model(images).logits)
    other = pliant.create_model(f"transformers:{tmp_path / 'vit'}", pretrained=True, num_classes=3)
    assert other(images).logits.shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transformers:vitt", {}, "unknown model 'transformers:vitt'.*vit"),
        ("transformers:vit", {"num_layers": 3}, "no entry 'num_layers'"),
        ("transformers:vit", {"pretrained": True}, "without weights"),
        ("transformers:bert", {"architecture": "BertForEverything"}, "BertForEverything.*no model class"),
        ("transformers:clap", {}, "architecture="),
    ],
)
def test_what_cannot_be_made_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        pliant.create_model(name, **options)
    assert "\n" not in str(error.value)


def test_a_type_that_is_not_read_is_refused_by_name():
    model = copy.deepcopy(pliant.create_model("transformers:mobilenet_v1", image_size=32))
    with pytest.raises(ValueError, match="MobileNetV1ForImageClassification"):
        pliant.adapt_(model, pliant.Depth())


@pytest.mark.parametrize(("kind", "options", "size"), [("vit", VISION, 32), ("bert", TEXT, 12)])
def test_sub_networks_are_measured_and_exported(kind, options, size, tmp_path):
    model = adapted(kind, num_classes=5, **options)
    table = pliant.measure(model, image_size=size, rounds=1, warmup=0)
    gmacs = [row["gmacs"] for row in table.rows]
    assert len(gmacs) == 8 and gmacs[0] == min(gmacs) and gmacs[-1] == max(gmacs)
    assert all(row["latency_ms"] > 0 for row in table.rows)
    report = pliant.export(model, tmp_path / "net.pt2", subnet="TTF", image_size=size)
    assert report.difference <= report.tolerance
