"""The log-normal win curve as graph nodes: ln Φ, and the optimal bid.

onnxruntime has `Erf` in single precision only, so the tail of the normal distribution is a polynomial in double. The
same operations as `native/log_normal.h`; `pricing/log_normal.py` has the formulas.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Final

from bidml.contract import HALLEY_STEPS
from bidml.graph_parts import GraphBuilder

SCALED_TAIL: Final = (
    0.47205320650984467, -0.09670347732652607, 0.013999634724430469, 0.02860036405357749,
    -0.03219783742831453, 0.01793609747886859, -0.0050023785870514665, -0.00028562308680939413,
    0.0006948970692570495, -9.443033944152223e-05, -8.785300442645791e-05, 2.1250446856208376e-05,
    1.3626315192600401e-05, -3.433372216853275e-06, -2.6118464340168558e-06, 4.0671730125154447e-07,
    5.507747965364098e-07, -1.237153366992197e-09, -1.1022354013739079e-07, -1.7932121916642413e-08,
    1.7442583764419795e-08, 5.474708632048689e-09, -1.5456221598143852e-09, -6.763267210562454e-10,
)  # fmt: skip
"""P(Z > x) e^{x²/2} (1 + x) as a polynomial in t = (x − 4)/(x + 4), lowest power first."""

_ROOT_OF_2_PI: Final = sqrt(2.0 * pi)
_HAZARD_AT_0: Final = sqrt(2.0 / pi)


def add_log_normal_cdf(b: GraphBuilder, name: str, z: str) -> str:
    """Adds ln Φ(z)."""
    tail, half_square, e, is_low = _tail_of(b, name, z)
    low = b.add("Sub", f"{name}.if_low", b.add("Log", f"{name}.ln_tail", tail), half_square)
    high = b.add(
        "Log", f"{name}.if_high", _one_minus(b, f"{name}.cdf", b.add("Mul", f"{name}.upper", e, tail))
    )
    return b.add("Where", f"{name}.ln_cdf", is_low, low, high)


def add_log_normal_optimum(b: GraphBuilder, gamma: str, v: str) -> str:
    """Adds argmax (v − b) Φ(z)^γ: Halley's method for f, then v A/(1 + A)."""
    k = "win_shape"
    gk = b.add("Mul", "price.gk", gamma, k)
    w = b.add("Div", "price.w", b.constant(_ROOT_OF_2_PI), gk)
    positive_v = b.add("Max", "price.positive_v", v, b.constant(1e-300))
    c = b.add("Sub", "price.c", b.add("Log", "price.ln_v", positive_v), "win_location")
    z = _add_start(b, gamma, gk, w, c)
    for step in range(1, HALLEY_STEPS + 1):
        z = _add_halley_step(b, f"price.h{step}", z, w, c, next_z=f"price.z{step}")
    n, d, _ = _odds(b, "price.root", z, w)
    share = b.add("Div", "price.optimal_share", n, b.add("Add", "price.root.whole", n, d))
    return b.add("Mul", "price.optimum", v, share)


def _add_start(b: GraphBuilder, gamma: str, gk: str, w: str, c: str) -> str:
    """The least of three upper bounds of the root."""
    k, zero, half, one = "win_shape", b.constant(0.0), b.constant(0.5), b.constant(1.0)
    name = "price.start"
    half_w = b.add("Mul", f"{name}.half_w", half, w)
    one_half_w = b.add("Add", f"{name}.1_half_w", one, half_w)
    at_0 = b.add("Log", f"{name}.at_0", one_half_w)
    is_below = b.add("Less", f"{name}.is_below", c, at_0)
    gain = b.add("Mul", f"{name}.gain", k, b.add("Sub", f"{name}.distance", c, at_0))
    shaded = b.add("Div", f"{name}.shaded", half_w, one_half_w)
    fall = b.add("Mul", f"{name}.fall", b.add("Mul", f"{name}.k_fall", k, b.constant(_HAZARD_AT_0)), shaded)
    tangent = b.add("Div", f"{name}.tangent", gain, b.add("Add", f"{name}.slope", one, fall))
    q = b.add("Add", f"{name}.q", gamma, b.add("Div", f"{name}.1_k", one, k))
    far = b.add("Mul", f"{name}.far", gk, c)
    apart = b.add("Sub", f"{name}.apart", q, far)
    square = b.add("Mul", f"{name}.square", apart, apart)
    four_gamma = b.add("Mul", f"{name}.4_gamma", b.constant(4.0), gamma)
    root = b.add("Sqrt", f"{name}.root", b.add("Add", f"{name}.discriminant", square, four_gamma))
    twice = b.add("Sub", f"{name}.twice", b.add("Add", f"{name}.sum", q, far), root)
    below = b.add("Div", f"{name}.below", b.add("Mul", f"{name}.once", half, twice), gamma)
    high = b.add("Max", f"{name}.high", c, at_0)
    e = b.add("Exp", f"{name}.e", b.add("Neg", f"{name}.minus_high", high))
    odds = b.add("Div", f"{name}.odds", _one_minus(b, f"{name}.1_e", e), half_w)
    log_odds = b.add("Add", f"{name}.log_odds", high, b.add("Log", f"{name}.ln_odds", odds))
    p = b.add("Max", f"{name}.p", log_odds, zero)
    by_square = b.add("Sqrt", f"{name}.by_square", b.add("Mul", f"{name}.2_p", b.constant(2.0), p))
    by_slope = b.add("Div", f"{name}.by_slope", p, b.constant(_HAZARD_AT_0))
    above = b.add("Min", f"{name}.above", by_square, by_slope)
    other = b.add("Where", f"{name}.other", is_below, below, above)
    return b.add("Min", "price.z0", tangent, other)


def _add_halley_step(b: GraphBuilder, name: str, z: str, w: str, c: str, *, next_z: str) -> str:
    """z − 2 f f' / (2 f'² − f f''), for f = z + k (ln(1 + 1/A) − c), f' = 1 + k (z + ρ)/(1 + A)."""
    k, zero, one, two = "win_shape", b.constant(0.0), b.constant(1.0), b.constant(2.0)
    n, d, lead = _odds(b, name, z, w)
    whole = b.add("Add", f"{name}.whole", n, d)
    cost = b.add("Add", f"{name}.cost", lead, b.add("Log", f"{name}.ln_whole", whole))
    excess = b.add("Mul", f"{name}.excess", k, b.add("Sub", f"{name}.cost_c", cost, c))
    f = b.add("Add", f"{name}.f", z, excess)
    scaled_d = b.add("Mul", f"{name}.scaled_d", b.constant(_ROOT_OF_2_PI), d)
    rho = b.add("Div", f"{name}.rho", b.add("Mul", f"{name}.w_n", w, n), scaled_d)
    fall = b.add("Max", f"{name}.fall", b.add("Add", f"{name}.z_rho", z, rho), zero)
    shaded = b.add("Div", f"{name}.shaded", d, whole)
    k_fall = b.add("Mul", f"{name}.k_fall", k, fall)
    f1 = b.add("Add", f"{name}.f1", one, b.add("Mul", f"{name}.f1_1", k_fall, shaded))
    spread = _one_minus(b, f"{name}.variance", b.add("Mul", f"{name}.rho_fall", rho, fall))
    variance = b.add("Max", f"{name}.positive_variance", spread, zero)
    square = b.add("Mul", f"{name}.fall_fall", fall, fall)
    turned = b.add("Mul", f"{name}.turned", square, b.add("Div", f"{name}.share", n, whole))
    k_shaded = b.add("Mul", f"{name}.k_shaded", k, shaded)
    f2 = b.add("Mul", f"{name}.f2", k_shaded, b.add("Add", f"{name}.bend", variance, turned))
    top = b.add("Mul", f"{name}.2_f_f1", b.add("Mul", f"{name}.2_f", two, f), f1)
    squared = b.add("Mul", f"{name}.2_f1_f1", b.add("Mul", f"{name}.2_f1", two, f1), f1)
    bottom = b.add("Sub", f"{name}.bottom", squared, b.add("Mul", f"{name}.f_f2", f, f2))
    return b.add("Sub", next_z, z, b.add("Div", f"{name}.step", top, bottom))


def _odds(b: GraphBuilder, name: str, z: str, w: str) -> tuple[str, str, str]:
    """(n, d, lead) with A = n/d and ln(1 + 1/A) = lead + ln(n + d)."""
    tail, half_square, e, is_low = _tail_of(b, name, z)
    upper = b.add("Mul", f"{name}.upper", e, tail)
    cdf = _one_minus(b, f"{name}.cdf", upper)
    n = b.add("Where", f"{name}.n", is_low, b.constant(1.0), e)
    d = b.add("Mul", f"{name}.d", w, b.add("Where", f"{name}.d_w", is_low, tail, cdf))
    return n, d, b.add("Where", f"{name}.lead", is_low, b.constant(0.0), half_square)


def _tail_of(b: GraphBuilder, name: str, z: str) -> tuple[str, str, str, str]:
    """(T(x), x²/2, e^{−x²/2}, z < 0), x = |z|."""
    x = b.add("Abs", f"{name}.x", z)
    four = b.constant(4.0)
    t = b.add(
        "Div", f"{name}.t", b.add("Sub", f"{name}.x_less", x, four), b.add("Add", f"{name}.x_more", x, four)
    )
    *others, last = (b.number(f"tail.{power}", factor) for power, factor in enumerate(SCALED_TAIL))
    series = last
    for power in range(len(others) - 1, -1, -1):  # Horner's scheme; the names are short because they are many
        series = b.add("Add", f"{name}.s{power}", b.add("Mul", f"{name}.t{power}", series, t), others[power])
    tail = b.add("Div", f"{name}.tail", series, b.add("Add", f"{name}.1_x", b.constant(1.0), x))
    half_x = b.add("Mul", f"{name}.half_x", b.constant(0.5), x)
    half_square = b.add("Mul", f"{name}.half_square", half_x, x)
    e = b.add("Exp", f"{name}.e", b.add("Neg", f"{name}.minus_half_square", half_square))
    return tail, half_square, e, b.add("Less", f"{name}.is_low", z, b.constant(0.0))


def _one_minus(b: GraphBuilder, name: str, x: str) -> str:
    return b.add("Sub", name, b.constant(1.0), x)
