"""Where the phases of a training are kept, and what of them is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pliant.checkpoint import WEIGHTS
from pliant.train.callbacks import LAST
from pliant.train.files import read_state, remove_leftovers, write_file
from pliant.train.recipe import Recipe, phase_folder

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["PhaseRun", "check_folders", "facts_of", "first_to_run", "phase_runs", "refuse_other_data"]

RECIPE = "recipe.yaml"
RECALIBRATION = "recalibration.safetensors"


@dataclass(frozen=True)
class PhaseRun:
    """One phase of a training; most have only one.

    Attributes:
        recipe: of this phase alone.
        whole: of the whole training.
        out: the run folder.
        folder: of this phase: the last one's is the run folder, the others lie in it.
        name: `phase 1 of 2`; empty where there is one.
    """

    recipe: Recipe
    whole: Recipe
    out: Path
    folder: Path
    name: str

    @property
    def checkpoint(self) -> Path:
        """From which an interrupted phase goes on."""
        return self.folder / LAST

    @property
    def recalibration(self) -> Path:
        """What there is of norm statistics while they are taken anew."""
        return self.folder / RECALIBRATION

    @property
    def has_network(self) -> bool:
        """Whether the phase was finished: its network is saved after its last epoch."""
        return (self.folder / WEIGHTS).exists()

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            ValueError: that cannot be done.
        """
        for folder, recipe in {self.folder: self.recipe, self.out: self.whole}.items():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"cannot make the folder {folder}: {error.strerror}") from None
            for name in (LAST, RECALIBRATION):
                remove_leftovers(folder / name)
            write_file(folder / RECIPE, recipe.to_yaml().encode())


def phase_runs(recipe: Recipe, out: Path) -> list[PhaseRun]:
    """Return the phases of a training, in their order."""
    count = len(recipe.phases)
    runs = []
    for number, phase in enumerate(recipe.phases, start=1):
        folder = out if number == count else out / phase_folder(number)
        if runs:
            phase = phase.replace(model=phase.model.replace(start_from=str(runs[-1].folder)))
        runs.append(PhaseRun(phase, recipe, out, folder, f"phase {number} of {count}" if count > 1 else ""))
    return runs


def check_folders(out: Path, recipe: Recipe, resume: bool) -> list[tuple[Path, Mapping[str, Any]]]:
    """Refuse to overwrite a training, and to go on with another one.

    Returns:
        The folder and the record of every checkpoint that is there.

    Raises:
        ValueError: it is refused.
        CheckpointError: a checkpoint is damaged.
    """
    folders = [*sorted(out.glob(phase_folder("*"))), out]
    if not resume:
        found = [(folder, name) for folder in folders for name in (LAST, WEIGHTS) if (folder / name).exists()]
        for folder, name in found:
            raise ValueError(f"{folder} holds a training already ({name}); resume it, or choose another folder")
    records = [(folder, read_state(folder / LAST)["pliant"]) for folder in folders if (folder / LAST).exists()]
    for _, record in records:
        changes = Recipe.from_dict(record["recipe"]).differences(recipe)
        if changes:
            told = "; ".join(f"{name} was {old!r}, is {new!r}" for name, (old, new) in changes.items())
            raise ValueError(f"cannot resume {out} with another recipe: {told}")
    return records


def first_to_run(runs: Sequence[PhaseRun]) -> int:
    """Return the place of the phase with which a training goes on: the first behind all that are finished."""
    first = 0
    for place, run in enumerate(runs):
        if run.checkpoint.exists():
            first = place
        if run.has_network and run is not runs[-1]:
            first = place + 1
    return first


def facts_of(data: ImageData) -> dict[str, Any]:
    """What must be the same for a training to go on."""
    return {
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "training images": len(data.train),
        "validation images": len(data.val),
    }


def refuse_other_data(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other data than a training began with; both are what `facts_of` gives."""
    unsaid = [name for name in now if name not in before]
    if unsaid:
        raise ValueError(
            f"cannot resume {out}: its checkpoint, of an early version of pliant, does not say the {', '.join(unsaid)} "
            "of its data; train anew in another folder"
        )
    changes = [f"{name} was {before[name]!r}, is {now[name]!r}" for name in now if before[name] != now[name]]
    if changes:
        raise ValueError(f"cannot resume {out} with other data: {'; '.join(changes)}")
