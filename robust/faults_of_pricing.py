"""Mistakes one could make in `bidml/pricing`, each an edit of one place, tried on a copy of the package."""

# ruff: noqa: E501 (a fault is a line)
from __future__ import annotations

from robust.faults import Fault


def _in(file: str, tests: str, *rows: tuple[str, ...]) -> list[Fault]:
    tests = f"tests/pricing/{tests}"
    return [
        Fault(row[0], f"pricing/{file}", row[1], row[2], tests, row[3] if len(row) > 3 else "")
        for row in rows
    ]


FAULTS_OF_PRICING: tuple[Fault, ...] = (
    *_in(
        "bid.py",
        "test_bid.py",
        ("surplus without the win rate", "(double(value_cpm) - bid) * double(win_rate)", "double(value_cpm) - bid"),
        ("a surplus without a bid", "np.where(bid > 0.0, (double", "np.where(bid >= 0.0, (double"),
        ("pacing is not applied", "v = value * pacing\n", "v = value * 1.0\n"),
        ("an unknown auction is first price", "((at == AuctionType.FIRST_PRICE) | (at == AuctionType.SECOND_PRICE))\n            &", "(at == at)\n            &"),
        ("a negative floor is valid", "            & (floor >= 0.0)\n", ""),
        ("negative value times negative pacing", "            & (value >= 0.0)\n            & (pacing >= 0.0)\n", ""),
        ("an infinite value is valid", "            & (v < np.inf)\n", ""),
        ("a cap below the floor is valid", "            & (cap >= floor)\n", ""),
        ("a bid at a value that is the floor", "            & (v > floor)\n", "            & (v >= floor)\n"),
        ("the auction types are swapped", "np.where(at == AuctionType.SECOND_PRICE, v,", "np.where(at == AuctionType.FIRST_PRICE, v,"),
        ("not lifted to the floor", "np.maximum(optimum, floor)", "optimum"),
        ("not held to the value", "np.minimum(cap, v))\n", "cap)\n",
         "no optimum is above the value, and neither is a floor under which there is a bid"),
        ("ln(1 + gk) once too little", "- (k + 1.0) * ln_1_gk", "- k * ln_1_gk"),
        ("the exponent is left out", "gk = gamma * k", "gk = k"),
        ("two steps", "range(HALLEY_STEPS)", "range(2)"),
    ),
    *_in(
        "curve.py",
        "test_bid.py",
        ("gamma is not applied", "return -(self.gamma * softplus(-z))", "return -softplus(-z)"),
        ("the density of a flat curve", "self.gamma * self.shape * sigmoid(-z) / b", "self.gamma * sigmoid(-z) / b"),
        ("quantile without gamma", "np.log(double(win_rate)) / self.gamma", "np.log(double(win_rate))"),
        ("an infinite shape is valid", "np.isfinite(k) & (k > 0.0)", "(k > 0.0)"),
    ),
    *_in(
        "goals.py",
        "test_goals.py",
        ("the margin is added", "(1.0 - double(margin))\n    return np.asarray(float", "(1.0 + double(margin))\n    return np.asarray(float"),
        ("view-through is forgotten", "double(pctr) * double(pcvr) + double(p_view_through)", "double(pctr) * double(pcvr)"),
        ("the rate multiplies", "(1.0 - double(fee)) / double(rate)", "(1.0 - double(fee)) * double(rate)"),
        ("a value below zero", "np.asarray(np.maximum(double(value_cpm) - double(aversion) * double(sd_cpm), 0.0))", "np.asarray(double(value_cpm) - double(aversion) * double(sd_cpm))"),
    ),
    *_in(
        "mechanisms.py",
        "test_mechanisms.py",
        ("a deal at any loss", "(gain > 0.0) & (gain >= other)", "(gain >= other)"),
        ("a deal worse than the open auction", " & (gain >= other)", ""),
        ("mixed: gamma times the probability", "curve.gamma / first", "curve.gamma * first"),
        ("soft floor: always below", "(high > 0.0) & (high_surplus >= low_surplus)", "(high > 0.0) & (high_surplus < low_surplus)"),
        ("soft floor: the hard floor is forgotten above", "high = optimal_bid_cpm(value, curve, floor_cpm=np.maximum(floor, s)", "high = optimal_bid_cpm(value, curve, floor_cpm=floor",
         "a second-price bid below the soft floor counts for less than the first-price bid it is compared with"),
        ("ticks are rounded to nearest", "np.floor(bid / tick + _ROUNDING)", "np.round(bid / tick)"),
        ("the first tick below the floor", "np.ceil(floor / tick - _ROUNDING)", "np.floor(floor / tick)"),
        ("a tick above the highest", " & (rounded <= highest * (1.0 + _ROUNDING))", ""),
    ),
    *_in(
        "exploration.py",
        "test_exploration.py",
        ("density without the share", "density = share * density_around", "density = density_around"),
        ("density without the cuts", "inside / (ndtr(high) - ndtr(low))", "inside"),
        ("everything is explored", "may & (chosen < share)", "may"),
        ("a bid outside its bounds is explored", " & (lowest <= bid) & (bid <= highest)", ""),
    ),
    *_in(
        "sensitivity.py",
        "test_sensitivity.py",
        ("half the loss", "0.5 * self.curvature * shift**2", "0.25 * self.curvature * shift**2"),
        ("the curve does not flatten", "np.pi / 8.0 * double", "0.0 * double"),
    ),
)  # fmt: skip
