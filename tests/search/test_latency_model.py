"""The latency model on a machine whose latency is its MACs: what the table adds up to is then known to the digit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from onnxprune import channels, ir
from onnxprune.search.calibration import Calibration, fit_calibration
from onnxprune.search.latency_model import PricedCluster, TablePlan, plan_table
from onnxprune.search.solve import LatencyTerm
from passes.block_removal import branches, drop
from passes.structured_pruning.apply import prune

Residual = Callable[..., ir.Model]
SHAPE = {"x": (1, 3, 8, 8)}


def test_calibration_goes_through_what_was_measured() -> None:
    found = fit_calibration([4e-3, 1e-3, 2e-3], [9e-3, 2e-3, 4.5e-3])
    assert [found.seconds(x) for x in (1e-3, 2e-3, 4e-3)] == pytest.approx([2e-3, 4.5e-3, 9e-3])
    assert found.seconds(3e-3) == pytest.approx(6.75e-3)
    for total in (0.2e-3, 1e-3, 1.7e-3, 3e-3, 7e-3):
        assert found.budget(found.seconds(total)) == pytest.approx(total)


def test_beyond_what_was_measured_latency_is_proportional() -> None:
    found = fit_calibration([1.0, 2.0], [3.0, 8.0])
    assert found.seconds(0.5) == pytest.approx(1.5) and found.seconds(4.0) == pytest.approx(16.0)


@pytest.mark.parametrize("measured", [[3.0, 3.3], [3.3, 3.0]])
def test_points_close_together_give_a_factor_alone(measured: list[float]) -> None:
    found = fit_calibration([1.0, 1.02], measured)
    assert found.seconds(7.0) == pytest.approx(7.0 * np.sqrt(9.9 / 1.02))


def test_what_was_measured_in_the_other_order_is_one_point() -> None:
    found = fit_calibration([1.0, 2.0, 4.0], [2.0, 5.0, 4.5])
    assert found.knots == (pytest.approx((1.0, 2.0)), pytest.approx((np.sqrt(8.0), np.sqrt(22.5))))
    assert fit_calibration([1.0, 2.0, 4.0], [9.0, 5.0, 4.0]).knots == (pytest.approx((2.0, 180 ** (1 / 3))),)


def test_nothing_priced_gives_the_identity() -> None:
    found = fit_calibration([0.0, 0.0], [1.0, 2.0])
    assert found == Calibration() and found.seconds(3.0) == found.budget(3.0) == 3.0


def test_between_measured_widths_latency_is_linear() -> None:
    keys = np.array([["a", "b"], ["c", "d"]], object)
    cluster = PricedCluster(("g", "h"), ((4, 8), (2, 6)), ((4, 6, 8), (2, 3, 6)), keys, 3, frozenset())
    term = cluster.term({"a": 1.0, "b": 2.0, "c": 3.0, "d": 6.0})
    assert term.groups == ("g", "h") and term.branch == 3
    np.testing.assert_allclose(term.seconds, [[1, 1.25, 2], [2, 2.5, 4], [3, 3.75, 6]])


def test_a_missing_entry_is_not_a_number() -> None:
    cluster = PricedCluster(("g",), ((4, 8),), ((4, 8),), np.array(["a", "b"], object), None, frozenset())
    assert np.isnan(cluster.term({"b": 1.0}).seconds).tolist() == [True, False]


def plan(
    model: ir.Model, levels: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[TablePlan, dict[str, tuple[int, ...]]]:
    graph = channels.analyze(model)
    widths = dict(levels or {group.name: (group.width // 4, group.width // 2, group.width) for group in graph.groups})
    shapes = ir.shapes_for(model, SHAPE)
    order = {key: index for index, branch in enumerate(branches(model, shapes)) for key in branch.dropped}
    return plan_table(model, graph, shapes, widths, order, ir.to_proto, "float"), widths


def priced(found: TablePlan) -> tuple[LatencyTerm, ...]:
    built = {key: ir.from_proto(onnx.load_from_string(build())) for key, build in found.builders.items()}
    return found.terms({key: float(ir.macs(part, ir.shapes_for(part, {}))) for key, part in built.items()})


def total(terms: tuple[LatencyTerm, ...], level: Mapping[str, int], dropped: int = 0) -> float:
    return sum(
        float(term.seconds[tuple(level[group] for group in term.groups)])
        for term in terms
        if term.branch is None or term.branch >= dropped
    )


def test_the_sum_of_the_table_is_the_whole_model(residual: Residual) -> None:
    """MACs are bilinear in the widths, so the interpolated table must be exact at every level."""
    model = residual()
    found, levels = plan(model, {g.name: tuple(range(4, g.width + 1, 4)) for g in channels.analyze(model).groups})
    terms = priced(found)
    assert any(len(cluster.grid[0]) < len(cluster.widths[0]) for cluster in found.priced if len(cluster.axes) == 2)
    graph, rng = channels.analyze(model), np.random.default_rng(0)
    for _ in range(5):
        level = {name: int(rng.integers(len(widths))) for name, widths in levels.items()}
        keep = {name: np.arange(graph.group(name).width) < levels[name][at] for name, at in level.items()}
        pruned = model.copy()
        prune(pruned, graph, keep)
        assert total(terms, level) == pytest.approx(ir.macs(pruned, ir.shapes_for(pruned, SHAPE)))


def test_a_dropped_branch_takes_its_terms_with_it(residual: Residual) -> None:
    model = residual()
    found, levels = plan(model)
    full = {name: len(widths) - 1 for name, widths in levels.items()}
    shallow = model.copy()
    drop(shallow, branches(model, ir.shapes_for(model, SHAPE))[:2])
    left = ir.macs(shallow, ir.shapes_for(shallow, SHAPE))
    assert total(priced(found), full, dropped=2) == pytest.approx(left)


def test_equal_clusters_share_keys_and_different_ones_do_not(residual: Residual) -> None:
    one, _ = plan(residual(blocks=1))
    many, _ = plan(residual(blocks=5, seed=1))
    assert set(one.builders) == set(many.builders)  # weights and names do not matter
    other, _ = plan(residual(blocks=1, inner=28))
    shared = set(one.builders) & set(other.builders)
    assert shared and shared != set(one.builders)
    assert not any("stem" in key for key in one.builders)


@pytest.mark.parametrize(
    ("attribute", "value"), [("strides", [2, 2]), ("dilations", [2, 2]), ("auto_pad", "SAME_UPPER")], ids=str
)
def test_attributes_tell_clusters_apart(residual: Residual, attribute: str, value: object) -> None:
    before, after = residual(blocks=0), residual(blocks=0)
    stem = after.graph.nodes[0]
    stem.attrs.pop("pads")
    before.graph.nodes[0].attrs.pop("pads")
    stem.attrs[attribute] = value
    for model in (before, after):
        ir.infer_shapes(model)
    first, second = (set(plan(model)[0].builders) for model in (before, after))
    assert {key for key in first if key.startswith("float|Conv")}.isdisjoint(second)


def test_the_scheme_is_part_of_the_key(residual: Residual) -> None:
    model = residual(blocks=1)
    graph, shapes = channels.analyze(model), ir.shapes_for(model, SHAPE)
    widths = {group.name: (group.width,) for group in graph.groups}
    found = [set(plan_table(model, graph, shapes, widths, {}, ir.to_proto, tag).builders) for tag in ("float", "int8")]
    assert found[0].isdisjoint(found[1])


def test_pieces_run_at_the_predicted_shapes(residual: Residual) -> None:
    found, levels = plan(residual(blocks=1))
    assert 0 < len(found.builders) < 30
    seen = set()
    for build in found.builders.values():
        proto = onnx.load_from_string(build())
        onnx.checker.check_model(proto, full_check=True)
        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = {value.name: np.zeros(value.shape, np.float32) for value in session.get_inputs()}
        for value, output in zip(session.get_outputs(), session.run(None, feeds), strict=True):
            assert list(output.shape) == value.shape
            seen.add(output.shape[1])
    assert seen == {size for widths in levels.values() for size in widths} | {5}


def three_groups() -> ir.Model:
    """A product of two projections, concatenated with a third: one normalisation after it touches three groups."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in {"wa": (6, 8), "wb": (6, 12), "wc": (6, 4), "wd": (24, 3)}.items()
    ]
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 6] x) => (float[N, 3] y) {
            a = MatMul (x, wa)
            b = MatMul (x, wb)
            c = MatMul (x, wc)
            abc = Concat <axis = 1> (a, b, c)
            r = Relu (abc)
            y = MatMul (r, wd)
        }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(weights)
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


@pytest.mark.parametrize("few", [0, 4])
def test_clusters_of_three_groups(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jointly where there are few of them, else one by one against the full cluster."""
    monkeypatch.setattr("onnxprune.search.latency_model.FEW_TRIPLES", few)
    model = three_groups()
    graph, shapes = channels.analyze(model), ir.shapes_for(model, {"x": (1, 6)})
    levels = {group.name: (group.width // 2, group.width) for group in graph.groups}
    assert len(levels) == 3
    found = plan_table(model, graph, shapes, levels, {}, ir.to_proto, "float")
    assert any(len(cluster.axes) == 3 for cluster in found.priced) == (few > 0)
    assert any(cluster.minus is not None for cluster in found.priced) == (few == 0)
    terms = priced(found)
    for level in (dict(zip(levels, bits, strict=True)) for bits in np.ndindex(2, 2, 2)):
        keep = {name: np.arange(graph.group(name).width) < levels[name][at] for name, at in level.items()}
        pruned = model.copy()
        prune(pruned, graph, keep)
        # each group alone enters these products, so that differences add up exactly too
        assert total(terms, level) == pytest.approx(ir.macs(pruned, ir.shapes_for(pruned, {"x": (1, 6)})))


def test_three_groups_multiply_in_a_convolution_behind_a_concat() -> None:
    """A sum of one-group effects would price the narrowest plan below zero."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 3, 8, 8] x) => (float[N, 2, 8, 8] y) {
            a = Conv (x, wa)
            b = Conv (x, wb)
            ab = Concat <axis = 1> (a, b)
            c = Conv (ab, wc)
            y = Conv (c, wd)
        }""")
    for name, shape in {"wa": (8, 3), "wb": (8, 3), "wc": (8, 16), "wd": (2, 8)}.items():
        proto.graph.initializer.append(
            numpy_helper.from_array(rng.standard_normal((*shape, 1, 1)).astype(np.float32), name)
        )
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    found, levels = plan(model, dict.fromkeys(("wa:0", "wb:0", "wc:0"), (1, 4, 8)))
    terms = priced(found)
    assert min(float(term.seconds.min()) for term in terms) >= 0
    keep = {name: np.arange(8) < widths[0] for name, widths in levels.items()}
    prune(model, channels.analyze(model), keep)
    assert total(terms, dict.fromkeys(levels, 0)) == pytest.approx(ir.macs(model, ir.shapes_for(model, SHAPE)))


def test_a_cluster_lies_in_the_branch_of_its_contraction(residual: Residual) -> None:
    """What is fused into it may belong to the next branch; a set of its nodes has no order to go by."""
    model = residual(blocks=4)
    graph, shapes = channels.analyze(model), ir.shapes_for(model, SHAPE)
    keys = [ir.node_key(node) for node in model.graph.nodes]
    found = plan_table(model, graph, shapes, {}, {key: index for index, key in enumerate(keys)}, ir.to_proto, "float")
    firsts = [min(keys.index(key) for key in cluster.nodes) for cluster in found.priced]
    assert [cluster.branch for cluster in found.priced] == firsts
    assert any(len(cluster.nodes) > 2 for cluster in found.priced)


def test_hidden_units_of_recurrent_layers_are_priced(recurrent: ir.Model) -> None:
    graph = channels.analyze(recurrent)
    levels = {group.name: (2, group.width) for group in graph.groups}
    found = plan_table(recurrent, graph, ir.shapes_for(recurrent, {"x": (7, 1, 5)}), levels, {}, ir.to_proto, "float")
    assert sorted(group.width for group in graph.groups) == [6, 8]
    lstm, gru = (group.name for group in graph.groups)
    assert {cluster.axes for cluster in found.priced} >= {(lstm,), (lstm, gru), (gru,)}
    small = onnx.load_model_from_string(found.builders[str(found.priced[0].keys[0])]())
    assert [dim.dim_value for dim in small.graph.output[0].type.tensor_type.shape.dim][-1] == 2
