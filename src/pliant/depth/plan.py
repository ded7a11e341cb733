"""Training plans of the depth wing: Algorithm 1 of the ADN paper, its ablations, and our default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pliant.core.plan import Term

__all__ = ["DEFAULT_PLAN", "PLANS"]


def adn(
    *,
    alpha: float = 0.5,
    temperature: float = 1.0,
    top_k: int | None = 500,
    features: bool = True,
    stages: tuple[int, ...] | None = None,
) -> tuple[Term, ...]:
    """Algorithm 1 as published: the two losses are averaged.

    `alpha` times the super-net's cross-entropy, plus `1 - alpha` times the divergences of the base-net
    from the super-net on logits (of its `top_k` classes) and on every pooled stage output. The base-net
    sees no labels. With `features=False` the paper's "logits only" row of Table 4; with `stages=(2, 3, 4)` only the
    outputs of these stages are compared, as in the authors' published code.
    """
    _check_alpha("adn", alpha)
    return (
        Term(student="largest", weight=alpha),
        *_distilled(1 - alpha, temperature=temperature, top_k=top_k, features=features, stages=stages),
    )


def adn_sum(
    *,
    temperature: float = 1.0,
    top_k: int | None = 500,
    features: bool = False,
    feature_weight: float = 1.0,
    stages: tuple[int, ...] | None = None,
    base_start: float = 0.0,
) -> tuple[Term, ...]:
    """Algorithm 1 with the losses added, not averaged.

    Halving both losses halves the effective learning rate against training each network alone; the sum
    leaves it as it was. `features` adds the term on stage outputs, as the authors' code does for ResNets: it
    keeps sub-networks that were not trained close without new norm statistics. Where stages do not end in a
    ReLU, as in MobileNetV2 and Swin, the term outweighs all others and the network learns less, or nothing.
    `base_start` lets the base-net begin after that fraction of the training.
    """
    return (
        Term(student="largest"),
        *_distilled(
            1.0,
            temperature=temperature,
            top_k=top_k,
            features=features,
            feature_weight=feature_weight,
            stages=stages,
            start=base_start,
        ),
    )


def no_distillation(*, alpha: float = 0.5) -> tuple[Term, ...]:
    """Both networks learn from the labels (Table 4, first row): `alpha` super-net, `1 - alpha` base-net."""
    _check_alpha("no-distillation", alpha)
    return (Term(student="largest", weight=alpha), Term(student="smallest", weight=1 - alpha))


def _check_alpha(plan: str, alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"plan {plan!r}: alpha is {alpha}, expected a number between 0 and 1")


def _distilled(
    weight: float,
    *,
    temperature: float,
    top_k: int | None,
    features: bool,
    feature_weight: float = 1.0,
    stages: tuple[int, ...] | None = None,
    start: float = 0.0,
) -> list[Term]:
    """The base-net's side: it learns from the super-net's logits and, with `features`, from its stages."""
    common: dict[str, Any] = dict(student="smallest", teacher="largest", temperature=temperature, start=start)
    terms = [Term(on="logits", weight=weight, top_k=top_k, **common)]
    if features:
        terms.append(Term(on="features", weight=weight * feature_weight, stages=stages, **common))
    return terms


PLANS: dict[str, Callable[..., tuple[Term, ...]]] = {
    "adn": adn,
    "adn-sum": adn_sum,
    "no-distillation": no_distillation,
}
DEFAULT_PLAN = "adn-sum"
