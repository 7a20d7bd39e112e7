// The log-normal win curve, F(b) = Φ(z)^γ with z = k (ln b − m): ln Φ and the first-price optimum, in double.
//
// With ρ = φ/Φ and A = γ k ρ(z) the best bid is v A/(1 + A), where z is the one root of the increasing, convex
//     f(z) = z + k ln(1 + 1/A(z)) − k (ln v − m).
// P(Z > |z|) = E T with E = e^(−z²/2) and the scaled tail T, which is all that has to be computed: with w = √(2π)/(γ k),
// 1 + 1/A is 1 + w T where z < 0 and (E + w (1 − E T))/E elsewhere. `bidml/pricing/log_normal.py` is the readable twin and
// says where the start comes from; `bidml/oracle_log_normal.py` and the ONNX graph are the others.
//
// T(x) = H(t)/(1 + x), t = (x − 4)/(x + 4): H is the series of normal.h as a polynomial in t (converted exactly, rounded
// once), within 1e-15 relative for all x ≥ 0. Nothing here allocates, throws or depends on state, and nothing is inlined
// into the log-logistic price.
#pragma once

#include <algorithm>
#include <cmath>

#include "elementary.h"

namespace bidml {

constexpr double kScaledTail[24] = {  // graph_log_normal.SCALED_TAIL
    0.47205320650984467,     -0.09670347732652607,    0.013999634724430469,    0.02860036405357749,
    -0.03219783742831453,    0.01793609747886859,     -0.0050023785870514665,  -0.00028562308680939413,
    0.0006948970692570495,   -9.443033944152223e-05,  -8.785300442645791e-05,  2.1250446856208376e-05,
    1.3626315192600401e-05,  -3.433372216853275e-06,  -2.6118464340168558e-06, 4.0671730125154447e-07,
    5.507747965364098e-07,   -1.237153366992197e-09,  -1.1022354013739079e-07, -1.7932121916642413e-08,
    1.7442583764419795e-08,  5.474708632048689e-09,   -1.5456221598143852e-09, -6.763267210562454e-10,
};

// P(Z > x) e^(x²/2), x ≥ 0.
inline double scaled_normal_tail(double x) noexcept {
  const double per = 1.0 / (x + 4.0);
  const double t = (x - 4.0) * per, t2 = t * t, t4 = t2 * t2, t8 = t4 * t4;
  const auto eight = [&](const double* c) {
    return ((c[0] + c[1] * t) + (c[2] + c[3] * t) * t2) + ((c[4] + c[5] * t) + (c[6] + c[7] * t) * t2) * t4;
  };
  return (eight(kScaledTail) + (eight(kScaledTail + 8) + eight(kScaledTail + 16) * t8) * t8) / (1.0 + x);
}

// ln Φ(z)
__attribute__((noinline)) inline double log_normal_cdf(double z) noexcept {
  const double x = std::fabs(z), tail = scaled_normal_tail(x), half_square = 0.5 * x * x;
  return z < 0.0 ? log_of(tail) - half_square : log_of(1.0 - exp_of(-half_square) * tail);
}

// Of a z: A = n/d, ln(1 + 1/A) = lead + ln(n + d).
struct Odds {
  double n, d, lead;

  template <class Functions>
  static Odds at(double z, double w) noexcept {
    const double x = std::fabs(z), tail = scaled_normal_tail(x), half_square = 0.5 * x * x;
    if (z < 0.0) return {1.0, w * tail, 0.0};
    const double e = Functions::exp(-half_square);
    return {e, w * (1.0 - e * tail), half_square};
  }
};

struct FastFunctions {
  static double exp(double x) noexcept { return exp_of(x); }
  static double log(double x) noexcept { return log_of(x); }
};
struct LibraryFunctions {  // where the rounding of one differs from the twins', what is left of a far price may, too
  static double exp(double x) noexcept { return std::exp(x); }
  static double log(double x) noexcept { return std::log(x); }
};

// An upper bound of the root, near it; c = ln v − m.
template <class Functions>
inline double start_of_log_normal_root(double k, double gamma, double w, double c) noexcept {
  constexpr double kHazardAt0 = 0.79788456080286536;
  const double half_w = 0.5 * w, at_0 = Functions::log(1.0 + half_w);
  const double tangent = k * (c - at_0) / (1.0 + k * kHazardAt0 * (half_w / (1.0 + half_w)));
  if (c < at_0) {
    const double q = gamma + 1.0 / k, far = gamma * k * c;
    return std::min(tangent, 0.5 * (q + far - std::sqrt((q - far) * (q - far) + 4.0 * gamma)) / gamma);
  }
  const double p = std::max(c + Functions::log((1.0 - Functions::exp(-c)) / half_w), 0.0);
  return std::min(tangent, std::min(std::sqrt(2.0 * p), p / kHazardAt0));
}

template <class Functions>
inline double log_normal_optimum_by(double k, double gamma, double v, double c, int steps) noexcept {
  constexpr double kRootOf2Pi = 2.5066282746310005;
  const double w = kRootOf2Pi / (gamma * k);
  double z = start_of_log_normal_root<Functions>(k, gamma, w, c);
  for (int step = 0; step < steps; ++step) {
    const Odds odds = Odds::at<Functions>(z, w);
    const double whole = odds.n + odds.d;
    const double f = z + k * (odds.lead + Functions::log(whole) - c);
    const double rho = w * odds.n / (kRootOf2Pi * odds.d);
    const double fall = std::max(z + rho, 0.0), shaded = odds.d / whole;
    const double f1 = 1.0 + k * fall * shaded;
    const double f2 = k * shaded * (std::max(1.0 - rho * fall, 0.0) + fall * fall * (odds.n / whole));
    z -= 2.0 * f * f1 / (2.0 * f1 * f1 - f * f2);
  }
  const Odds odds = Odds::at<Functions>(z, w);
  return v * (odds.n / (odds.n + odds.d));
}

// The unconstrained maximiser of (v − b) Φ(k (ln b − m))^γ; v > 0. Where fits lead, three steps are as good as four.
__attribute__((noinline)) inline double log_normal_optimum_cpm(double m, double k, double gamma, double v) noexcept {
  const double c = log_of(v) - m;
  if (__builtin_expect(k >= 1e-3 && k <= 64.0 && gamma >= 0.1 && gamma <= 10.0 && std::fabs(c) <= 100.0, 1))
    return log_normal_optimum_by<FastFunctions>(k, gamma, v, c, 3);
  return log_normal_optimum_by<LibraryFunctions>(k, gamma, v, std::log(std::max(v, 1e-300)) - m, 4);
}

}  // namespace bidml
