// Every index and number of a blueprint, checked before it is believed.
#pragma once

#include "engine.h"

namespace bidml {

// Throws std::invalid_argument("rule; found value; remedy") for the first thing wrong. Afterwards every node belongs to
// exactly one tree, children follow their parents, depth is bounded, and all numbers are finite (lookup values may be
// NaN, thresholds infinite), so that builders and walkers need no check.
void validate(const std::vector<HeadView>& heads, int n_numbers, int n_categories);

}  // namespace bidml
