from dataclasses import dataclass, field
from typing import Literal

import pytest

from pliant.core.config import Config
from pliant.core.plan import Plan, Term
from pliant.depth.config import Depth


@dataclass(frozen=True, kw_only=True)
class Inner(Config):
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Outer(Config):
    inner: Inner = Inner()
    sizes: tuple[int, ...] = ()
    kind: Literal["a", "b"] = "a"
    note: str | None = None
    options: dict[str, int] = field(default_factory=dict)
    flag: bool = False


def test_a_config_survives_a_dict():
    config = Outer(inner=Inner(rate=2), sizes=(1, 2), kind="b", note="x", options={"k": 1}, flag=True)
    assert Outer.from_dict(config.to_dict()) == config
    assert config.to_dict()["inner"] == {"version": 1, "rate": 2.0}
    plan = Plan(name="p", terms=(Term(student="largest"), Term(student="TT", teacher="largest", on="logits")))
    assert Plan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sizes": [1, "x"]}, r"Outer.sizes: got \[1, 'x'\], expected a list of int"),
        ({"kind": "c"}, "expected one of 'a', 'b'"),
        ({"flag": 1}, "Outer.flag: got 1, expected bool"),
        ({"inner": 3}, "Outer.inner: got 3, expected a mapping of rate"),
        ({"inner": {"rate": True}}, "Inner.rate: got True, expected float"),
        ({"flga": True}, "unknown field 'flga'; allowed: inner, sizes, kind, note, options, flag"),
        ({"version": 2}, "version 2 is newer than this pliant knows"),
        ({"note": 3}, "expected str or none"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Outer.from_dict(fields)


def test_configs_are_frozen_and_keyword_only():
    with pytest.raises(AttributeError):
        Depth().skip_aware_norms = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        Depth(False)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"student": "largest", "on": "logits"}, "need"),
        ({"student": "largest", "teacher": "largest", "on": "logits"}, "its own teacher"),
        ({"student": "largest", "weight": -1}, "at least 0"),
        ({"student": "largest", "weight": float("nan")}, "at least 0"),
        ({"student": "largest", "temperature": 0}, "more than 0"),
        ({"student": "largest", "start": 1}, r"\[0, 1\)"),
        ({"student": "largest", "top_k": 0}, "at least 1"),
    ],
)
def test_a_term_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Term(**fields)


def test_a_plan_orders_its_passes_and_refuses_circles():
    def logits(student: str, teacher: str) -> Term:
        return Term(student=student, teacher=teacher, on="logits")

    plan = Plan(name="chain", terms=(logits("TT", "FT"), logits("FT", "FF"), Term(student="FF")))
    assert plan.passes() == ("FF", "FT", "TT")
    with pytest.raises(ValueError, match="circle of teachers"):
        Plan(name="circle", terms=(logits("TT", "FT"), logits("FT", "TT")))
    with pytest.raises(ValueError, match="no terms"):
        Plan(name="empty", terms=())
    with pytest.raises(ValueError, match="two terms"):
        Plan(name="double", terms=(Term(student="FF"), Term(student="FF", weight=2)))
