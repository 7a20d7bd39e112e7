// The internal auction: of several line items the one whose bid is expected to earn most. The request is encoded once.
//
// The rules of the hot path hold: nothing allocates, raises or locks.
#pragma once

#include "scorer.h"

namespace bidml {

struct Best {
  Py_ssize_t index = -1;
  double bid_cpm = 0.0;
  Reason reason = Reason::kInvalidRequest;
  // of the line item that bids
  double optimum_cpm = 0.0, pctr = kMissing, pcvr = kMissing, unshaded_bid_cpm = 0.0, propensity = kMissing;
  bool is_paid = false;
  double highest_cpm = 0.0;
};

// The heads that some of these line items need.
template <class LineAt>
uint32_t heads_for(const Model& model, const LineAt& line_at, Py_ssize_t first, int count) noexcept {
  uint32_t heads = kPricingHeads;
  if ((model.heads & (kCvrHead | kVarianceHead)) == 0) return heads;
  for (int i = 0; i < count; ++i) {
    const LineItem& line = line_at(first + i);
    if (line.value_per_conversion != 0.0) heads |= kCvrHead;
    if (line.risk_aversion != 0.0) heads |= kVarianceHead;
  }
  return heads & model.heads;
}

// The line item with the highest expected surplus; the first of equals. Under second price that is an integral, which is
// not asked for where its bound, (v − r) F(b), says that it cannot win.
template <class Request, class LineAt>
Best best_of(const Model& model, const Request& request, const LineAt& line_at, Py_ssize_t n_lines,
             FeatureCounts* look) noexcept {
  Best best;
  request.with_found(model, [&](const Found& found) {
    Terms terms;
    best.reason = terms.read(model, found);
    if (best.reason != Reason::kBid) return;
    best.reason = Reason::kNoValue;
    Row& row = BIDML_STACK_ROW(*model.engine);
    encode_request(model, found, row);
    double best_surplus_cpm = 0.0;
    for (Py_ssize_t first = 0; first < n_lines; first += Engine::kLinesAtOnce) {
      const int count = int(std::min(n_lines - first, Py_ssize_t{Engine::kLinesAtOnce}));
      const Row* rows[Engine::kLinesAtOnce];
      double margins[Engine::kLinesAtOnce * kMostHeads];
      for (int i = 0; i < count; ++i) rows[i] = &*line_at(first + i).row;
      model.engine->margins_of_lines(row, rows, count, heads_for(model, line_at, first, count), margins);
      for (int i = 0; i < count; ++i) {
        Trace trace;
        const PriceInputs inputs = price_inputs(line_at(first + i), terms);
        price_margins<true>(model, inputs, trace,
                            [&](size_t head) { return margins[size_t(i) * model.n_heads + head]; });
        Decision& d = trace.decision;
        bool is_paid = terms.auction_type == 1;
        double highest_cpm = inputs.cap_cpm, soft_surplus_cpm = 0.0;
        const bool is_soft = !std::isnan(request.soft_floor_cpm) && !lacks_part(d.reason);
        if (__builtin_expect(is_soft, 0)) {
          const Decision value = bare_value(d);
          const RootTerms root(trace.curve.shape, model.win.gamma, value.unshaded_bid_cpm);
          const Offer offer = soft_floor_offer(value, trace.curve, model.win.gamma, root, inputs, request.soft_floor_cpm);
          d = offer.decision;
          is_paid = offer.is_paid;
          highest_cpm = offer.highest_cpm;
          soft_surplus_cpm = offer.surplus_cpm;
        }
        if (d.reason != Reason::kBid) {
          if (best.index < 0) best.reason = d.reason;
          continue;
        }
        const double v = d.unshaded_bid_cpm;
        double surplus_cpm = (v - d.bid_cpm) * d.win_rate;
        if (__builtin_expect(is_soft, 0)) {
          surplus_cpm = soft_surplus_cpm;
        } else if (__builtin_expect(terms.auction_type == 2, 0)) {
          if (best.index >= 0 && (v - terms.floor_cpm) * d.win_rate < best_surplus_cpm) continue;
          surplus_cpm = second_price_surplus_cpm(v, d.bid_cpm, trace.curve, model.win.gamma, terms.floor_cpm);
        }
        if (best.index < 0 || surplus_cpm > best_surplus_cpm) {
          best = {first + i, d.bid_cpm, Reason::kBid, d.optimum_cpm, trace.pctr, trace.pcvr, v, kMissing,
                  is_paid, highest_cpm};
          best_surplus_cpm = surplus_cpm;
        }
      }
    }
    // The line items compete with the bids they intend.
    if (best.is_paid && __builtin_expect(line_at(best.index).exploration.share > 0.0, 0)) {
      Trace trace;
      trace.decision.bid_cpm = best.bid_cpm;
      trace.decision.unshaded_bid_cpm = best.unshaded_bid_cpm;
      explore<false>(model, request, line_at(best.index), terms.floor_cpm, best.highest_cpm, trace.decision, trace);
      best.bid_cpm = trace.decision.bid_cpm;
      best.propensity = trace.propensity;
    }
    if (__builtin_expect(look != nullptr, 0)) {
      look_closely(model, found, *look);
      if (best.index >= 0) look_closely(line_at(best.index), *look);
    }
  });
  return best;
}

}  // namespace bidml
