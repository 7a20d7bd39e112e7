// A raw number to its ranks: one search among the breakpoints of all its lanes, then one table per lane.
//
// The search is a tree of blocks of 16 breakpoints, so that a vector unit counts `x > breakpoint` for a whole block at
// once. Level by level: `top` and `middle` hold the last breakpoint of each block below; blocks are padded with +inf,
// which no number exceeds, and each level ends with one block of padding, where x beyond the last breakpoint lands.
// More than 4096 breakpoints are bisected down to one bottom block.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena.h"
#include "lanes.h"

namespace bidml {

// Where one lane of a slot lives in the row, and its value per code (n_breaks + 2 values: intervals, then NaN).
struct ByteTarget {
  uint32_t offset;
  const uint8_t* values;
};
struct WordTarget {
  uint32_t offset;
  const uint32_t* values;
};

struct NumberSlot {
  const double* top = nullptr;     // (16,)
  const double* middle = nullptr;  // blocks of 16
  const double* bottom = nullptr;  // blocks of 16; n_breaks and padding
  uint32_t n_breaks = 0;
  uint8_t n_levels = 0;  // 0: no lane; 1: bottom, 2: middle, 3: top; 4: bisection
  const ByteTarget* bytes = nullptr;
  const WordTarget* words = nullptr;
  uint32_t n_bytes = 0, n_words = 0;
};

// A lane of this slot and the offset of its value in the row.
struct PlacedLane {
  const Lane* lane;
  Rewrite rewrite;
  uint32_t offset;
  bool is_byte;
};

NumberSlot build_number_slot(const std::vector<PlacedLane>& lanes, Arena& arena);

// Writes the lanes of one slot, given the code of its number: the interval, or n_breaks + 1 for NaN.
inline void write_lanes(const NumberSlot& slot, uint32_t code, std::byte* row) noexcept {
  for (uint32_t i = 0; i < slot.n_bytes; ++i) {
    row[slot.bytes[i].offset] = std::byte{slot.bytes[i].values[code]};
  }
  for (uint32_t i = 0; i < slot.n_words; ++i) {
    std::memcpy(row + slot.words[i].offset, &slot.words[i].values[code], sizeof(uint32_t));
  }
}

// The bottom block of x by bisection, for slots of 4 levels.
inline uint32_t bisected_block(const NumberSlot& slot, double x) noexcept {
  uint32_t low = 0, n_blocks = slot.n_breaks / 16 + 1;  // the first block whose last breakpoint is not below x
  while (n_blocks > 1) {
    const uint32_t half = n_blocks / 2;
    low += slot.bottom[(low + half) * 16 - 1] < x ? half : 0;
    n_blocks -= half;
  }
  return low;
}

}  // namespace bidml
