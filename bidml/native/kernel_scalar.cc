// The portable kernels: any machine, no intrinsics. Also the yardstick for the others.
//
// Trees are chased eight at a time, which hides most of the latency of one chase; the only branches are loop ends.
#include "kernels.h"

namespace bidml {
namespace {

const std::byte* locate(const StringTable& table, const char* text, size_t size) noexcept {
  const std::byte* cell = table.cell(portable_hash(text, size, table.seed));
  __builtin_prefetch(cell);
  return cell;
}

const std::byte* confirm(const StringTable& table, const std::byte* cell, const char* text, size_t size) noexcept {
  return table.payload(cell,
                       StringTable::size_of(cell) == size && std::memcmp(table.key_of(cell), text, size) == 0);
}

const std::byte* find(const StringTable& table, const char* text, size_t size) noexcept {
  return confirm(table, locate(table, text, size), text, size);
}

void locate_all(const StringTable* first, size_t step, size_t n, const TextRef* texts,
                const std::byte** cells) noexcept {
  for (size_t i = 0; i < n; ++i) cells[i] = locate(first->after(i * step), texts[i].data, texts[i].size);
}

void confirm_all(const StringTable* first, size_t step, size_t n, const TextRef* texts,
                 const std::byte** cells) noexcept {
  for (size_t i = 0; i < n; ++i) cells[i] = confirm(first->after(i * step), cells[i], texts[i].data, texts[i].size);
}

void combine(std::byte* out, const std::byte* a, const std::byte* b, const std::byte* blank, size_t n) noexcept {
  for (size_t i = 0; i < n; i += 8) {
    uint64_t x, y, z;
    std::memcpy(&x, a + i, 8);
    std::memcpy(&y, b + i, 8);
    std::memcpy(&z, blank + i, 8);
    x ^= y ^ z;
    std::memcpy(out + i, &x, 8);
  }
}

uint32_t count_below(const double* block, double x) noexcept {
  uint32_t count = 0;
  for (uint32_t i = 0; i < 8; ++i) count += block[i] < x;
  return count;
}

uint32_t code_of(const NumberSlot& slot, double x) noexcept {
  if (slot.n_levels == kBisected) {
    const uint32_t block = bisected_block(slot, x);
    return block * 8 + count_below(slot.blocks + block * 8, x);
  }
  uint32_t code = count_below(slot.blocks, x);
  for (uint32_t level = 0; level + 1 < slot.n_levels; ++level) {
    code = code * 8 + count_below(slot.blocks + slot.starts[level] + code * 8, x);
  }
  return code;
}

void find_codes(const NumberSlot* slots, const uint32_t* missing, size_t n, const double* values,
                uint32_t* codes) noexcept {
  for (size_t i = 0; i < n; ++i) {
    if (slots[i].n_levels == 0) continue;
    codes[i] = code_of(slots[i], values[i]);
    if (values[i] != values[i]) codes[i] = missing[i];
  }
}

void find_codes_of_slot(const NumberSlot& slot, uint32_t missing, size_t n, const double* values,
                        uint32_t* codes) noexcept {
  if (slot.n_levels == 0) return;
  for (size_t i = 0; i < n; ++i) codes[i] = values[i] == values[i] ? code_of(slot, values[i]) : missing;
}

template <uint32_t D>
double complete(const CompleteForest& forest, const uint8_t* ranks) noexcept {
  constexpr uint32_t cells = 1u << D, trees_per_block = 64 / cells, n_trees = 8 * trees_per_block;
  double sums[8] = {};
  const double* leaves = forest.leaves;
  for (uint32_t g = 0; g < forest.n_groups; ++g) {
    const uint8_t* group = forest.blocks + g * 1024;
    for (uint32_t first = 0; first < n_trees; first += 8) {
      uint32_t at[8];
      for (uint32_t& cell : at) cell = 1;
      for (uint32_t level = 0; level < D; ++level) {
        for (uint32_t j = 0; j < 8; ++j) {
          const uint32_t t = first + j;
          const uint8_t* node = group + t / trees_per_block * 128 + t % trees_per_block * cells + at[j];
          at[j] = 2 * at[j] + (uint32_t(ranks[node[0]] + node[64]) > 254);
        }
      }
      for (uint32_t j = 0; j < 8; ++j) sums[j] += leaves[(first + j) * cells + at[j] - cells];
    }
    leaves += n_trees * cells;
  }
  return sum_of_8(sums);
}

double complete_any(const CompleteForest& forest, const uint8_t* ranks) noexcept {
  switch (forest.depth) {
    case 3:
      return complete<3>(forest, ranks);
    case 4:
      return complete<4>(forest, ranks);
    case 5:
      return complete<5>(forest, ranks);
    default:
      return complete<6>(forest, ranks);
  }
}

double walk(const WalkForest& forest, const uint8_t* ranks) noexcept {
  double sums[8] = {};
  for (uint32_t first = 0; first < forest.n_trees; first += 8) {
    uint32_t at[8], distances;
    for (uint32_t j = 0; j < 8; ++j) at[j] = forest.roots[first + j];
    do {
      distances = 0;
      for (uint32_t j = 0; j < 8; ++j) {
        const uint32_t node = forest.nodes[at[j]], distance = node >> 16;
        at[j] += distance + (ranks[node & 255] > (node >> 8 & 255));
        distances |= distance;
      }
    } while (distances != 0);
    for (uint32_t j = 0; j < 8; ++j) sums[j] += forest.leaves[at[j]];
  }
  return sum_of_8(sums);
}

}  // namespace

const Kernels kScalarKernels = {portable_hash, find, locate_all, confirm_all, combine, find_codes, find_codes_of_slot,
                                complete_any, nullptr, walk};

namespace {

template <bool has_sets>
double wide_walk_of(const WideForest& forest, const uint32_t* ranks) noexcept {
  double sums[8] = {};
  for (uint32_t first = 0; first < forest.n_trees; first += 8) {
    uint32_t at[8], moved;
    for (uint32_t j = 0; j < 8; ++j) at[j] = forest.roots[first + j];
    do {
      moved = 0;
      for (uint32_t j = 0; j < 8; ++j) {
        const WideNode& node = forest.nodes[at[j]];
        const uint32_t rank = ranks[node.lane];
        bool says_false = rank > node.k;
        if (has_sets && node.n_values != 0) {
          // The bound holds for every row that was encoded; a row misused must still not read beyond its set.
          says_false = rank >= node.n_values || (forest.bit_sets[node.k + rank / 32] >> rank % 32 & 1) == 0;
        }
        const uint32_t next = node.side + says_false;
        moved |= next ^ at[j];
        at[j] = next;
      }
    } while (moved != 0);
    for (uint32_t j = 0; j < 8; ++j) sums[j] += forest.leaves[at[j]];
  }
  return sum_of_8(sums);
}

}  // namespace

double wide_walk(const WideForest& forest, const uint32_t* ranks) noexcept {
  return forest.has_sets ? wide_walk_of<true>(forest, ranks) : wide_walk_of<false>(forest, ranks);
}

const Kernels& kernels_of(Isa isa) {
#if BIDML_X86
  if (isa == Isa::avx512) return kAvx512Kernels;
  if (isa == Isa::avx2) return kAvx2Kernels;
#endif
  (void)isa;
  return kScalarKernels;
}

}  // namespace bidml
