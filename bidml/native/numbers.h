// A raw number to its ranks: one search among the breakpoints of all its lanes, then a rank for each lane.
//
// The search is a tree of blocks of 8 breakpoints, one cache line each, so that a vector unit counts `x > breakpoint`
// for a block at once. Each level holds the last breakpoint of every block of the level below; blocks are padded with
// +inf, which no number exceeds, and each level ends with one block of padding, where x beyond the last breakpoint
// lands. Up to 4096 breakpoints take up to four levels; beyond, bisection finds the bottom block.
//
// The result is the number's code: its interval 0 .. n_breaks, or n_breaks + 1 for NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena.h"
#include "lanes.h"

namespace bidml {

constexpr uint32_t kBisected = 5;

struct NumberSlot {
  const double* blocks = nullptr;  // the levels, top first
  uint32_t n_breaks = 0;
  uint16_t starts[3] = {};  // of the second, third, fourth level in `blocks`
  uint16_t n_levels = 0;    // 0: no lane; 1 to 4; kBisected: one level
};

// points: sorted, distinct, below +inf.
NumberSlot build_number_slot(const std::vector<double>& points, Arena& arena);

// The bottom block of x for a bisected slot: the first whose last breakpoint is not below x.
inline uint32_t bisected_block(const NumberSlot& slot, double x) noexcept {
  uint32_t low = 0, n_blocks = slot.n_breaks / 8 + 1;
  while (n_blocks > 1) {
    const uint32_t half = n_blocks / 2;
    low += slot.blocks[(low + half) * 8 - 1] < x ? half : 0;
    n_blocks -= half;
  }
  return low;
}

// One lane of one number slot, written from the slot's code.
struct NumberTarget {
  uint16_t slot;
  uint16_t missing_code;  // of a direct target
  uint32_t offset;        // in the row
  uint32_t values;        // direct: the value of NaN, every other code being the value; else the start of its table
};

// The other byte lanes of a slot, of all heads: one look into one table, (n_codes, n).
struct ByteTargets {
  uint16_t slot;
  uint16_t n;
  uint32_t values;   // start of its table
  uint32_t offsets;  // where its n offsets in the row begin
};

}  // namespace bidml
