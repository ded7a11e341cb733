"""Training plans of the wing: slimmable networks, the sandwich of universally slimmable ones, DS-Net's two stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pliant.core.plan import GATE, RANDOM, Term

__all__ = ["DEFAULT_PLAN", "PLANS"]


def slimmable(widths: Sequence[str], *, labels: float = 1.0) -> tuple[Term, ...]:
    """Every width learns in every step (slimmable networks); `widths` are their texts, the whole network last.

    From the labels, as published, or by the share `labels` from them and for the rest from the whole network.
    """
    _check_share("slimmable", labels)
    *smaller, whole = widths
    return (Term(student=whole), *(term for one in smaller[::-1] for term in _taught(one, labels, teachers=[whole])))


def sandwich(
    widths: Sequence[str],
    *,
    random: int = 2,
    labels: float = 0.0,
    ensemble: bool = False,
    temperature: float = 1.0,
) -> tuple[Term, ...]:
    """The whole network, the smallest, and a few drawn anew for every step (universally slimmable networks).

    The whole network learns from the labels and teaches the others (in-place distillation). In a recipe with
    `teacher: ema` its average over past steps teaches: that is the in-place bootstrapping of DS-Net, and with
    `ensemble` its ensemble bootstrapping, where the smallest learns from the average of the whole one and as many
    drawn ones. The others learn by the share `labels` from the labels, which is 0 as published: where a training is so
    short that the teacher knows little for much of it, they hold it back without.
    """
    if random < 0:
        raise ValueError(f"plan 'sandwich': random is {random}, expected at least 0")
    _check_share("sandwich", labels)
    if ensemble and labels == 1:
        raise ValueError("plan 'sandwich': ensemble=True needs teachers, and with labels=1 there are none")
    drawn = [f"{RANDOM}{number}" for number in range(1, random + 1)]
    others = [f"{RANDOM}{number}" for number in range(random + 1, 2 * random + 1)] if ensemble else []
    return (
        Term(student="largest"),
        *(term for student in drawn for term in _taught(student, labels, ["largest"], temperature)),
        *_taught("smallest", labels, ["largest", *others], temperature),
    )


def _taught(student: str, labels: float, teachers: Sequence[str], temperature: float = 1.0) -> Iterator[Term]:
    """Yield what one sub-network learns: by a share from the labels, for the rest from the mean of its teachers."""
    if labels > 0:
        yield Term(student=student, weight=labels)
    if labels < 1:
        # A mean of teachers is a mean of divergences from each, up to what no gradient comes from.
        weight = (1 - labels) / len(teachers)
        for teacher in teachers:
            yield Term(student=student, teacher=teacher, on="logits", weight=weight, temperature=temperature)


def _check_share(plan: str, labels: float) -> None:
    if not 0 <= labels <= 1:
        raise ValueError(f"plan {plan!r}: labels is {labels}, expected a share in [0, 1]")


def gates(widths: Sequence[str], *, cost: float = 0.5) -> tuple[Term, ...]:
    """A gate learns to choose the width, and nothing else learns (DS-Net's Stage II).

    By the answers of the routes that it chooses; by sandwich gate sparsification, which calls an input easy if the
    narrowest route gets it right; and by what the routes cost. As published, `cost` is for networks of 10^9
    multiply-accumulates: for small ones it has to be larger.
    """
    if cost < 0:
        raise ValueError(f"plan 'gates': cost is {cost}, expected at least 0")
    return Term(student=GATE), Term(student=GATE, on="ease"), Term(student=GATE, on="cost", weight=cost)


PLANS: dict[str, Callable[..., tuple[Term, ...]]] = {"slimmable": slimmable, "sandwich": sandwich, "gates": gates}
DEFAULT_PLAN = "sandwich"
