"""`pliant push`: a run on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pliant.cli.show import note

__all__ = ["push"]


def push(
    run: Annotated[Path, typer.Argument(help="A run folder, or one that --folder wrote, which goes as it is.")],
    name: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repository; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Only its owners may see the repository.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Write what would be pushed into this new folder instead, and push nothing.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="FILE.py:FUNCTION of a run of your own network.")] = None,
) -> None:
    """Publish a network on the Hugging Face Hub, with a README written from what was measured."""
    from pliant.publish import pack
    from pliant.publish import push as upload

    if folder is not None:
        if private:
            raise ValueError("--private: not with --folder, which pushes nothing")
        print(pack(run, name, folder, model=model))
        note(f"Its README names no license: add one there. Next: pliant push {folder} {name}")
        return
    print(upload(run, name, private=private, model=model))
    note(f'It is loaded with pliant.load("hf:{name.removeprefix("hf:")}").')
