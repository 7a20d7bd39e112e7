// What one set of rules makes of a value: the bid, what it is expected to earn, and whether it is paid as it is.
//
// A soft floor s belongs to a second-price auction: a bid below it pays itself, one above pays the market price but at
// least s. So the best bid is that of a first-price auction up to s, or the truth above it, whichever earns more.
// `bidml.pricing.soft_floor_bid_cpm` and `second_price_surplus_cpm` are the readable twins.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "price.h"
#include "surplus.h"

namespace bidml {

struct Offer {
  Decision decision;
  double surplus_cpm = 0.0;
  ptrdiff_t deal = -1;                         // of the line item's deals; -1: the open auction
  bool is_paid = false;                        // whether who wins pays his bid; only such bids are varied, between these:
  double floor_cpm = 0.0, highest_cpm = 0.0;
  int auction_type = 0;                        // OpenRTB at; 0: a fixed price

  bool bids() const noexcept { return decision.reason == Reason::kBid; }
};

// The value alone, of a decision.
inline Decision bare_value(const Decision& decision) noexcept {
  Decision value;
  value.value_cpm = decision.value_cpm;
  value.unshaded_bid_cpm = decision.unshaded_bid_cpm;
  return value;
}

// What an auction with these inputs earns. `value`: a bare one; `terms`: of the curve's shape and it.
inline Offer auction_offer(const Decision& value, const WinCurve& curve, double gamma, const RootTerms& terms,
                           const PriceInputs& in) noexcept {
  Offer offer;
  offer.auction_type = in.auction_type;
  offer.is_paid = in.auction_type == 1;
  offer.floor_cpm = in.floor_cpm;
  offer.highest_cpm = in.cap_cpm;
  offer.decision = price<true>(value, curve, gamma, terms, in);
  if (!offer.bids()) return offer;
  const double v = value.unshaded_bid_cpm, bid = offer.decision.bid_cpm;
  offer.surplus_cpm = in.auction_type == 2 ? second_price_surplus_cpm(v, bid, curve, gamma, in.floor_cpm)
                                           : (v - bid) * offer.decision.win_rate;
  return offer;
}

// The same where the auction may have a soft floor: NaN is none, a negative one was no number.
inline Offer soft_floor_offer(const Decision& value, const WinCurve& curve, double gamma, const RootTerms& terms,
                              const PriceInputs& in, double soft_floor_cpm) noexcept {
  Offer plain = auction_offer(value, curve, gamma, terms, in);
  if (__builtin_expect(std::isnan(soft_floor_cpm), 1)) return plain;
  if (soft_floor_cpm < 0.0) {
    plain.decision = value;
    plain.decision.reason = Reason::kInvalidFloor;
    return plain;
  }
  if (in.auction_type != 2 || !plain.bids()) return plain;
  PriceInputs below = in, above = in;
  below.auction_type = 1;
  below.cap_cpm = std::min(in.cap_cpm, soft_floor_cpm);
  above.floor_cpm = std::max(in.floor_cpm, soft_floor_cpm);
  Offer low = auction_offer(value, curve, gamma, terms, below);
  const Offer high = auction_offer(value, curve, gamma, terms, above);
  low.auction_type = in.auction_type;
  low.decision.optimum_cpm = std::min(low.decision.optimum_cpm, soft_floor_cpm);
  return low.bids() && (!high.bids() || low.surplus_cpm > high.surplus_cpm) ? low : high;
}

}  // namespace bidml
