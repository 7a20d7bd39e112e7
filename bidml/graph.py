"""The ONNX graph as a pure function of the blueprint.

One blueprint has one graph: same nodes, same names, same order. The exporter writes it; the reader extracts
a blueprint from the named parts of a file and demands `graph_of(extracted) == parsed`. So the runtime never
interprets a graph, and nothing altered, hidden or added gets through. The heads are here, the price is in
`graph_price.py`. A node is named as its one output; every name but those of inputs and outputs has a dot.
"""

from __future__ import annotations

from array import array
from typing import Final

from bidml.blueprint import Blueprint, Head, NodeMode, Trees
from bidml.contract import (
    CTR_OUTPUTS,
    CVR_OUTPUTS,
    GOAL_INPUTS,
    PRICE_INPUTS,
    PRICE_OUTPUTS,
    RISK_INPUTS,
    SD_OUTPUTS,
    WIN_OUTPUTS,
    FeatureKind,
)
from bidml.graph_parts import (
    DOUBLE,
    ML_DOMAIN,
    STRING,
    UINT8,
    Attribute,
    Graph,
    GraphBuilder,
    Node,
    Tensor,
    Value,
)
from bidml.graph_price import (
    CVR_CALIBRATION,
    add_cautious_pctr,
    add_log_odds_sd,
    add_price,
    add_sigmoid,
    add_win_curve,
    calibrated,
)

GRAPH_NAME: Final = "bid_model"


def graph_of(blueprint: Blueprint) -> Graph:
    """The graph of a blueprint that passed `bounds.check_blueprint`."""
    b = GraphBuilder(anchor=blueprint.spec.names[0])
    inputs = [
        Value(f.name, STRING if f.kind is FeatureKind.CATEGORY else DOUBLE) for f in blueprint.spec.features
    ]
    outputs: list[str] = []
    if blueprint.ctr is not None:
        margin = _add_head(b, "ctr", blueprint.ctr.head)
        click_log_odds = calibrated(b, blueprint.ctr.calibration, margin)
        add_sigmoid(b, click_log_odds, name="pctr")
        outputs += CTR_OUTPUTS
        if blueprint.ctr.variance is not None:
            add_log_odds_sd(b, _add_head(b, "variance", blueprint.ctr.variance))
            outputs += SD_OUTPUTS
    if blueprint.cvr is not None:
        margin = _add_head(b, "cvr", blueprint.cvr.head)
        log_odds = calibrated(b, blueprint.cvr.calibration, margin, name=CVR_CALIBRATION)
        add_sigmoid(b, log_odds, name="pcvr")
        outputs += CVR_OUTPUTS
    if blueprint.win is not None:
        location = _add_head(b, "location", blueprint.win.location)
        log_slope = _add_head(b, "log_slope", blueprint.win.log_slope)
        add_win_curve(b, blueprint.win, location, log_slope)
        outputs += WIN_OUTPUTS
    if blueprint.ctr is not None and blueprint.win is not None:
        goals = GOAL_INPUTS if blueprint.cvr is not None else ()
        risks = RISK_INPUTS if blueprint.ctr.variance is not None else ()
        inputs += [Value(name, DOUBLE) for name in PRICE_INPUTS + goals + risks]
        pctr = add_cautious_pctr(b, click_log_odds) if risks else "pctr"
        add_price(b, gamma="win.gamma", family=blueprint.win.family, pctr=pctr, amounts=goals + risks)
        outputs += PRICE_OUTPUTS
    return Graph(
        tuple(inputs), tuple(Value(name, DOUBLE) for name in outputs), b.initializers, tuple(b.nodes)
    )


def _add_head(b: GraphBuilder, head_name: str, head: Head) -> str:
    """margin = trees / divisor · scale + intercept + terms; steps that change nothing are left out."""
    if head.trees is None:
        margin = b.filled(f"{head_name}.intercept", head.intercept)
    else:
        sources = tuple(b.column(column) for column in head.columns)
        columns = f"{head_name}.columns"
        b.nodes.append(Node("Concat", columns, sources, attributes={"axis": 1}))
        margin = f"{head_name}.trees"
        b.nodes.append(Node("TreeEnsemble", margin, (columns,), ML_DOMAIN, _tree_attributes(head.trees)))
        if head.divisor != 1.0:
            divisor = b.number(f"{head_name}.divisor", head.divisor)
            margin = b.add("Div", f"{head_name}.mean", margin, divisor)
        if head.scale != 1.0:
            margin = b.add("Mul", f"{head_name}.scaled", margin, b.number(f"{head_name}.scale", head.scale))
        if head.intercept != 0.0:
            intercept = b.number(f"{head_name}.intercept", head.intercept)
            margin = b.add("Add", f"{head_name}.shifted", margin, intercept)
    for i, term in enumerate(head.terms):
        margin = b.add("Add", f"{head_name}.term.{i}", margin, b.lookup(term))
    return b.add("Identity", f"{head_name}.margin", margin)


def _tree_attributes(trees: Trees) -> dict[str, Attribute]:
    n_nodes, n_leaves = trees.n_nodes, len(trees.leaf)
    attributes: dict[str, Attribute] = {
        "aggregate_function": 1,  # sum
        "leaf_targetids": array("q", bytes(8 * n_leaves)),
        "leaf_weights": Tensor(DOUBLE, (n_leaves,), trees.leaf),
        "membership_values": Tensor(DOUBLE, (len(trees.membership),), trees.membership),
        "n_targets": 1,
        "nodes_falseleafs": trees.false_is_leaf,
        "nodes_falsenodeids": trees.false_child,
        "nodes_featureids": trees.column,
        "nodes_missing_value_tracks_true": trees.missing_true,
        "nodes_modes": Tensor(UINT8, (n_nodes,), trees.mode),
        "nodes_splits": Tensor(DOUBLE, (n_nodes,), trees.threshold),
        "nodes_trueleafs": trees.true_is_leaf,
        "nodes_truenodeids": trees.true_child,
        "post_transform": 0,  # none
        "tree_roots": trees.roots,
    }
    if NodeMode.MEMBER not in trees.mode:
        del attributes["membership_values"]
    return attributes
