"""Who is sure enough: measures of confidence, and policies over any ordered sub-networks."""

from __future__ import annotations

import json
import math

import pytest
import torch

from pliant.policy.certainty import MEASURES, confidence_of
from pliant.policy.confidence import ConfidencePolicy
from pliant.policy.fit import anytime_rows, budgeted_row, budgets_between, fit_policies

SUBNETS, COSTS, CLASSES = ("exit=1", "exit=2", "exit=3"), (1.0, 2.0, 4.0), 4
CASCADE = ("TTT", "TFF", "FFF")


def answers(inputs: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (inputs,), generator=generator)
    signal = torch.tensor([0.5, 1.0, 2.0])[:, None, None] * torch.nn.functional.one_hot(labels, CLASSES)
    return signal + torch.randn(3, inputs, CLASSES, generator=generator), labels


def fit(**changes):
    logits, labels = answers()
    options = {"subnets": SUBNETS, "costs": COSTS, "budgets": [1.5, 2.5], **changes}
    return fit_policies(options.pop("logits", logits), options.pop("labels", labels), **options)


def test_measures_are_what_they_are_called():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 1.0, 0.0, -1.0], [50.0, 0.0, 0.0, 0.0]])
    probabilities = logits.double().softmax(dim=1)
    largest = probabilities.sort(dim=1, descending=True).values
    entropies = -(probabilities * probabilities.log()).sum(dim=1)
    expected = {
        "max_softmax": largest[:, 0],
        "entropy": 1 - entropies / math.log(4),
        "margin": largest[:, 0] - largest[:, 1],
    }
    assert set(expected) == set(MEASURES)
    for measure, values in expected.items():
        torch.testing.assert_close(confidence_of(logits, measure), values.float(), atol=1e-6, rtol=1e-5)
        halved = confidence_of(logits, measure, temperature=2.0)
        torch.testing.assert_close(halved, confidence_of(logits / 2, measure))
        assert confidence_of(logits.bfloat16(), measure).dtype == torch.float32
    assert confidence_of(logits, "entropy")[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("subnets", [SUBNETS, CASCADE])
def test_the_first_that_is_sure_enough_answers(measure, calibrate, subnets):
    policy = fit(measure=measure, calibrate=calibrate, subnets=subnets)[1]
    logits, _ = answers(inputs=50, seed=1)
    given, chosen = policy.apply(logits)
    temperatures = policy.temperatures or (1.0,) * 3
    for row in range(50):
        sure = [confidence_of(logits[k, row][None], measure, temperatures[k]) >= policy.thresholds[k] for k in range(3)]
        assert chosen[row] == [bool(one) for one in sure].index(True)
        assert torch.equal(given[row], logits[chosen[row], row])
    assert len(set(chosen.tolist())) == 3
    assert torch.equal(policy.decides(0, logits[0]), chosen == 0)
    assert policy.decides(2, logits[2]).all()


@pytest.mark.parametrize("calibrate", [False, True])
def test_what_was_expected_is_what_validation_images_give(calibrate):
    logits, labels = answers()
    for policy in fit(budgets=budgets_between(COSTS, 7), calibrate=calibrate):
        row = budgeted_row(policy, logits, labels)
        assert policy.budget is not None and policy.expected_cost is not None
        assert row["gmacs"] == policy.expected_cost <= policy.budget == row["budget"]
        assert tuple(row["shares"].values()) == policy.expected_shares
        assert tuple(row["shares"]) == SUBNETS
    assert fit(budgets=[4.0])[0].expected_shares == (0, 0, 1)
    assert fit(budgets=[1.0])[0].expected_shares == (1, 0, 0)


def test_a_budget_is_spent_where_every_answer_is_right():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (60,), generator=generator)
    perfect = 6 * torch.nn.functional.one_hot(labels, CLASSES) + 0.5 * torch.randn(3, 60, CLASSES, generator=generator)
    assert (perfect.argmax(dim=2) == labels).all()
    policy = fit(logits=perfect, labels=labels, budgets=[2.5], calibrate=True)[0]
    assert policy.expected_cost == pytest.approx(2.5, abs=0.1)


def test_temperatures_are_those_of_the_exits():
    logits, _ = answers()
    factors = torch.tensor([1.0, 5.0, 0.2])[:, None, None]
    plain, scaled = fit(calibrate=True)[0], fit(calibrate=True, logits=logits * factors)[0]
    assert scaled.temperatures == pytest.approx([t * f for t, f in zip(plain.temperatures, (1, 5, 0.2), strict=True)])
    assert fit()[0].temperatures == ()


def test_curves_have_the_accuracy_of_what_answered():
    logits, labels = answers()
    anytime = anytime_rows(logits, labels, subnets=SUBNETS, costs=COSTS)
    right = [100 * (row.argmax(dim=1) == labels).float().mean().item() for row in logits]
    assert [row["acc1"] for row in anytime] == pytest.approx(right)
    assert [(row["subnet"], row["gmacs"]) for row in anytime] == list(zip(SUBNETS, COSTS, strict=True))
    policy = fit(budgets=[2.2])[0]
    given, chosen = policy.apply(logits)
    row = budgeted_row(policy, logits, labels)
    assert row["acc1"] == pytest.approx(100 * (given.argmax(dim=1) == labels).float().mean().item())
    assert row["gmacs"] == pytest.approx(torch.tensor(COSTS)[chosen].mean().item())
    assert budgeted_row(fit(budgets=[1.0])[0], logits, labels)["acc1"] == anytime[0]["acc1"]


def test_a_policy_survives_a_file(tmp_path):
    never = fit(budgets=[4.0], calibrate=True, fingerprint="abc", measure="margin")[0]
    assert never.thresholds == (math.inf, math.inf, -math.inf)
    for policy in (never, *fit(), never.replace(budget=None, temperatures=())):
        assert ConfidencePolicy.from_dict(json.loads(json.dumps(policy.to_dict(), allow_nan=False))) == policy
        policy.save(tmp_path / "policy.json")
        assert ConfidencePolicy.load(tmp_path / "policy.json") == policy


def test_files_that_are_no_policies_are_refused_with_their_path(tmp_path):
    with pytest.raises(ValueError, match=r"never\.json: no policy can be read here"):
        ConfidencePolicy.load(tmp_path / "never.json")
    for text in ("{", "[]", "{}", '{"version": 99}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json: no policy can be read here"):
            ConfidencePolicy.load(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="cannot be written here"):
        fit()[0].save(tmp_path / "nowhere" / "policy.json")


LOGITS, LABELS = answers()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure": "hope"}, "no measure of confidence 'hope'; allowed are max_softmax, entropy, margin"),
        ({"budgets": [0.9]}, r"budget 0\.9 cannot be met: exit=1 alone costs 1, for every input"),
        ({"budgets": [math.nan]}, "budget nan cannot be met"),
        ({"costs": (1.0, 2.0, 2.0)}, "exit=2 costs 2 and exit=3, which comes behind it, 2"),
        ({"logits": LOGITS[:, :0], "labels": LABELS[:0]}, "the validation set is empty"),
        ({"labels": torch.ones_like(LABELS)}, "all 60 validation images are of class 1"),
        ({"logits": LOGITS / 0}, "sub-network 0 for input 0 are not finite"),
        ({"logits": LOGITS[:2]}, "logits of 2 sub-networks, but 3 names"),
        ({"subnets": ("exit=1", "exit=1", "exit=2")}, "expected one or more, each once"),
    ],
)
def test_bad_input_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        fit(**changes)
    assert "\n" not in str(caught.value)


def test_another_network_is_refused():
    policy = fit(fingerprint="abc")[0]
    with pytest.raises(ValueError, match="this policy is for 3 sub-networks, exit=1 to exit=3, and not for 2"):
        policy.apply(LOGITS[:2])
    with pytest.raises(ValueError, match="this policy is for 4 classes, and the network has 3"):
        policy.apply(LOGITS[:, :, :3])
    with pytest.raises(ValueError, match="this policy is for 4 classes"):
        policy.decides(0, LOGITS[0, :, :3])
    with pytest.raises(ValueError, match="for the network of fingerprint abc, and this one's is abd"):
        policy.check(fingerprint="abd")
    policy.check(exits=3, num_classes=4, fingerprint="abc")
    fit()[0].check(fingerprint="any")


def test_answers_that_are_not_finite_are_refused():
    policy, broken = fit()[0], LOGITS.clone()
    broken[2, 7, 0] = math.nan
    with pytest.raises(ValueError, match="the logits of input 7 are not finite"):
        policy.apply(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": (0.5, 0.5, 0.5)}, "exit=3 answers all that are left; expected minus infinity"),
        ({"thresholds": (0.5, -math.inf)}, "got 2 numbers for 3 sub-networks"),
        ({"thresholds": (math.nan, 0.5, -math.inf)}, "expected numbers"),
        ({"temperatures": (1.0, 0.0, 1.0)}, "expected numbers above 0"),
        ({"num_classes": 1}, "expected 2 or more"),
        ({"measure": "hope"}, "no measure of confidence 'hope'"),
    ],
)
def test_a_policy_checks_itself(changes, message):
    with pytest.raises(ValueError, match=message):
        fit()[0].replace(**changes)


def test_there_is_no_fourth_of_three():
    with pytest.raises(ValueError, match="sub-network 3 of a policy of 3; allowed are 0 to 2"):
        fit()[0].decides(3, LOGITS[0])
