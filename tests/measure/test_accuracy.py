import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from pliant.measure.accuracy import measure_accuracy


def logits_for(labels: torch.Tensor, classes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(len(labels), classes, generator=generator)
    logits[::2].scatter_(1, labels[::2, None], 9.0)
    return logits


def table(split, logits):
    """A network that looks its answer up by the first pixel of an image, which is its index."""
    split.images[:, 0, 0, 0] = torch.arange(len(split))
    return lambda images: logits[images[:, 0, 0, 0].long()]


def test_top_1_and_top_5_agree_with_another_library(data):
    logits = logits_for(data.test.labels, 10)
    result = measure_accuracy({"net": table(data.test, logits)}, data.test, 10, batch_size=5)
    for key, k in (("acc1", 1), ("acc5", 5)):
        expected = 100 * top_k_accuracy_score(data.test.labels, logits, k=k, labels=range(10))
        assert result["net"][key] == pytest.approx(expected)


def test_networks_are_measured_side_by_side(data):
    right = torch.nn.functional.one_hot(data.test.labels, 10).float()
    networks = {"right": table(data.test, right), "wrong": table(data.test, -right)}
    result = measure_accuracy(networks, data.test, 10)
    assert result["right"] == {"acc1": 100.0, "acc5": 100.0}
    assert result["wrong"]["acc1"] == 0.0


@pytest.mark.parametrize(("classes", "keys"), [(5, {"acc1"}), (6, {"acc1", "acc5"})])
def test_top_5_is_left_out_below_six_classes(data, classes, keys):
    data.test.labels %= classes
    result = measure_accuracy({"net": lambda images: torch.randn(len(images), classes)}, data.test, classes)
    assert set(result["net"]) == keys


def test_an_answer_that_is_no_number_is_wrong(data):
    right = torch.nn.functional.one_hot(data.test.labels, 10).float()
    right[:3] = torch.nan
    result = measure_accuracy({"net": table(data.test, right)}, data.test, 10, batch_size=4)
    assert result["net"]["acc1"] == pytest.approx(100 * 9 / 12)
    result = measure_accuracy({"net": table(data.test, right * torch.nan)}, data.test, 10)
    assert result["net"] == {"acc1": 0.0, "acc5": 0.0}


def test_another_number_of_classes_is_refused(data):
    message = "the network has 7 outputs, but the data has 10 classes"
    with pytest.raises(ValueError, match=message):
        measure_accuracy({"net": lambda images: torch.zeros(len(images), 7)}, data.test, 10)


@pytest.mark.parametrize("shape", [(1,), ()])
def test_one_logit_says_yes_to_the_second_of_two_classes(data, shape):
    data.test.labels %= 2
    logits = (2.0 * data.test.labels - 1).reshape(-1, *shape)
    logits[:3] *= -1
    result = measure_accuracy({"net": table(data.test, logits)}, data.test, 2)
    assert result["net"]["acc1"] == pytest.approx(100 * 9 / 12)


@pytest.mark.parametrize(("shape", "outputs"), [((10, 4, 4), "10 x 4 x 4"), ((1,), "1"), ((), "1")])
def test_outputs_that_do_not_classify_are_refused(data, shape, outputs):
    with pytest.raises(ValueError, match=f"the network has {outputs} outputs, but the data has 10 classes"):
        measure_accuracy({"net": lambda images: torch.zeros(len(images), *shape)}, data.test, 10)


def test_an_empty_split_is_refused(data):
    data.test.images, data.test.labels = data.test.images[:0], data.test.labels[:0]
    with pytest.raises(ValueError, match="no images"):
        measure_accuracy({}, data.test, 10)
