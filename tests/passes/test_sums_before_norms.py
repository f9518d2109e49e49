"""Where an addition is written so that a runtime does not fuse it with the normalisation behind it."""

from __future__ import annotations

import pytest

from passes.sums_before_norms import SumsBeforeNorms

WHOLE = """agraph (float[N,3,4] x, float[N,3,4] z) => (float[N,3,4] y) <float[4] s = {1, 2, 3, 4}> {
    a = Add(x, z)
    y = LayerNormalization <axis = -1> (a, s)
}"""
IN_PARTS = """agraph (float[N,3,4] x, float[N,3,4] z) => (float[N,3,4] y) <float two = {2.0}> {
    a = Add(x, z)
    mean = ReduceMean <axes = [-1]> (a)
    d = Sub(a, mean)
    p = Pow(d, two)
    v = ReduceMean <axes = [-1]> (p)
    q = Sqrt(v)
    y = Div(d, q)
}"""


@pytest.mark.parametrize("text", [WHOLE, IN_PARTS], ids=["whole", "in parts"])
def test_the_sum_before_a_normalisation(apply, text):
    done = apply(SumsBeforeNorms(), text)
    assert done.nodes[0] == "a = Sum(x, z)"
    assert dict(done.result.counts) == {"Add to Sum": 1}


@pytest.mark.parametrize(
    "change",
    [
        ("Add(x, z)", "Add(x, s)"),  # a bias
        ("LayerNormalization <axis = -1> (a, s)", "Mul(a, s)"),
        ("float", "float16"),
        ("Add(x, z)", "Sub(x, z)"),
    ],
)
def test_what_stays(apply, change):
    assert not apply(SumsBeforeNorms(), WHOLE.replace(*change)).result.modified
