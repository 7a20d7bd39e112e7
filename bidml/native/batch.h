// Many rows at once: columns in, outputs filled, without the GIL.
//
// Rows go in blocks. In a block each column is encoded before the next, so that its tables are near and their misses
// overlap; then each head's trees score all rows while they are in the first cache; then the prices.
#pragma once

#include <array>
#include <vector>

#include "scorer.h"

namespace bidml {

constexpr size_t kPriceInputs = 8, kBatchOutputs = 12;  // of bidml/score/batch.py, in its order

struct BatchColumns {
  size_t n_rows = 0;
  std::vector<PyObject* const*> texts;                  // (n_categories,) of (n_rows,) objects that somebody holds
  std::vector<const double*> numbers;                   // (n_numbers,) of (n_rows,)
  std::array<const double*, kPriceInputs> prices{};     // the first null: no pricing; the last three: 0
  std::array<double*, kBatchOutputs> outputs{};         // null: not wanted
};

// Fills the outputs; needs no GIL. False when a text is no str: the outputs are then of no use.
bool score_batch(const Model& model, const BatchColumns& batch, Telemetry& telemetry);

}  // namespace bidml
