"""What the exits wing adds to a network: classifiers, and points at which a pass can end.

Letters of shapes: B batch, C channels, N classes, H and W height and width, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pliant.core.leaving import ExitPass, Left
from pliant.core.stream import Mask, averaged, mask_arguments, mask_in, stream_of
from pliant.core.surgery import demote, is_sharded, mix_in
from pliant.core.switch import Switch

__all__ = ["Classifier", "Collaborating", "EarlyExit", "ExitPoint", "Removed"]


class Classifier(nn.Module):
    """A classifier on the features of a block.

    Args:
        channels: of the features.
        num_classes: outputs.
        channel_dim: which dimension the channels are: 1 in `[B, C, H, W]`, -1 in `[B, T, C]` and `[B, H, W, C]`.
        convolutions: put two convolutions of stride 2 before the average, as MSDNet's classifiers have.
        by_token: answer for every position, and not for their average.
    """

    width = 128  # of the convolutions, as in MSDNet for CIFAR

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        channel_dim: int = 1,
        convolutions: bool = False,
        by_token: bool = False,
    ) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.by_token = by_token
        self.convolutions = nn.Sequential()
        # Transformers normalise in front of a classifier, as the residual stream itself grows from block to block.
        self.norm = nn.LayerNorm(channels) if channel_dim == -1 else nn.Identity()
        if convolutions:
            for _ in range(2):
                self.convolutions.extend(
                    [nn.Conv2d(channels, self.width, 3, 2, 1, bias=False), nn.BatchNorm2d(self.width), nn.ReLU(True)]
                )
                channels = self.width
        self.linear = nn.Linear(channels, num_classes)

    def features(self, x: Tensor, mask: Mask | None = None) -> Tensor:
        """Map the output of a block to `[B, C]`, averaged over all positions that `mask` does not call padding.

        By token there is no average: `[B, T, C]`.
        """
        if self.by_token:
            return self.norm(x).movedim(self.channel_dim, -1)
        return averaged(self.norm(self.convolutions(x)), self.channel_dim, mask)

    def forward(self, x: Tensor, mask: Mask | None = None) -> Tensor:
        """Map the output of a block to logits `[B, N]`, by token `[B, T, N]`."""
        return self.linear(self.features(x, mask))


class _Scaled(torch.autograd.Function):
    """The same values forward; backward, the gradient times a factor. R(x; s) of the IMTA paper, section 3.1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def _scaled(stream: Any, factor: float, *, every_scale: bool) -> Any:
    """Scale the gradient of a tensor, or of a list of scales: the coarsest, which the classifier reads, or all."""
    if isinstance(stream, Tensor):
        return _Scaled.apply(stream, factor)
    first = 0 if every_scale else len(stream) - 1
    return [*stream[:first], *(_Scaled.apply(x, factor) for x in stream[first:])]


class ExitPoint(nn.Module):
    """A block at whose end there is an exit: the child `exit`, a classifier.

    In a pass that ends here nothing behind this block runs. The switch is none in a network that always ends here.
    A classifier that the network brought takes features alone; ours are told what is padding.
    """

    _pliant_switch: Switch | None
    _pliant_number: int
    _pliant_brought: bool
    _pliant_equilibrium: str

    @staticmethod
    def make_(
        block: nn.Module, switch: Switch | None, number: int, *, brought: bool, equilibrium: str = "none"
    ) -> None:
        """Let `block`, which has a child `exit`, be exit `number`, in place."""
        mix_in(block, ExitPoint, "ExitPoint", switch=switch, number=number, brought=brought, equilibrium=equilibrium)

    @staticmethod
    def unmake_(block: nn.Module) -> None:
        """Undo `make_`."""
        demote(block, ExitPoint)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block, and its classifier if the pass asks for its answer.

        Raises:
            Left: the pass ends here.
        """
        output = super().forward(*args, **kwargs)
        classify: Any = self._modules["exit"]
        if self._pliant_switch is None:
            raise Left(partial(_answer, classify, stream_of(output), brought=self._pliant_brought))
        exit_pass = self._pliant_switch.exit_pass
        if exit_pass is None or not exit_pass.asks(self._pliant_number):
            return output
        answer = partial(_answer, classify, mask=exit_pass.mask, brought=self._pliant_brought)
        if exit_pass.learns and not torch.is_grad_enabled():
            raise ValueError(
                f"exit {self._pliant_number} has no gradient, as within a checkpoint with use_reentrant=True or "
                "torch.no_grad(); set use_reentrant=False"
            )
        stream = stream_of(output)
        if exit_pass.settles(self._pliant_number):
            if exit_pass.ends_at(self._pliant_number):
                return self._end(exit_pass, answer, output)
            exit_pass.later(self._pliant_number, partial(answer, stream))
            logits = exit_pass.answer_of(self._pliant_number)
            assert logits is not None
            return exit_pass.shrink(self._pliant_number, logits, output)
        ahead = exit_pass.last - self._pliant_number
        if self._pliant_equilibrium != "none" and torch.is_grad_enabled():
            every_scale = self._pliant_equilibrium == "all"
            scaled = _scaled(stream, 1 / (ahead + 1), every_scale=every_scale)
            exit_pass.later(self._pliant_number, partial(answer, scaled))
            stream = _scaled(stream, ahead / (ahead + 1), every_scale=every_scale)
            return (stream, *output[1:]) if isinstance(output, tuple) else stream
        exit_pass.later(self._pliant_number, partial(answer, stream))
        return output

    def _end(self, exit_pass: ExitPass, answer: Callable[[Any], Tensor], output: Any) -> Any:
        """End the pass: at once, or where the block is sharded, behind the hooks that shard it again."""
        number = self._pliant_number

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            exit_pass.later(number, partial(answer, stream_of(output)))
            raise Left(partial(exit_pass.answer_of, number))

        if not is_sharded(self):
            leave(self, (), output)

        def leave_once(*args: Any) -> None:
            handle.remove()
            leave(*args)

        handle = self.register_forward_hook(leave_once)  # it runs last, in this very pass
        return output


def _answer(classify: Any, stream: Any, *, mask: Mask | None = None, brought: bool = False) -> Tensor:
    """Run a classifier outside of its block, where the block may be sharded again."""
    if not is_sharded(classify) and any(map(_is_distributed, classify.parameters())) > _is_distributed(stream):
        raise ValueError(
            "exits: the classifier of an exit is sharded together with its block, and runs outside of it; call "
            "fully_shard on the classifier, the child 'exit' of the block, first"
        )
    return classify(stream) if brought or mask is None else classify(stream, mask)


def _is_distributed(tensor: Any) -> bool:
    return hasattr(tensor, "device_mesh")


class Collaborating(nn.Module):
    """The linear layer of a classifier that also takes the answer of the exit before (IMTA paper, section 3.2).

    No gradient flows back through that answer: an exit cannot be harmed by those behind it.
    """

    _pliant_switch: Switch
    _pliant_previous: int
    _pliant_kind: str

    @staticmethod
    def make_(linear: nn.Linear, switch: Switch, previous: int, kind: str) -> None:
        """Let `linear` take the answer of exit `previous`, in place.

        `concatenate` makes the layer new: it takes twice the features.
        """
        mix_in(linear, Collaborating, "Collaborating", switch=switch, previous=previous, kind=kind)
        features, classes = linear.in_features, linear.out_features
        place: dict[str, Any] = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        if kind == "linear":
            collaboration = nn.Linear(classes, classes, **place)
            nn.init.zeros_(collaboration.weight)
            nn.init.zeros_(collaboration.bias)
            linear.add_module("collaboration", collaboration)
        elif kind == "concatenate":
            first = nn.Linear(classes, features, **place)
            linear.add_module("collaboration", nn.Sequential(first, nn.BatchNorm1d(features, **place), nn.ReLU()))
            wider = nn.Linear(2 * features, classes, bias=linear.bias is not None, **place)
            linear.weight, linear.in_features = wider.weight, wider.in_features
            linear.bias = wider.bias
        linear.train(linear.training)  # its new children too

    @staticmethod
    def unmake_(linear: nn.Linear) -> None:
        """Give `linear` its own shape again; of a layer that was made new, the part that reads the features stays."""
        demote(linear, Collaborating)
        collaboration = linear._modules.pop("collaboration", None)
        if isinstance(collaboration, nn.Sequential):
            linear.in_features //= 2
            linear.weight = nn.Parameter(linear.weight.detach()[:, : linear.in_features])

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[B, C]` to logits `[B, N]`."""
        exit_pass = self._pliant_switch.exit_pass
        before = None if exit_pass is None else exit_pass.answer_of(self._pliant_previous)
        if before is None:
            number = self._pliant_previous
            raise ValueError(
                f"the classifier of exit {number + 1} takes the answer of exit {number}; run the model, not this layer "
                "alone"
            )
        before = before.detach()
        if self._pliant_kind == "identity":
            return super().forward(features) + before
        collaboration: Any = self._modules["collaboration"]
        if self._pliant_kind == "linear":
            return super().forward(features) + collaboration(before)
        return super().forward(torch.cat([features, collaboration(before)], dim=1))


class Removed(nn.Module):
    """Stands where a part was that a shorter network does not run."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("this part lies behind the exit and was removed, but the network runs it before the exit")


class EarlyExit(nn.Module):
    """A network that ends at one of its exits: the library's own network without what lies behind.

    Args:
        network: of which a block is the `ExitPoint` where every pass ends.
        switch: where exits take the answers of those before them, what these hand on; the network must then not be
            run by two threads at once.
    """

    def __init__(self, network: nn.Module, switch: Switch | None = None) -> None:
        super().__init__()
        self.network = network
        self._pliant_switch = switch
        self._pliant_masks = mask_arguments(network)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Map what the network takes to logits `[B, N]`."""
        mask = mask_in(self._pliant_masks, args, kwargs)
        if self._pliant_switch is None:
            try:
                return self.network(*args, **kwargs)
            except Left as left:
                answer = left.args[0]
            return answer(mask=mask)
        with self._pliant_switch.running("largest", mask=mask):
            try:
                return self.network(*args, **kwargs)
            except Left as left:
                answer = left.args[0]
            return answer()
