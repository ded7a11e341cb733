"""Try every family of networks with everything pliant does to one, and write down what happened: docs/support.md.

    python benchmarks/support.py [--names resnet18 swin] [--tries compile onnx] [--limit-s 600] [--again] [--page]

The networks are those of the contracts (tests/contract/families.py), small and with random weights. Every try runs in
a process of its own with a time limit, and is written to results/support.json as soon as it is done: an interrupted
run goes on where it was. A try that was made with other versions of the libraries is made anew, with --again each that
is asked for. --page only writes the page.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import multiprocessing
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT, provenance, write_result
from tables import markdown
from torch import Tensor, nn

import pliant
from pliant.core.inputs import logits_of

sys.path.append(str(ROOT / "tests" / "contract"))
from families import FAMILIES, Family  # type: ignore[import-not-found]

RESULTS = ROOT / "results" / "support.json"
PAGE = ROOT / "docs" / "support.md"
TOKENS = 6
# By the parent, so that not each of the many processes does it.
IMPORTED_ONCE = ("torchvision", "timm", "transformers", "onnxscript", "torch._inductor", "torch.onnx", "pliant.train")
LIBRARIES = {"torchvision": "torchvision", "timm": "timm", "transformers": "transformers", "pliant": "Our own"}

Model = Any  # an adapted network


class Differs(Exception):
    """It ran, and computed something else than it should."""


def adapted(family: Family) -> tuple[nn.Module, Model]:
    torch.manual_seed(0)
    original = family.source().create().eval()
    return original, pliant.adapt_(copy.deepcopy(original), pliant.Depth())


def run(network: Callable[..., Any], family: Family, **more: Any) -> Tensor:
    args, kwargs = family.inputs()
    with torch.no_grad():
        return logits_of(network(*args, **kwargs, **more))


def same(one: Tensor, other: Tensor, tolerance: float = 0.0) -> None:
    scale = max(1.0, other.abs().max().item())
    difference = (one - other).abs().max().item() / scale
    if not difference <= tolerance:
        raise Differs(f"differs by {difference:.1e} (allowed: {tolerance:.0e})")


def try_adapt(family: Family, folder: Path) -> str | None:
    original, model = adapted(family)
    same(run(model, family), run(original, family))


def try_extract(family: Family, folder: Path) -> str | None:
    original, model = adapted(family)
    for subnet in ("smallest", "largest"):
        network = pliant.extract(model, subnet)
        assert type(network) is type(original)
        same(run(network, family), run(model, family, subnet=subnet))


def try_train(family: Family, folder: Path) -> str | None:
    _, model = adapted(family)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    (inputs,), _ = family.inputs()
    labels = torch.tensor([1, 7]) if family.classifies else inputs
    loss = pliant.Objective(model).backward(inputs, labels)
    optimizer.step()
    if not loss.isfinite() or all(torch.equal(before[name], value) for name, value in model.named_parameters()):
        raise Differs(f"nothing was learned: loss {loss.item()}")


def try_compile(family: Family, folder: Path) -> str | None:
    _, model = adapted(family)
    subnets = ("smallest", "largest")
    eager = {subnet: run(model, family, subnet=subnet) for subnet in subnets}
    compiled = torch.compile(model)
    for subnet in subnets:
        same(run(compiled, family, subnet=subnet), eager[subnet], 1e-3)


def _export(family: Family, path: Path) -> str | None:
    """Write the base-net, for any batch if that goes, else for one."""
    _, model = adapted(family)
    size = family.image_size or TOKENS
    try:
        pliant.export(model, path, subnet="smallest", image_size=size)
    except ValueError as error:
        if "batch" not in str(error):
            raise
        pliant.export(model, path, subnet="smallest", image_size=size, batch=1)
        return f"for a fixed batch only: {first_line(error)}"
    return None


def try_program(family: Family, folder: Path) -> str | None:
    return _export(family, folder / "network.pt2")


def try_onnx(family: Family, folder: Path) -> str | None:
    return _export(family, folder / "network.onnx")


def try_checkpoint(family: Family, folder: Path) -> str | None:
    """Save and load as people do: without saying what the network is."""
    _, model = adapted(family)
    condition = None
    try:
        pliant.save(model, folder)
    except ValueError as error:
        if "source=" not in str(error):
            raise
        condition = f"with `source=ModelSource(...)`, because it was made with {', '.join(family.options)}"
        pliant.save(model, folder, source=family.source())
    same(run(pliant.load(folder), family, subnet="smallest"), run(model, family, subnet="smallest"))
    return condition


# By key: the heading of its column and what is tried. A try returns None, or under which condition it works.
TRIES: dict[str, tuple[str, Callable[[Family, Path], str | None]]] = {
    "adapt": ("adapt", try_adapt),
    "extract": ("extract", try_extract),
    "train": ("training step", try_train),
    "compile": ("compile", try_compile),
    "program": ("torch.export", try_program),
    "onnx": ("ONNX", try_onnx),
    "checkpoint": ("save and load", try_checkpoint),
}


def first_line(error: BaseException) -> str:
    """What an error says, without the folders of this machine."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    line = re.sub(r"(/[\w.+-]+)+/", "", line)
    line = line if isinstance(error, ValueError | Differs) else f"{type(error).__name__}: {line}"
    return line if len(line) <= 200 else line[:200].rpartition(" ")[0] + " ..."


def in_child(name: str, key: str, answer: Connection) -> None:
    warnings.simplefilter("ignore")
    family = next(family for family in FAMILIES if family.name == name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            condition = TRIES[key][1](family, Path(folder))
            answer.send({"works": True} | ({"note": condition} if condition else {}))
        except Exception as error:
            answer.send({"works": False, "note": first_line(error)})


def attempt(name: str, key: str, limit_s: float) -> dict[str, Any]:
    """Try one thing with one family, in a process that can be ended."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    started = time.perf_counter()
    process = context.Process(target=in_child, args=(name, key, sender))
    process.start()
    sender.close()
    try:
        outcome = (
            receiver.recv() if receiver.poll(limit_s) else {"works": False, "note": f"not done in {limit_s:.0f} s"}
        )
    except EOFError:
        outcome = {"works": False, "note": "the process ended without an answer"}
    if process.is_alive():
        process.join(5)
        process.kill()
    process.join()
    return outcome | {"seconds": round(time.perf_counter() - started, 1)}


def read_results() -> dict[str, dict[str, dict[str, Any]]]:
    if not RESULTS.exists():
        return {}
    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    return document["tries"] if document["provenance"]["versions"] == provenance()["versions"] else {}


def page(document: Mapping[str, Any]) -> str:
    """The whole page; a try that was not made is a dash."""
    notes: list[str] = []
    parts = [INTRODUCTION]
    for prefix, title in LIBRARIES.items():
        lines = [
            [f"`{family.name}`", *(cell(document["tries"].get(family.name, {}).get(key), notes) for key in TRIES)]
            for family in FAMILIES
            if family.name.startswith(f"{prefix}:")
        ]
        parts += [f"## {title}", markdown(["network", *(heading for heading, _ in TRIES.values())], lines)]
    parts += ["## Notes", "\n".join(f"{number}. {note}" for number, note in enumerate(notes, 1))] if notes else []
    return "\n\n".join([*parts, origin(document)]) + "\n"


def cell(outcome: Mapping[str, Any] | None, notes: list[str]) -> str:
    if outcome is None:
        return "-"
    text = "yes" if outcome["works"] else "no"
    if "note" not in outcome:
        return text
    if outcome["note"] not in notes:
        notes.append(outcome["note"])
    return f"{text} ({notes.index(outcome['note']) + 1})"


def origin(document: Mapping[str, Any]) -> str:
    source = document["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in source["versions"].items())
    outcomes = [outcome for row in document["tries"].values() for outcome in row.values()]
    dates = sorted({outcome["date"] for outcome in outcomes})
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    commits = ", ".join(sorted({outcome["commit"] for outcome in outcomes}))
    where = f"{source['device']} ({source['cpu']})"
    return f"<sub>`python benchmarks/support.py`, {when}, commits {commits}, {where}, {versions}</sub>"


INTRODUCTION = """# What works with which network

This page is written by `python benchmarks/support.py`, which tries each thing with each family and records what
happened. The networks are the small members of their families that the tests use, with random weights. A number leads
to the note below: what was said, or on which condition it works. A dash means that it was not tried. Other members of
a family are read by the same code.

- adapt: the full network computes what the original does, bit for bit
- extract: super-net and base-net as plain networks of the library's own class compute the same, bit for bit
- training step: one step of the default objective
- compile: `torch.compile` of the adapted network, super-net and base-net
- torch.export, ONNX: the base-net as `.pt2` and `.onnx`, run again and compared
- save and load: without saying from which name the network was made"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="*", default=[""], help="parts of names; none = all")
    parser.add_argument("--tries", nargs="*", default=list(TRIES), choices=list(TRIES))
    parser.add_argument("--limit-s", type=float, default=600)
    parser.add_argument("--again", action="store_true", help="also what was tried before")
    parser.add_argument("--page", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if not arguments.page:
        torch.set_num_threads(1)  # before anything is computed: a forked process has no threads but its own
        for library in IMPORTED_ONCE:
            importlib.import_module(library)
        tries = read_results()
        now = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": provenance()["commit"][:9]}
        for family in FAMILIES:
            if not any(part in family.name for part in arguments.names):
                continue
            for key in arguments.tries:
                if key in tries.get(family.name, {}) and not arguments.again:
                    continue
                outcome = attempt(family.name, key, arguments.limit_s)
                tries.setdefault(family.name, {})[key] = outcome | now
                print(f"{family.name} {key}: {outcome}", flush=True)
                write_result(RESULTS, {"tries": tries})
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
