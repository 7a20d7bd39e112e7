// A line item that may buy by deals: the open auction and each deal it names are offers, and the best one is taken.
//
// A deal of `at` 3 has a fixed price, its floor: who bids it is served, so it earns v − price. One of `at` 1 or 2 is a
// private auction with its own floor, by the model's win curve; without `at` it is of the request's kind. The open auction
// is an offer unless `private_auction` is 1. The offer of the highest expected surplus is taken, a deal rather than the
// open auction where they are equal. `bidml.pricing.deal_bid_cpm` is the readable twin.
//
// The rules of the hot path hold: nothing allocates, raises or locks; never above value or cap, never below the offer's
// floor. Only `decide_deal` comes here.
#pragma once

#include "scorer.h"

namespace bidml {

// A fixed price, CPM.
inline Offer fixed_offer(const Decision& value, double price_cpm, double cap_cpm) noexcept {
  Offer offer;
  offer.decision = value;
  const double v = value.unshaded_bid_cpm;
  Reason& reason = offer.decision.reason;
  reason = Reason::kNoValue;
  if (!(v > 0.0 && v < std::numeric_limits<double>::infinity())) return offer;
  reason = Reason::kInvalidFloor;  // a fixed price is there
  if (!(price_cpm > 0.0)) return offer;
  reason = Reason::kFloorAboveCap;
  if (!(price_cpm <= cap_cpm)) return offer;
  reason = Reason::kValueBelowFloor;
  if (!(v > price_cpm)) return offer;
  reason = Reason::kBid;
  offer.decision.bid_cpm = offer.decision.optimum_cpm = price_cpm;
  offer.decision.win_rate = 1.0;
  offer.surplus_cpm = v - price_cpm;
  offer.floor_cpm = price_cpm;
  return offer;
}

// Which of the line item's deals this element is; -1 for none.
inline Py_ssize_t named_deal(const LineItem& line, const Value& id) noexcept {
  if (!id.is_text()) return -1;
  TextScratch scratch;
  const std::string_view text = scratch.of(id);
  for (size_t i = 0; i < line.deals.size(); ++i)
    if (text == line.deals[i]) return Py_ssize_t(i);
  return -1;
}

// The best offer, and what was scored in `trace`; the reason where there is none is the open auction's, or in a private
// auction that of the first deal the line item names.
template <class Request>
Offer decide_deal(const Model& model, const Request& request, const LineItem& line, Trace& trace,
                  FeatureCounts* look) noexcept {
  Offer best;
  best.decision.reason = Reason::kInvalidRequest;
  request.with_found(model, [&](const Found& found) {
    Terms open;
    const Reason reason = open.read(model, found);
    best.decision.reason = reason;
    if (found.imps != Imps::found || !found.currency_accepted) return;
    const bool is_open = (reason == Reason::kBid);
    PriceInputs in = price_inputs(line, open);
    if (!is_open) in.floor_cpm = 0.0, in.auction_type = 1;
    Row& row = BIDML_STACK_ROW(*model.engine);
    encode_request(model, found, row);
    model.engine->merge(row, row, *line.row);
    price_margins<true>(model, in, trace, [&](size_t head) { return model.engine->margin(row, head); });
    if (__builtin_expect(look != nullptr, 0)) {
      look_closely(model, found, *look);
      look_closely(line, *look);
    }
    if (trace.decision.reason == Reason::kNoConversionModel) {
      best.decision.reason = trace.decision.reason;
      return;
    }
    const Decision value = bare_value(trace.decision);
    const RootTerms terms(trace.curve.shape, model.win.gamma, value.unshaded_bid_cpm);
    if (is_open) {
      best = soft_floor_offer(value, trace.curve, model.win.gamma, terms, in, request.soft_floor_cpm);
    } else {
      best.decision = value;
      best.decision.reason = reason;
    }

    const double at = found.values[model.extractor->terms().auction_type].number();
    const int of_request = at == 1.0 || at == 2.0 ? int(at) : std::isnan(at) ? model.default_auction_type : 0;
    bool has_reason = reason != Reason::kPrivateAuction;
    const DealReader& reader = *model.deal_reader;
    size_t n = 1;
    for (size_t i = 0; i < n; ++i) {
      request.with_deal(model, Py_ssize_t(i), [&](const Found& element) {
        n = std::min(element.n_elements, kMostDeals);
        if (!reader.is_object(element)) return;
        const DealReader::Leaves& leaves = reader.leaves();
        const Py_ssize_t deal = named_deal(line, element.values[leaves.id]);
        if (deal < 0) return;
        Terms own;
        Offer offer;
        offer.decision = value;
        offer.decision.reason = own.read_floor(model, element.values[leaves.floor], element.values[leaves.floor_currency]);
        if (offer.bids()) {
          const double kind = element.values[leaves.auction_type].number();
          in.floor_cpm = own.floor_cpm;
          in.auction_type = std::isnan(kind) ? of_request : kind == 1.0 || kind == 2.0 ? int(kind) : 0;
          offer = kind == 3.0 ? fixed_offer(value, own.floor_cpm, in.cap_cpm)
                              : auction_offer(value, trace.curve, model.win.gamma, terms, in);
        }
        offer.deal = deal;
        if (!offer.bids()) {
          if (!has_reason && !best.bids()) best.decision.reason = offer.decision.reason;
          has_reason = true;
          return;
        }
        const bool is_better = best.deal < 0 ? offer.surplus_cpm >= best.surplus_cpm : offer.surplus_cpm > best.surplus_cpm;
        if (!best.bids() || is_better) best = offer;
      });
    }
    if (__builtin_expect(line.exploration.share > 0.0, 0) && best.bids() && best.is_paid)
      explore<true>(model, request, line, best.floor_cpm, best.highest_cpm, best.decision, trace);
  });
  trace.decision = best.decision;
  return best;
}

}  // namespace bidml
