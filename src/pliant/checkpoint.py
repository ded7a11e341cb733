"""`save` and `load`: a folder with safetensors and a JSON, or a file of others. No pickle is ever executed.

The JSON is the network's card, `pliant.json`. In a folder for the Hugging Face Hub it is called `config.json`, as the
Hub expects, and says `library_name`, since files of other libraries bear that name too.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pliant
from pliant import readers
from pliant.adapt import adapt_as_
from pliant.axes import AXES
from pliant.core.adaptive import AdaptiveModule, to_make_plain
from pliant.core.anatomy import Anatomy
from pliant.core.config import Config
from pliant.core.errors import first_line
from pliant.core.files import write_atomically
from pliant.core.inputs import InputSpec, spec_of_example
from pliant.core.modes import seeded
from pliant.core.surgery import own_forward
from pliant.core.weightless import weightless
from pliant.core.weights import (
    CheckpointError,
    first_three,
    lend_,
    misfits,
    shapes,
    take_dtypes_,
    tied_names,
    unsaved_dtypes,
)
from pliant.core.wrapped import refuse_wrapped
from pliant.create import ModelSource, identify, usual_image_size
from pliant.extract import extract, original
from pliant.foreign import recognise
from pliant.own import is_own
from pliant.proof import Unproven, difference
from pliant.repository import fetch, is_repository

__all__ = [
    "CheckpointError",
    "DifferentNetworkError",
    "example_of",
    "is_saved",
    "load",
    "read_info",
    "save",
    "verify_saving",
]

FORMAT = 1
# Longer descriptions of a network are not repeated in a message.
LONGEST_OPTIONS = 120
WEIGHTS = "model.safetensors"
CARD = "pliant.json"
HUB_CARD = "config.json"
LIBRARY = "pliant"


class DifferentNetworkError(CheckpointError):
    """What is made again from a saved file would compute something else than the network that is saved."""


def save(
    model: nn.Module,
    directory: str | os.PathLike[str],
    *,
    only: str | None = None,
    adapted_with: tuple[Config, ...] | None = None,
    anatomy: Anatomy | None = None,
    source: ModelSource | None = None,
    info: Mapping[str, Any] | None = None,
    verify: bool = True,
    example: Any = None,
) -> Path:
    """Save a network so that `load` can make it again, and prove it: before anything is written, it is made again.

    What was made again gets the same weights, and both run on one input: the smallest and the largest sub-network
    have to compute the same. The model keeps no trace of it. The file says whether it was verified.

    Args:
        model: an adapted model, or a plain network that is one sub-network of such a model.
        directory: is made if it is not there; an earlier network in it is replaced as a whole.
        only: for a plain network, which sub-network it is.
        adapted_with: for a plain network, the configs of the adapted model it was extracted from.
        anatomy: for a plain network, what was found in the original model where that took an example.
        source: how to make the original model; none = find out from its structure. A network of your own
            that was adapted with an example needs none; `load` is then given such a network, and nothing is verified.
        info: facts for later commands, such as class names; must fit into JSON. `image_size` is the size of the input
            that is compared.
        verify: whether to prove it, which takes two passes of each of two sub-networks; the memory of the weights is
            shared. A network that takes an input that cannot be made is saved with a warning.
        example: one input of the model to compare with, as for `adapt_`; none = one is made, like the one that it was
            adapted with, or by its first layers. The card says what such inputs are, so that they can be made again.

    Returns:
        The directory.

    Raises:
        ValueError: the model cannot be made again from a name, or is wrapped; or `source` or `info` does not fit into
            JSON; or the model fails on the example.
        DifferentNetworkError: what is made again from the file would compute something else.
        CheckpointError: it could not be written. In all cases what was there before is whole.
    """
    refuse_wrapped(model, "save")
    directory = Path(directory)
    with own_forward(model):
        if isinstance(model, AdaptiveModule):
            to_make_plain(model, "save")
        card = _card(model, only, adapted_with, anatomy, source, info, example)
        card["verified"] = verify and _verified(model, card, found=source is None, example=example)
    tensors = _stored_once(model)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Both files are complete on the disk before the first of them replaces its predecessor.
        with (
            write_atomically(directory / CARD) as card_path,
            write_atomically(directory / WEIGHTS) as weights_path,
        ):
            save_file(tensors, weights_path)
            card_path.write_text(json.dumps(card, indent=2) + "\n")
            # safetensors makes files that only their owner may read; the card has what the user's umask says.
            weights_path.chmod(card_path.stat().st_mode)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot save to {directory}: {error}; what was there before is unchanged") from error
    return directory


def verify_saving(
    model: nn.Module,
    *,
    only: str | None = None,
    adapted_with: tuple[Config, ...] | None = None,
    anatomy: Anatomy | None = None,
    source: ModelSource | None = None,
    info: Mapping[str, Any] | None = None,
    example: Any = None,
) -> None:
    """Find out whether `save` would refuse a network, without writing it: before a long training, say.

    Args:
        model: as for `save`, like all others.
        only: which sub-network a plain network is.
        adapted_with: the configs that it was adapted with.
        anatomy: what was found in its original.
        source: how to make the original.
        info: facts for later commands.
        example: one input.

    Raises:
        ValueError: as `save`.
        DifferentNetworkError: as `save`.
    """
    refuse_wrapped(model, "save")
    with own_forward(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `save` says it
        card = _card(model, only, adapted_with, anatomy, source, info, example)
        _verified(model, card, found=source is None, example=example)


def _card(
    model: nn.Module,
    only: str | None,
    adapted_with: tuple[Config, ...] | None,
    anatomy: Anatomy | None,
    source: ModelSource | None,
    info: Mapping[str, Any] | None,
    example: Any,
) -> dict[str, Any]:
    """What `load` needs besides weights, as it will be read from the file."""
    configs = model.configs if isinstance(model, AdaptiveModule) else adapted_with or ()
    anatomy = model.anatomy if isinstance(model, AdaptiveModule) else anatomy
    traced = anatomy is not None and anatomy.traced
    if source is None:
        plain = original(model) if isinstance(model, AdaptiveModule) else model
        source = identify(plain)
        if source is None and not traced:
            raise ValueError(
                f"save: no library makes a {type(plain).__name__} of this structure from its name alone; "
                "pass source=ModelSource(name=..., options=...)"
            )
    card = {
        "format": FORMAT,
        "versions": versions(),
        "model": source.to_dict() if source else None,
        "adapt": {_key(config): config.to_dict() for config in configs},
        "only": only,
        "info": dict(info or {}),
        "verified": False,  # until it is
    }
    if anatomy is not None and anatomy.traced:
        card["anatomy"] = anatomy.to_dict()
    card |= _example_in(model, example)
    if dtypes := unsaved_dtypes(model):
        card["buffer_dtypes"] = dtypes
    try:
        return json.loads(json.dumps(card))
    except TypeError as error:
        raise ValueError(f"save: source= or info= holds something that does not fit into JSON ({error})") from None


def _example_in(model: nn.Module, example: Any) -> dict[str, Any]:
    """What a card says of the inputs of a network: like the example that it was adapted with, or the one for `save`."""
    if isinstance(model, AdaptiveModule) and model.example_spec is not None:
        known = InputSpec(model.example_spec)
    elif example is not None:
        known = InputSpec(spec_of_example(example))
    else:
        size = model._pliant_adaptation.size if isinstance(model, AdaptiveModule) else None
        return {} if size is None else {"example_size": size}  # of a file that was written before there were examples
    try:
        return {"example": known.to_dict()}
    except TypeError:  # an argument that no file can hold: whoever loads the network has to say it again
        return {}


def example_of(card: Mapping[str, Any]) -> InputSpec | None:
    """Return what a saved network takes, where its card says it.

    Raises:
        CheckpointError: the card is corrupt.
    """
    try:
        return InputSpec.from_dict(card["example"]) if "example" in card else None
    except ValueError as error:
        raise CheckpointError(f"{CARD} is corrupt: {error}") from None


def _verified(model: nn.Module, card: Mapping[str, Any], *, found: bool, example: Any) -> bool:
    """Whether a network made again from its card computes the same; warns where nobody can tell.

    Args:
        model: the network.
        card: of it.
        found: whether its source was found out, or else given.
        example: one input; none = one is made.

    Raises:
        DifferentNetworkError: it computes something else, or cannot be made.
    """
    if card["model"] is None:
        return False  # the caller of `load` passes the network
    source = ModelSource.from_dict(card["model"])
    try:
        lent = _lent(model, card, source)
        if lent is not None and _compared(model, lent, card, example) is None:
            return True
        # Also where a network that was made without memory differs: only one that was made as usual is a proof of that.
        del lent
        try:
            again = _made_again(model, card, source)
        except Exception as error:  # of the library, or of a person's own code
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            reason = f"fails with {kind}{first_line(error)}"
            raise _refusal(source, found, reason, "could not be loaded") from error
        reason = _compared(model, again, card, example)
    except Unproven as error:
        warnings.warn(
            f"save: not verified that {_called(source)} makes this network again: {error}; "
            "pass example=, one input of the model, or verify=False",
            stacklevel=3,
        )
        return False
    if reason is not None:
        raise _refusal(source, found, reason)
    return True


def _compared(model: nn.Module, again: nn.Module, card: Mapping[str, Any], example: Any) -> str | None:
    # The largest sub-network is what a plain call runs, also of a model whose forward was replaced.
    subnets = [None, model.space.smallest] if isinstance(model, AdaptiveModule) else [None]
    size = _size_in(card) or usual_image_size(model)
    return difference(model, again, subnets, size=size, example=example)


def _lent(model: nn.Module, card: Mapping[str, Any], source: ModelSource) -> nn.Module | None:
    """Do as `load`, without memory for weights, and with those of `model`; none where that does not go."""
    tensors = _tensors_of(model)
    try:
        with _without_a_word(), weightless():
            again = _build("the file", card, _named(source))
        _fit(again, tensors, card, "the network", source.name)
        return again.eval() if lend_(again, tensors | _tied(again, tensors), model) else None
    except Exception:  # whatever it is: some networks compute with their weights while they are made
        return None


def _made_again(model: nn.Module, card: Mapping[str, Any], source: ModelSource) -> nn.Module:
    """Do as `load`, with copies of the weights of `model`."""
    tensors = _tensors_of(model)
    with _without_a_word():
        again = _build("the file", card, _named(source))
    _fit(again, tensors, card, "the network", source.name)
    again.load_state_dict(tensors | _tied(again, tensors))
    return again.to(next((tensor.device for tensor in tensors.values()), "cpu")).eval()


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that are saved, without copies."""
    tied = tied_names(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def _named(source: ModelSource) -> ModelSource | None:
    """Code of a person's own is run only if that person names it, as whoever saves it does."""
    return source if is_own(source.name) else None


@contextmanager
def _without_a_word() -> Iterator[None]:
    """Make a network without warnings, which were given when it was made first, and draw no random numbers."""
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _refusal(
    source: ModelSource, found: bool, reason: str, what: str = "would compute something else"
) -> DifferentNetworkError:
    who = "found by its structure" if found else "its source"
    return DifferentNetworkError(
        f"save: the saved network {what}: {_called(source)}, {who}, {reason}; "
        "pass source=ModelSource(name=..., num_classes=..., options={...}) with all that the model was made with, "
        "or name='FILE.py:FUNCTION'; nothing was written"
    )


def _called(source: ModelSource) -> str:
    options = ({"num_classes": source.num_classes} if source.num_classes is not None else {}) | source.options
    text = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{source.name} ({text})" if 0 < len(text) <= LONGEST_OPTIONS else source.name


def load(
    path: str | os.PathLike[str],
    *,
    model: str | ModelSource | nn.Module | None = None,
    ema: bool | None = None,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Load a network that `save` or `push` wrote, or a checkpoint file of other people, on the CPU and in eval mode.

    A file may be one of the ADN authors' checkpoints, which becomes an adapted model, or weights of a network
    of torchvision or timm, which becomes that plain network. Its architecture and number of classes are found
    out. Nothing in a file is ever executed, and no tensor in it is left out.

    Args:
        path: a folder that `save` or `pack` wrote, `hf:USER/NAME` on the Hugging Face Hub or in its cache, a
            `.safetensors` file, or one that `torch.save` wrote.
        model: of a file, which network it is, such as `timm:resnet50d`; needed where several fit. Of a folder
            with a network of your own, its name such as `my_net.py:make_net`, whose code is run only if it
            is named here; or a new network of that kind, which becomes the loaded one.
        ema: of a file, the averaged weights (True), the plain ones (False), or the averaged ones where there
            are any, as is usual for evaluation (None).
        revision: of a network on the Hub, a branch, a tag or a commit; none = the newest.
        dtype: of a folder, the floating point type that its weights get; none = the one that they were saved with.

    Returns:
        The adapted model, or the plain network if one sub-network was saved, or the file is a library's.

    Raises:
        CheckpointError: missing, truncated, corrupt, from a newer version, of an unknown network, or not
            weights alone; on the Hub, no such repository or revision, or it cannot be reached.
    """
    if is_repository(path):
        path = _fetched(path, revision)
    elif revision is not None:
        raise CheckpointError(f"{path} has no revisions; revision= is for networks on the Hub, such as hf:USER/NAME")
    path = Path(path)
    if path.is_file():
        if path.name == WEIGHTS and is_saved(path.parent):
            raise CheckpointError(f"{path} is a part of what pliant saved; load the folder {path.parent}")
        if isinstance(model, nn.Module):
            raise CheckpointError(f"{path} is a file; name its network, such as model='torchvision:resnet50'")
        if dtype is not None:
            raise CheckpointError(f"{path} is a file; dtype= is for folders that pliant saved")
        return recognise(path, model=model, ema=ema).load()
    if ema is not None:
        raise CheckpointError(f"{path} is no file; model= and ema= are for checkpoint files of other people")
    return _load_saved(path, model, dtype)


def _load_saved(directory: Path, given: str | ModelSource | nn.Module | None, dtype: torch.dtype | None) -> nn.Module:
    card = _read_card(directory)
    model = _build(str(directory), card, given)
    weights = directory / WEIGHTS
    try:
        tensors = load_file(weights)
    except FileNotFoundError:
        raise CheckpointError(f"{weights} is missing") from None
    except SafetensorError as error:
        raise CheckpointError(f"{weights} is truncated, corrupt or no safetensors file ({error})") from None
    name = card["model"]["name"] if card["model"] else type(model).__name__
    _fit(model, tensors, card, str(weights), name, as_saved=dtype is None)
    model.load_state_dict(tensors | _tied(model, tensors))
    if dtype not in (None, torch.float32):
        model.to(dtype)
    return model.eval()


def _build(where: str, card: Mapping[str, Any], given: str | ModelSource | nn.Module | None) -> nn.Module:
    """Make the network of a card, without its weights."""
    configs = tuple(AXES[name].from_dict(fields) for name, fields in card["adapt"].items())
    model = _original(where, card, given)
    if configs:
        try:
            anatomy = Anatomy.from_dict(card["anatomy"]) if "anatomy" in card else readers.read(model)
            known = example_of(card)
            example = None if known is None else known.example
            model = adapt_as_(model, anatomy, *configs, size=_size_in(card), example=example)
        except AttributeError as error:  # as torch says that a module is not there
            name = card["model"]["name"] if card["model"] else type(model).__name__
            raise CheckpointError(f"{where} does not fit {name}: {error}") from None
    return extract(model, card["only"], share=True) if card["only"] else model


def _size_in(card: Mapping[str, Any]) -> int | None:
    """Return the size of the inputs of a network, where its card says it."""
    known = example_of(card)
    return card["info"].get("image_size") or (card.get("example_size") if known is None else known.size)


def _fit(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any],
    where: str,
    name: str,
    as_saved: bool = True,
) -> None:
    """Refuse tensors that are not those of a network, and give it their floating point types, in place."""
    problems = misfits(shapes(model.state_dict(), without=tied_names(model)), shapes(tensors))
    if problems:
        raise CheckpointError(f"{where} does not fit {name}: {first_three(problems)}")
    if as_saved and "verified" in card:  # older files are loaded as they always were
        take_dtypes_(model, tensors, card.get("buffer_dtypes", {}))


def _tied(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[first] for name, first in tied_names(model).items()}


def _original(where: str, card: Mapping[str, Any], given: str | ModelSource | nn.Module | None) -> nn.Module:
    """Make the network that was adapted and saved, or take the one that is given."""
    if isinstance(given, nn.Module):
        return given
    saved = ModelSource.from_dict(card["model"]) if card["model"] else None
    if given is not None:
        source = given if isinstance(given, ModelSource) else (saved or ModelSource(name=given)).replace(name=given)
        if not is_own(source.name):
            raise CheckpointError(
                f"{where} is no file; model= is for checkpoint files of other people, and for networks of your own"
            )
        return source.create()
    if saved is None:
        raise CheckpointError(f"{where} holds a network without a name: pass model=, a new network of that kind")
    if is_own(saved.name):
        # A folder may come from anybody, and could name any function of any file.
        raise CheckpointError(
            f"{where} was made by {saved.name}, which is code: it is run only if you name it, "
            f"with model={saved.name!r} or --model {saved.name}"
        )
    return saved.create()


def read_info(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a saved network, in a folder or on the Hub, says of itself: model, adapt, only, versions, info.

    Raises:
        CheckpointError: as `load`.
    """
    if is_repository(directory):
        directory = _fetched_card(directory, None).parent
    return _read_card(Path(directory))


def is_saved(directory: Path) -> bool:
    """Whether a folder holds a network of ours, whole or damaged: a `config.json` may be of another library."""
    try:
        _read_card(directory)
    except CheckpointError:
        return (directory / CARD).is_file()
    return True


def versions() -> dict[str, str]:
    """Versions that a saved file records."""
    return {"pliant": pliant.__version__, "torch": str(torch.__version__)}


def _key(config: Config) -> str:
    return next(name for name, kind in AXES.items() if type(config) is kind)


def _fetched(name: str | os.PathLike[str], revision: str | None) -> Path:
    """Return the folder in the Hub's cache that holds a network."""
    card = _fetched_card(name, revision)
    # Both files of one commit, also if another is pushed in between.
    return fetch(name, WEIGHTS, revision=card.parent.name).parent


def _fetched_card(name: str | os.PathLike[str], revision: str | None) -> Path:
    """Return the card of a network on the Hub; no weights are downloaded where it is none of ours."""
    path = fetch(name, HUB_CARD, revision)
    try:
        _read_card(path.parent)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None
    return path


def _read_card(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is no folder; expected one that pliant saved, with {CARD} and {WEIGHTS}")
    path = next((directory / name for name in (CARD, HUB_CARD) if (directory / name).exists()), None)
    if path is None:
        raise CheckpointError(f"{directory} holds no {CARD} and no {HUB_CARD}: no network was saved there")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt ({error})") from None
    if path.name == HUB_CARD and (not isinstance(card, dict) or card.get("library_name") != LIBRARY):
        raise CheckpointError(f"{path} is not of pliant: it has no library_name {LIBRARY!r}; {directory} has no {CARD}")
    if not isinstance(card, dict) or not isinstance(card.get("format"), int):
        raise CheckpointError(f"{path} is not of pliant: it names no format")
    if card["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {card['format']}, from a newer version; this pliant knows up to {FORMAT}"
        )
    missing = [key for key in ("model", "adapt", "only", "info") if key not in card]
    unknown = [name for name in card.get("adapt", ()) if name not in AXES]
    if missing or unknown:
        raise CheckpointError(f"{path} is corrupt: {'no ' if missing else 'unknown '}{(missing or unknown)[0]!r}")
    return card


def _stored_once(model: nn.Module) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: tied ones under their first name alone, and none a part of another."""
    tied = tied_names(model)
    kept = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    uses = Counter(tensor.untyped_storage().data_ptr() for tensor in kept.values())
    return {
        name: tensor.clone() if uses[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for name, tensor in kept.items()
    }
