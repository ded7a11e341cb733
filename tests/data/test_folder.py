import os
import re
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from pliant.data import Augment, load_data
from pliant.data import decode as decode_module

from .conftest import numbers

TWO = {"cat": 10, "dog": 20}


def test_train_and_test(make_folder):
    data = load_data(make_folder({"train": TWO, "test": {"cat": 2, "dog": 3}}))
    assert data.name == "pets" and data.class_names == ("cat", "dog") and data.image_size == 8
    assert (len(data.train), len(data.val), len(data.test)) == (27, 3, 5)
    assert torch.bincount(data.val.labels).tolist() == [1, 2]
    assert sorted(numbers(data, data.train) + numbers(data, data.val)) == list(range(30))
    assert numbers(data, data.test) == list(range(30, 35)) and data.test.labels.tolist() == [0, 0, 1, 1, 1]


def test_official_val_alone_is_the_test_part(make_folder):
    data = load_data(make_folder({"train": TWO, "val": {"cat": 2, "dog": 3}}))
    assert numbers(data, data.test) == list(range(30, 35))
    assert len(data.val) == 3 and set(numbers(data, data.val)) < set(range(30))


def test_three_parts_are_what_their_names_say(make_folder):
    data = load_data(make_folder({"train": TWO, "val": {"cat": 1, "dog": 1}, "test": {"dog": 4}}))
    assert (len(data.train), len(data.val), len(data.test)) == (30, 2, 4)
    assert numbers(data, data.val) == [30, 31] and numbers(data, data.test) == [32, 33, 34, 35]
    assert data.test.labels.tolist() == [1] * 4


def test_train_alone_has_no_test_part(make_folder):
    data = load_data(make_folder({"train": TWO}))
    assert data.test is None and len(data.val) == 3


def test_images_keep_their_labels_through_the_cut_and_shuffling(make_folder):
    data = load_data(make_folder({"train": TWO}), val_fraction=0.5)
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    for split in (data.train, data.val):
        for images, labels in split.batches(4, shuffle=True, augment=Augment(padding=0)):
            number = ((images.mean(dim=(2, 3)) * std + mean) * 255).round()[:, 0]
            assert torch.equal(labels, (number >= 10).long())


def test_the_one_folder_inside_is_found(make_folder, tmp_path):
    make_folder({"train": TWO, "test": TWO}, name="outer/inner")
    assert len(load_data(tmp_path / "outer").train) == 27


def test_images_of_several_sizes_are_covered_and_cut(make_folder):
    folder = make_folder({"train": TWO}, size=(20, 10))
    data = load_data(folder)
    assert data.image_size == 10
    wide = Image.new("RGB", (30, 10), (0, 0, 0))
    wide.paste((200, 200, 200), (10, 0, 20, 10))
    wide.save(folder / "train" / "cat" / "0000.png")
    image = next(load_data(folder, val_fraction=0.0).train.batches(1))[0]
    assert image.std(dim=(2, 3)).max() < 1e-5  # the bright middle is all that is left


def test_images_below_class_folders_count_and_other_files_are_counted_and_named(make_folder):
    folder = make_folder({"train": {"cat/images": 4, "dog": 4}})
    strange = {
        "train/cat/boxes.txt": "not named as images",
        "train/cat/images/notes.txt": "not named as images",
        "train/cat/._0000.png": "hidden",
        "train/dog/.ipynb_checkpoints/0000.png": "hidden",
        "train/.cache/0000.png": "hidden",
        "train/stray.png": "outside of the class folders",
    }
    for name in strange:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not an image")
    (folder / "README.md").write_text("beside the parts")
    with pytest.warns(UserWarning, match=f"{folder}: skipped 6 files: ") as warned:
        data = load_data(folder, val_fraction=0.0)
    assert data.class_names == ("cat", "dog") and data.train.labels.tolist() == [0] * 4 + [1] * 4
    (message,) = (str(warning.message) for warning in warned)
    told = {reason: (int(count), path) for count, reason, path in re.findall(r"(\d) ([a-z ]+) \(([^)]*)\)", message)}
    assert {reason: count for reason, (count, _) in told.items()} == Counter(strange.values())
    assert all(strange[str(Path(path).relative_to(folder))] == reason for reason, (_, path) in told.items())


def test_second_start_reads_what_the_first_decoded(make_folder, monkeypatch):
    folder = make_folder({"train": TWO})
    first = load_data(folder)
    with monkeypatch.context() as patched:
        patched.setattr(decode_module, "read_image", lambda *args: pytest.fail("decoded again"))
        assert numbers(first, load_data(folder).train) == numbers(first, first.train)
    Image.new("RGB", (8, 8), (255, 3, 77)).save(folder / "train" / "cat" / "0000.png")
    os.utime(folder / "train" / "cat" / "0000.png", (time.time() + 5,) * 2)
    changed = load_data(folder, val_fraction=0.0)
    assert numbers(changed, changed.train)[0] == 255 + 3 * 256


def test_damaged_cache_is_made_again(make_folder, cache):
    folder = make_folder({"train": TWO})
    first = load_data(folder)
    (stored,) = cache.rglob("*.safetensors")
    whole = stored.read_bytes()
    stored.write_bytes(whole[: len(whole) // 2])
    assert numbers(first, load_data(folder).train) == numbers(first, first.train)
    assert stored.read_bytes() == whole


def test_cache_that_cannot_be_written_is_done_without(make_folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert len(load_data(make_folder({"train": TWO}), cache=tmp_path / "file" / "cache").train) == 27
    assert not list(tmp_path.glob("cache"))


def test_full_disk_leaves_no_broken_cache(make_folder, cache, monkeypatch):
    import safetensors.torch

    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    assert len(load_data(make_folder({"train": TWO})).train) == 27
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize("content", [b"", b"no image at all", None], ids=["empty", "text", "truncated"])
@pytest.mark.parametrize("size", [8, 128])
def test_unreadable_image_is_one_line_with_its_path(make_folder, content, size):
    folder = make_folder({"train": TWO}, size=(64, 64))
    victim = folder / "train" / "dog" / "0013.png"
    Image.effect_noise((64, 64), 90).save(victim)
    victim.write_bytes(victim.read_bytes()[:700] if content is None else content)
    with pytest.raises(ValueError, match="cannot read the image") as error:
        list(load_data(folder, image_size=size, val_fraction=0.0, workers=0).train.batches(8))
    assert str(victim) in str(error.value) and "\n" not in str(error.value)


def test_unreadable_image_in_a_worker_is_one_line(make_folder):
    folder = make_folder({"train": TWO})
    (folder / "train" / "dog" / "0013.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot read the image .*0013.png") as error:
        list(load_data(folder, image_size=100, workers=1).train.batches(8))
    assert "\n" not in str(error.value)


BROKEN = {
    "missing": (None, "no such data; expected digits, cifar10, cifar100, or the path"),
    "empty": ({}, "the folder is empty; expected train/ and test/"),
    "no train": ({"test/cat": 1}, "there is no folder train/ in it; expected train/ and test/"),
    "no class folders": ({"train": 0}, "train: there are no class folders in it"),
    "images without class": ({"train": 2}, "train: there are no class folders in it"),
    "class without images": ({"train/cat": 1, "train/dog": 0}, "dog: the class has no images"),
    "test class without images": ({"train/cat": 1, "test/cat": 0}, "test/cat: the class has no images"),
    "unknown class": (
        {"train/cat": 1, "train/dog": 1, "test/cow": 1},
        "class 'cow' is not in train/, which has 'cat', 'dog'",
    ),
    "two data sets": ({"a/train/cat": 1, "b/train/cat": 1}, r"holds 2 data sets \('a', 'b'\), name one"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_folder_is_one_line(case, tmp_path):
    folders, message = BROKEN[case]
    root = tmp_path / "broken"
    if folders is not None:
        root.mkdir()
    for name, images in (folders or {}).items():
        (root / name).mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (8, 8)).save(root / name / f"{number}.png")
    with pytest.raises(ValueError, match=message) as error:
        load_data(root)
    assert str(root) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes.txt: neither a folder nor an archive \(.tar"):
        load_data(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "option", [{"val_fraction": 1.0}, {"val_fraction": -0.1}, {"image_size": 0}, {"workers": -1}, {"white": 0}], ids=str
)
def test_options_out_of_range_are_named(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"^{name}: got .*expected"):
        load_data("digits", **option)
