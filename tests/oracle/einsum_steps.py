"""Steps of random graphs with Einsum over token features (N, T, D): products with weights, heads, sums."""

from __future__ import annotations

from graph_builder import Builder, Value


def einsum(b: Builder, x: Value) -> Value:
    """One product or sum; opsets before 12 have none."""
    n, t, d = x.shape
    if b.opset < 12:
        return b.unary("Relu", x)
    kind = b.pick(["linear", "left", "ellipsis", "factored", "tokens", "sum", "diagonal"])
    if kind == "linear":
        return b.op("Einsum", [x, b.weight(d, 6, fan_in=d)], (n, t, 6), equation=b.pick(["ntd,de->nte", "abi, ic"]))
    if kind == "left":
        return b.op("Einsum", [b.weight(6, d, fan_in=d), x], (n, t, 6), equation="oi,nti->nto")
    if kind == "ellipsis":
        return b.op("Einsum", [x, b.weight(6, d, fan_in=d)], (n, t, 6), equation="...i,oi->...o")
    if kind == "factored":
        factors = [b.weight(d, 4, fan_in=d), b.weight(4, 6, fan_in=4)]
        return b.op("Einsum", [x, *factors], (n, t, 6), equation="nti,ir,ro->nto")
    if kind == "tokens":  # mixes the tokens, one number for each feature stays
        return b.op("Einsum", [x, b.weight(t, t, fan_in=t)], x.shape, equation="ntd,ts->nsd")
    if kind == "sum":
        total = b.op("Einsum", [x], (n, t), equation=b.pick(["ntd->nt", "...d->..."]))
        return b.binary("Add", x, b.squeeze("Unsqueeze", total, [2], (n, t, 1)), x.shape)
    square = b.op("Einsum", [x, x], (n, d, d), equation="nti,ntj->nij")
    diagonal = b.op("Einsum", [square], (n, d), equation="nii->ni")
    return b.binary("Add", x, b.squeeze("Unsqueeze", diagonal, [1], (n, 1, d)), x.shape)


def einsum_attention(b: Builder, x: Value) -> Value:
    """Heads are made by the weights' own axes or by a Reshape."""
    n, t, d = x.shape
    if b.opset < 12:
        return b.unary("Tanh", x)
    heads, size = b.pick([(2, 4), (3, 2)])

    def project() -> Value:
        if b.flag():
            weight = b.weight(d, heads, size, fan_in=d)
            return b.op("Einsum", [x, weight], (n, t, heads, size), equation="btd,dhe->bthe")
        y = b.op("MatMul", [x, b.weight(d, heads * size, fan_in=d)], (n, t, heads * size))
        return b.reshape(y, b.pick([(0, 0, heads, size), (n, t, heads, -1)]), (n, t, heads, size))

    q, k, v = project(), project(), project()
    scores = b.op("Einsum", [q, k], (n, heads, t, t), equation="bqhe,bkhe->bhqk")
    mixed = b.op("Einsum", [b.unary("Softmax", scores, axis=3), v], (n, t, heads, size), equation="bhqk,bkhe->bqhe")
    out = b.weight(heads, size, d, fan_in=heads * size)
    return b.op("Einsum", [mixed, out], x.shape, equation=b.pick(["bqhe,hed->bqd", "...he,hed->...d"]))
