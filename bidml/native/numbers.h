// A raw number to its ranks: one search among the breakpoints of all its lanes, then one table per lane.
//
// The search is a tree of blocks of 16 breakpoints, so that a vector unit counts `x > breakpoint` for a whole block at
// once. Level by level: `top` and `middle` hold the last breakpoint of each block below; blocks are padded with +inf,
// which no number exceeds, and each level ends with one block of padding, where x beyond the last breakpoint lands.
// More than 4096 breakpoints are bisected down to one bottom block.
//
// The result is the number's code: its interval 0 .. n_breaks, or n_breaks + 1 for NaN. A lane's value is a table of
// n_breaks + 2 entries at the code.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena.h"
#include "lanes.h"

namespace bidml {

struct NumberSlot {
  const double* top = nullptr;     // (16,)
  const double* middle = nullptr;  // blocks of 16
  const double* bottom = nullptr;  // blocks of 16; n_breaks and padding
  uint32_t n_breaks = 0;
  uint32_t n_levels = 0;  // 0: no lane; 1: bottom, 2: middle, 3: top; 4: bisection
};

// points: sorted, distinct.
NumberSlot build_number_slot(const std::vector<double>& points, Arena& arena);

// The bottom block of x by bisection, for slots of 4 levels: the first whose last breakpoint is not below x.
inline uint32_t bisected_block(const NumberSlot& slot, double x) noexcept {
  uint32_t low = 0, n_blocks = slot.n_breaks / 16 + 1;
  while (n_blocks > 1) {
    const uint32_t half = n_blocks / 2;
    low += slot.bottom[(low + half) * 16 - 1] < x ? half : 0;
    n_blocks -= half;
  }
  return low;
}

// One lane of one number slot, written from the slot's code.
struct NumberTarget {
  uint32_t slot;
  uint32_t offset;  // in the row
  uint32_t values;  // first entry of its table
};

}  // namespace bidml
