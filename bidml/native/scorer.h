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

#include "engine.h"
#include "extract.h"
#include "price.h"

namespace bidml {

constexpr uint32_t kCtrHead = 1u << 0, kLocationHead = 1u << 1, kLogSlopeHead = 1u << 2;
constexpr uint32_t kAllHeads = kCtrHead | kLocationHead | kLogSlopeHead;

struct Model {
  std::unique_ptr<const Engine> engine;
  std::unique_ptr<const Extractor> extractor;
  // Slots of the request come before those of the line item, so that each side is encoded in one call.
  int n_numbers = 0, n_categories = 0;
  int n_request_numbers = 0;
  Calibration calibration;
  WinParameters win;
  uint32_t heads = 0;  // those of the artifact; it prices when it has all
  int default_auction_type = 1;
  std::string currency;
  std::vector<std::pair<std::string, double>> rates;  // units of `currency` per unit of the other
};

struct LineItem {
  std::shared_ptr<const Model> model;
  RowBuffer row;  // its own features, encoded
  double value_per_click = 0.0;  // after margin
  double cap_cpm = 0.0;
  std::atomic<double> pacing_multiplier{1.0};
};

struct Trace {
  double margins[3] = {kMissing, kMissing, kMissing};
  double log_odds = kMissing;
  double pctr = kMissing;
  WinCurve curve{kMissing, kMissing};
  double floor_cpm = kMissing;
  int auction_type = 0;
  Decision decision;
};

struct RequestNames {
  Reference imp = key("imp"), bidfloor = key("bidfloor"), bidfloorcur = key("bidfloorcur"), at = key("at"),
            cur = key("cur"), pmp = key("pmp"), private_auction = key("private_auction");

 private:
  static Reference key(const char* text) {
    PyObject* object = PyUnicode_InternFromString(text);
    if (!object) throw std::bad_alloc();
    return Reference(object);
  }
};

struct RowSink {
  const Engine& engine;
  Row& row;
  double* numbers;
  void category(int slot, const char* utf8, size_t size) noexcept { engine.set_category(row, slot, utf8, size); }
  void number(int slot, double x) noexcept { numbers[slot] = x; }
};

// The terms of the auction that are not features: which impression, floor, currency, type.
class Terms {
 public:
  Reference imp;
  double floor_cpm = 0.0;
  int auction_type = 1;

  Reason read(const RequestNames& names, const Model& model, PyObject* request, Py_ssize_t imp_index) noexcept {
    if (!PyDict_Check(request)) return Reason::kInvalidRequest;
    const Reference imps = item(request, names.imp.get());
    if (!imps || !PyList_Check(imps.get())) return Reason::kInvalidRequest;
    if (imp_index < 0 || imp_index >= PyList_GET_SIZE(imps.get())) return Reason::kInvalidImp;
    imp = list_item(imps.get(), imp_index);
    if (!imp || !PyDict_Check(imp.get())) return Reason::kInvalidImp;
    if (!currency_accepted(item(request, names.cur.get()).get(), model)) return Reason::kUnknownCurrency;
    const Reference pmp = dict_item(imp.get(), names.pmp.get());
    if (pmp && number_of(item(pmp.get(), names.private_auction.get()).get()) == 1.0) return Reason::kPrivateAuction;
    const double at = number_of(item(request, names.at.get()).get());
    if (at == 1.0 || at == 2.0)
      auction_type = static_cast<int>(at);
    else if (std::isnan(at))
      auction_type = model.default_auction_type;
    else
      return Reason::kUnsupportedAuctionType;
    return read_floor(names, model);
  }

 private:
  // Absent or null is no floor. Anything else that is not a number ≥ 0 is garbage: no bid rather than a guess.
  Reason read_floor(const RequestNames& names, const Model& model) noexcept {
    const Reference value = item(imp.get(), names.bidfloor.get());
    if (!value || value.get() == Py_None) return Reason::kBid;
    const double floor = number_of(value.get());
    if (!(floor >= 0.0)) return Reason::kInvalidFloor;
    if (floor == 0.0) return Reason::kBid;
    const double rate = rate_of(item(imp.get(), names.bidfloorcur.get()).get(), model);
    if (!(rate > 0.0)) return Reason::kUnknownCurrency;
    floor_cpm = floor * rate;
    return Reason::kBid;
  }

  static double rate_of(PyObject* currency, const Model& model) noexcept {
    Text text;
    std::string_view code = "USD";  // OpenRTB's default for bidfloorcur
    if (currency && currency != Py_None) {
      if (!PyUnicode_Check(currency)) return 0.0;
      code = text.of(currency);
    }
    if (code == model.currency) return 1.0;
    for (const auto& [known, rate] : model.rates)
      if (code == known) return rate;
    return 0.0;
  }

  // `cur` lists the currencies that bids may be in; absent or empty means any.
  static bool currency_accepted(PyObject* accepted, const Model& model) noexcept {
    if (!accepted || !PyList_Check(accepted)) return true;
    const Py_ssize_t n = PyList_GET_SIZE(accepted);
    for (Py_ssize_t i = 0; i < n && i < 64; ++i) {
      const Reference code = list_item(accepted, i);
      Text text;
      if (code && PyUnicode_Check(code.get()) && text.of(code.get()) == model.currency) return true;
    }
    return n == 0;
  }
};

// Scratch of this call: the engine bounds row_bytes by the contract's limits (at most some 64 KB).
#define BIDML_STACK_ROW(engine) \
  (*static_cast<::bidml::Row*>(__builtin_alloca_with_align((engine).row_bytes(), 512)))

constexpr int kMostNumbers = 256;  // contract.MAX_FEATURES

inline void encode_request(const Model& model, PyObject* request, PyObject* imp, Row& row) noexcept {
  double numbers[kMostNumbers];
  model.engine->clear(row);
  (*model.extractor)(request, imp, RowSink{*model.engine, row, numbers});
  model.engine->set_numbers(row, 0, model.n_request_numbers, numbers);
}

// From margins to the decision.
inline void price_margins(const Model& model, const PriceInputs& inputs, Trace& trace) noexcept {
  trace.log_odds = calibrated(model.calibration, trace.margins[0]);
  trace.pctr = sigmoid(trace.log_odds);
  trace.curve = win_curve(model.win, trace.margins[1], trace.margins[2]);
  trace.floor_cpm = inputs.floor_cpm;
  trace.auction_type = inputs.auction_type;
  trace.decision = price(trace.pctr, trace.curve, model.win.gamma, inputs);
}

inline PriceInputs price_inputs(const LineItem& line, const Terms& terms) noexcept {
  return {line.value_per_click, terms.floor_cpm, line.cap_cpm, line.pacing_multiplier.load(std::memory_order_relaxed),
          terms.auction_type};
}

inline void decide(const RequestNames& names, const Model& model, PyObject* request, const LineItem& line,
                   Py_ssize_t imp_index, Trace& trace) noexcept {
  Terms terms;
  trace.decision.reason = terms.read(names, model, request, imp_index);
  if (trace.decision.reason != Reason::kBid) return;
  Row& row = BIDML_STACK_ROW(*model.engine);
  encode_request(model, request, terms.imp.get(), row);
  model.engine->margins(row, *line.row, kAllHeads, trace.margins);
  price_margins(model, price_inputs(line, terms), trace);
}

}  // namespace bidml
