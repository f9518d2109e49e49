"""Symbolic sizes: arithmetic agrees with numbers, and comparisons never claim what a value refutes."""

from __future__ import annotations

import operator

import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune import ir
from passes.symbolic import Dim, analyze, compare, divide, symbol
from passes.symbolic.dims import TooComplexError, floor_divide, nonnegative, smallest

SYMBOLS = ("a", "b")
LEAVES = st.one_of(st.integers(-3, 6), st.sampled_from([symbol(name) for name in SYMBOLS]))
OPERATIONS = st.sampled_from([operator.add, operator.sub, operator.mul])
# three leaves: a product of two such sizes stays within the degree that is allowed
SIZES = st.recursive(LEAVES, lambda inner: st.builds(lambda f, x, y: f(x, y), OPERATIONS, inner, inner), max_leaves=3)
VALUES = st.fixed_dictionaries({name: st.integers(0, 7) for name in SYMBOLS})


def value(size, values):
    if isinstance(size, int):
        return size
    total = 0
    for names, factor in size.terms.items():
        for name in names:
            factor *= values[name]
        total += factor
    return total


@given(SIZES, SIZES, VALUES)
def test_arithmetic_agrees_with_numbers(a, b, values):
    for operation in (operator.add, operator.sub, operator.mul):
        assert value(operation(a, b), values) == operation(value(a, values), value(b, values))


@given(SIZES, SIZES, VALUES)
def test_a_decided_comparison_holds_for_every_value(a, b, values):
    order = compare(a, b)
    difference = value(a, values) - value(b, values)
    assert order is None or order == (difference > 0) - (difference < 0)
    assert not nonnegative(a) or value(a, values) >= 0


@given(SIZES, SIZES, VALUES)
def test_an_exact_quotient_times_the_divisor_is_the_dividend(a, b, values):
    quotient = divide(a, b)
    if quotient is not None and value(b, values) != 0:
        assert value(quotient, values) * value(b, values) == value(a, values)


def test_equal_sizes_are_equal_and_hash_alike():
    batch = symbol("batch")
    assert batch * 4 - batch * 3 == batch
    assert hash(batch + 1 - 1) == hash(batch)
    assert batch - batch == 0 and isinstance(batch - batch, int)


def test_opaque_quotients_and_minima_are_one_symbol_each():
    height = symbol("h")
    assert floor_divide(height, 2) == floor_divide(height, 2)
    assert floor_divide(height * 4, 2) == height * 2
    assert smallest(height, height + 3) == height
    assert smallest(height, 512) == smallest(512, height)
    assert smallest(3, 5) == 3


def test_expressions_that_grow_without_bound_are_refused():
    total = symbol("s0") + 1
    with pytest.raises(TooComplexError):
        for number in range(8):
            total = total * (symbol(f"s{number}") + symbol(f"t{number}"))


def test_facts_of_a_model():
    model = ir.from_proto(
        onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 17]>
            agraph (float[N,3,H,8] x) => (float[N,5,A,B] y) <float[5,3,1,1] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}> {
                c = Conv (x, w)
                p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c)
                t = Transpose <perm = [0,2,3,1]> (p)
                s = Shape(t)
                y = Concat <axis = 2> (c, c)
            }"""
        )
    )
    facts = analyze(model)
    batch, height = symbol("input:N"), symbol("input:H")
    assert facts.shapes["c"] == [batch, 5, height, 8]
    assert facts.shapes["p"][:2] == [batch, 5] and facts.shapes["p"][3] == 4
    assert isinstance(facts.shapes["p"][2], Dim)
    assert facts.shapes["y"] == [batch, 5, height * 2, 8]
    assert list(facts.known["s"]) == [facts.shapes["t"][axis] for axis in range(4)]
    assert facts.sources["input:H"] == ("x", 2)


def test_sizes_that_exporters_leave_open_are_symbols():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> agraph (float[A,B] x) => (float[A,B] y) { y = Relu(x) }'
    )
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0
    assert analyze(ir.from_proto(proto)).shapes["y"] == [symbol("tensor:x.0"), symbol("tensor:x.1")]
