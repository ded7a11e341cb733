"""Training plans of the wing: slimmable networks, the sandwich of universally slimmable ones, DS-Net's two stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pliant.core.plan import GATE, RANDOM, Term

__all__ = ["DEFAULT_PLAN", "PLANS"]


def slimmable(widths: Sequence[str], *, distillation: bool = False) -> tuple[Term, ...]:
    """Every width learns in every step (slimmable networks); `widths` are their texts, the whole network last.

    From the labels, as published; with `distillation` the smaller ones learn from the whole network instead.
    """
    *smaller, whole = widths
    if distillation:
        return (Term(student=whole), *(Term(student=one, teacher=whole, on="logits") for one in smaller[::-1]))
    return tuple(Term(student=one) for one in (whole, *smaller[::-1]))


def sandwich(
    widths: Sequence[str],
    *,
    random: int = 2,
    distillation: bool = True,
    ensemble: bool = False,
    temperature: float = 1.0,
) -> tuple[Term, ...]:
    """The whole network, the smallest, and a few drawn anew for every step (universally slimmable networks).

    The whole network learns from the labels and teaches the others (in-place distillation). In a recipe with
    `teacher: ema` its average over past steps teaches: that is the in-place bootstrapping of DS-Net, and with
    `ensemble` its ensemble bootstrapping, where the smallest learns from the average of the whole one and as many
    drawn ones. Without `distillation` all learn from the labels.
    """
    if random < 0:
        raise ValueError(f"plan 'sandwich': random is {random}, expected at least 0")
    whole, drawn = Term(student="largest"), [f"{RANDOM}{number}" for number in range(1, random + 1)]
    if not distillation:
        if ensemble:
            raise ValueError("plan 'sandwich': ensemble=True needs distillation=True")
        return (whole, *(Term(student=student) for student in (*drawn, "smallest")))
    # A mean of teachers is a mean of divergences from each, up to what no gradient comes from.
    others = [f"{RANDOM}{number}" for number in range(random + 1, 2 * random + 1)] if ensemble else []
    teachers = ["largest", *others]
    return (
        whole,
        *(Term(student=student, teacher="largest", on="logits", temperature=temperature) for student in drawn),
        *(
            Term(student="smallest", teacher=teacher, on="logits", temperature=temperature, weight=1 / len(teachers))
            for teacher in teachers
        ),
    )


def gates(widths: Sequence[str], *, cost: float = 0.5) -> tuple[Term, ...]:
    """A gate learns to choose the width, and nothing else learns (DS-Net's Stage II).

    By the answers of the routes that it chooses; by sandwich gate sparsification, which calls an input easy if the
    narrowest route gets it right; and by what the routes cost. As published, `cost` is for networks of 10^9
    multiply-accumulates: for small ones it has to be larger.
    """
    return Term(student=GATE), Term(student=GATE, on="ease"), Term(student=GATE, on="cost", weight=cost)


PLANS: dict[str, Callable[..., tuple[Term, ...]]] = {"slimmable": slimmable, "sandwich": sandwich, "gates": gates}
DEFAULT_PLAN = "sandwich"
