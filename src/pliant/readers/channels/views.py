"""Rules of operators that move entries: views, pieces, joins, padding, tables."""

from __future__ import annotations

from torch import Tensor

from pliant.readers.channels.labels import Dimension, Shape, fix, fresh, leaves, regroup, unite
from pliant.readers.channels.operation import Operation, table

__all__ = ["RULES"]


def _same(call: Operation) -> list[Shape] | None:
    return [call.known(call.inputs[0])] if call.inputs[0] is call.outputs[0] else None


def _created(call: Operation) -> list[Shape]:
    return [fresh(tensor.shape, call.reason("makes it from numbers")) for tensor in call.outputs]


def _viewed(call: Operation) -> list[Shape] | None:
    if not call.outputs[0].numel():
        return None
    return [regroup(call.known(call.inputs[0]), call.outputs[0].shape, call.reason("cuts across them"))]


def _expanded(call: Operation) -> list[Shape]:
    """Dimensions count from the back; what was one entry becomes many."""
    before, after = call.inputs[0].shape, call.outputs[0].shape
    result = fresh(after, call.reason("repeats it"))
    for place, dimension in zip(range(-len(before), 0), call.known(call.inputs[0]), strict=True):
        if before[place] == after[place]:
            result[place] = dimension
    return [result]


def _repeated(call: Operation) -> list[Shape]:
    times = fresh(call.values["repeats"], call.reason("repeats it"))
    shape = call.known(call.inputs[0])
    padded = [()] * (len(times) - len(shape)) + shape
    return [[(*outer, *inner) for outer, inner in zip(times, padded, strict=True)]]


def _permuted(call: Operation) -> list[Shape]:
    shape = call.known(call.inputs[0])
    return [[shape[place] for place in call.values["dims"]]]


def _transposed(call: Operation) -> list[Shape]:
    shape = list(call.known(call.inputs[0]))
    if len(shape) < 2:
        return [shape]
    one, other = (0, 1) if call.name == "t" else (call.place("dim0"), call.place("dim1"))
    shape[one], shape[other] = shape[other], shape[one]
    return [shape]


def _taken(call: Operation) -> list[Shape]:
    """Entries of one dimension are taken by number: it must stay, and leaves."""
    shape, place = call.known(call.inputs[0]), call.place()
    fix(shape[place], call.reason("takes some by number"))
    return [shape[:place] + shape[place + 1 :] for _ in call.outputs]


def _moved(call: Operation) -> list[Shape]:
    """Entries of some dimensions are taken or moved by number: those must stay."""
    shape, before, after = call.known(call.inputs[0]), call.inputs[0].shape, call.outputs[0].shape
    places = call.values.get("dims", call.values.get("dim", []))
    places = [place % len(shape) for place in (places if isinstance(places, list | tuple) else [places])]
    reason = call.reason("takes some by number")
    result = list(shape)
    for place in places:
        if call.name == "slice" and before[place] == after[place]:
            continue
        if _is_piece(call, before[place], after[place]) and any(label.reason is None for label in leaves(shape[place])):
            result[place] = _pieces(call, shape[place], before[place] // after[place], after[place])
        else:
            fix(shape[place], reason)
            result[place] = fresh([after[place]], reason)[0]
    return [result]


def _is_piece(call: Operation, before: int, after: int) -> bool:
    """Whether a slice is one of equal pieces, such as a half."""
    return (
        call.name == "slice"
        and call.values["step"] == 1
        and after > 0
        and before % after == 0
        and ((call.values["start"] or 0) % before % after == 0)
    )


def _pieces(call: Operation, dimension: Dimension, number: int, size: int) -> Dimension:
    """Return the dimension of one of equal pieces: their number stays, and what is in them can be cut."""
    outer, piece = fresh((number, size))
    fix(outer, call.reason("makes that many pieces"))
    unite(dimension, (*outer, *piece), call.reason("divides them differently from others", dimension))
    return piece


def _padded(call: Operation) -> list[Shape]:
    shape, after = list(call.known(call.inputs[0])), call.outputs[0].shape
    for place, size in enumerate(call.inputs[0].shape):
        if size != after[place]:
            new: Dimension = fresh([after[place]])[0]
            reason = call.reason("changes their number by a fixed one", shape[place], new)
            fix((*shape[place], *new), reason)
            shape[place] = new
    return [shape]


def _divided(call: Operation) -> list[Shape]:
    """Equal pieces: the dimension consists of that many, each with the same channels."""
    shape, place = call.known(call.inputs[0]), call.place()
    sizes = [tensor.shape[place] for tensor in call.outputs]
    if call.name == "glu":
        sizes *= 2
    if len(sizes) == 1:
        return [shape]
    if len(set(sizes)) > 1:
        fix(shape[place], call.reason("divides them into unequal pieces"))
        pieces = [fresh([size], call.reason("divides them into unequal pieces"))[0] for size in sizes]
    else:
        pieces = [_pieces(call, shape[place], len(sizes), sizes[0])] * len(sizes)
    return [[*shape[:place], dimension, *shape[place + 1 :]] for dimension in pieces[: len(call.outputs)]]


def _joined(call: Operation) -> list[Shape]:
    """Pieces one after another: where all are the same channels they can shrink together, else none of them can."""
    shapes = [call.known(tensor) for tensor in call.inputs if tensor.shape != (0,)]
    place = call.place(rank=len(shapes[0]))
    result = list(shapes[0])
    for shape in shapes[1:]:
        for index, dimension in enumerate(shape):
            if index != place:
                unite(result[index], dimension)
    if all(map(call.is_weight, call.inputs)) and len({tensor.shape for tensor in call.inputs}) == 1:
        # Biases of queries, keys and values that were kept apart: nothing else says what their channels are.
        for shape in shapes[1:]:
            unite(result[place], shape[place])
    pieces = [leaves(shape[place]) for shape in shapes]
    if len(set(pieces)) == 1 and pieces[0]:
        number = fresh([len(pieces)], call.reason("makes that many pieces"))[0]
        result[place] = (*number, *pieces[0])
    else:
        reason = call.reason("joins different channels", *pieces)
        for piece in pieces:
            fix(piece, reason)
        result[place] = fresh([call.outputs[0].shape[place]], reason)[0]
    return [result]


def _stacked(call: Operation) -> list[Shape]:
    shapes = [call.known(tensor) for tensor in call.inputs]
    for shape in shapes[1:]:
        for one, other in zip(shapes[0], shape, strict=True):
            unite(one, other)
    place = call.place(rank=call.outputs[0].dim())
    number = fresh([len(shapes)], call.reason("makes that many pieces"))
    return [shapes[0][:place] + number + shapes[0][place:]]


def _embedded(call: Operation) -> list[Shape]:
    weight, indices = (call.known(tensor) for tensor in call.inputs[:2])
    fix(weight[0], call.reason("takes some by number"))
    call.made(weight[1])
    return [[*indices, weight[1]]]


def _indexed(call: Operation) -> list[Shape] | None:
    """Rows of a table, as those of relative positions: what the rows are of is kept."""
    shape, indices = call.known(call.inputs[0]), call.values["indices"]
    if not isinstance(indices[0], Tensor) or any(isinstance(index, Tensor) for index in indices[1:]):
        return None
    reason = call.reason("takes some by number")
    fix(shape[0], reason)
    taken = call.outputs[0].shape[: call.outputs[0].dim() - len(shape) + 1]
    return [[*fresh(taken, reason), *shape[1:]]]


RULES = table(
    {
        _same: "as_strided",  # in place: only the order in memory changes
        _created: "empty zeros ones full arange linspace scalar_tensor empty_strided eye rand randn randint "
        "new_zeros new_ones new_empty new_full new_empty_strided tril_indices",
        _viewed: "view _unsafe_view reshape _reshape_alias unsqueeze squeeze flatten unflatten view_as _reshape_copy",
        _expanded: "expand broadcast_to",
        _repeated: "repeat",
        _permuted: "permute",
        _transposed: "t transpose",
        _taken: "select unbind",
        _moved: "slice roll flip",
        _padded: "constant_pad_nd pad reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d",
        _divided: "split split_with_sizes chunk unsafe_split unsafe_chunk unsafe_split_with_sizes glu",
        _joined: "cat concat",
        _stacked: "stack",
        _embedded: "embedding",
        _indexed: "index",
    }
)
