"""Curves and calibrations that no sane model has: every clamp, and the slow price beside the fast one."""

from __future__ import annotations

from array import array
from itertools import product

import pytest
from artifacts import CTR_KNOTS
from decisions import artifact_of

from bidml.blueprint import Blueprint, Calibration, CtrBlueprint, Head, Lookup, WinBlueprint, WinFamily
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.metadata import TOLERANCE, difference, expected_names
from bidml.oracle import evaluate
from bidml.score import Scorer

_MARGINS = {
    "ctr": (-900.0, -40.0, -9.0, -1.0, 0.0, 3.0, 900.0),
    "location": (-1e5, -700.0, -120.0, -3.0, 0.0, 1.0, 110.0, 1e5),
    "log_slope": (-1e5, -9.0, -4.0, -1.0, 0.0, 1.5, 3.9, 4.5, 1e5),
}


@pytest.mark.parametrize("family", WinFamily)
@pytest.mark.parametrize("value_per_click", [2.0, 1e-300, 1e6])
@pytest.mark.parametrize("slope_scale", [1e-4, 1.0, 900.0])
@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(1.0, 1.0, -0.75),
        Calibration(0.8, 0.8, 0.5),
        Calibration(1.1, 0.7, 0.1),
        Calibration(1.1, 0.7, 0.1, CTR_KNOTS),
    ],
)
def test_every_curve_is_priced_as_the_oracle_does(
    value_per_click: float, slope_scale: float, calibration: Calibration, family: WinFamily
) -> None:
    """Shapes from 1e-8 to 1e5, locations far from any price, values down to where doubles end."""
    spec = FeatureSpec(tuple(Feature(name, FeatureKind.CATEGORY, f"ext.{name}") for name in _MARGINS))
    heads = {
        name: Head((), None, (Lookup(name, tuple(map(str, range(len(x)))), array("d", x), 0.0),))
        for name, x in _MARGINS.items()
    }
    win = WinBlueprint(heads["location"], heads["log_slope"], 0.5, slope_scale, 0.125, 1.3, family=family)
    blueprint = Blueprint(spec, CtrBlueprint(heads["ctr"], calibration), win, "USD")
    rows = list(product(*(map(str, range(len(x))) for x in _MARGINS.values())))
    columns = dict(zip(_MARGINS, map(list, zip(*rows, strict=True)), strict=True)) | {
        "value_per_click": array("d", [value_per_click]) * len(rows),
        "floor_cpm": array("d", [0.0]) * len(rows),
        "cap_cpm": array("d", [1e300]) * len(rows),
        "pacing_multiplier": array("d", [1.0]) * len(rows),
        "auction_type": array("d", [1.0]) * len(rows),
    }
    names = expected_names(blueprint)
    found = {name: array("d", bytes(8 * len(rows))) for name in names}
    Scorer(artifact_of(blueprint)).score_many(columns, found)
    wanted = evaluate(blueprint, columns)
    for name in names:
        for row, want, have in zip(rows, wanted[name], found[name], strict=True):
            assert difference(name, want, have) <= TOLERANCE, (name, row, want, have)
