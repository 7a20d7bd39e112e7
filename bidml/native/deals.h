// A line item that may buy by deals: the open auction and each deal it names are offers, and the best one is taken.
//
// A deal of `at` 3 has a fixed price, its floor: who bids it is served, so it earns v − price. One of `at` 1 or 2 is a
// private auction with its own floor, by the model's win curve; without `at` it is of the request's kind. The open auction
// is an offer unless `private_auction` is 1. The offer of the highest expected surplus is taken, a deal rather than the
// open auction where they are equal. `bidml.pricing.deal_bid_cpm` is the readable twin.
//
// The rules of the hot path hold: nothing allocates, raises or locks; never above value or cap, never below the offer's
// floor. Only `decide_deal` and `best_deal` come here.
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

// What a request says to every line item: the open auction's terms, or why it is closed to us.
struct OpenAuction {
  Terms terms;
  Reason reason;
  int auction_type;  // of deals that name none; 0: not supported

  OpenAuction(const Model& model, const Found& found) noexcept : reason(terms.read(model, found)) {
    const double at = found.values[model.extractor->terms().auction_type].number();
    auction_type = at == 1.0 || at == 2.0 ? int(at) : std::isnan(at) ? model.default_auction_type : 0;
  }
  bool is_open() const noexcept { return reason == Reason::kBid; }
};

// Whether deals may be offers where the open auction is none.
inline bool can_buy(const Found& found) noexcept { return found.imps == Imps::found && found.currency_accepted; }

// The best of a line item's offers, not varied, and what was scored in `trace`; the reason where there is none is the open
// auction's, or in a private auction that of the first deal the line item names. `row`: of request and line item.
template <class Request>
Offer best_offer(const Model& model, const Request& request, const OpenAuction& open, const LineItem& line, const Row& row,
                 Trace& trace) noexcept {
  PriceInputs in = price_inputs(line, open.terms);
  if (!open.is_open()) in.floor_cpm = 0.0, in.auction_type = 1;
  price_margins<true>(model, in, trace, [&](size_t head) { return model.engine->margin(row, head); });
  Offer best;
  best.decision.reason = trace.decision.reason;
  if (lacks_part(trace.decision.reason)) return best;
  const Decision value = bare_value(trace.decision);
  const RootTerms terms(trace.curve.shape, model.win.gamma, value.unshaded_bid_cpm);
  if (open.is_open()) {
    best = soft_floor_offer(value, trace.curve, model.win.gamma, terms, in, request.soft_floor_cpm);
  } else {
    best.decision = value;
    best.decision.reason = open.reason;
  }
  if (line.deals.empty()) return best;

  bool has_reason = open.reason != Reason::kPrivateAuction;
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
        in.auction_type = std::isnan(kind) ? open.auction_type : kind == 1.0 || kind == 2.0 ? int(kind) : 0;
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
  return best;
}

template <class Request>
void explore_offer(const Model& model, const Request& request, const LineItem& line, Offer& best, Trace& trace) noexcept {
  if (__builtin_expect(line.exploration.share > 0.0, 0) && best.bids() && best.is_paid)
    explore<true>(model, request, line, best.floor_cpm, best.highest_cpm, best.decision, trace);
  trace.decision = best.decision;
}

// The best offer of one line item.
template <class Request>
Offer decide_deal(const Model& model, const Request& request, const LineItem& line, Trace& trace,
                  FeatureCounts* look) noexcept {
  Offer best;
  best.decision.reason = Reason::kInvalidRequest;
  request.with_found(model, [&](const Found& found) {
    const OpenAuction open(model, found);
    best.decision.reason = open.reason;
    if (!can_buy(found)) return;
    Row& row = BIDML_STACK_ROW(*model.engine);
    encode_request(model, found, row);
    model.engine->merge(row, row, *line.row);
    best = best_offer(model, request, open, line, row, trace);
    if (__builtin_expect(look != nullptr, 0)) {
      look_closely(model, found, *look);
      look_closely(line, *look);
    }
    explore_offer(model, request, line, best, trace);
  });
  trace.decision = best.decision;
  return best;
}

struct BestDeal {
  Py_ssize_t index = -1;
  Offer offer;
  Trace trace;
};

// The line item whose best offer is expected to earn most, the first of equals; the request is encoded once. They compete
// with the bids they intend.
template <class Request, class LineAt>
BestDeal best_deal_of(const Model& model, const Request& request, const LineAt& line_at, Py_ssize_t n_lines,
                      FeatureCounts* look) noexcept {
  BestDeal best;
  best.offer.decision.reason = Reason::kInvalidRequest;
  request.with_found(model, [&](const Found& found) {
    const OpenAuction open(model, found);
    best.offer.decision.reason = open.is_open() && n_lines == 0 ? Reason::kNoValue : open.reason;
    if (!can_buy(found)) return;
    Row& asked = BIDML_STACK_ROW(*model.engine);
    Row& row = BIDML_STACK_ROW(*model.engine);
    encode_request(model, found, asked);
    for (Py_ssize_t i = 0; i < n_lines; ++i) {
      const LineItem& line = line_at(i);
      model.engine->merge(row, asked, *line.row);
      Trace trace;
      const Offer offer = best_offer(model, request, open, line, row, trace);
      if (offer.bids() ? best.index < 0 || offer.surplus_cpm > best.offer.surplus_cpm : best.index < 0)
        best = {offer.bids() ? i : -1, offer, trace};
    }
    if (__builtin_expect(look != nullptr, 0)) {
      look_closely(model, found, *look);
      if (best.index >= 0) look_closely(line_at(best.index), *look);
    }
    if (best.index >= 0) explore_offer(model, request, line_at(best.index), best.offer, best.trace);
  });
  return best;
}

}  // namespace bidml
