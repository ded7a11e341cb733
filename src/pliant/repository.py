"""Repositories on the Hugging Face Hub: a file is fetched from one, a folder is uploaded to one.

The Hub's own client does the work, with its cache, its token (`hf auth login`) and its environment variables
(`HF_HUB_OFFLINE`, `HF_HUB_CACHE`). Here a name is understood, and errors become one line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pliant.core.errors import first_line
from pliant.core.weights import CheckpointError

__all__ = ["fetch", "is_repository", "repository_id", "upload"]

PREFIX = "hf:"


def is_repository(name: str | os.PathLike[str]) -> bool:
    """Whether a name means a repository, such as `hf:USER/NAME`, and no file or folder."""
    return os.fspath(name).startswith(PREFIX)


def repository_id(name: str | os.PathLike[str]) -> str:
    """Return the Hub's own name, `USER/NAME`, of what may be called `hf:USER/NAME`.

    Raises:
        ValueError: there can be no such repository.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    repository = os.fspath(name).removeprefix(PREFIX)
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"{os.fspath(name)!r} names no repository: {error}") from None
    if "/" not in repository:
        raise ValueError(f"{os.fspath(name)!r} names no repository: expected {PREFIX}USER/NAME")
    return repository


def fetch(name: str | os.PathLike[str], file: str, revision: str | None = None) -> Path:
    """Return where one file of a repository lies in the Hub's cache, having downloaded it if it is new.

    Its folder is called like the commit, and has all other files that were fetched of that commit.

    Args:
        name: `hf:USER/NAME`.
        file: its path in the repository.
        revision: a branch, a tag or a commit; none = the newest.

    Raises:
        ValueError: a name that cannot be one.
        CheckpointError: no such repository, revision or file, or the Hub cannot be reached and it is not in the cache.
    """
    from huggingface_hub import errors, hf_hub_download

    repository = repository_id(name)
    of = f"{name} at {revision!r}" if revision else str(name)
    try:
        return Path(hf_hub_download(repository, file, revision=revision, library_name="pliant"))
    except errors.GatedRepoError:
        reason = f"ask its owners for access at https://huggingface.co/{repository}, and log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = "the Hub shows no such repository; if it is private, log in with `hf auth login`"
    except errors.RevisionNotFoundError:
        reason = "the repository has no such branch, tag or commit"
    except errors.LocalEntryNotFoundError:
        reason = f"the Hub cannot be reached, and its cache on this machine has no {file} of it"
    except errors.EntryNotFoundError:
        reason = f"the repository has no {file}; expected one that `pliant push` filled"
    except OSError as error:
        reason = first_line(error)
    raise CheckpointError(f"{of}: {reason}")


def upload(folder: Path, name: str, files: Sequence[str], *, private: bool = False) -> str:
    """Upload files of a folder to a repository, which is made if it is not there; return its address.

    Args:
        folder: where the files are.
        name: `USER/NAME`.
        files: which files the repository then has of the folder: those that are not in the folder are deleted there.
        private: only its owners may see the repository.

    Raises:
        ValueError: no repository of that name may be made or filled, the Hub cannot be reached, or the repository is
            there and public although `private` is wanted.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    repository = repository_id(name)
    api = HfApi(library_name="pliant")
    try:
        # False would overrule an organization whose repositories are private unless someone says otherwise.
        address = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise ValueError(f"{repository} is there and public: make it private first, or push to another name")
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(files),
            delete_patterns=list(files),
            commit_message="Push a network of pliant",
        )
    # The client raises OSErrors, and what its HTTP library does; which library that is differs between versions.
    except HfHubHTTPError.__bases__ as error:  # type: ignore[misc]
        raise ValueError(f"{repository}: the push failed ({first_line(error)})") from None
    return str(address)
