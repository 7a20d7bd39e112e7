// The module `bidml.score._native`: the only file, with the other `bind_*.cc` and `*_to_python.h`, that knows Python.
//
// The hot callables (`bid`, `decide`, `best`, …) are in hot_calls.h. The others go through nanobind and may raise.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string_view.h>

#if defined(__linux__)
#include <malloc.h>
#endif

#include "attribute.h"
#include "batch.h"
#include "bind_wire.h"
#include "ending.h"
#include "engine_from_python.h"
#include "gil.h"
#include "hot_calls.h"
#include "telemetry_to_python.h"

namespace nb = nanobind;

namespace bidml {

void bind_exploration(nb::module_& module);

namespace {

double number_attribute(nb::handle object, const char* name) { return nb::cast<double>(attribute(object, name)); }

std::vector<double> numbers_attribute(nb::handle object, const char* name) {
  std::vector<double> found;
  const nb::object numbers = attribute(object, name);
  for (nb::handle number : numbers) found.push_back(nb::cast<double>(number));
  return found;
}

// A copy. nanobind's casters of std::string and std::vector allocate in noexcept functions: without memory they end the
// process. Views do not allocate.
std::string text_attribute(nb::handle object, const char* name) {
  const nb::object text = attribute(object, name);
  return std::string(nb::cast<std::string_view>(text));
}

Calibration calibration_of(nb::handle probability) {
  const nb::object c = attribute(probability, "calibration"), knots = attribute(c, "knots");
  Calibration found{number_attribute(c, "positive"), number_attribute(c, "negative"), number_attribute(c, "shift"), {}};
  if (!knots.is_none()) found.knots = Knots(numbers_attribute(knots, "x"), numbers_attribute(knots, "y"));
  return found;
}

// `rates`: (currency, rate) pairs
std::shared_ptr<const Model> model_of(nb::handle blueprint, nb::list rates, std::string_view isa, nb::dict slots) {
  auto model = std::make_shared<Model>();
  std::vector<Extractor::Source> sources;
  for (const bool of_line_item : {false, true}) {
    for (nb::handle feature : attribute(attribute(blueprint, "spec"), "features")) {
      const std::string path = text_attribute(feature, "source");
      const bool is_category = text_attribute(attribute(feature, "kind"), "value") == "category";
      if ((path.rfind("line_item.", 0) == 0) != of_line_item) continue;
      const int slot = is_category ? model->n_categories++ : model->n_numbers++;
      slots[attribute(feature, "name")] = nb::make_tuple(is_category, slot);
      if (!of_line_item) sources.push_back({path, is_category, slot});
    }
    if (!of_line_item) model->n_request_numbers = model->n_numbers;
  }
  if (model->n_numbers > kMostNumbers)
    throw nb::value_error("a spec has at most 256 numbers");  // contract.MAX_FEATURES holds it already
  model->extractor = std::make_unique<Extractor>(
      sources, text_attribute(attribute(blueprint, "spec"), "timestamp_ms_source"));
  model->dict_reader = std::make_unique<DictReader>(model->extractor->plan());
  model->deal_reader = std::make_unique<const DealReader>();
  model->auction_id_reader = std::make_unique<const AuctionIdReader>();

  const nb::object ctr = attribute(blueprint, "ctr"), cvr = attribute(blueprint, "cvr"), win = attribute(blueprint, "win");
  nb::list heads;
  const nb::object empty = attribute(nb::module_::import_("bidml.blueprint"), "Head")(nb::make_tuple(), nb::none());
  heads.append(ctr.is_none() ? empty : attribute(ctr, "head"));
  heads.append(win.is_none() ? empty : attribute(win, "location"));
  heads.append(win.is_none() ? empty : attribute(win, "log_slope"));
  const nb::object variance = ctr.is_none() ? nb::none() : attribute(ctr, "variance");
  if (!cvr.is_none() || !variance.is_none()) heads.append(cvr.is_none() ? empty : attribute(cvr, "head"));
  if (!variance.is_none()) heads.append(variance);
  model->n_heads = nb::len(heads);
  model->engine = engine_from_python(heads, slots, model->n_numbers, model->n_categories, isa_from_name(isa), false);
  if (!ctr.is_none()) {
    model->heads |= kCtrHead;
    model->calibration = calibration_of(ctr);
    if (!variance.is_none()) model->heads |= kVarianceHead;
  }
  if (!cvr.is_none()) {
    model->heads |= kCvrHead;
    model->cvr_calibration = calibration_of(cvr);
  }
  if (!win.is_none()) {
    model->heads |= kLocationHead | kLogSlopeHead;
    model->win = {number_attribute(win, "reference_log_bid_cpm"), number_attribute(win, "slope_scale"),
                  number_attribute(win, "logit_shift"), number_attribute(win, "gamma"),
                  text_attribute(win, "location_unit") == "log_price", text_attribute(win, "family") == "log_normal"};
  }
  model->currency = text_attribute(blueprint, "currency");
  model->default_auction_type = nb::cast<int>(attribute(blueprint, "default_auction_type"));
  for (nb::handle rate : rates) {
    const nb::object code = rate[0];
    model->rates.emplace_back(std::string(nb::cast<std::string_view>(code)), nb::cast<double>(rate[1]));
  }
  return model;
}

// ---- the class ----

// nanobind's own, which lets a std::bad_alloc pass into CPython; what it had allocated is lost then.
PyObject* new_scorer(PyTypeObject* type, PyObject*, PyObject*) {
  try {
    return nb::inst_alloc(nb::handle(reinterpret_cast<PyObject*>(type))).release().ptr();
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  } catch (nb::python_error& error) {
    error.restore();
    return nullptr;
  }
}

PyType_Slot scorer_slots[] = {
    {Py_tp_methods, hot_methods}, {Py_tp_new, reinterpret_cast<void*>(new_scorer)}, {0, nullptr}};

// ---- the slow side ----

nb::object decoded(std::string_view utf8) {  // what matches no key becomes contract.UNMATCHABLE
  PyObject* text = PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), "replace");
  if (!text) throw nb::python_error();
  return nb::steal(text);
}

// The raw features as Python values, by slot.
nb::tuple raw_features(const Model& model, const Found& found) {
  nb::list categories, numbers;
  for (int slot = 0; slot < model.n_categories; ++slot) {
    TextScratch scratch;
    const std::string_view text =
        slot < model.extractor->n_categories() ? model.extractor->category(found, slot, scratch) : std::string_view();
    categories.append(decoded(text));
  }
  double values[kMostNumbers];
  for (int slot = 0; slot < model.n_numbers; ++slot) values[slot] = kMissing;
  model.extractor->numbers(found, values);
  for (int slot = 0; slot < model.n_numbers; ++slot) numbers.append(nb::float_(values[slot]));
  return nb::make_tuple(categories, numbers);
}

// The raw features of a request whose auctioned impression is `imp`.
nb::tuple extract(const Scorer& scorer, nb::dict request, nb::dict imp) {
  const Model& model = *scorer.model;
  Held held;
  Found found;
  model.dict_reader->read_held(request.ptr(), {0, imp.ptr()}, model.currency, found, held);
  return raw_features(model, found);
}

// The same from the bytes of one; None when they are no JSON object.
nb::object extract_json(const Scorer& scorer, nb::bytes request, Py_ssize_t imp) {
  const Model& model = *scorer.model;
  Found found;
  if (!read_json(model.extractor->plan(), {request.c_str(), request.size()}, imp, model.currency, found))
    return nb::none();
  return raw_features(model, found);
}

nb::dict trace_dict(const Trace& trace, const LineItem& line) {
  nb::dict out;
  out["bid_cpm"] = trace.decision.bid_cpm;
  out["reason"] = static_cast<int>(trace.decision.reason);
  out["win_rate"] = trace.decision.win_rate;
  out["value_cpm"] = trace.decision.value_cpm;
  out["unshaded_bid_cpm"] = trace.decision.unshaded_bid_cpm;
  out["optimum_cpm"] = trace.decision.optimum_cpm;
  out["floor_cpm"] = trace.floor_cpm;
  out["propensity"] = trace.propensity;
  out["auction_type"] = trace.auction_type;
  out["pctr"] = trace.pctr;
  out["pcvr"] = trace.pcvr;
  out["win_location"] = trace.curve.location;
  out["win_shape"] = trace.curve.shape;
  out["ctr_margin"] = trace.margins[0];
  out["location_margin"] = trace.margins[1];
  out["log_slope_margin"] = trace.margins[2];
  out["cvr_margin"] = trace.margins[3];
  out["pctr_log_odds_sd"] = trace.log_odds_sd;
  out["priced_pctr"] =
      line.risk_aversion == 0.0 ? trace.pctr : sigmoid(trace.log_odds - line.risk_aversion * trace.log_odds_sd);
  return out;
}

nb::dict explain(Scorer& scorer, nb::handle request, LineItem& line, Py_ssize_t imp, nb::handle soft_floor_cpm,
                 bool by_deals) {
  if (line.model != scorer.model)
    throw nb::type_error("a line item belongs to the scorer that made it; call this scorer's line_item");
  const Model& model = *scorer.model;
  const DictRequest asked{request.ptr(), imp, CallOptions::soft_floor_of(soft_floor_cpm.ptr())};
  Trace trace;
  Offer offer;
  if (by_deals)
    offer = decide_deal(model, asked, line, trace, nullptr);
  else
    decide<true>(model, asked, line, trace, nullptr);
  if (offer.decision.reason == Reason::kBid) {
    trace.floor_cpm = offer.floor_cpm;
    trace.auction_type = offer.auction_type;
  }
  nb::dict out = trace_dict(trace, line);
  if (offer.decision.reason == Reason::kBid && offer.deal >= 0) out["deal"] = line.deals[size_t(offer.deal)].c_str();
  Held held;
  Found found;
  Terms terms;
  if (!PyDict_Check(request.ptr())) return out;
  model.dict_reader->read_held(request.ptr(), {imp, nullptr}, model.currency, found, held);
  // Deals are scored whatever the open auction is.
  const bool is_scored = by_deals ? found.imps == Imps::found && found.currency_accepted
                                  : terms.read(model, found) == Reason::kBid;
  if (is_scored) out["raw"] = raw_features(model, found);
  return out;
}

// A buffer of n doubles, or nothing.
class Doubles {
 public:
  Doubles(nb::handle object, Py_ssize_t n, bool writable) {
    if (object.is_none()) return;
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nb::python_error();
    held_ = true;
    if (!(view_.format && std::strcmp(view_.format, "d") == 0 && view_.len == n * 8)) {
      PyBuffer_Release(&view_);
      held_ = false;
      throw nb::value_error("a column of a batch is a contiguous buffer of one double per row");
    }
  }
  Doubles(Doubles&& other) noexcept : view_(other.view_), held_(other.held_) { other.held_ = false; }
  ~Doubles() {
    if (held_) PyBuffer_Release(&view_);
  }
  double* data() const { return held_ ? static_cast<double*>(view_.buf) : nullptr; }

 private:
  Py_buffer view_{};
  bool held_ = false;
};

void score_many(Scorer& scorer, Py_ssize_t n, nb::list categories, nb::list numbers, nb::list prices, nb::list outs,
                bool counted) {
  const Model& model = *scorer.model;
  std::vector<nb::object> texts;  // tuples: they hold the texts while other threads run
  std::vector<Doubles> doubles, inputs, outputs;
  BatchColumns batch;
  batch.n_rows = static_cast<size_t>(n);
  for (nb::handle column : categories) {
    PyObject* tuple = PySequence_Tuple(column.ptr());
    if (!tuple) throw nb::python_error();
    texts.push_back(nb::steal(tuple));
    if (PyTuple_GET_SIZE(tuple) != n) throw nb::value_error("a column of a batch has one text per row");
    batch.texts.push_back(reinterpret_cast<PyTupleObject*>(tuple)->ob_item);
  }
  for (nb::handle column : numbers) batch.numbers.push_back(doubles.emplace_back(column, n, false).data());
  for (nb::handle column : prices) inputs.emplace_back(column, n, false);
  for (nb::handle column : outs) outputs.emplace_back(column, n, true);
  if (static_cast<int>(batch.texts.size()) != model.n_categories ||
      static_cast<int>(batch.numbers.size()) != model.n_numbers || inputs.size() != kPriceInputs ||
      outputs.size() != kBatchOutputs)
    throw nb::value_error("a batch has every feature, eight price inputs and twelve outputs");
  for (size_t i = 0; i < kPriceInputs; ++i) batch.prices[i] = inputs[i].data();
  for (size_t i = 0; i < kBatchOutputs; ++i) batch.outputs[i] = outputs[i].data();
  Telemetry telemetry;
  bool all_texts = true;
  {
    const GilReleased released;
    all_texts = score_batch(model, batch, telemetry);
  }
  if (counted) scorer.telemetry.merge(telemetry);
  if (!all_texts) throw nb::value_error("a category of a batch is str, \"\" where missing");
}

int slot_below(nb::handle slot, int n) {
  const int i = nb::cast<int>(slot);
  if (i < 0 || i >= n) throw nb::index_error("a slot is one of the scorer's slots");
  return i;
}

// Not by calling the type: nanobind would allocate where nothing catches a std::bad_alloc.
nb::object line_item(Scorer& scorer, nb::list categories, nb::list numbers, double value_per_click, double cap_cpm,
                     double pacing_multiplier, double value_per_conversion, double value_per_impression_cpm,
                     nb::list deals, double exploration_share, double exploration_sigma,
                     uint64_t exploration_key_low, uint64_t exploration_key_high, double risk_aversion) {
  nb::object made = nb::inst_alloc(nb::handle(reinterpret_cast<PyObject*>(line_item_type)));
  LineItem* line = new (nb::inst_ptr<LineItem>(made)) LineItem();
  nb::inst_mark_ready(made);
  line->model = scorer.model;
  const Engine& engine = *scorer.model->engine;
  line->row = RowBuffer(engine);
  for (nb::handle pair : categories) {
    const std::string_view text = nb::cast<std::string_view>(pair[1]);
    const int slot = slot_below(pair[0], engine.n_categories());
    engine.set_category(*line->row, slot, text.data(), text.size());
    if (text.empty())
      line->missing.push_back(uint16_t(slot));
    else if (engine.is_unseen(slot, text))
      line->unseen.push_back(uint16_t(slot));
  }
  for (nb::handle pair : numbers) {
    const double x = nb::cast<double>(pair[1]);
    const int slot = slot_below(pair[0], engine.n_numbers());
    engine.set_numbers(*line->row, slot, 1, &x);
    if (std::isnan(x)) line->missing.push_back(uint16_t(engine.n_categories() + slot));
  }
  line->value_per_click = value_per_click;
  line->value_per_conversion = value_per_conversion;
  line->value_per_impression_cpm = value_per_impression_cpm;
  line->risk_aversion = risk_aversion;
  for (nb::handle deal : deals) line->deals.emplace_back(nb::cast<std::string_view>(deal));
  line->cap_cpm = cap_cpm;
  line->exploration = {exploration_share, exploration_sigma, {exploration_key_low, exploration_key_high}};
  line->pacing_multiplier = pacing_multiplier;
  return made;
}

}  // namespace
}  // namespace bidml

NB_MODULE(_native, m) {
  using namespace bidml;
  // The types are the process's: a second interpreter would take the hot path's from the first.
  if (PyInterpreterState_Get() != PyInterpreterState_Main())
    throw nb::import_error("bidml.score runs in the main interpreter; found a subinterpreter; use a process or a thread");
  nb::set_leak_warnings(false);
  m.doc() = "The native runtime of bidml.score.";
  bind_engine(m);
  bind_exploration(m);
  bind_wire(m);

  nb::class_<LineItem> line_class(m, "LineItem", nb::dynamic_attr());
  line_class
      .def_prop_ro("value_per_click", [](const LineItem& line) { return line.value_per_click; })
      .def_prop_ro("value_per_conversion", [](const LineItem& line) { return line.value_per_conversion; })
      .def_prop_ro("value_per_impression_cpm", [](const LineItem& line) { return line.value_per_impression_cpm; })
      .def_prop_ro("risk_aversion", [](const LineItem& line) { return line.risk_aversion; })
      .def_prop_ro("cap_cpm", [](const LineItem& line) { return line.cap_cpm; })
      .def_prop_rw(
          "pacing_multiplier", [](const LineItem& line) { return line.pacing_multiplier.load(); },
          [](LineItem& line, double x) {
            if (!(x >= 0.0 && std::isfinite(x)))
              throw nb::value_error("a pacing multiplier is a finite number of at least 0; 0 pauses the line item");
            line.pacing_multiplier.store(x, std::memory_order_relaxed);
          });
  line_item_type = reinterpret_cast<PyTypeObject*>(line_class.ptr());
  decision_types.add_to(m);

  nb::class_<Scorer>(m, "NativeScorer", nb::type_slots(scorer_slots))
      .def("__init__",
           [](Scorer* self, nb::handle blueprint, nb::list rates, nb::handle strict_error, std::string_view isa) {
             const UnendedScope unended;
             nb::dict slots;
             auto model = model_of(blueprint, rates, isa, slots);
             new (self) Scorer();
             self->telemetry = Telemetry(model->n_categories + model->n_numbers);
             self->model = std::move(model);
             self->slots = slots;
             if (!strict_error.is_none()) self->invalid_request_error = nb::borrow(strict_error);
           },
           nb::arg("blueprint"), nb::arg("rates"), nb::arg("strict_error").none(), nb::arg("isa"))
      .def("_line_item", &line_item)
      .def("_explain", &explain, nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg())
      .def("_score_many", &score_many)
      .def("_extract", &extract)
      .def("_extract_json", &extract_json)
      .def("_slots",
           [](const Scorer& scorer) { return scorer.slots; })
      .def("_counts", [](const Scorer& scorer) { return list_of(scorer.telemetry.decisions); })
      .def("_telemetry", [](const Scorer& scorer) { return telemetry_dict(scorer.telemetry); })
      .def("_engine_info", [](const Scorer& scorer) {
        const Engine& engine = *scorer.model->engine;
        nb::list heads;
        for (const HeadInfo& head : engine.info()) {
          nb::dict row;
          row["path"] = head.path.c_str();
          row["why"] = head.why.c_str();
          row["n_trees"] = head.n_trees;
          row["n_columns"] = head.n_columns;
          row["bytes"] = head.bytes;
          heads.append(row);
        }
        nb::dict out;
        out["isa"] = isa_name(engine.isa());
        out["bytes"] = engine.bytes();
        out["heads"] = heads;
        return out;
      });

  UnendedScope::forget_other_threads_after_fork();
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&UnendedScope::end));

  m.attr("__version__") = BIDML_VERSION;
  m.def("return_free_memory", [] {
    const GilReleased released;
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
  }, "Give what the C library keeps of freed memory back to the system; for the end of a load.");
  m.def("raw_category", [](nb::handle value) {
    TextScratch scratch;
    return decoded(scratch.of(value_of(value.ptr())));
  }, nb::arg().none(), "A value of a request or a line item as a category, by the rule of the hot path.");
  m.def("raw_number", [](nb::handle value) { return value_of(value.ptr()).number(); }, nb::arg().none(),
        "The same as a number; NaN when missing.");

  nb::dict constants;
  constants["MAX_ABS_WIN_LOGIT"] = kMaxAbsWinLogit;
  constants["MIN_LOG_SLOPE"] = kMinLogSlope;
  constants["MAX_LOG_SLOPE"] = kMaxLogSlope;
  constants["HALLEY_STEPS"] = kHalleySteps;
  constants["MIN_VARIANCE"] = kMinVariance;
  constants["MAX_VARIANCE"] = kMaxVariance;
  constants["MAX_FEATURES"] = kMostNumbers;
  constants["REASONS"] = kReasons;
  constants["MAX_DEALS"] = int(kMostDeals);
  m.attr("CONSTANTS") = constants;
}
