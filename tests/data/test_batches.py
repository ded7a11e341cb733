import pytest
import torch

from pliant.data import Augment, load_data

from .conftest import numbers

ALL = Augment(erase=0.5, auto="trivial", flip=True)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture
def large(make_folder):
    folder = make_folder({"train": {"cat": 15, "dog": 15}}, size=(120, 100), rough=True)
    return load_data(folder, image_size=100, val_fraction=0.5, workers=0)


def epoch(split, batch_size=32, **options):
    return list(split.batches(batch_size, **options))


def equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(first, second, strict=True)
    )


MIXES = Augment(mixup=0.5, cutmix=1.0, mix_probability=0.8, repeats=2)
VARIANTS = [None, Augment(), ALL, Augment(auto="rand"), MIXES]


@pytest.mark.parametrize("augment", VARIANTS, ids=range(len(VARIANTS)))
@pytest.mark.parametrize("which", ["digits", "large"])
def test_same_arguments_give_the_same_batches_and_others_do_not(which, augment, request):
    split = request.getfixturevalue(which).val
    options = {"augment": augment, "shuffle": True, "seed": 3, "epoch": 1}
    first = epoch(split, **options)
    torch.rand(5)  # whatever else happens in between
    assert equal(first, epoch(split, **options))
    assert not equal(first, epoch(split, **options | {"epoch": 2}))
    assert not equal(first, epoch(split, **options | {"seed": 4}))


@pytest.mark.parametrize("which", ["digits", "large"])
def test_loading_leaves_the_global_randomness_alone(which, request):
    split = request.getfixturevalue(which).val
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    epoch(split, 8, augment=MIXES.replace(auto="trivial", erase=0.5), shuffle=True)
    assert torch.equal(torch.rand(3), untouched)


@pytest.mark.parametrize("augment", [None, ALL], ids=["plain", "varied"])
@pytest.mark.parametrize("which", ["digits", "large"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_see_the_epoch_of_one(which, augment, world_size, request):
    split = request.getfixturevalue(which).val
    options = {"augment": augment, "shuffle": True, "epoch": 5}
    one = epoch(split, 4 * world_size, **options)
    several = [epoch(split, 4, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    for step, (images, labels) in enumerate(one):
        for rank in range(world_size):
            if step < len(several[rank]):
                assert torch.equal(several[rank][step][0], images[rank::world_size])
                assert torch.equal(several[rank][step][1], labels[rank::world_size])
    assert sum(len(labels) for batches in several for _, labels in batches) == len(split)


def test_only_the_last_batch_may_be_short(digits):
    assert [len(labels) for _, labels in epoch(digits.val, 50)] == [50, 50, 44]
    assert [len(labels) for _, labels in epoch(digits.val, 50, drop_last=True)] == [50, 50]
    shares = [epoch(digits.val, 25, drop_last=True, rank=rank, world_size=2) for rank in (0, 1)]
    assert [[len(labels) for _, labels in batches] for batches in shares] == [[25, 25], [25, 25]]


def test_order_without_and_with_shuffling(make_folder):
    data = load_data(make_folder({"train": {"cat": 40, "dog": 40}}), val_fraction=0.0)
    assert numbers(data, data.train) == list(range(80))
    labels = torch.cat([labels for _, labels in epoch(data.train, shuffle=True)])
    assert not torch.equal(labels, data.train.labels) and torch.bincount(labels).tolist() == [40, 40]


def test_subset_keeps_images_and_labels_together(make_folder):
    for size in (8, 100):
        data = load_data(make_folder({"train": {"cat": 9, "dog": 9}}, name=f"pets{size}"), image_size=size, workers=0)
        some = data.train.subset(torch.tensor([14, 1, 3]))
        every = epoch(data.train, 100)[0]
        images, labels = epoch(some)[0]
        assert len(some) == 3 and torch.equal(labels, every[1][[14, 1, 3]])
        assert torch.equal(images, every[0][[14, 1, 3]])


def test_layout_and_type(digits):
    plain, _ = next(digits.val.batches(8))
    last, _ = next(digits.val.batches(8, channels_last=True))
    half, _ = next(digits.val.batches(8, dtype=torch.bfloat16))
    assert plain.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last) and torch.equal(half, plain.bfloat16())


def test_each_image_comes_as_often_as_asked_and_varied_differently(digits):
    images, labels = epoch(digits.train, 6, augment=Augment(repeats=3), shuffle=True)[0]
    assert labels[:3].unique().numel() == labels[3:].unique().numel() == 1
    assert not torch.equal(images[0], images[1])
    whole = torch.cat([labels for _, labels in epoch(digits.train, augment=Augment(repeats=3), shuffle=True)])
    assert len(whole) == len(digits.train)


def test_repeats_are_ordered_as_timm_orders_them(digits):
    from timm.data.distributed_sampler import RepeatAugSampler

    split = digits.val
    for rank in (0, 1):
        sampler = RepeatAugSampler(split, num_replicas=2, rank=rank, shuffle=False, num_repeats=3, selected_round=0)
        ours = epoch(split, 8, augment=Augment(repeats=3), rank=rank, world_size=2)
        assert torch.equal(torch.cat([labels for _, labels in ours]), split.labels[list(sampler)])


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"batch_size": 8, "rank": 2, "world_size": 2}, {"batch_size": 8, "rank": -1}],
    ids=str,
)
def test_numbers_out_of_range_are_named(digits, options):
    with pytest.raises(ValueError, match=r"^(batch_size|rank): got"):
        next(digits.train.batches(**options))


def test_workers_do_not_change_the_batches(make_folder):
    folder = make_folder({"train": {"cat": 12, "dog": 12}}, size=(120, 100), rough=True)
    options = {"augment": Augment(auto="trivial", erase=0.5), "shuffle": True}
    alone, helped = (epoch(load_data(folder, workers=n).train, 5, **options) for n in (0, 2))
    assert alone[0][0].shape == (5, 3, 224, 224)
    assert equal(alone, helped)


@pytest.mark.gpu
def test_batches_are_the_same_on_a_gpu(digits):
    options = {"augment": ALL, "shuffle": True}
    for (ours, labels), (theirs, gpu_labels) in zip(
        epoch(digits.train, **options), epoch(digits.train, device="cuda", **options), strict=True
    ):
        assert theirs.device.type == "cuda" and torch.equal(labels, gpu_labels.cpu())
        assert torch.allclose(ours, theirs.cpu(), atol=2 / 255 / min(digits.std))


@pytest.mark.parametrize("which", ["digits", "large"])
def test_views_are_the_same_images_varied_in_ways_of_their_own(which, request):
    split = request.getfixturevalue(which).val
    options = {"augment": Augment(padding=4), "shuffle": True}
    one, first, second = (epoch(split, view=view, **options) for view in (None, 1, 2))
    for (images, labels), (again, same) in zip(first, second, strict=True):
        assert torch.equal(labels, same)
        assert (images != again).flatten(1).any(1).float().mean() > 0.9
    assert equal(second, epoch(split, view=2, **options))
    assert not equal(one, first) and not equal(one, second)


@pytest.mark.parametrize("which", ["digits", "large"])
def test_views_are_mixed_with_the_same_partners_in_the_same_ratio(which, request):
    split = request.getfixturevalue(which).val
    options = {"augment": MIXES.replace(padding=0, scale=(1.0, 1.0), flip=False), "shuffle": True, "batch_size": 6}
    first, second = (epoch(split, view=view, **options) for view in (1, 2))
    for (_, labels), (_, same) in zip(first, second, strict=True):
        assert torch.equal(labels, same)
    if which == "digits":  # nothing varies them, so that what is mixed must be equal too
        assert equal(first, second)
