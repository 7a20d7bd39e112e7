// From thresholds to ranks: which small integers a row needs so that every node becomes `rank > k`.
//
// A lane is a step function of one raw feature: rank(x) = number of the column's thresholds below x. Then
// `x <= t_k` is exactly `rank <= k`. Missing values, rewrites, lookups and membership all change only which number a
// step gets, so they cost nothing afterwards:
//   NaN     gets the least k whose node sends NaN to the true side. Columns whose nodes disagree in a way that no single
//           k expresses become two lanes, one for each side.
//   x ∈ S   is a lane of its own with rank 0 inside S, else 1, while a head has room for 128 lanes of one byte;
//           otherwise the lane is the position of x among all members of the column's sets and the node holds a bit set.
//
// Build time only.
#pragma once

#include <vector>

#include "engine.h"

namespace bidml {

struct Lane {
  int column = 0;  // of its head
  enum class Kind : uint8_t { threshold, flag, position } kind = Kind::threshold;
  // threshold: sorted distinct thresholds. flag: the sorted set. position: sorted members of all sets of the column.
  std::vector<double> steps;
  uint32_t missing = 0;  // value of NaN
  uint32_t n_values = 0;

  // value of a number that has been rewritten
  uint32_t value(double x) const noexcept;
};

// What a node has become. kind position: `k` is the index of a bit set; bit value(x) says true.
struct LaneNode {
  uint32_t lane;
  uint32_t k;
};

// One head's trees in rank space.
struct HeadLanes {
  std::vector<Lane> lanes;
  std::vector<LaneNode> nodes;                 // (n_nodes,)
  std::vector<std::vector<uint32_t>> bit_sets;  // of position lanes: words of 32
  bool bytes = false;  // at most kByteLanes lanes of at most kByteValues, none of kind position
  std::string why_not_bytes;
};

constexpr size_t kByteLanes = 128;
constexpr size_t kByteValues = 255;  // ranks 0 .. 254: LightGBM's default of 255 bins fits

HeadLanes lanes_of(const HeadView& head);

// Sorted breakpoints of raw x between which every one of `lanes` (of one number slot, rewrites alongside) is constant:
// in each interval (b[i-1], b[i]].
struct SlotLane {
  const Lane* lane;
  Rewrite rewrite;
};
std::vector<double> breakpoints(const std::vector<SlotLane>& lanes);

}  // namespace bidml
