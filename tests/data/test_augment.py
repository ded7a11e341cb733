import pytest
import torch
from torchvision.transforms import v2

from pliant.data import Augment, load_data
from pliant.data.autoaugment import BINS, OPERATIONS, RAND, TRIVIAL, auto_augment
from pliant.data.batchwise import crop_and_flip, erase, mix
from pliant.data.decode import to_bytes
from pliant.data.dice import Dice


@pytest.fixture
def images():
    """Smooth and rough ones, dark and bright ones, one of a single colour."""
    generator = torch.Generator().manual_seed(1)
    rough = torch.randint(0, 256, (6, 3, 20, 20), generator=generator, dtype=torch.uint8)
    slope = torch.linspace(10, 200, 400).view(1, 1, 20, 20).expand(4, 3, 20, 20)
    smooth = (slope + 10 * torch.arange(3).view(1, 3, 1, 1)).to(torch.uint8)
    return torch.cat([rough, smooth, rough // 4, torch.full((1, 3, 20, 20), 90, dtype=torch.uint8)])


@pytest.mark.parametrize("flip", [False, True])
def test_crop_is_a_window_of_the_padded_image(images, flip):
    padding = 3
    found = crop_and_flip(images, padding, flip, Dice(len(images), 0, 1, "test"))
    windows_seen, mirrored = set(), 0
    for image, result in zip(images[:6], found[:6], strict=True):
        padded = torch.nn.functional.pad(image, [padding] * 4)
        windows = {
            (y, x, back): window.flip(2) if back else window
            for y in range(7)
            for x in range(7)
            for back in (False, True)
            for window in [padded[:, y : y + 20, x : x + 20]]
        }
        matches = [key for key, window in windows.items() if torch.equal(window, result)]
        assert len(matches) == 1
        windows_seen.add(matches[0][:2])
        mirrored += matches[0][2]
    assert len(windows_seen) > 3
    assert (mirrored > 0) == flip


def test_windows_and_mirrors_come_equally_often():
    column = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 1, 16).expand(20000, 1, 1, 16).contiguous()
    found = crop_and_flip(column, 2, True, Dice(20000, 0, 1, "often"))
    rows_kept = (found.flatten(1).amax(1) > 0).float().mean()
    assert rows_kept == pytest.approx(1 / 5, abs=0.02)  # the one row is in one of five windows
    inside = found[found.flatten(1).amax(1) > 0].flatten(1).int()
    mirrored = inside[:, 8] < inside[:, 7]
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.03)
    left = torch.where(mirrored, inside[:, 7], inside[:, 8]) - 7
    assert (torch.bincount(left, minlength=5) / len(left)).tolist() == pytest.approx([0.2] * 5, abs=0.03)


def test_erased_rectangles(images):
    ones = torch.ones(4000, 3, 32, 32)
    erased = erase(ones, 0.25, Dice(4000, 0, 1, "erase")) == 0
    assert torch.equal(erased[:, 0], erased[:, 2])
    hit = erased[:, 0].flatten(1).any(1)
    assert hit.float().mean() == pytest.approx(0.25, abs=0.03)
    for mask in erased[hit][:200, 0]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask.sum() == len(rows) * len(columns)  # one full rectangle
        assert rows[-1] - rows[0] + 1 == len(rows) and columns[-1] - columns[0] + 1 == len(columns)
        assert 0.015 < mask.float().mean() < 0.36 and 0.2 < len(rows) / len(columns) < 5
    shares = erased[hit][:, 0].float().mean((1, 2))
    assert shares.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)


def test_mixed_images_have_labels_in_the_same_proportion():
    labels = torch.arange(6)
    colours = torch.eye(6)[:, :, None, None].expand(6, 6, 16, 16).contiguous()  # channel c shows class c
    for augment in (Augment(mixup=1.0), Augment(cutmix=1.0)):
        images, soft = mix(colours, labels, augment, 6, Dice(6, 0, 1, "mix"))
        assert soft.shape == (6, 6) and torch.allclose(soft.sum(1), torch.ones(6))
        assert torch.allclose(images.mean((2, 3)), soft, atol=1e-5)
        assert 0 < soft.max(1).values.min() < 1
        blended = ((images > 0) & (images < 1)).any()
        assert blended == (augment.mixup > 0)


def test_share_of_mixed_batches_and_choice_between_two():
    images, labels = torch.eye(4)[:, :, None, None].expand(4, 4, 8, 8).contiguous(), torch.arange(4)
    kinds = {"plain": 0, "mixup": 0, "cutmix": 0}
    for number in range(400):
        augment = Augment(mixup=1.0, cutmix=1.0, mix_probability=0.5)
        mixed, soft = mix(images, labels, augment, 4, Dice(4, 0, 1, number))
        whole = torch.equal(mixed, images)
        kinds["plain" if whole else "mixup" if ((mixed > 0) & (mixed < 1)).any() else "cutmix"] += 1
        assert soft.shape == (4, 4)
    assert kinds["plain"] == pytest.approx(205, abs=45)  # a cut of no size is plain too
    assert kinds["mixup"] == pytest.approx(100, abs=35) and kinds["cutmix"] == pytest.approx(95, abs=35)


def test_repeated_images_are_not_mixed_with_themselves():
    data = load_data("digits")
    found = data.train.batches(96, augment=Augment(mixup=1.0, repeats=3, padding=0), shuffle=True)
    sharp = torch.cat([soft for _, soft in found]).max(1).values == 1
    assert sharp.float().mean() < 0.3  # neighbours would give two thirds, chance gives a tenth for equal digits


@pytest.mark.parametrize("space", [TRIVIAL, RAND], ids=["trivial", "rand"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_torchvision_image_by_image(images, space, name):
    theirs = v2.TrivialAugmentWide() if space is TRIVIAL else v2.RandAugment()
    magnitudes, signed = theirs._AUGMENTATION_SPACE[name]
    values = magnitudes(BINS, 20, 20)
    assert space[name].signed == signed and (values is None) == (space[name].values is None)
    for place in range(0, BINS, 3):
        for sign in (1, -1) if signed else (1,):
            strength = 0.0 if values is None else float(values[place]) * sign
            apply = theirs._apply_image_or_video_transform
            expected = torch.stack([apply(i, name, strength, v2.InterpolationMode.NEAREST, {}) for i in images])
            ours = 0.0 if values is None else float(space[name].values[place]) * sign
            ours = ours * 20 if space[name].per_width else ours
            found = OPERATIONS[name](images, torch.full((len(images),), ours))
            differ = (found.int() - expected.int()).abs()
            # rounding may move a pixel that lies exactly between two, or a shade by one
            assert (differ > 1).float().mean() < 0.005, (place, sign)


@pytest.mark.parametrize("auto", ["trivial", "rand"])
def test_each_image_gets_a_choice_of_its_own(auto):
    image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = auto_augment(image.expand(200, -1, -1, -1), Augment(auto=auto), Dice(200, 0, 1, auto))
    different = {result.numpy().tobytes() for result in found}
    assert len(different) > 60
    unchanged = (found == image).flatten(1).all(1).float().mean()
    assert unchanged < 0.3


@pytest.mark.parametrize("auto", ["trivial", "rand"])
def test_large_images_get_torchvisions_own(make_folder, auto):
    data = load_data(make_folder({"train": {"cat": 4, "dog": 4}}), image_size=100, workers=0, val_fraction=0.0)
    plain, _ = next(data.train.batches(8, augment=Augment()))
    varied, _ = next(data.train.batches(8, augment=Augment(auto=auto, rand_ops=3, rand_magnitude=20)))
    assert not torch.equal(plain, varied)


def test_centre_of_a_large_image_is_what_the_network_is_tested_on(tmp_path):
    from PIL import Image

    image = Image.new("RGB", (512, 256), (0, 0, 0))
    image.paste((255, 255, 255), (256 - 112, 16, 256 + 112, 240))
    for name in ("train/a", "train/b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        image.save(tmp_path / "set" / name / "0.png")
    data = load_data(tmp_path / "set", workers=0)
    white, _ = next(data.train.batches(1))
    assert data.image_size == 224 and data.mean == (0.485, 0.456, 0.406)
    assert white.shape == (1, 3, 224, 224) and white.std(dim=(2, 3)).max() < 1e-5


def test_the_recipe_says_how_large_images_are_scaled(make_folder):
    """Before the middle is cut out: to 256/224 of the size, or to what is asked for; in one way or the other."""
    from PIL import Image

    folder = make_folder({"train": {"cat": 1, "dog": 1}}, size=(150, 120), rough=True)
    with Image.open(folder / "train" / "cat" / "0000.png") as file:
        picture = file.convert("RGB")

    def expected(side: int, mode: Image.Resampling) -> torch.Tensor:
        scaled = picture.resize((side * 150 // 120, side), mode)
        left, top = round((scaled.width - 100) / 2), round((side - 100) / 2)
        return to_bytes(scaled.crop((left, top, left + 100, top + 100)))

    def seen(**options) -> torch.Tensor:
        data = load_data(folder, image_size=100, workers=0, val_fraction=0.0, **options)
        images, _ = next(data.train.batches(1))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
        return ((images[0] * std + mean) * 255).round().byte()

    assert torch.equal(seen(), expected(114, Image.Resampling.BILINEAR))
    assert torch.equal(seen(resize=100), expected(100, Image.Resampling.BILINEAR))
    assert torch.equal(seen(resize=110, interpolation="bicubic"), expected(110, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("options", [{"resize": 99}, {"interpolation": "nearest"}])
def test_impossible_scaling_is_named(make_folder, options):
    folder = make_folder({"train": {"cat": 1, "dog": 1}})
    with pytest.raises(ValueError, match=rf"^{next(iter(options))}: got .*expected"):
        load_data(folder, image_size=100, **options)


@pytest.mark.parametrize("image_size", [16, 100])
def test_training_may_see_smaller_squares_than_the_validation(make_folder, image_size):
    data = load_data(make_folder({"train": {"cat": 4, "dog": 4}}, size=(120, 120)), image_size=image_size, workers=0)
    images, _ = next(data.train.batches(4, augment=Augment(crop=12, mixup=0.2, erase=0.5)))
    assert images.shape == (4, 3, 12, 12)
    images, _ = next(data.val.batches(2))
    assert images.shape[-2:] == (image_size, image_size)


def test_operations_on_large_images_scale_as_everything_else_does(make_folder):
    folder = make_folder({"train": {"cat": 4, "dog": 4}}, size=(120, 120), rough=True)
    turned = {}
    for mode in ("bilinear", "bicubic"):
        data = load_data(folder, image_size=100, interpolation=mode, workers=0, val_fraction=0.0)
        turned[mode], _ = next(data.train.batches(8, augment=Augment(auto="trivial")))
    assert not torch.equal(turned["bilinear"], turned["bicubic"])


BAD = {
    "crop": 0,
    "padding": -1,
    "scale": [0.5, 0.2],
    "auto": "triviall",
    "rand_ops": 0,
    "rand_magnitude": 31,
    "erase": 1.5,
    "mixup": -1,
    "cutmix": float("nan"),
    "mix_probability": 2,
    "repeats": 0,
}


@pytest.mark.parametrize("name", BAD)
def test_settings_out_of_range_are_named(name):
    with pytest.raises(ValueError, match=rf"^Augment\.{name}: got .*expected"):
        Augment(**{name: BAD[name]})


def test_settings_come_back_from_a_file():
    augment = Augment(padding=2, scale=(0.1, 0.9), flip=False, auto="rand", erase=0.1, mixup=0.2, repeats=3)
    assert Augment.from_dict(augment.to_dict()) == augment
