// The runtime's one decision: a request and a line item become a bid, or a reason for none.
//
// Blueprint: `Model` holds what a loaded artifact says and never changes. Scratch: rows on the stack. State: `LineItem`
// holds what changes rarely (its features, encoded once) and the pacing multiplier, which a pacer may set at any time.
// Nothing on the path from `decide` down allocates, locks, raises or calls the system.
#pragma once

#include <Python.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "auction_id.h"
#include "deal_reader.h"
#include "engine.h"
#include "exploration.h"
#include "extract.h"
#include "offer.h"
#include "price.h"
#include "read_dict.h"
#include "read_json.h"
#include "telemetry.h"

namespace bidml {

constexpr uint32_t kCtrHead = 1u << 0, kLocationHead = 1u << 1, kLogSlopeHead = 1u << 2;
constexpr uint32_t kPricingHeads = kCtrHead | kLocationHead | kLogSlopeHead;
constexpr uint32_t kCvrHead = 1u << 3;       // of artifacts that predict conversions
constexpr uint32_t kVarianceHead = 1u << 4;  // of artifacts that know the error of their pctr
constexpr size_t kMostHeads = 5;

struct Model {
  std::unique_ptr<const Engine> engine;
  std::unique_ptr<const Extractor> extractor;
  std::unique_ptr<const DictReader> dict_reader;
  std::unique_ptr<const DealReader> deal_reader;
  std::unique_ptr<const AuctionIdReader> auction_id_reader;
  // Slots of the request come before those of the line item, so that each side is encoded in one call.
  int n_numbers = 0, n_categories = 0;
  int n_request_numbers = 0;
  Calibration calibration, cvr_calibration;
  WinParameters win;
  uint32_t heads = 0;  // those of the artifact; it prices when it has the pricing ones
  size_t n_heads = 3;  // of the engine
  int default_auction_type = 1;
  std::string currency;
  std::vector<std::pair<std::string, double>> rates;  // units of `currency` per unit of the other
};

struct LineItem {
  std::shared_ptr<const Model> model;
  std::vector<std::string> deals;  // ids it may buy by, for `decide_deal`
  RowBuffer row;  // its own features, encoded
  std::vector<uint16_t> missing, unseen;  // of its own features, as FeatureCounts numbers them
  double value_per_click = 0.0;  // after margin, as the next two
  double value_per_conversion = 0.0, value_per_impression_cpm = 0.0;
  double risk_aversion = 0.0;
  double cap_cpm = 0.0;
  Exploration exploration;
  std::atomic<double> pacing_multiplier{1.0};
};

struct Trace {
  double margins[kMostHeads] = {kMissing, kMissing, kMissing, kMissing, kMissing};
  double log_odds = kMissing;
  double log_odds_sd = kMissing;  // where the line item is averse to risk
  double pctr = kMissing;         // the predicted one, whatever is priced
  double pcvr = kMissing;  // where conversions are paid for
  WinCurve curve{kMissing, kMissing};
  double floor_cpm = kMissing;
  int auction_type = 0;
  Decision decision;
  double propensity = kMissing;  // of a bid that was varied: density of ln b
};

// What a request says about the auction besides features.
struct Terms {
  double floor_cpm = 0.0;
  int auction_type = 1;

  Reason read(const Model& model, const Found& found) noexcept {
    if (found.imps == Imps::none) return Reason::kInvalidRequest;
    if (found.imps == Imps::no_such_object) return Reason::kInvalidImp;
    if (!found.currency_accepted) return Reason::kUnknownCurrency;
    const Extractor::TermLeaves& leaves = model.extractor->terms();
    if (found.values[leaves.private_auction].number() == 1.0) return Reason::kPrivateAuction;
    const double at = found.values[leaves.auction_type].number();
    if (at == 1.0 || at == 2.0)
      auction_type = static_cast<int>(at);
    else if (std::isnan(at))
      auction_type = model.default_auction_type;
    else
      return Reason::kUnsupportedAuctionType;
    return read_floor(model, found.values[leaves.floor], found.values[leaves.floor_currency]);
  }

  // Absent or null is no floor. Anything else that is not a number ≥ 0 is garbage: no bid rather than a guess.
  Reason read_floor(const Model& model, const Value& floor, const Value& currency) noexcept {
    if (!floor.is_given()) return Reason::kBid;
    const double amount = floor.number();
    if (!(amount >= 0.0)) return Reason::kInvalidFloor;
    if (amount == 0.0) return Reason::kBid;
    const double rate = rate_of(currency, model);
    if (!(rate > 0.0)) return Reason::kUnknownCurrency;
    floor_cpm = amount * rate;
    return Reason::kBid;
  }

 private:
  static double rate_of(const Value& currency, const Model& model) noexcept {
    TextScratch scratch;
    std::string_view code = "USD";  // OpenRTB's default for bidfloorcur
    if (currency.is_given()) {
      if (!currency.is_text()) return 0.0;
      code = scratch.of(currency);
    }
    if (code == model.currency) return 1.0;
    for (const auto& [known, rate] : model.rates)
      if (code == known) return rate;
    return 0.0;
  }
};

// Scratch of this call: the engine bounds row_bytes by the contract's limits (at most some 64 KB).
#define BIDML_STACK_ROW(engine) \
  (*static_cast<::bidml::Row*>(__builtin_alloca_with_align((engine).row_bytes(), 512)))

constexpr int kMostNumbers = 256;  // contract.MAX_FEATURES

// The request's side of a row.
inline void encode_request(const Model& model, const Found& found, Row& row) noexcept {
  const Engine& engine = *model.engine;
  const Extractor& extractor = *model.extractor;
  engine.clear(row);
  double numbers[kMostNumbers];
  extractor.numbers(found, numbers);
  TextRef texts[kMostNumbers];
  TextScratch scratch;
  int first = 0;
  for (int slot = 0; slot < extractor.n_categories(); ++slot) {
    if (!scratch.has_room()) {
      engine.set_categories(row, first, slot - first, texts);
      first = slot;
      scratch.reset();
    }
    texts[slot - first] = extractor.category(found, slot, scratch);
  }
  engine.set_slots(row, first, extractor.n_categories() - first, texts, model.n_request_numbers, numbers);
}

// What the model does not find in a request and a line item; for some decisions only.
__attribute__((noinline)) inline void look_closely(const Model& model, const Found& found,
                                                   FeatureCounts& counts) noexcept {
  add(counts.looked_at);
  for (int slot = 0; slot < model.extractor->n_categories(); ++slot) {
    TextScratch scratch;
    const std::string_view text = model.extractor->category(found, slot, scratch);
    if (text.empty())
      add(counts.missing[size_t(slot)]);
    else if (model.engine->is_unseen(slot, text))
      add(counts.unseen[size_t(slot)]);
  }
  double numbers[kMostNumbers];
  model.extractor->numbers(found, numbers);
  for (int slot = 0; slot < model.n_request_numbers; ++slot)
    if (std::isnan(numbers[slot])) add(counts.missing[size_t(model.n_categories + slot)]);
}

inline void look_closely(const LineItem& line, FeatureCounts& counts) noexcept {
  for (const uint16_t feature : line.missing) add(counts.missing[feature]);
  for (const uint16_t feature : line.unseen) add(counts.unseen[feature]);
}

// From margins to the decision. margin_of(head) is asked head by head: what follows from a margin is a long chain of
// dependent steps, which the processor hides behind the next head's trees; the shortest chain comes last. The conversion
// head is asked only for a line item that pays for conversions, the variance head for one that is averse to risk.
template <bool wants_win_rate, class MarginOf>
__attribute__((always_inline)) inline void price_margins(const Model& model, const PriceInputs& inputs, Trace& trace,
                                                         const MarginOf& margin_of) noexcept {
  double value_of_click = inputs.value_per_click;
  if (__builtin_expect(inputs.value_per_conversion != 0.0, 0)) {
    if ((model.heads & kCvrHead) == 0) {
      trace.decision.reason = Reason::kNoConversionModel;
      return;
    }
    trace.margins[3] = margin_of(3);
    trace.pcvr = sigmoid(calibrated(model.cvr_calibration, trace.margins[3]));
    value_of_click += trace.pcvr * inputs.value_per_conversion;
  }
  trace.margins[0] = margin_of(0);
  trace.log_odds = calibrated(model.calibration, trace.margins[0]);
  trace.pctr = sigmoid(trace.log_odds);
  double pctr = trace.pctr;
  if (__builtin_expect(inputs.risk_aversion != 0.0, 0)) {
    if ((model.heads & kVarianceHead) == 0) {
      trace.decision.reason = Reason::kNoUncertaintyModel;
      return;
    }
    trace.margins[4] = margin_of(4);
    trace.log_odds_sd = log_odds_sd(trace.margins[4]);
    pctr = sigmoid(trace.log_odds - inputs.risk_aversion * trace.log_odds_sd);
  }
  const Decision value = paced_value(pctr, value_of_click, inputs);
  trace.margins[2] = margin_of(2);
  trace.curve.shape = win_shape(model.win, trace.margins[2]);
  trace.curve.is_log_normal = model.win.is_log_normal;
  const RootTerms terms(trace.curve.shape, model.win.gamma, value.unshaded_bid_cpm);
  trace.margins[1] = margin_of(1);
  trace.curve.location = win_location(model.win, trace.margins[1], trace.curve.shape);
  trace.floor_cpm = inputs.floor_cpm;
  trace.auction_type = inputs.auction_type;
  trace.decision = price<wants_win_rate>(value, trace.curve, model.win.gamma, terms, inputs);
}

inline PriceInputs price_inputs(const LineItem& line, const Terms& terms) noexcept {
  return {line.value_per_click, terms.floor_cpm, line.cap_cpm, line.pacing_multiplier.load(std::memory_order_relaxed),
          terms.auction_type, line.value_per_conversion, line.value_per_impression_cpm, line.risk_aversion};
}

// A decoded request or the bytes of one, its auctioned impression, and how its values are found: `use` is called once
// with them, or not at all for what is no request.
struct DictRequest {
  PyObject* object;
  Py_ssize_t imp;
  double soft_floor_cpm = kMissing;  // what the caller knows of the auction; negative: he gave no number

  // Element `i` of the impression's deals.
  template <class Use>
  void with_deal(const Model& model, Py_ssize_t i, Use&& use) const noexcept {
    Found found;
    if (model.deal_reader->dict().read(object, {imp, nullptr, i}, {}, found)) {
      use(found);
      return;
    }
    Held held;
    model.deal_reader->dict().read_held(object, {imp, nullptr, i}, {}, found, held);
    use(found);
  }

  template <class Use>
  void with_auction_id(const Model& model, Use&& use) const noexcept {
    TextScratch scratch;
    const AuctionIdReader& reader = *model.auction_id_reader;
    Found found;
    if (reader.dict().read(object, {imp, nullptr}, {}, found)) {
      use(reader.id(found, scratch));
      return;
    }
    Held held;
    reader.dict().read_held(object, {imp, nullptr}, {}, found, held);
    use(reader.id(found, scratch));
  }

  template <class Use>
  void with_found(const Model& model, Use&& use) const noexcept {
    if (!PyDict_Check(object)) return;
    Found found;
    if (__builtin_expect(model.dict_reader->read(object, {imp, nullptr}, model.currency, found), 1)) {
      use(found);
    } else {
      with_held(model, use);
    }
  }

 private:
  template <class Use>
  __attribute__((noinline)) void with_held(const Model& model, Use& use) const noexcept {
    Held held;
    Found found;
    model.dict_reader->read_held(object, {imp, nullptr}, model.currency, found, held);
    use(found);
  }
};

struct JsonRequest {
  std::string_view bytes;
  Py_ssize_t imp;
  double soft_floor_cpm = kMissing;

  template <class Use>
  void with_deal(const Model& model, Py_ssize_t i, Use&& use) const noexcept {
    Found found;
    if (read_json(model.deal_reader->plan(), bytes, imp, {}, found, i)) use(found);
  }

  template <class Use>
  void with_auction_id(const Model& model, Use&& use) const noexcept {
    TextScratch scratch;
    Found found;
    if (read_json(model.auction_id_reader->plan(), bytes, imp, {}, found)) use(model.auction_id_reader->id(found, scratch));
  }

  template <class Use>
  void with_found(const Model& model, Use&& use) const noexcept {
    Found found;
    if (read_json(model.extractor->plan(), bytes, imp, model.currency, found)) use(found);
  }
};

// Varies a bid that is paid, where the auction's id says so; a request without an id is left alone. What is not paid teaches
// less the lower it is, and is never varied. `highest_cpm`: the cap, or less.
template <bool wants_win_rate, class Request>
__attribute__((noinline)) void explore(const Model& model, const Request& request, const LineItem& line, double floor_cpm,
                                       double highest_cpm, Decision& decision, Trace& trace) noexcept {
  Explored varied{decision.bid_cpm, kMissing};
  const double v = decision.unshaded_bid_cpm;
  request.with_auction_id(model, [&](std::string_view id) {
    if (!id.empty())
      varied = explored(line.exploration, id, uint64_t(request.imp), decision.bid_cpm, floor_cpm, std::min(highest_cpm, v));
  });
  if (std::isnan(varied.propensity)) return;
  decision.bid_cpm = varied.bid_cpm;
  trace.propensity = varied.propensity;
  if (wants_win_rate) decision.win_rate = win_rate(trace.curve, model.win.gamma, varied.bid_cpm);
}

// What some calls and line items change in a decision: a soft floor, exploration.
template <bool wants_win_rate, class Request>
__attribute__((noinline)) void revise(const Model& model, const Request& request, const LineItem& line,
                                      const PriceInputs& inputs, Trace& trace) noexcept {
  bool is_paid = inputs.auction_type == 1;
  double highest_cpm = inputs.cap_cpm;
  if (!std::isnan(request.soft_floor_cpm) && !lacks_part(trace.decision.reason)) {
    const Decision value = bare_value(trace.decision);
    const RootTerms terms(trace.curve.shape, model.win.gamma, value.unshaded_bid_cpm);
    const Offer offer = soft_floor_offer(value, trace.curve, model.win.gamma, terms, inputs, request.soft_floor_cpm);
    trace.decision = offer.decision;
    is_paid = offer.is_paid;
    highest_cpm = offer.highest_cpm;
  }
  if (line.exploration.share > 0.0 && is_paid && trace.decision.reason == Reason::kBid)
    explore<wants_win_rate>(model, request, line, inputs.floor_cpm, highest_cpm, trace.decision, trace);
}

// The decision for one line item; `look`: where to count its features, or null.
template <bool wants_win_rate, class Request>
void decide(const Model& model, const Request& request, const LineItem& line, Trace& trace,
            FeatureCounts* look) noexcept {
  trace.decision.reason = Reason::kInvalidRequest;
  request.with_found(model, [&](const Found& found) {
    Terms terms;
    trace.decision.reason = terms.read(model, found);
    if (trace.decision.reason != Reason::kBid) return;
    Row& row = BIDML_STACK_ROW(*model.engine);
    encode_request(model, found, row);
    model.engine->merge(row, row, *line.row);
    const PriceInputs inputs = price_inputs(line, terms);
    price_margins<wants_win_rate>(model, inputs, trace, [&](size_t head) { return model.engine->margin(row, head); });
    if (__builtin_expect(line.exploration.share > 0.0 || !std::isnan(request.soft_floor_cpm), 0))
      revise<wants_win_rate>(model, request, line, inputs, trace);
    if (__builtin_expect(look != nullptr, 0)) {
      look_closely(model, found, *look);
      look_closely(line, *look);
    }
  });
}

}  // namespace bidml
