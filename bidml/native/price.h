// The price: from the heads' margins to a bid, in double.
//
// pctr = σ(calibration(margin)), where `knots.h` may bend the calibration; the win curve is log-logistic with a Dagum
// exponent, F(b) = σ(z)^γ with z = k (ln b − m), or log-normal (log_normal.h). The first-price bid maximises
// (v − b) F(b): with y = k ln(b/θ) − ln(1 + γk) it is the one root of
//     y + k softplus(y) = d,    d = k (ln(γ k v) − m) − (k + 1) ln(1 + γk)
// (SCIENCE.md 3.2), and the bid is v γk/(1 + γk) σ(−y). `bidml/pricing/bid.py` is the readable twin and the ONNX
// graph the portable one: both take Halley steps from an upper bound of the root. Here, for the curves that fits produce, two
// better steps from a better start find the same root; tests hold all three to 1e-12 relative.
//
// Nothing here allocates, throws or depends on state. Comparisons are written so that NaN refuses.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "elementary.h"
#include "knots.h"
#include "log_normal.h"

namespace bidml {

constexpr double kMaxAbsWinLogit = 60.0;  // contract.MAX_ABS_WIN_LOGIT; a test compares them
constexpr double kMinLogSlope = -3.0;
constexpr double kMaxLogSlope = 4.0;
constexpr double kMinVariance = 1e-4;
constexpr double kMaxVariance = 100.0;
constexpr int kHalleySteps = 4;

// Stable values: contract.NoBidReason.
enum class Reason : int {
  kBid = 0,
  kInvalidRequest = 1,
  kInvalidImp = 2,
  kInvalidFloor = 3,
  kUnknownCurrency = 4,
  kUnsupportedAuctionType = 5,
  kPrivateAuction = 6,
  kFloorAboveCap = 7,
  kValueBelowFloor = 8,
  kNoValue = 9,
  kStaleModel = 10,  // never here: bidml.score.follow knows the clock
  kNoConversionModel = 11,
  kNoUncertaintyModel = 12,
};
constexpr int kReasons = 13;

// Whether the model in service lacks a part that the line item asks for: then nothing was scored.
constexpr bool lacks_part(Reason reason) {
  return reason == Reason::kNoConversionModel || reason == Reason::kNoUncertaintyModel;
}

struct Calibration {
  double positive = 1.0, negative = 1.0, shift = 0.0;
  Knots knots{};
};

struct WinParameters {
  double reference_log_bid_cpm = 0.0, slope_scale = 1.0, logit_shift = 0.0, gamma = 1.0;
  bool location_is_log_price = false;  // blueprint.LocationUnit
  bool is_log_normal = false;          // blueprint.WinFamily
};

struct WinCurve {
  double location;  // m: ln CPM
  double shape;     // k > 0
  bool is_log_normal = false;
};

struct PriceInputs {
  double value_per_click, floor_cpm, cap_cpm, pacing_multiplier;
  int auction_type;  // OpenRTB at: 1 first price, 2 second price
  double value_per_conversion = 0.0, value_per_impression_cpm = 0.0;
  double risk_aversion = 0.0;  // ρ: p = σ(log-odds − ρ sd) is priced
};

struct Decision {
  double bid_cpm = 0.0;
  double win_rate = 0.0;
  double value_cpm = 0.0;         // before pacing
  double unshaded_bid_cpm = 0.0;  // value after pacing: what a truthful bidder would bid
  double optimum_cpm = 0.0;       // before floor and cap
  Reason reason = Reason::kNoValue;
};

inline double softplus_of_negative_abs(double x) { return log_of(1.0 + exp_of(-std::fabs(x))); }
inline double softplus(double x) { return std::max(x, 0.0) + softplus_of_negative_abs(x); }
inline double sigmoid(double x) {
  const double e = exp_of(-std::fabs(x));
  return (x >= 0.0 ? 1.0 : e) / (1.0 + e);
}

// Before the shift.
inline double weighted(const Calibration& c, double log_odds) {
  if (c.positive == c.negative) return c.positive * log_odds;
  const double tail = softplus_of_negative_abs(log_odds);
  const double ln_p = -(std::max(-log_odds, 0.0) + tail);
  const double ln_q = -(std::max(log_odds, 0.0) + tail);
  return c.positive * ln_p - c.negative * ln_q;
}

// Out of line: models without knots keep their short path.
__attribute__((noinline)) inline double calibrated_by_knots(const Calibration& c, double log_odds) {
  return c.knots.bent(weighted(c, log_odds)) + c.shift;
}

inline double calibrated(const Calibration& c, double log_odds) {
  if (__builtin_expect(!c.knots.empty(), 0)) return calibrated_by_knots(c, log_odds);
  if (c.negative == 1.0 && c.positive == 1.0 && c.shift == 0.0) return log_odds;
  return weighted(c, log_odds) + c.shift;
}

// Of the log-odds of pctr.
inline double log_odds_sd(double variance_margin) {
  return std::sqrt(std::min(std::max(variance_margin, kMinVariance), kMaxVariance));
}

inline double win_shape(const WinParameters& w, double log_slope_margin) {
  const double a = std::min(std::max(log_slope_margin, kMinLogSlope), kMaxLogSlope);
  return w.slope_scale * exp_of(a);
}
inline double win_location(const WinParameters& w, double location_margin, double k) {
  const double beta = std::min(std::max(location_margin, -kMaxAbsWinLogit), kMaxAbsWinLogit);
  if (w.location_is_log_price) return w.reference_log_bid_cpm - (beta + w.logit_shift / k);
  return w.reference_log_bid_cpm - (w.slope_scale * beta + w.logit_shift) / k;
}
inline WinCurve win_curve(const WinParameters& w, double location_margin, double log_slope_margin) {
  const double k = win_shape(w, log_slope_margin);
  return {win_location(w, location_margin, k), k, w.is_log_normal};
}

inline double win_rate(const WinCurve& curve, double gamma, double bid_cpm) {
  const double z = curve.shape * (log_of(bid_cpm) - curve.location);
  if (__builtin_expect(curve.is_log_normal, 0)) return exp_of(gamma * log_normal_cdf(z));
  return exp_of(-gamma * softplus(-z));
}

// One step of fourth order (Householder 1970) toward the root of f = y + k softplus(y) − d; e = exp(−|y|), tail =
// ln(1 + e).
inline double householder_step(double y, double k, double d, double e, double tail) {
  const double s = (y >= 0.0 ? 1.0 : e) / (1.0 + e);
  const double f = y + k * (std::max(y, 0.0) + tail) - d;
  const double ks = k * s, per_f1 = 1.0 / (1.0 + ks);
  const double f2 = ks * (1.0 - s), u = f * per_f1, a = f2 * per_f1, b = a * (1.0 - 2.0 * s);
  return u * (1.0 - 0.5 * (a * u)) / (1.0 - a * u + (1.0 / 6) * (b * u * u));
}

// Within 0.6 of the root for k up to 64. Where it is positive, softplus(y) lies between y and y + ln 2; else with
// t = k e^y about t + ln t = d + ln k, whose solution (Wright's omega function) is about e^x below and x − ln x above.
inline double start_of_root(double k, double d) {
  if (d >= k * 0.6931471805599453) return std::max((d - 0.5 * k) / (1.0 + k), 0.0);
  const double x = d + (k >= 1.0 ? rough_log(k) : -rough_log(1.0 / k));
  const double e = rough_exp_of_negative(std::min(x, 0.0)), more = std::max(x, 0.0);
  const double per = 1.0 / (1.0 + more);
  const double t = x < 0.0 ? e / (1.0 + e) : more - rough_log(1.0 + more) * more * per + 0.5 * per;
  return std::min(d - t, 0.2);
}

constexpr double kSteepest = 64.0, kFlattest = 1e-3, kMostAbsLocation = 100.0, kLeastValue = 1e-290;

// What the root needs of shape and value. A step of its own: it runs while the location's trees are still being walked.
struct RootTerms {
  double gk, log_gkv, log_1_gk, gamma;

  RootTerms(double k, double gamma, double v) noexcept
      : gk(gamma * k), log_gkv(log_of(gk * v)), log_1_gk(log_of(1.0 + gk)), gamma(gamma) {}
};

// The unconstrained maximiser of (v − b) F(b); v > 0. `terms`: of the curve's shape and v.
inline double first_price_optimum_cpm(const WinCurve& curve, const RootTerms& terms, double v) {
  const double k = curve.shape;
  const double gk = terms.gk;
  if (__builtin_expect(curve.is_log_normal, 0)) return log_normal_optimum_cpm(curve.location, k, terms.gamma, v);
  if (__builtin_expect(k >= kFlattest && k <= kSteepest && std::fabs(curve.location) <= kMostAbsLocation &&
                           v >= kLeastValue,
                       1)) {
    const double d = k * (terms.log_gkv - curve.location) - (k + 1.0) * terms.log_1_gk;
    double y = start_of_root(k, d);
    const double rough = rough_exp_of_negative(-std::fabs(y));
    y -= householder_step(y, k, d, rough, rough_log_1_plus(rough));
    const double e = exp_of(-std::fabs(y));
    y -= householder_step(y, k, d, e, log_of(1.0 + e));
    return v * (gk / (1.0 + gk)) * sigmoid(-y);
  }
  const double ln_1_gk = std::log(1.0 + gk);
  const double d = k * (std::log(gk * std::max(v, 1e-300)) - curve.location) - (k + 1.0) * ln_1_gk;
  double y = d > 0.0 ? d / (1.0 + k) : d;
  for (int step = 0; step < kHalleySteps; ++step) {
    const double e = std::exp(-std::fabs(y));
    const double s = (y >= 0.0 ? 1.0 : e) / (1.0 + e);
    const double f = y + k * (std::max(y, 0.0) + std::log(1.0 + e)) - d;
    const double f1 = 1.0 + k * s;
    const double f2 = k * s * (1.0 - s);
    y -= 2.0 * f * f1 / (2.0 * f1 * f1 - f * f2);
  }
  return std::exp(curve.location + (y + ln_1_gk) / k);
}

// The value, before and after pacing; the rest of the decision is `price`'s. `pctr`: as priced. `value_of_click`: with
// its conversions.
inline Decision paced_value(double pctr, double value_of_click, const PriceInputs& in) {
  Decision out;
  out.value_cpm = in.value_per_impression_cpm + 1000.0 * pctr * value_of_click;
  out.unshaded_bid_cpm = out.value_cpm * in.pacing_multiplier;
  return out;
}

// Never NaN, never negative, never above cap or value, never below floor: else bid_cpm is 0 and the reason says why.
// The win rate at the bid is left 0 where it is not wanted. `terms`: of the curve's shape and the paced value.
template <bool wants_win_rate = true>
inline Decision price(Decision out, const WinCurve& curve, double gamma, const RootTerms& terms, const PriceInputs& in) {
  const double v = out.unshaded_bid_cpm;
  if (!(in.floor_cpm >= 0.0)) {
    out.reason = Reason::kInvalidFloor;
    return out;
  }
  if (!(in.auction_type == 1 || in.auction_type == 2)) {
    out.reason = Reason::kUnsupportedAuctionType;
    return out;
  }
  if (!(in.value_per_click >= 0.0 && in.pacing_multiplier >= 0.0 && v > 0.0 &&
        v < std::numeric_limits<double>::infinity())) {
    out.reason = Reason::kNoValue;
    return out;
  }
  if (!(in.cap_cpm > 0.0 && in.cap_cpm >= in.floor_cpm)) {
    out.reason = Reason::kFloorAboveCap;
    return out;
  }
  if (!(v > in.floor_cpm)) {
    out.reason = Reason::kValueBelowFloor;
    return out;
  }
  out.optimum_cpm = in.auction_type == 2 ? v : first_price_optimum_cpm(curve, terms, v);
  const double bid = std::min(std::max(out.optimum_cpm, in.floor_cpm), std::min(in.cap_cpm, v));
  // The guard that stands alone: whatever happened above, what leaves is inside its bounds.
  if (!(bid > 0.0 && bid >= in.floor_cpm && bid <= in.cap_cpm && bid <= v)) {
    out.reason = Reason::kNoValue;
    return out;
  }
  out.bid_cpm = bid;
  if (wants_win_rate) out.win_rate = win_rate(curve, gamma, bid);
  out.reason = Reason::kBid;
  return out;
}

template <bool wants_win_rate = true>
inline Decision price(double pctr, const WinCurve& curve, double gamma, const PriceInputs& in) {
  const Decision value = paced_value(pctr, in.value_per_click, in);
  return price<wants_win_rate>(value, curve, gamma, RootTerms(curve.shape, gamma, value.unshaded_bid_cpm), in);
}

}  // namespace bidml
