"""Archives of class folders: unpacked once, into the cache, and never outside it."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from pliant.data.cache import fingerprint, locked

__all__ = ["is_archive", "unpack"]


def is_archive(path: Path) -> bool:
    """Whether the file's name says that it is an archive."""
    name = path.name.lower()
    return path.is_file() and (".tar" in path.suffixes or name.endswith((".tgz", ".txz", ".tbz2", ".zip", ".tar")))


def unpack(archive: Path, cache: Path) -> Path:
    """Return the folder in the cache that holds what is in the archive.

    It is unpacked when it is first asked for, and again when the file's size or date have changed. A folder
    with the final name is always whole: unpacking happens beside it, in a folder that is renamed at the end.

    Raises:
        ValueError: it cannot be read, there is no room, or a member would land outside the folder; names it.
    """
    status = archive.stat()
    key = fingerprint(archive.name, status.st_size, status.st_mtime_ns)
    folder = cache / "unpacked" / f"{archive.name.split('.')[0]}-{key}"
    if folder.is_dir():
        return folder
    try:
        with locked(folder):
            if not folder.is_dir():
                _unpack_beside(archive, folder)
    except OSError as error:
        raise ValueError(f"cannot unpack {archive} into {folder}: {error.strerror or error}") from None
    return folder


def _unpack_beside(archive: Path, folder: Path) -> None:
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        (_unpack_zip if archive.name.lower().endswith(".zip") else _unpack_tar)(archive, beside)
        os.replace(beside, folder)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, lzma.LZMAError, zlib.error):
        raise ValueError(f"cannot unpack {archive}: it is damaged, or not what its name says") from None
    except RuntimeError as error:  # a zip that is encrypted, or compressed in a way unknown to Python
        raise ValueError(f"cannot unpack {archive}: {error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _unpack_tar(archive: Path, folder: Path) -> None:
    def check(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        _refuse_escape(archive, member.name)
        if member.islnk() or member.issym():
            raise ValueError(f"{archive}: member {member.name!r} is a link; links are not unpacked")
        try:
            return tarfile.data_filter(member, path)
        except tarfile.FilterError:
            raise ValueError(f"{archive}: member {member.name!r} is not a plain file or folder") from None

    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter=check)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            _refuse_escape(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"{archive}: member {member.filename!r} is a link; links are not unpacked")
        zipped.extractall(folder)


def _refuse_escape(archive: Path, name: str) -> None:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ValueError(f"{archive}: member {name!r} would land outside the folder; nothing was unpacked")
