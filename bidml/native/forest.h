// The trees of a head, sorted into the shapes that the kernels run (kernels.h), in an order that no instruction set
// changes.
//
// Shallow trees (depth ≤ 6) become complete ones; trees of up to 64 internal nodes go leaf-wise into blocks; the rest
// is walked. A head whose lanes do not fit 128 bytes is walked over 32-bit lanes. A set without a kernel for a shape
// walks the same trees in the same order, so the sum is the same to the last bit.
#pragma once

#include <string>
#include <vector>

#include "arena.h"
#include "kernels.h"
#include "lanes.h"

namespace bidml {

class Forest {
 public:
  Forest() = default;
  Forest(const HeadView& head, const HeadLanes& lanes, const Kernels& kernels, Arena& arena);

  // ranks: the head's part of a row.
  double sum(const Kernels& kernels, const std::byte* ranks) const noexcept;

  std::string shape() const;  // "complete depth 5", "leafwise", "walk", "wide walk", joined by +
  std::string why() const { return why_; }

 private:
  std::vector<CompleteForest> complete_;
  std::vector<LeafwiseForest> leafwise_;
  std::vector<WalkForest> walk_;
  std::vector<WideForest> wide_;
  std::string shape_, why_;
};

}  // namespace bidml
