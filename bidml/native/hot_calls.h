// The hot calls: plain METH_FASTCALL slots on the class, one C call each, no argument conversion, no exception on request
// content. Included by bindings.cc alone.
#pragma once

#include <nanobind/nanobind.h>

#include "best.h"
#include "deals.h"
#include "decisions_to_python.h"
#include "held_lines.h"
#include "hot_arguments.h"

namespace bidml {
namespace {

namespace nb = nanobind;

struct Scorer {
  std::shared_ptr<const Model> model;
  Telemetry telemetry;
  nb::dict slots;  // feature name → (is_category, slot)
  nb::object invalid_request_error;  // strict mode: raised on content that can only be a bug of the caller
};

PyTypeObject* line_item_type = nullptr;
DecisionTypes decision_types;

LineItem* line_item_of(PyObject* object, const Scorer& scorer) {
  if (Py_TYPE(object) != line_item_type) {
    PyErr_Format(PyExc_TypeError, "a line item comes from Scorer.line_item; found %.80s; build it first",
                 Py_TYPE(object)->tp_name);
    return nullptr;
  }
  LineItem* line = nb::inst_ptr<LineItem>(nb::handle(object));
  if (!nb::inst_ready(nb::handle(object)) || line->model != scorer.model) {
    PyErr_SetString(PyExc_TypeError, "a line item belongs to the scorer that made it; call this scorer's line_item");
    return nullptr;
  }
  return line;
}

bool raise_if_strict(const Scorer& scorer, Reason reason) {
  if (!scorer.invalid_request_error.is_valid() || reason < Reason::kInvalidRequest || reason > Reason::kUnsupportedAuctionType)
    return false;
  PyObject* code = PyLong_FromLong(static_cast<int>(reason));
  if (code) {
    PyErr_SetObject(scorer.invalid_request_error.ptr(), code);
    Py_DECREF(code);
  }
  return true;
}

template <bool is_json>
bool decide_call(PyObject* self, PyObject* const* args, Py_ssize_t n, Trace& trace) {
  Scorer& scorer = *nb::inst_ptr<Scorer>(nb::handle(self));
  CallOptions options;
  if (n < 2) {
    PyErr_SetString(PyExc_TypeError, "the arguments are (request, line, imp=0, soft_floor_cpm=None)");
    return false;
  }
  LineItem* line = line_item_of(args[1], scorer);
  if (!line || !options.read(args, n)) return false;
  Telemetry& telemetry = scorer.telemetry;
  const bool is_due = telemetry.is_due();
  const uint64_t start = is_due ? ticks() : 0;
  FeatureCounts* look = is_due ? &telemetry.features : nullptr;
  const auto use = [&](const auto& request) { decide<false>(*scorer.model, request, *line, trace, look); };
  if (!BIDML_WITH_REQUEST(is_json, args[0], options, use)) return false;
  const Decision& d = trace.decision;
  telemetry.count(d.reason, d.bid_cpm, d.optimum_cpm, trace.pctr, trace.pcvr, trace.propensity);
  if (is_due) telemetry.took(start);
  return !raise_if_strict(scorer, trace.decision.reason);
}

template <bool is_json>
PyObject* scorer_bid(PyObject* self, PyObject* const* args, Py_ssize_t n) {
  Trace trace;
  if (!decide_call<is_json>(self, args, n, trace)) return nullptr;
  return PyFloat_FromDouble(trace.decision.bid_cpm);
}

template <bool is_json>
PyObject* scorer_decide(PyObject* self, PyObject* const* args, Py_ssize_t n) {
  Trace trace;
  if (!decide_call<is_json>(self, args, n, trace)) return nullptr;
  PyObject* reason = PyLong_FromLong(static_cast<int>(trace.decision.reason));
  return decision_types.of_line.make(PyFloat_FromDouble(trace.decision.bid_cpm), reason, trace.propensity);
}

// Calls `use(request, line_at, n_lines, look)` with the arguments of a call that chooses among line items; false with an
// error set. `count` gives telemetry what came of it and returns the reason.
template <bool is_json, class Use, class Count>
bool best_call(PyObject* self, PyObject* const* args, Py_ssize_t n, const Use& use, const Count& count) {
  Scorer& scorer = *nb::inst_ptr<Scorer>(nb::handle(self));
  CallOptions options;
  if (n < 2 || !(PyList_Check(args[1]) || PyTuple_Check(args[1]))) {
    PyErr_SetString(PyExc_TypeError, "the arguments are (request, list of line items, imp=0, soft_floor_cpm=None)");
    return false;
  }
  if (!options.read(args, n)) return false;
  const HeldLines lines(args[1]);
  if (!lines) return false;
  for (Py_ssize_t i = 0; i < lines.size(); ++i)
    if (!line_item_of(lines[i], scorer)) return false;
  const auto line_at = [&](Py_ssize_t i) -> const LineItem& {
    return *nb::inst_ptr<LineItem>(nb::handle(lines[i]));
  };
  Telemetry& telemetry = scorer.telemetry;
  const bool is_due = telemetry.is_due();
  const uint64_t start = is_due ? ticks() : 0;
  FeatureCounts* look = is_due ? &telemetry.features : nullptr;
  const auto use_request = [&](const auto& request) { use(*scorer.model, request, line_at, lines.size(), look); };
  if (!BIDML_WITH_REQUEST(is_json, args[0], options, use_request)) return false;
  const Reason reason = count(telemetry);
  if (is_due) telemetry.took(start);
  return !raise_if_strict(scorer, reason);
}

template <bool is_json>
PyObject* scorer_best(PyObject* self, PyObject* const* args, Py_ssize_t n) {
  Best best;
  const auto use = [&](const Model& model, const auto& request, const auto& line_at, Py_ssize_t n_lines,
                       FeatureCounts* look) { best = best_of(model, request, line_at, n_lines, look); };
  const auto count = [&](Telemetry& telemetry) {
    telemetry.count(best.reason, best.bid_cpm, best.optimum_cpm, best.pctr, best.pcvr, best.propensity);
    return best.reason;
  };
  if (!best_call<is_json>(self, args, n, use, count)) return nullptr;
  PyObject* index = PyLong_FromSsize_t(best.index);
  return decision_types.of_lines.make(index, PyFloat_FromDouble(best.bid_cpm), best.propensity);
}

// The id of the deal an offer is by, None for the open auction; a new reference.
PyObject* deal_of(const Offer& offer, const LineItem* line) {
  if (!offer.bids() || offer.deal < 0) return Py_NewRef(Py_None);
  return PyUnicode_FromString(line->deals[size_t(offer.deal)].c_str());
}

template <bool is_json>
PyObject* scorer_best_deal(PyObject* self, PyObject* const* args, Py_ssize_t n) {
  BestDeal best;
  const LineItem* line = nullptr;
  const auto use = [&](const Model& model, const auto& request, const auto& line_at, Py_ssize_t n_lines,
                       FeatureCounts* look) {
    best = best_deal_of(model, request, line_at, n_lines, look);
    if (best.index >= 0) line = &line_at(best.index);
  };
  const Decision& d = best.offer.decision;
  const Trace& trace = best.trace;
  const auto count = [&](Telemetry& telemetry) {
    telemetry.count(d.reason, d.bid_cpm, d.optimum_cpm, trace.pctr, trace.pcvr, trace.propensity);
    return d.reason;
  };
  if (!best_call<is_json>(self, args, n, use, count)) return nullptr;
  PyObject* index = PyLong_FromSsize_t(best.index);
  return decision_types.of_line_deals.make(index, PyFloat_FromDouble(d.bid_cpm), deal_of(best.offer, line),
                                           trace.propensity);
}

template <bool is_json>
PyObject* scorer_decide_deal(PyObject* self, PyObject* const* args, Py_ssize_t n) {
  Scorer& scorer = *nb::inst_ptr<Scorer>(nb::handle(self));
  CallOptions options;
  if (n < 2) {
    PyErr_SetString(PyExc_TypeError, "the arguments are (request, line, imp=0, soft_floor_cpm=None)");
    return nullptr;
  }
  LineItem* line = line_item_of(args[1], scorer);
  if (!line || !options.read(args, n)) return nullptr;
  Telemetry& telemetry = scorer.telemetry;
  const bool is_due = telemetry.is_due();
  const uint64_t start = is_due ? ticks() : 0;
  FeatureCounts* look = is_due ? &telemetry.features : nullptr;
  Trace trace;
  Offer offer;
  const auto use = [&](const auto& request) { offer = decide_deal(*scorer.model, request, *line, trace, look); };
  if (!BIDML_WITH_REQUEST(is_json, args[0], options, use)) return nullptr;
  const Decision& d = offer.decision;
  telemetry.count(d.reason, d.bid_cpm, d.optimum_cpm, trace.pctr, trace.pcvr, trace.propensity);
  if (is_due) telemetry.took(start);
  if (raise_if_strict(scorer, d.reason)) return nullptr;
  PyObject* code = PyLong_FromLong(static_cast<int>(d.reason));
  return decision_types.of_deals.make(PyFloat_FromDouble(d.bid_cpm), code, deal_of(offer, line), trace.propensity);
}

template <class Function>
PyCFunction slot(Function function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef hot_methods[] = {
    {"bid", slot(scorer_bid<false>), METH_FASTCALL,
     "bid(request, line, imp=0, soft_floor_cpm=None, /) -> float\n\nThe bid in CPM of the artifact's currency; 0.0 is no bid.\n\n"
     "Never raises on request content (but with strict=True), never above cap or value, never below floor. "
     "soft_floor_cpm, in the artifact's currency: in a second-price auction a bid below it pays itself, one above at least it."},
    {"decide", slot(scorer_decide<false>), METH_FASTCALL,
     "decide(request, line, imp=0, soft_floor_cpm=None, /) -> Decision\n\nLike bid: (bid_cpm, reason), the NoBidReason as an int (0: a bid), and as "
     "an attribute the propensity of a bid that was varied."},
    {"best", slot(scorer_best<false>), METH_FASTCALL,
     "best(request, lines, imp=0, soft_floor_cpm=None, /) -> BestDecision\n\n(index, bid_cpm): the line item with the highest expected surplus "
     "(v - b) * win_rate(b), v after pacing; (-1, 0.0) when none bids. The request is encoded once. Bids "
     "that are varied are so afterwards."},
    {"bid_json", slot(scorer_bid<true>), METH_FASTCALL,
     "bid_json(request, line, imp=0, soft_floor_cpm=None, /) -> float\n\nbid(json.loads(request), line, imp) for the bytes of a request, "
     "without decoding what the model does not read.\n\nBytes that are not JSON are no bid, invalid_request."},
    {"decide_json", slot(scorer_decide<true>), METH_FASTCALL,
     "decide_json(request, line, imp=0, soft_floor_cpm=None, /) -> Decision\n\nLike decide, for the bytes of a request."},
    {"best_json", slot(scorer_best<true>), METH_FASTCALL,
     "best_json(request, lines, imp=0, soft_floor_cpm=None, /) -> BestDecision\n\nLike best, for the bytes of a request."},
    {"decide_deal", slot(scorer_decide_deal<false>), METH_FASTCALL,
     "decide_deal(request, line, imp=0, soft_floor_cpm=None, /) -> DealDecision\n\n(bid_cpm, reason, deal): like decide, for a line item with deals: of the "
     "open auction and the deals of imp.pmp that it names, the offer of the highest expected surplus; deal is the id to "
     "answer with, None for the open auction."},
    {"decide_deal_json", slot(scorer_decide_deal<true>), METH_FASTCALL,
     "decide_deal_json(request, line, imp=0, soft_floor_cpm=None, /) -> DealDecision\n\nLike decide_deal, for the bytes of a request."},
    {"best_deal", slot(scorer_best_deal<false>), METH_FASTCALL,
     "best_deal(request, lines, imp=0, soft_floor_cpm=None, /) -> BestDealDecision\n\n(index, bid_cpm, deal): like best, for line items with "
     "deals: the one whose best offer, as decide_deal takes it, has the highest expected surplus; (-1, 0.0, None) when none bids."},
    {"best_deal_json", slot(scorer_best_deal<true>), METH_FASTCALL,
     "best_deal_json(request, lines, imp=0, soft_floor_cpm=None, /) -> BestDealDecision\n\nLike best_deal, for the bytes of a request."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace
}  // namespace bidml
