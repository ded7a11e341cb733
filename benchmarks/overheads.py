"""What being adaptive costs at inference: a sub-network against the same network built by hand.

    python benchmarks/overheads.py [--rounds 100] [--threads 2]

For ResNet-50 at 224 pixels and the CIFAR ResNet-20, batch 1, the largest and the smallest sub-network: extracted,
and through `model(x, subnet=...)`, each over the network that its library builds for these block counts. Eager,
compiled, and in ONNX Runtime. Two at a time are timed in turns, the one built by hand and another, each with weights
of its own: neither finds those of the other in the cache, and no third one empties it. Figures are medians over
interleaved rounds; ratios are taken round by round, because a machine that slows down meanwhile slows both alike.
`again` is a second copy of the network built by hand: how far it is from 1 is the error.

Then switching: the time that going back and forth between two sub-networks takes beyond running each, whether that
recompiled anything, and whether it moved any weight. Writes results/overheads.json.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from provenance import write_result
from timing import median_ratio, timing_arguments
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torchvision.models import ResNet, resnet50
from torchvision.models.resnet import Bottleneck

import pliant
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.models.resnet import CifarResNet

LIMITS = {"extracted": 1.02, "switched": 1.05, "switching_us": 100.0}

# For each model the image size, and how its largest and smallest sub-network are built without pliant.
BY_HAND: dict[str, tuple[int, dict[str, Callable[[], nn.Module]]]] = {
    "torchvision:resnet50": (224, {"FFFF": resnet50, "TTTT": lambda: ResNet(Bottleneck, [2, 2, 3, 2])}),
    "pliant:resnet20": (32, {"FFF": lambda: CifarResNet(20), "TTT": lambda: CifarResNet(14)}),
}

Pass = Callable[[Tensor], Any]


def adapted(name: str) -> nn.Module:
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model(name), pliant.Depth()).eval()


def versions_of(model: nn.Module, subnet: str, build: Callable[[], nn.Module]) -> dict[str, nn.Module]:
    """The same network by hand, by hand once more, and extracted; same values, tensors of their own."""
    extracted = pliant.extract(model, subnet)
    by_hand = build().eval()
    by_hand.load_state_dict(extracted.state_dict())
    return {"hand": by_hand, "again": copy.deepcopy(by_hand), "extracted": extracted}


def eager(model: nn.Module, subnet: str, networks: dict[str, nn.Module], images: Tensor) -> dict[str, Pass]:
    passes: dict[str, Pass] = {**networks, "switched": partial(model, subnet=subnet)}
    expected = networks["hand"](images)
    assert all(torch.equal(run(images), expected) for run in passes.values()), "not the same network"
    return passes


def compiled(model: nn.Module, subnet: str, networks: dict[str, nn.Module], images: Tensor) -> dict[str, Pass]:
    passes: dict[str, Pass] = {kind: torch.compile(network) for kind, network in networks.items()}
    passes["switched"] = partial(torch.compile(model), subnet=subnet)
    expected = networks["hand"](images)
    for run in passes.values():
        torch.testing.assert_close(run(images), expected, rtol=1e-3, atol=1e-3)
    return passes


def in_onnx_runtime(model: nn.Module, subnet: str, networks: dict[str, nn.Module], images: Tensor) -> dict[str, Pass]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads of one session that wait busily for work would take the cores from the next one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    passes: dict[str, Pass] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, network in networks.items():
            path = str(Path(folder) / f"{kind}.onnx")
            with torch.no_grad():
                torch.onnx.export(network, (images,), path, dynamo=True, input_names=["images"], verbose=False)
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            passes[kind] = lambda x, session=session: session.run(None, {"images": x.numpy()})
    return passes


WAYS = {"eager": eager, "compiled": compiled, "onnxruntime": in_onnx_runtime}


def compare(name: str, way: str, rounds: int) -> list[dict[str, Any]]:
    """One row a sub-network."""
    image_size, builders = BY_HAND[name]
    model, images = adapted(name), torch.randn(1, 3, image_size, image_size)
    rows = []
    for subnet, build in builders.items():
        networks = versions_of(model, subnet, build)
        # The model itself shares no tensor with what was extracted from it.
        passes = WAYS[way](copy.deepcopy(model), subnet, networks, images)
        by_hand = partial(passes.pop("hand"), images)
        hand_ms: list[float] = []
        over_hand: dict[str, float] = {}
        for kind, run in passes.items():
            pair = interleaved_ms({"hand": by_hand, kind: partial(run, images)}, rounds=rounds, warmup=10)
            over_hand[f"{kind}_over_hand"] = round(median_ratio(pair, kind, "hand"), 4)
            hand_ms += pair["hand"]
        rows.append({"model": name, "subnet": subnet, "way": way, "hand_ms": round(statistics.median(hand_ms), 4)})
        rows[-1] |= over_hand
    return rows


def switching(rounds: int, calls: int = 10) -> dict[str, Any]:
    """Going back and forth between two sub-networks, on one thread and images so small that little else takes time."""
    model, images = adapted("pliant:resnet20"), torch.randn(1, 3, 8, 8)
    result: dict[str, Any] = {"model": "pliant:resnet20", "image_size": 8, "threads": 1}
    held = {name: tensor.data_ptr() for name, tensor in model.state_dict(keep_vars=True).items()}
    for way, run in (("eager", model), ("compiled", torch.compile(model))):

        def sequence(*subnets: str, run: Pass = run) -> None:
            for _ in range(calls):
                for subnet in subnets:
                    run(images, subnet=subnet)

        sequence("FFF", "TTT")
        graphs = counters["stats"]["unique_graphs"]
        orders = {"both": ("FFF", "TTT"), "full": ("FFF", "FFF"), "base": ("TTT", "TTT")}
        times = interleaved_ms({key: partial(sequence, *order) for key, order in orders.items()}, rounds=rounds)
        extra_ms = [
            (both - (full + base) / 2) / (2 * calls)
            for both, full, base in zip(times["both"], times["full"], times["base"], strict=True)
        ]
        result[f"{way}_us"] = round(1e3 * statistics.median(extra_ms), 2)
        result[f"{way}_recompilations"] = counters["stats"]["unique_graphs"] - graphs
    now = {name: tensor.data_ptr() for name, tensor in model.state_dict(keep_vars=True).items()}
    shared = pliant.extract(model, "TTT", share=True).state_dict(keep_vars=True).values()
    result["weights_moved"] = sum(now[name] != pointer for name, pointer in held.items())
    result["weights_copied_by_extract_share"] = sum(tensor.data_ptr() not in set(held.values()) for tensor in shared)
    return result


def main() -> None:
    arguments = timing_arguments(__doc__, rounds=100, out="results/overheads.json")
    rows: list[dict[str, Any]] = []
    with using_threads(arguments.threads), torch.inference_mode():
        for name in BY_HAND:
            for way in WAYS:
                rows += compare(name, way, arguments.rounds)
                print(*rows[-2:], sep="\n", flush=True)
        with using_threads(1):
            switches = switching(arguments.rounds)
        print(switches)
    figures = {"batch_size": 1, "threads": arguments.threads, "rounds": arguments.rounds, "seed": 0}
    write_result(arguments.out, {**figures, "limits": LIMITS, "rows": rows, "switching": switches})


if __name__ == "__main__":
    main()
