#include "batch.h"

namespace bidml {
namespace {

constexpr int kRows = Engine::kRowsAtOnce;

// Where texts seen lately were found, by the object that holds them: columns repeat their objects, and one seen before
// is neither read nor looked up again. Objects stay alive and unchanged for the whole batch.
class Remembered {
 public:
  // Null for an object that is not remembered.
  const std::byte* payload_of(const void* object) const noexcept {
    const Entry& entry = entries_[place_of(object)];
    return entry.object == object ? entry.payload : nullptr;
  }
  void remember(const void* object, const std::byte* payload) noexcept { entries_[place_of(object)] = {object, payload}; }

 private:
  static constexpr int kBits = 7;
  static size_t place_of(const void* object) noexcept {
    return (reinterpret_cast<uintptr_t>(object) >> 4) * 0x9E3779B97F4A7C15u >> (64 - kBits);
  }
  struct Entry {
    const void* object = nullptr;
    const std::byte* payload = nullptr;
  };
  Entry entries_[1 << kBits];
};

class Block {
 public:
  explicit Block(const Model& model)
      : model_(model), engine_(*model.engine), rows_(engine_, kRows), remembered_(size_t(model.n_categories)) {}

  bool encode(const BatchColumns& batch, size_t first, int count) noexcept {
    for (int i = 0; i < count; ++i) engine_.clear(rows_[size_t(i)]);
    for (size_t slot = 0; slot < batch.texts.size(); ++slot) {
      if (!encode_texts(batch.texts[slot] + first, count, int(slot))) return false;
    }
    for (size_t slot = 0; slot < batch.numbers.size(); ++slot) {
      engine_.set_number_of_rows(rows_, count, int(slot), batch.numbers[slot] + first);
    }
    engine_.cross(rows_, count);
    return true;
  }

  // (count, n_heads)
  void margins(int count, uint32_t heads, double* out) const noexcept {
    engine_.margins_of_rows(rows_, count, heads, out);
  }

 private:
  bool encode_texts(PyObject* const* objects, int count, int slot) noexcept {
    const std::byte* payloads[kRows];
    int unknown[kRows], n_unknown = 0;
    Remembered& remembered = remembered_[size_t(slot)];
    for (int i = 0; i < count; ++i) {
      payloads[i] = remembered.payload_of(objects[i]);
      unknown[n_unknown] = i;
      n_unknown += payloads[i] == nullptr;
      if (payloads[i] == nullptr) __builtin_prefetch(objects[i]);
    }
    if (n_unknown != 0 && !find(objects, slot, unknown, n_unknown, payloads)) return false;
    engine_.set_category_of_rows(rows_, count, slot, payloads);
    return true;
  }

  bool find(PyObject* const* objects, int slot, const int* unknown, int n_unknown,
            const std::byte** payloads) noexcept {
    TextRef texts[kRows];
    const std::byte* found[kRows];
    TextScratch scratch;
    int first = 0;
    for (int u = 0; u < n_unknown; ++u) {
      PyObject* object = objects[unknown[u]];
      if (!PyUnicode_Check(object)) return false;
      if (!scratch.has_room()) {
        engine_.find_categories(slot, u - first, texts + first, found + first);
        first = u;
        scratch.reset();
      }
      texts[u] = scratch.of(value_of(object));
    }
    engine_.find_categories(slot, n_unknown - first, texts + first, found + first);
    Remembered& remembered = remembered_[size_t(slot)];
    for (int u = 0; u < n_unknown; ++u) {
      payloads[unknown[u]] = found[u];
      remembered.remember(objects[unknown[u]], found[u]);
    }
    return true;
  }

  const Model& model_;
  const Engine& engine_;
  RowBuffer rows_;
  std::vector<Remembered> remembered_;  // (n_categories,)
};

// Amounts of a batch are not checked before. One that is not ≥ 0 leaves the impression without a value.
PriceInputs price_inputs(const BatchColumns& batch, size_t i) noexcept {
  const double at = batch.prices[4][i];
  PriceInputs in{batch.prices[0][i], batch.prices[1][i], batch.prices[2][i], batch.prices[3][i],
                 at == 1.0 ? 1 : at == 2.0 ? 2 : 0};
  if (batch.prices[5] != nullptr) in.value_per_conversion = batch.prices[5][i];
  if (batch.prices[6] != nullptr) in.value_per_impression_cpm = batch.prices[6][i];
  if (batch.prices[7] != nullptr) in.risk_aversion = batch.prices[7][i];
  if (!(in.value_per_conversion >= 0.0 && in.value_per_impression_cpm >= 0.0 && in.risk_aversion >= 0.0))
    in.value_per_click = kMissing;
  return in;
}

}  // namespace

bool score_batch(const Model& model, const BatchColumns& batch, Telemetry& telemetry) {
  const bool pricing = (model.heads & kPricingHeads) == kPricingHeads && batch.prices[0] != nullptr;
  const bool wants_pcvr = batch.outputs[8] != nullptr || batch.outputs[9] != nullptr || batch.prices[5] != nullptr;
  const bool wants_sd = batch.outputs[10] != nullptr || batch.outputs[11] != nullptr || batch.prices[7] != nullptr;
  const uint32_t heads = model.heads & ~(wants_pcvr ? 0 : kCvrHead) & ~(wants_sd ? 0 : kVarianceHead);
  const bool wants_win_rate = batch.outputs[1] != nullptr;
  Block block(model);
  double margins[kRows * kMostHeads];
  for (size_t first = 0; first < batch.n_rows; first += kRows) {
    const int count = int(std::min(size_t(kRows), batch.n_rows - first));
    if (!block.encode(batch, first, count)) return false;
    block.margins(count, heads, margins);
    for (int r = 0; r < count; ++r) {
      const size_t i = first + size_t(r);
      Trace trace;
      const double* of_row = margins + size_t(r) * model.n_heads;
      for (size_t h = 0; h < kMostHeads; ++h) {
        if (heads >> h & 1) trace.margins[h] = of_row[h];
      }
      if (pricing) {
        const PriceInputs inputs = price_inputs(batch, i);
        const auto margin_of = [&](size_t head) { return of_row[head]; };
        wants_win_rate ? price_margins<true>(model, inputs, trace, margin_of)
                       : price_margins<false>(model, inputs, trace, margin_of);
        telemetry.count(trace.decision.reason, trace.decision.bid_cpm, trace.decision.optimum_cpm, trace.pctr,
                        trace.pcvr, kMissing);
      } else {
        trace.pctr = sigmoid(calibrated(model.calibration, trace.margins[0]));
        trace.curve = win_curve(model.win, trace.margins[1], trace.margins[2]);
      }
      if (heads & kCvrHead) trace.pcvr = sigmoid(calibrated(model.cvr_calibration, trace.margins[3]));
      if (heads & kVarianceHead) trace.log_odds_sd = log_odds_sd(trace.margins[4]);
      const Decision& d = trace.decision;
      const double results[kBatchOutputs] = {d.bid_cpm,         d.win_rate,       trace.pctr,       trace.curve.location,
                                             trace.curve.shape, trace.margins[0], trace.margins[1], trace.margins[2],
                                             trace.margins[3],  trace.pcvr,       trace.margins[4], trace.log_odds_sd};
      for (size_t o = 0; o < kBatchOutputs; ++o) {
        if (batch.outputs[o] != nullptr) batch.outputs[o][i] = results[o];
      }
    }
  }
  return true;
}

}  // namespace bidml
