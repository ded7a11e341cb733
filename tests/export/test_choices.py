"""Graphs of sub-networks, merged into one with conditions."""

from __future__ import annotations

import numpy
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from pliant.export.choices import Choice, merged

HEAD = '<ir_version: 10, opset_import: ["": 20]> net (float[2] x) => (float[2] y, float[2] one, float[2] two)'
# `again` is `once`. Within the second choice alone it is read by that name, and by the other outside of all.
SMALL = """{
    once = Relu(x)    outside = Neg(once)
    one = Add(x, outside)
    again = Relu(x)
    two = Add(one, again)
    y = Add(two, outside)
}"""
LARGE = """{
    once = Relu(x)    outside = Neg(once)
    within = Add(x, outside)    one = Mul(within, within)
    again = Relu(x)
    sum = Add(one, again)    two = Mul(sum, sum)
    y = Add(two, outside)
}"""


@pytest.mark.parametrize("weights_once", [True, False])
@pytest.mark.parametrize("skips", [(False, False), (True, False), (False, True), (True, True)])
def test_what_is_computed_twice(weights_once, skips) -> None:
    models = [ir.from_proto(onnx.parser.parse_model(HEAD + text)) for text in (SMALL, LARGE)]
    for node in (node for model in models for node in model.graph):
        node.name = node.outputs[0].name
    conditions = [ir.Value(name=name, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([])) for name in ("a", "b")]
    choices = [Choice(place, [condition], f"stage{place}") for place, condition in enumerate(conditions, start=1)]
    graph = merged([model.graph for model in models], choices, weights_once=weights_once)
    graph.inputs.extend(conditions)
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    assert sum(node.op_type == "Relu" for node in model.graph.node) == 1
    x = numpy.array([-1.5, 2.0], dtype=numpy.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = {name: numpy.array(skip) for name, skip in zip("ab", skips, strict=True)}
    (y,) = session.run(None, {"x": x, **given})
    stream = x - numpy.maximum(x, 0)
    stream = stream if skips[0] else stream**2
    stream = stream + numpy.maximum(x, 0)
    stream = stream if skips[1] else stream**2
    numpy.testing.assert_allclose(y, stream - numpy.maximum(x, 0), rtol=1e-6)
