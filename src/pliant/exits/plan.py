"""Training plans of the exits wing: the sum of all exits' losses (MSDNet), and one-for-all distillation (IMTA)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pliant.core.plan import Term

__all__ = ["DEFAULT_PLAN", "PLANS", "shared_by_depths"]


def exits(count: int) -> tuple[Term, ...]:
    """Every classifier learns from the labels, all with weight 1 (MSDNet paper, section 4.2)."""
    return tuple(Term(student=f"exit={number}") for number in range(1, count + 1))


def one_for_all(count: int, *, gamma: float = 0.1, temperature: float = 1.0) -> tuple[Term, ...]:
    """The last classifier teaches all others (IMTA paper, section 3.3).

    It learns from the labels itself; the others with weight `1 - gamma` from the labels and with `gamma` from it. The
    divergence is the average over inputs of the sum over classes, as the paper writes it; the published code divides
    by the number of classes too, which makes it weaker by that factor.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"plan 'one-for-all': gamma is {gamma}, expected a number from 0 to 1")
    terms = [Term(student=f"exit={count}")]
    for number in range(1, count):
        student = f"exit={number}"
        terms.append(Term(student=student, weight=1 - gamma))
        terms.append(Term(student=student, teacher=f"exit={count}", on="logits", weight=gamma, temperature=temperature))
    return tuple(terms)


def shared_by_depths(numbers: Iterable[int], smallest_depth: str) -> tuple[Term, ...]:
    """What a network of two axes learns beside the plans of each: at its smallest depth, the exits before the last.

    Each learns from the same exit of the super-net, as the base-net does at the last one. `numbers` are the exits
    before which there is something to skip.
    """
    return tuple(
        Term(student=f"depth={smallest_depth},exit={number}", teacher=f"exit={number}", on="logits")
        for number in numbers
    )


PLANS: dict[str, Callable[..., tuple[Term, ...]]] = {"exits": exits, "one-for-all": one_for_all}
DEFAULT_PLAN = "exits"
