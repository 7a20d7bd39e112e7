// What a bid in a second-price auction is expected to earn. Its readable twin: bidml.pricing.second_price_surplus_cpm.
#pragma once

#include <algorithm>
#include <cmath>

#include "price.h"

namespace bidml {

// ∫ F(e^u) e^u du from `low` to `high`: Gauss-Legendre with 16 points.
inline double integral_of_win_rate(const WinCurve& curve, double gamma, double low, double high) noexcept {
  constexpr double kPoints[] = {0.0950125098376374402, 0.2816035507792589132, 0.4580167776572273863,
                                0.6178762444026437484, 0.7554044083550030339, 0.8656312023878317439,
                                0.9445750230732325761, 0.9894009349916499326};
  constexpr double kWeights[] = {0.1894506104550684963, 0.1826034150449235889, 0.1691565193950025382,
                                 0.1495959888165767321, 0.1246289712555338720, 0.0951585116824927848,
                                 0.0622535239386478929, 0.0271524594117540949};
  const double half = 0.5 * (high - low), middle = 0.5 * (high + low);
  double sum = 0.0;
  for (int i = 0; i < 8; ++i) {
    for (const double u : {middle - half * kPoints[i], middle + half * kPoints[i]}) {
      const double price = std::exp(u);
      sum += kWeights[i] * win_rate(curve, gamma, price) * price;
    }
  }
  return half * sum;
}

// E[(v − max(M, r)) 1(M ≤ b)] = (v − b) F(b) + ∫ F from r to b, for 0 ≤ r ≤ b.
inline double second_price_surplus_cpm(double v, double bid, const WinCurve& curve, double gamma, double r) noexcept {
  // F has its knee at the location, 1/k wide, with an exponential tail below, or a steeper one.
  const double ln_bid = std::log(bid), knee = 12.0 / curve.shape;
  const double per_tail = curve.is_log_normal ? std::max(curve.shape * (curve.location - ln_bid), 1.0) : 1.0;
  const double tail = std::min(curve.location, ln_bid) - 30.0 / (1.0 + gamma * curve.shape * per_tail);
  const double start = r > 0.0 ? std::max(std::log(r), tail) : tail;
  double saved = 0.0, low = std::min(start, ln_bid);
  constexpr int kPieces = 6;  // of the knee
  for (int i = 0; i <= kPieces + 1; ++i) {
    const double end = i <= kPieces ? curve.location + knee * (2.0 * i / kPieces - 1.0) : ln_bid;
    const double high = std::min(std::max(end, low), ln_bid);
    const int n_parts = int(std::min(std::ceil((high - low) / 4.0), 64.0));  // e^u itself must not vary too much
    for (int part = 0; part < n_parts; ++part) {
      const double width = (high - low) / n_parts;
      saved += integral_of_win_rate(curve, gamma, low + part * width, low + (part + 1) * width);
    }
    low = std::max(low, high);
  }
  return (v - bid) * win_rate(curve, gamma, bid) + saved;
}

}  // namespace bidml
