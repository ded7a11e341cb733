"""What lies in a folder of class folders: parts, classes, images; and what is wrong with it, in one line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EXTENSIONS", "Listing", "Part", "list_folder"]

EXTENSIONS = tuple(".apng .avif .bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pfm .pgm .png .pnm .ppm .tif .tiff .webp".split())
HIDDEN = (".", "__MACOSX")
EXPECTED = "expected train/ and test/ (or val/), each with one folder of images per class"


@dataclass(frozen=True)
class Part:
    """The images of one part.

    Attributes:
        files: the images.
        labels: the class of each.
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Skipped:
    """A file that is no image of the data set.

    Attributes:
        path: of the file.
        reason: why it is skipped, as one says it of several.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Listing:
    """A folder of class folders.

    Attributes:
        root: the folder that holds train/.
        class_names: in alphabetical order.
        parts: `train`; `test`, if there are images that choose nothing; `val`, if the folder sets images apart for
            validation, else they are to be cut from the training part.
        skipped: files in the parts that are not images of a class.
    """

    root: Path
    class_names: tuple[str, ...]
    parts: dict[str, Part]
    skipped: tuple[Skipped, ...]

    @property
    def count(self) -> int:
        """Images in all parts."""
        return sum(len(part.files) for part in self.parts.values())

    def what_was_skipped(self) -> str:
        """Count the skipped files by reason, each with the path of one."""
        examples = {skipped.reason: skipped.path for skipped in reversed(self.skipped)}
        counts = Counter(skipped.reason for skipped in self.skipped)
        reasons = [f"{count} {reason} ({examples[reason]})" for reason, count in counts.most_common()]
        return f"skipped {len(self.skipped)} {'file' if len(self.skipped) == 1 else 'files'}: {', '.join(reasons)}"

    def identity(self) -> list[tuple[str, str, int, int]]:
        """Part, path, size and date of every file: what changes when an image does."""
        found = []
        for name, part in self.parts.items():
            for path in part.files:
                status = path.stat()
                found.append((name, str(path), status.st_size, status.st_mtime_ns))
        return found


def list_folder(root: Path) -> Listing:
    """Find the parts, classes and images of a folder.

    With train/, val/ and test/, each is what its name says. With val/ alone next to train/, the official
    validation images are the only ones held out: they serve as test images, so that nothing is chosen on them.

    Args:
        root: a folder with train/, or one that holds exactly one such folder.

    Raises:
        ValueError: no such folder, nothing in it, or classes and parts that do not fit together.
    """
    root = _find_root(root)
    class_names = tuple(_class_folders(root / "train"))
    found = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    skipped: list[Skipped] = []
    parts = {name: _list_part(root / name, class_names, skipped) for name in found}
    if "val" in parts and "test" not in parts:
        parts["test"] = parts.pop("val")
    return Listing(root, class_names, parts, tuple(skipped))


def _find_root(root: Path) -> Path:
    if not root.exists():
        raise ValueError(f"{root}: no such folder")
    if not root.is_dir():
        raise ValueError(f"{root}: neither a folder nor an archive (.tar, .tar.gz, .tar.xz, .tar.bz2, .tgz or .zip)")
    if (root / "train").is_dir():
        return root
    folders = _subfolders(root)
    found = [root / name for name in folders if (root / name / "train").is_dir()]
    if len(found) == 1:
        return found[0]
    if found:
        names = _some([path.name for path in found])
        raise ValueError(f"{root}: holds {len(found)} data sets ({names}), name one of them")
    if not folders and not any(root.iterdir()):
        raise ValueError(f"{root}: the folder is empty; {EXPECTED}")
    raise ValueError(f"{root}: there is no folder train/ in it; {EXPECTED}")


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(HIDDEN))


def _class_folders(part: Path) -> list[str]:
    names = _subfolders(part)
    if not names:
        raise ValueError(f"{part}: there are no class folders in it; {EXPECTED}")
    return names


def _list_part(part: Path, class_names: Sequence[str], skipped: list[Skipped]) -> Part:
    """List the images of a part; what is not one is added to `skipped`."""
    names = _class_folders(part)
    strange = [name for name in names if name not in class_names]
    if strange:
        raise ValueError(f"{part}: class {_some(strange)} is not in train/, which has {_some(class_names)}")
    images = _list_images(part, names, skipped)
    files: list[Path] = []
    labels: list[int] = []
    for name in names:
        if not images[name]:
            raise ValueError(f"{part / name}: the class has no images ({' '.join(EXTENSIONS)})")
        files += sorted(images[name])  # an order that is the same everywhere
        labels += [class_names.index(name)] * len(images[name])
    return Part(tuple(files), tuple(labels))


def _list_images(part: Path, class_names: Sequence[str], skipped: list[Skipped]) -> dict[str, list[Path]]:
    """Return the images in each class folder and below it."""
    images: dict[str, list[Path]] = {name: [] for name in class_names}
    for directory, names in _walk(part):
        folders = Path(directory).relative_to(part).parts
        for name in names:
            path, reason = Path(directory, name), _why_skipped(folders, name)
            if not reason and path.exists() and not path.is_file():
                reason = "no regular file"
            if reason:
                skipped.append(Skipped(path, reason))
            else:
                images[folders[0]].append(path)
    return images


def _walk(part: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder in `part` with the names of its files; links are followed, but not back up.

    Raises:
        ValueError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be read: {error.strerror}") from None

    for directory, folders, names in os.walk(part, followlinks=True, onerror=refuse):
        above = {os.path.realpath(parent) for parent in (Path(directory), *Path(directory).parents)}
        folders[:] = [name for name in folders if os.path.realpath(Path(directory, name)) not in above]
        yield directory, names


def _why_skipped(folders: tuple[str, ...], name: str) -> str:
    """Return why a file in these folders of a part is not an image of the data set; empty if it is one."""
    if any(part.startswith(HIDDEN) for part in (*folders, name)):
        return "hidden"
    if not name.lower().endswith(EXTENSIONS):
        return "not named as images"
    return "" if folders else "outside of the class folders"


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
