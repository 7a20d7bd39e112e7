// What differs between instruction sets, as one table of functions over plain arrays.
//
// All sets compute the same thing to the last bit: integer decisions are exact, and every forest sums its leaves in one
// fixed order (accumulator t mod 8 for tree t, then `sum_of_8`). The arrays are laid out for 64-byte registers; the
// smaller sets read the same ones. No kernel checks an index: the builders (forest_*.cc) made all of them.
#pragma once

#include "isa.h"
#include "numbers.h"
#include "string_table.h"

namespace bidml {

// Trees of depth ≤ D as complete binary trees without pointers. Tree t has 2^D cells in heap order: cell 0 is unused,
// cell 1 the root, 2i and 2i+1 the true and false side of i; below a leaf that comes early, nodes that never say false.
// 64 cells form a block: 64 lane indices, then 64 bars. A rank r says false, r > k, exactly when r + bar > 254: the bar
// is 254 - k, or 0 for never (ranks end at 254), so that the average of rank and bar has the answer in its sign bit.
// A group is 8 blocks: 512 >> D trees; the last is padded with trees of zeros.
struct CompleteForest {
  const uint8_t* blocks;  // (n_groups * 8, 2, 64)
  const double* leaves;   // (n_groups * (512 >> D), 2^D)
  uint32_t n_groups;
  uint32_t depth;   // D, 3 to 6
  uint32_t n_lanes;  // at most: 32, 64 or 128
};

// Trees of fewer than 64 / trees_per_block internal nodes, each in a part of a block of 64 nodes. Nodes are numbered in
// preorder: the true side of node i is node i + 1, or the leaf of code 64 + i where bit i of `true_leaf` is set; the
// false side is `other[i]`: a node, or a leaf of one of the codes 64 .. 127 of the part that no true side has. Chunks of
// 8 blocks; the padding is trees of zeros.
struct LeafwiseForest {
  const uint8_t* blocks;      // (n_chunks * 8, 3, 64): lane, rank, other
  const uint64_t* true_leaf;  // (n_chunks * 8,)
  const double* leaves;       // (n_chunks * 8, 64)
  const uint8_t* steps;       // (n_chunks,): how many strides the deepest path has
  uint32_t n_chunks;
  uint32_t trees_per_block;  // 1, 2 or 4: roots at 0; 0, 32; 0, 16, 32, 48
  uint32_t n_lanes;          // at most: 32, 64 or 128
};
// Nodes passed by one stride: as many doublings as pay.
constexpr uint32_t leafwise_stride(uint32_t trees_per_block) { return trees_per_block == 1 ? 8 : 16; }

// Trees of any shape over byte lanes: one word a node, true side first, then false. A leaf is a node that leads to
// itself. The leaf's value is beside it.
struct WalkForest {
  const uint32_t* nodes;  // lane | rank << 8 | distance to the true side << 16
  const double* leaves;   // (n_nodes,), of leaf nodes
  const uint32_t* roots;  // (n_trees,)
  uint32_t n_trees;       // a multiple of 8; the padding is trees of one leaf, zero
};

// The same over 32-bit lanes, any number of them, with membership. A leaf is a node that is its own true side, always.
struct WideNode {
  uint32_t lane;
  uint32_t k;         // rank; or the start of a bit set
  uint32_t side;      // the true side; the false side is the next node
  uint32_t n_values;  // of the lane, where k is a bit set; else 0
};
struct WideForest {
  const WideNode* nodes;
  const double* leaves;      // (n_nodes,), of leaf nodes
  const uint32_t* roots;     // (n_trees,)
  const uint32_t* bit_sets;  // words of 32
  uint32_t n_trees;          // a multiple of 8; the padding is trees of one leaf, zero
  bool has_sets;
};

struct Kernels {
  HashFunction hash;
  // The payload of `text`.
  const std::byte* (*find)(const StringTable& table, const char* text, size_t size) noexcept;
  // The payloads of n texts, of texts[i] in the table i · step bytes after the first: where each is if it is anywhere,
  // on its way into the cache; then, when something else was done meanwhile, what is there.
  void (*locate_all)(const StringTable* first, size_t step, size_t n, const TextRef* texts,
                     const std::byte** cells) noexcept;
  void (*confirm_all)(const StringTable* first, size_t step, size_t n, const TextRef* texts,
                      const std::byte** cells_then_payloads) noexcept;
  // out = a ^ b ^ blank: n bytes, a multiple of 64, all 64-byte aligned; out may be a or b.
  void (*combine)(std::byte* out, const std::byte* a, const std::byte* b, const std::byte* blank, size_t n) noexcept;
  // codes[i] of values[i] for slots[i]; missing[i] is slots[i].n_breaks + 1, the code of NaN. Of slots without a lane,
  // anything. Writes up to 7 codes more than n.
  void (*find_codes)(const NumberSlot* slots, const uint32_t* missing, size_t n, const double* values,
                     uint32_t* codes) noexcept;
  // The same for n values of one slot; writes up to 7 codes more.
  void (*find_codes_of_slot)(const NumberSlot& slot, uint32_t missing, size_t n, const double* values,
                             uint32_t* codes) noexcept;
  // ranks: the lanes of the head, 64-byte aligned, padded to 64 or 128
  double (*complete)(const CompleteForest& forest, const uint8_t* ranks) noexcept;
  double (*leafwise)(const LeafwiseForest& forest, const uint8_t* ranks) noexcept;  // null: walk instead
  double (*walk)(const WalkForest& forest, const uint8_t* ranks) noexcept;
};

const Kernels& kernels_of(Isa isa);
extern const Kernels kScalarKernels;
#if BIDML_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

double wide_walk(const WideForest& forest, const uint32_t* ranks) noexcept;

inline double sum_of_8(const double* sums) noexcept {
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

}  // namespace bidml
