import io
import os
import tarfile
import zipfile

import pytest

from pliant.data import archive as archive_module
from pliant.data import load_data

from .conftest import numbers

PARTS = {"train": {"cat": 10, "dog": 10}, "test": {"cat": 2}}


def pack(folder, target):
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as zipped:
            for path in sorted(folder.rglob("*.png")):
                zipped.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(target, "w:" + {"tar": "", "tgz": "gz"}.get(target.suffix[1:], target.suffix[1:])) as tar:
            tar.add(folder, folder.name)
    return target


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "tar.bz2", "tgz", "zip"])
def test_archives_of_every_kind(make_folder, tmp_path, ending):
    archive = pack(make_folder(PARTS), tmp_path / f"some-pets.{ending}")
    data = load_data(archive)
    assert data.name == "some-pets" and (len(data.train), len(data.val), len(data.test)) == (18, 2, 2)
    assert numbers(data, data.test) == [20, 21]


def test_unpacked_once_and_again_when_it_changes(make_folder, tmp_path, monkeypatch, cache):
    archive = pack(make_folder(PARTS), tmp_path / "pets.tar")
    load_data(archive)
    with monkeypatch.context() as patched:
        patched.setattr(archive_module, "_unpack_beside", lambda *paths: pytest.fail("unpacked again"))
        load_data(archive)
    os.utime(archive, (1, 1))
    load_data(archive)
    assert len(list((cache / "unpacked").glob("pets-*[!k]"))) == 2  # and their locks


def malicious_tar(path, member):
    with tarfile.open(path, "w") as tar:
        good = tarfile.TarInfo("pets/train/cat/0.png")
        tar.addfile(good, io.BytesIO())
        tar.addfile(member, io.BytesIO(b"x" * member.size))


def tar_member(name, kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    member.size = 1 if kind == tarfile.REGTYPE else 0
    return member


TAR_MEMBERS = {
    "parent": tar_member("../evil.png"),
    "parent inside": tar_member("pets/../../evil.png"),
    "absolute": tar_member("/evil.png"),
    "windows": tar_member("C:\\evil.png"),
    "symbolic link": tar_member("pets/evil.png", tarfile.SYMTYPE, "../../secret"),
    "hard link": tar_member("pets/evil.png", tarfile.LNKTYPE, "../../secret"),
    "device": tar_member("pets/evil.png", tarfile.CHRTYPE),
}


@pytest.mark.parametrize("case", TAR_MEMBERS)
def test_tar_members_that_escape_are_named_and_nothing_is_left(case, tmp_path, cache):
    member = TAR_MEMBERS[case]
    malicious_tar(tmp_path / "bad.tar", member)
    with pytest.raises(ValueError) as error:
        load_data(tmp_path / "bad.tar")
    message = str(error.value)
    assert repr(member.name) in message and "bad.tar" in message and "\n" not in message
    assert list(tmp_path.rglob("*.png")) == []
    assert [path for path in cache.rglob("*") if path.suffix != ".lock"] == [cache / "unpacked"]


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/evil.png", "..\\evil.png", "C:/evil.png"])
def test_zip_members_that_escape_are_named(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as zipped:
        zipped.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(ValueError, match="would land outside the folder") as error:
        load_data(tmp_path / "bad.zip")
    assert "evil.png" in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.rglob("evil.png")) == []


def test_zip_links_are_named(tmp_path):
    link = zipfile.ZipInfo("pets/evil.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as zipped:
        zipped.writestr(link, "../../secret")
    with pytest.raises(ValueError, match=r"member 'pets/evil.png' is a link"):
        load_data(tmp_path / "bad.zip")


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "zip"])
@pytest.mark.parametrize("damage", ["truncated", "nonsense", "empty"])
def test_damaged_archives_are_one_line(make_folder, tmp_path, cache, ending, damage):
    archive = pack(make_folder(PARTS), tmp_path / f"pets.{ending}")
    whole = archive.read_bytes()
    archive.write_bytes({"truncated": whole[: len(whole) // 2], "nonsense": b"nonsense" * 200, "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"cannot unpack .*pets.*it is damaged") as error:
        load_data(archive)
    assert "\n" not in str(error.value)
    assert [path.name for path in (cache / "unpacked").iterdir() if path.suffix != ".lock"] == []


def test_full_disk_while_unpacking_is_one_line_and_leaves_nothing(make_folder, tmp_path, cache, monkeypatch):
    archive = pack(make_folder(PARTS), tmp_path / "pets.tar")

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "makefile", full)
    with pytest.raises(ValueError, match=r"cannot unpack .*pets.tar into .*: No space left on device"):
        load_data(archive)
    assert [path.name for path in (cache / "unpacked").iterdir() if path.suffix != ".lock"] == []
