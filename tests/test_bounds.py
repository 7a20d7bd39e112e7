"""What is a forest: the checks of whole arrays against a walk from every root."""

from __future__ import annotations

import copy
from array import array
from dataclasses import replace

import pytest
from artifacts import NAN, complete_blueprint, heads, trees_of
from hypothesis import given
from hypothesis import strategies as st

from bidml.blueprint import Blueprint, CtrBlueprint, Head, Trees
from bidml.bounds import check_blueprint
from bidml.contract import MAX_ABS_LEAF, MAX_DEPTH
from bidml.errors import ArtifactError

ARRAYS = ("roots", "true_child", "false_child", "true_is_leaf", "false_is_leaf")


def is_forest(t: Trees) -> bool:
    """Every node and leaf once, children after parents, not too deep; the sides of a root have different numbers."""
    nodes: list[int] = []
    leaves: list[int] = []
    open_ = [(root, 1) for root in t.roots]
    while open_:
        at, depth = open_.pop()
        if not 0 <= at < t.n_nodes or depth > MAX_DEPTH or len(nodes) > t.n_nodes:
            return False
        nodes.append(at)
        for child, is_leaf in (
            (t.true_child[at], t.true_is_leaf[at]),
            (t.false_child[at], t.false_is_leaf[at]),
        ):
            if is_leaf not in (0, 1):
                return False
            if is_leaf:
                leaves.append(child)
            elif child <= at:
                return False
            else:
                open_.append((child, depth + 1))
    return (
        sorted(nodes) == list(range(t.n_nodes))
        and sorted(leaves) == list(range(len(t.leaf)))
        and all(t.true_child[root] != t.false_child[root] for root in t.roots)
    )


def of(head: Head) -> Blueprint:
    return replace(complete_blueprint(), ctr=CtrBlueprint(head), win=None)


@st.composite
def damaged(draw: st.DrawFn) -> Head:
    head = draw(heads().filter(lambda head: head.trees is not None))
    trees = copy.deepcopy(head.trees)
    assert trees is not None
    for _ in range(draw(st.integers(0, 3))):
        values = getattr(trees, draw(st.sampled_from(ARRAYS)))
        at = draw(st.integers(0, len(values) - 1))
        values[at] = draw(st.integers(-1, trees.n_nodes + 1) | st.sampled_from(list(values)))
    return replace(head, trees=trees)


@given(damaged())
def test_what_is_no_forest_is_refused(head: Head) -> None:
    """And nothing else: the checks say what the walk says."""
    assert head.trees is not None
    try:
        check_blueprint(of(head), error=ArtifactError)
    except ArtifactError:
        assert not is_forest(head.trees)
    else:
        assert is_forest(head.trees)


@pytest.mark.parametrize("n", [MAX_DEPTH, MAX_DEPTH + 1])
def test_depth_is_bounded(n: int) -> None:
    """A list of nodes, one below the other."""
    trees = Trees(
        array("q", [0]), array("q", [0] * n), array("B", bytes(n)), array("d", [1.0] * n),
        array("q", [*range(1, n), n]), array("q", range(n)), array("q", [0] * (n - 1) + [1]), array("q", [1] * n),
        array("q", [0] * n), array("d"), array("d", [0.5] * (n + 1)),
    )  # fmt: skip
    head = replace(complete_blueprint().ctr.head, trees=trees)  # type: ignore[union-attr]
    if n <= MAX_DEPTH:
        check_blueprint(of(head), error=ArtifactError)
    else:
        with pytest.raises(ArtifactError, match=f"at most {MAX_DEPTH} nodes deep.*{n}"):
            check_blueprint(of(head), error=ArtifactError)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        # Nodes 1 and 2 hold each other, each once; no root leads there.
        (
            {"true_child": {0: 0, 1: 2, 2: 1}, "true_is_leaf": {0: 1, 2: 0}},
            "after its parent and exists.*1 below 2",
        ),
        ({"true_child": {1: 3}}, "after its parent and exists.*3 below 1"),
        ({"true_child": {1: 1}}, "after its parent and exists.*1 below 1"),
        ({"true_child": {0: 2}}, "belongs to one tree.*found 2"),
    ],
)
def test_a_child_is_a_later_node_of_its_own(changes: dict[str, dict[int, int]], rule: str) -> None:
    """Numbers that only one who looks for it would write."""
    trees = trees_of((0, 1.5, False, (1, 2.5, False, (0, 3.5, False, 0.0, 1.0), 2.0), 3.0))
    for name, values in changes.items():
        for at, value in values.items():
            getattr(trees, name)[at] = value
    assert not is_forest(trees)
    head = replace(complete_blueprint().ctr.head, trees=trees)  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match=rule):
        check_blueprint(of(head), error=ArtifactError)


RULES = {
    "roots": (7, "one of its 1 nodes.*found 7"),
    "column": (9, "reads one of its 5 columns.*found 9"),
    "threshold": (NAN, "numbers above -inf"),
    "missing_true": (3, "missing_true is 0 or 1.*found 3"),
    "true_is_leaf": (2, "true_is_leaf is 0 or 1.*found 2"),
    "true_child": (5, "used and exists.*found 5"),
    "leaf": (2 * MAX_ABS_LEAF, "at most 1e\\+06.*found 2000000"),
}


@pytest.mark.parametrize("name", RULES)
def test_a_refusal_quotes_what_breaks_the_rule(name: str) -> None:
    """The first value that does, which is looked for only then."""
    value, rule = RULES[name]
    trees = trees_of((0, 1.5, False, -1.0, 1.0))
    getattr(trees, name)[0] = value
    head = replace(complete_blueprint().ctr.head, trees=trees)  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match=rule):
        check_blueprint(of(head), error=ArtifactError)
