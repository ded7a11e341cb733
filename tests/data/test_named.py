import socket

import pytest
import torch

from pliant.data import Augment, load_data
from pliant.data.cache import cache_folder


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_digits_are_real_and_complete(digits):
    assert digits.name == "digits" and digits.class_names == tuple("0123456789") and digits.image_size == 32
    assert len(digits.train) + len(digits.val) + len(digits.test) == 1797
    assert len(digits.test) == 359 and len(digits.val) == 144
    images, labels = next(digits.train.batches(64))
    assert images.shape == (64, 3, 32, 32) and images.dtype == torch.float32
    assert labels.shape == (64,) and labels.dtype == torch.int64
    assert torch.equal(images[:, 0], images[:, 1])


def test_every_digit_has_its_share_in_every_part(digits):
    train, val, test = (torch.bincount(split.labels, minlength=10) for split in (digits.train, digits.val, digits.test))
    whole = train + val + test
    assert ((test - 0.2 * whole).abs() <= 1).all() and ((val - 0.1 * (whole - test)).abs() <= 1).all()


def pixels(split):
    return torch.cat([images for images, _ in split.batches(500)])


def test_no_digit_is_in_two_parts(digits):
    parts = [{image.numpy().tobytes() for image in pixels(split)} for split in (digits.train, digits.val, digits.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797


def test_seed_moves_validation_images_only(digits):
    again, other = load_data("digits", seed=0), load_data("digits", seed=1, val_fraction=0.3)
    assert torch.equal(pixels(again.val), pixels(digits.val))
    assert torch.equal(pixels(other.test), pixels(digits.test))
    assert len(other.val) == 431 and not torch.equal(pixels(other.val)[:144], pixels(digits.val))
    assert other.mean == digits.mean and other.std == digits.std


def test_training_pixels_are_normalised(digits):
    both = torch.cat([pixels(digits.train), pixels(digits.val)])
    assert both.mean().abs() < 1e-4 and (both.std() - 1).abs() < 1e-3


def test_digits_are_not_mirrored_unless_asked(digits):
    plain, _ = next(digits.train.batches(32))
    default, _ = next(digits.train.batches(32, augment=Augment(padding=0)))
    mirrored, _ = next(digits.train.batches(32, augment=Augment(padding=0, flip=True)))
    assert torch.equal(plain, default)
    assert not torch.equal(plain, mirrored)


def test_no_validation_images_on_request():
    data = load_data("digits", val_fraction=0.0)
    assert len(data.val) == 0 and len(data.train) == 1438 and list(data.val.batches(8)) == []


@pytest.mark.parametrize("size", [16, 48])
def test_named_data_in_other_sizes(size):
    data = load_data("digits", image_size=size)
    images, _ = next(data.train.batches(4, augment=Augment()))
    assert data.image_size == size and images.shape == (4, 3, size, size)


def test_cifar_that_is_not_there_is_one_line(cache):
    with pytest.raises(ValueError, match=r"cifar10: not in .*download is off.*put cifar-10-python.tar.gz") as error:
        load_data("cifar10", download=False)
    assert "\n" not in str(error.value) and str(cache) in str(error.value)


def test_cifar_without_a_network_is_one_line(monkeypatch):
    def no_network(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ValueError, match=r"cifar100: not in .* not downloaded .*Name or service not known") as error:
        load_data("cifar100")
    assert "\n" not in str(error.value)
    assert socket.getdefaulttimeout() is None


def test_cifar_comes_as_torchvision_has_it(monkeypatch):
    import numpy
    import torchvision

    class Cifar:
        filename = "cifar-10-python.tar.gz"
        classes = ("plane", "car")

        def __init__(self, root, train, download):
            count = 20 if train else 6
            self.data = numpy.arange(count * 32 * 32 * 3).reshape(count, 32, 32, 3).astype(numpy.uint8)
            self.targets = [number % 2 for number in range(count)]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Cifar)
    data = load_data("cifar10", val_fraction=0.0)
    assert data.name == "cifar10" and data.class_names == ("plane", "car") and data.image_size == 32
    images, labels = next(data.test.batches(6))
    exact = (images * torch.tensor(data.std).view(3, 1, 1) + torch.tensor(data.mean).view(3, 1, 1)) * 255
    assert labels.tolist() == [0, 1] * 3
    assert torch.equal(exact.round().byte(), torch.from_numpy(Cifar("", False, False).data).permute(0, 3, 1, 2))


@pytest.mark.parametrize("named", ["given", "variable", "platform"])
def test_where_the_cache_is(named, tmp_path, monkeypatch):
    monkeypatch.setenv("PLIANT_CACHE", str(tmp_path / "variable"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    if named == "platform":
        monkeypatch.delenv("PLIANT_CACHE")
    found = cache_folder(tmp_path / "given" if named == "given" else None)
    assert found == tmp_path / named if named != "platform" else tmp_path in found.parents and "pliant" in found.parts
