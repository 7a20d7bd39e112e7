"""What errors cost: parameter errors turned into lost surplus (SCIENCE.md 3.3), and shading under uncertainty.

At the first-price optimum of a log-logistic curve, with σ = σ(z) and A = γk(1 − σ) = b/(v − b), the log-surplus falls
off as ½ κ ε² for an error ε of ln b, κ = A (1 + A + kσ), and ln b moves with the parameters by kσ/(1 + A + kσ) per unit
of the location, (1 − σz)/(1 + A + kσ) of ln k, (1 + A)/(1 + A + kσ) of ln v. For γ = 1 the denominator is 1 + k and
κ = k(k + 1)(1 − F). Of a log-normal one A = γkρ, with ρ = φ/Φ at z, and z + ρ stands for σ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bidml.pricing.arrays import Doubles, Numbers, double
from bidml.pricing.bid import first_price_optimum_cpm
from bidml.pricing.curve import WinCurve
from bidml.pricing.family import fall_of_hazard, hazard


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivity:
    """How a first-price bid depends on what it was computed from; (n,) each.

    `shading_factor` b/v; `curvature` κ; `by_location`, `by_log_shape`, `by_log_value`: ∂ ln b / ∂ m, ∂ ln k, ∂ ln v.
    """

    shading_factor: Doubles
    curvature: Doubles
    by_location: Doubles
    by_log_shape: Doubles
    by_log_value: Doubles

    def relative_loss(
        self, *, location: Numbers = 0.0, log_shape: Numbers = 0.0, log_value: Numbers = 0.0
    ) -> Doubles:
        """The share of the surplus that errors of these sizes cost, (n,), to second order; errors add up in ln b."""
        shift = (
            self.by_location * double(location)
            + self.by_log_shape * double(log_shape)
            + self.by_log_value * double(log_value)
        )
        return np.asarray(0.5 * self.curvature * shift**2)

    def expected_loss(
        self, *, sd_location: Numbers = 0.0, sd_log_shape: Numbers = 0.0, sd_log_value: Numbers = 0.0
    ) -> Doubles:
        """The same for independent random errors of these standard deviations: ½ κ Σ (∂ ln b)² sd²."""
        variance = (
            (self.by_location * double(sd_location)) ** 2
            + (self.by_log_shape * double(sd_log_shape)) ** 2
            + (self.by_log_value * double(sd_log_value)) ** 2
        )
        return np.asarray(0.5 * self.curvature * variance)

    def exploration_loss(self, sigma: Numbers, share: Numbers) -> Doubles:
        """The share of the surplus that `explore(sigma, share)` costs: share · ½ κ σ²."""
        return np.asarray(0.5 * double(share) * self.curvature * double(sigma) ** 2)


def sensitivity(value_cpm: Numbers, curve: WinCurve) -> Sensitivity:
    """At the optimum between floor and cap for `value_cpm` > 0; where a bound binds, nothing depends on anything."""
    bid = first_price_optimum_cpm(value_cpm, curve)
    k = curve.shape
    z = k * (np.log(bid) - curve.location)
    s = fall_of_hazard(z, curve.family)
    a = curve.gamma * k * hazard(z, curve.family)
    denominator = 1.0 + a + k * s
    return Sensitivity(
        shading_factor=np.asarray(a / (1.0 + a)),
        curvature=np.asarray(a * denominator),
        by_location=np.asarray(k * s / denominator),
        by_log_shape=np.asarray((1.0 - s * z) / denominator),
        by_log_value=np.asarray((1.0 + a) / denominator),
    )


def uncertain_curve(curve: WinCurve, log_odds_sd: Numbers) -> WinCurve:
    """The curve to bid with when the log-odds of winning are known up to a normal error of this spread τ.

    E[σ(z + τε)] ≈ σ(z / √(1 + πτ²/8)): the slope flattens, k / √(1 + πτ²/8), the location stays. Risk-neutral: it is
    the mean curve that is bid with. γ is kept. Of Φ(z) the log-odds move by √(8/π) per unit of z at the median, so
    that the same holds there.
    """
    return WinCurve(
        curve.location,
        curve.shape / np.sqrt(1.0 + np.pi / 8.0 * double(log_odds_sd) ** 2),
        curve.gamma,
        curve.family,
    )
