"""Rules of operators that compute: entry by entry, convolutions, products, norms, pools."""

from __future__ import annotations

from pliant.readers.channels.labels import Shape, fix, fresh, leaves, unite
from pliant.readers.channels.operation import Operation, table

__all__ = ["RULES", "pointwise"]


def pointwise(call: Operation) -> list[Shape]:
    """Broadcast: dimensions count from the back, and those of one entry agree with any."""
    shape = call.outputs[0].shape
    result: Shape = [()] * len(shape)
    for tensor in call.inputs:
        for place, dimension in zip(range(-tensor.dim(), 0), call.known(tensor), strict=True):
            if dimension and tensor.shape[place] == shape[place]:
                if result[place]:
                    unite(result[place], dimension, call.reason("joins channels divided differently", dimension))
                else:
                    result[place] = dimension
    return [result]


def _reduced(call: Operation) -> list[Shape]:
    """A mean over channels is one over those that are left; the others stay what they are."""
    shape, places = call.known(call.inputs[0]), call.values.get("dim")
    places = [places] if isinstance(places, int) else places or range(len(shape))
    gone = {place % len(shape) for place in places} if shape else set()
    if call.values.get("keepdim"):
        result = [() if place in gone else dimension for place, dimension in enumerate(shape)]
    else:
        result = [dimension for place, dimension in enumerate(shape) if place not in gone]
    return [result for _ in call.outputs]


def _normalized(call: Operation) -> list[Shape] | None:
    """A softmax: what it sums over competes, and must stay."""
    shape = call.known(call.inputs[0])
    fix(shape[call.place()] if shape else (), call.reason("weighs them against each other"))
    return [shape]


def _pooled(call: Operation) -> list[Shape]:
    """Windows move over the last dimensions; the operator's name says over how many."""
    shape = call.known(call.inputs[0])
    spatial = next(int(number) for number in "123" if f"{number}d" in call.name)
    reason = call.reason("moves a window over them")
    for dimension in shape[-spatial:]:
        fix(dimension, reason)
    return [[*shape[:-spatial], *fresh(tensor.shape[-spatial:], reason)] for tensor in call.outputs]


def _convolution(call: Operation) -> list[Shape] | None:
    x, weight = call.shapes("input", "weight")
    groups, sizes = call.values["groups"], call.values["weight"].shape
    if call.values["transposed"]:
        if groups > 1:
            return None
        weight = [weight[1], weight[0], *weight[2:]]
    elif groups > 1:
        inside = call.reason("has channels within a group, which stay")
        group, taken, given = fresh((groups, sizes[1], sizes[0] // groups))
        fix((*taken, *given), inside)
        fix(weight[1], inside)
        unite((*group, *taken), x[1])
        unite((*group, *given), weight[0])
    if groups == 1:
        unite(x[1], weight[1])
    for bias in call.shapes("bias"):
        unite(weight[0], bias[0])
    call.made(weight[0])
    before, after = call.values["input"].shape, call.outputs[0].shape
    spatial = fresh(after, call.reason("moves a window over them"))
    for place in range(2, len(after)):
        # Where the window moves along channels, as that of efficient channel attention, they stay what they are.
        if before[place] == after[place] and call.values["stride"][place - 2] == 1:
            spatial[place] = x[place]
    return [[x[0], weight[0], *spatial[2:]]]


def _batch_norm(call: Operation) -> list[Shape]:
    x = call.known(call.inputs[0])
    for tensor in call.inputs[1:]:
        unite(x[1], call.known(tensor)[0])
    return [x]


def _layer_norm(call: Operation) -> list[Shape]:
    x = call.known(call.inputs[0])
    for shape in call.shapes("weight", "bias"):
        for one, other in zip(x[-len(shape) :], shape, strict=True):
            unite(one, other)
    return [x]


def _group_norm(call: Operation) -> list[Shape]:
    """Whole groups can go: what lies in one is normalized together. One group of all channels is as a layer norm."""
    x, groups = call.known(call.inputs[0]), call.values["group"]
    if groups > 1:
        group, inner = fresh((groups, call.inputs[0].shape[1] // groups))
        fix(inner, call.reason("has channels within a group, which stay"))
        unite((*group, *inner), x[1])
    for shape in call.shapes("weight", "bias"):
        unite(x[1], shape[0])
    return [x]


def _linear(call: Operation) -> list[Shape]:
    """`linear(x, weight, bias)`, `mm(x, transposed weight)` and `addmm(bias, x, transposed weight)`."""
    if call.name == "linear":
        (x, weight), biases = call.shapes("input", "weight"), call.shapes("bias")
        weight = [weight[1], weight[0]]
    else:
        x, weight = call.shapes(*(("self", "mat2") if call.name == "mm" else ("mat1", "mat2")))
        biases = call.shapes("self") if call.name == "addmm" else iter(())
    unite(x[-1], weight[0])
    call.made(weight[1])
    result = [*x[:-1], weight[1]]
    for bias in biases:
        for one, other in zip(result[-len(bias) :], bias, strict=True):
            if one and other:
                unite(one, other)
    return [result]


def _batched_product(call: Operation) -> list[Shape]:
    """Activations meet activations: only the batch, in which heads may be, is the same on both sides.

    A weight that was repeated for every image, with no step from one to the next, makes it a linear layer.
    """
    if call.name == "bmm" and call.inputs[1].stride(0) == 0:
        one, other = (call.known(tensor) for tensor in call.inputs)
        unite(one[2], other[1])
        call.made(other[2])
        return [[one[0], one[1], other[2]]]
    *more, one, other = (call.known(tensor) for tensor in call.inputs)
    reason = call.reason("multiplies them with each other")
    for shape in (one, other, *more):
        unite(one[0], shape[0], reason)
        for dimension in shape[1:]:
            fix(dimension, reason)
    return [[one[0], one[1], other[2]]]


def _attention(call: Operation) -> list[Shape]:
    """Scaled dot-product attention on `[batch, heads, tokens, channels of a head]`; a mask may differ by head."""
    query, key, value, *masks = (call.known(tensor) for tensor in call.inputs)
    reason = call.reason("compares them with each other")
    for shape in (query, key, value):
        for dimension in shape[-2:]:
            fix(dimension, reason)
    for shape in (key, value, *masks):
        for one, other in zip(query[:-2][::-1], shape[:-2][::-1], strict=False):
            if not other:
                continue
            if [label.size for label in leaves(one)] == [label.size for label in leaves(other)]:
                unite(one, other, reason)
            else:  # several heads share the keys and values of one
                fix((*one, *other), reason)
    return [[*query[:-1], value[-1]]]


RULES = table(
    {
        pointwise: "copy _to_copy detach alias lift_fresh zero fill hardswish _prelu_kernel log_sigmoid_forward gelu "
        "zeros_like ones_like empty_like full_like rand_like randn_like native_dropout contiguous bernoulli "
        "_weight_norm_interface",
        _reduced: "mean sum amax amin var std var_mean std_mean linalg_vector_norm norm max min logsumexp prod",
        _normalized: "_softmax _log_softmax _safe_softmax softmax log_softmax",
        _pooled: "max_pool2d_with_indices max_pool2d avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d "
        "_adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d max_pool3d_with_indices "
        "upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa "
        "_upsample_bicubic2d_aa",
        _convolution: "convolution",
        _batch_norm: "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training batch_norm "
        "cudnn_batch_norm _batch_norm_no_update _batch_norm_with_update",
        _layer_norm: "native_layer_norm layer_norm rms_norm _fused_rms_norm",
        _group_norm: "native_group_norm",
        _linear: "linear mm addmm",
        _batched_product: "bmm baddbmm",
        _attention: "scaled_dot_product_attention _scaled_dot_product_flash_attention "
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
        "_scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math "
        "_scaled_dot_product_fused_attention_overrideable",
    }
)
