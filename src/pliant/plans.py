"""`build_plan`: training plans by name. Those of two wings are joined by a plus: `adn+exits`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

from pliant.core.config import of_type
from pliant.core.plan import Plan, Term
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.depth import plan as depth
from pliant.exits import plan as exits
from pliant.width import plan as width

__all__ = ["LABELS", "PLANS", "build_plan", "default_plan", "plan_for"]

LABELS = Plan(name="labels", terms=(Term(student="largest"),))
"""The super-net learns from the labels, and nothing else does: the only plan for a network that is not adapted."""

PLANS: dict[str, Callable[..., tuple[Term, ...]]] = {**depth.PLANS, **exits.PLANS, **width.PLANS}


def default_plan(space: SubNetSpace) -> str:
    """Return the name of the plan for networks with these axes."""
    names = [depth.DEFAULT_PLAN] if space.skippable_blocks else []
    names += [exits.DEFAULT_PLAN] if space.exit_stages else []
    names += [width.DEFAULT_PLAN] if space.widths else []
    return "+".join(names)


def build_plan(name: str, space: SubNetSpace, **options: Any) -> Plan:
    """Build one of `PLANS`, or two joined by a plus, for a model's sub-networks.

    Joined, the terms of both count, at the largest depth, the last exit and the whole width for what the other does
    not say; and every earlier exit at the smallest depth learns from the same exit of the super-net. (A sandwich needs
    no more: what it draws, and its smallest, are sub-networks of all axes.)

    Args:
        name: `adn`, `exits`, `adn+one-for-all`, ...
        space: the sub-networks.
        **options: of the plan; of joined plans, each takes those that it has.

    Raises:
        ValueError: no plan of that name, an option that it does not have or that is of another type, or an axis that
            the model does not have.
    """
    names = name.split("+")
    unknown = [part for part in names if part not in PLANS]
    if unknown:
        raise ValueError(f"unknown plan {unknown[0]!r}; allowed: {', '.join(PLANS)}")
    allowed = {part: list(PLANS[part].__kwdefaults__ or {}) for part in names}
    strange = [option for option in options if not any(option in taken for taken in allowed.values())]
    if strange:
        every = ", ".join(dict.fromkeys(option for taken in allowed.values() for option in taken)) or "none"
        raise ValueError(f"plan {name!r} has no option {strange[0]!r}; allowed: {every}")
    if any(sum(part in wing.PLANS for part in names) > 1 for wing in (depth, exits, width)):
        raise ValueError(f"plan {name!r} joins two plans of one axis; expected one of each axis at most")
    terms: list[Term] = []
    for part in names:
        hints = get_type_hints(PLANS[part])
        own = {
            option: of_type(hints[option], value, f"plan {part!r}, {option}")
            for option, value in options.items()
            if option in allowed[part]
        }
        build = _of_depth if part in depth.PLANS else _of_exits if part in exits.PLANS else _of_width
        terms += build(part, space, own)
    if any(part in depth.PLANS for part in names) and any(part in exits.PLANS for part in names):
        # The first stages of a RegNet have one block: up to their exits the smallest depth is the largest.
        skipping = [
            number for number, stages in enumerate(space.exit_stages[:-1], 1) if any(space.skippable_blocks[:stages])
        ]
        terms += exits.shared_by_depths(skipping, str(_depths(space).smallest))
    plan = Plan(name=name, terms=tuple(_once(terms, space))).resolve(space)
    if plan.is_of_gate and not space.routes:
        raise ValueError(f"plan {name!r} needs a gate; adapt the network with pliant.Width(gate=pliant.Gate())")
    between = space.num_subnets - len({subnet for subnet in plan.passes() if subnet not in plan.random})
    if len(plan.random) > between:
        raise ValueError(
            f"plan {name!r} draws {len(plan.random)} sub-networks for each step, but this network has {between} beside "
            "those that it names; take fewer with the option 'random' (with 'ensemble' twice as many are drawn), or "
            "more choices"
        )
    return plan


def plan_for(plan: Plan | None, space: SubNetSpace, *, default: str | None = None) -> Plan:
    """Return a plan with the sub-networks of a space; in place of none the default, of its axes or as named.

    Raises:
        ValueError: it is no plan, or names a sub-network that is not there.
    """
    if plan is None:
        return build_plan(default or default_plan(space), space)
    if not isinstance(plan, Plan):
        raise ValueError(f"plan: got {plan!r}, expected what pliant.plans.build_plan(name, model.space) returns")
    return plan.resolve(space)


def _of_depth(part: str, space: SubNetSpace, options: dict[str, Any]) -> list[Term]:
    """Largest and smallest are those of the depth axis, at the last exit."""
    if not space.skippable_blocks:
        raise ValueError(f"plan {part!r} is for networks whose depth can be chosen; adapt this one with pliant.Depth()")
    depths = _depths(space)

    def at_the_end(text: str | None) -> str | None:
        return None if text is None else f"depth={depths.parse(text)}"

    return [
        term.replace(student=at_the_end(term.student), teacher=at_the_end(term.teacher))
        for term in PLANS[part](**options)
    ]


def _of_exits(part: str, space: SubNetSpace, options: dict[str, Any]) -> list[Term]:
    if not space.exit_stages:
        raise ValueError(f"plan {part!r} is for networks with early exits; adapt this one with pliant.Exits()")
    return list(PLANS[part](len(space.exit_stages), **options))


def _of_width(part: str, space: SubNetSpace, options: dict[str, Any]) -> list[Term]:
    if not space.widths:
        raise ValueError(f"plan {part!r} is for networks whose width can be chosen; adapt this one with pliant.Width()")
    return list(PLANS[part]([str(SubNet(width=width)) for width in space.widths], **options))


def _depths(space: SubNetSpace) -> SubNetSpace:
    return SubNetSpace(space.skippable_blocks)


def _once(terms: list[Term], space: SubNetSpace) -> list[Term]:
    """Drop what a second plan says again: the super-net learns from the labels once."""
    seen: dict[tuple[Any, ...], Term] = {}
    for term in terms:
        same = Plan(name="", terms=(term,)).resolve(space).terms[0]
        seen.setdefault((same.student, same.teacher, same.on), term)
    return list(seen.values())
