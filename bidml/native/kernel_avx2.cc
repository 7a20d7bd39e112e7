// AVX2: Intel Haswell and later, every AMD Zen.
//
// No byte permutation reaches 64 entries here, so a node's lane is looked up in four (or eight) tables of 16 and the
// right one is blended in. The rest is as in kernel_avx512.cc with half the width, masks in general registers. Trees
// that are not complete are walked by the portable kernel.
//
// No STL in this file: a template instantiated here could be chosen by the linker for machines without AVX2.
#include "kernels.h"

#if BIDML_X86

#include <immintrin.h>

namespace bidml {
namespace {

#define BIDML_INLINE static inline __attribute__((always_inline)) BIDML_AVX2

BIDML_AVX2 void combine(std::byte* out, const std::byte* a, const std::byte* b, const std::byte* blank,
                        size_t n) noexcept {
  for (size_t i = 0; i < n; i += 32) {
    const auto load = [i](const std::byte* p) __attribute__((target("avx2"))) {
      return _mm256_load_si256(reinterpret_cast<const __m256i*>(p + i));
    };
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + i),
                       _mm256_xor_si256(_mm256_xor_si256(load(a), load(b)), load(blank)));
  }
}

// ---- numbers -----------------------------------------------------------------------------------------------------

// How many of a block's 8 breakpoints are below x.
BIDML_INLINE uint32_t count_below(const double* block, __m256d x) {
  const __m256 low = _mm256_castpd_ps(_mm256_cmp_pd(x, _mm256_load_pd(block), _CMP_GT_OQ));
  const __m256 high = _mm256_castpd_ps(_mm256_cmp_pd(x, _mm256_load_pd(block + 4), _CMP_GT_OQ));
  return uint32_t(_mm_popcnt_u32(uint32_t(_mm256_movemask_ps(_mm256_shuffle_ps(low, high, 0x88)))));
}

BIDML_AVX2 void find_codes(const NumberSlot* slots, const uint32_t* missing, size_t n, const double* values,
                           uint32_t* codes) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const NumberSlot& slot = slots[i];
    const __m256d x = _mm256_set1_pd(values[i]);
    uint32_t code = 0;
    switch (slot.n_levels) {
      case 0:
        break;
      case 1:
        code = count_below(slot.blocks, x);
        break;
      case 2:
        code = count_below(slot.blocks, x);
        code = code * 8 + count_below(slot.blocks + slot.starts[0] + code * 8, x);
        break;
      case 3:
        code = count_below(slot.blocks, x);
        code = code * 8 + count_below(slot.blocks + slot.starts[0] + code * 8, x);
        code = code * 8 + count_below(slot.blocks + slot.starts[1] + code * 8, x);
        break;
      case 4:
        code = count_below(slot.blocks, x);
        code = code * 8 + count_below(slot.blocks + slot.starts[0] + code * 8, x);
        code = code * 8 + count_below(slot.blocks + slot.starts[1] + code * 8, x);
        code = code * 8 + count_below(slot.blocks + slot.starts[2] + code * 8, x);
        break;
      default:
        code = bisected_block(slot, values[i]) * 8;
        code += count_below(slot.blocks + code, x);
    }
    codes[i] = code;
  }
  for (size_t i = 0; i < n; ++i) codes[i] = values[i] == values[i] ? codes[i] : missing[i];
}

template <uint32_t n_levels>
BIDML_AVX2 void find_codes_by(const NumberSlot& slot, uint32_t missing, size_t n, const double* values,
                            uint32_t* codes) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const __m256d x = _mm256_set1_pd(values[i]);
    uint32_t code = count_below(slot.blocks, x);
    if constexpr (n_levels > 1) code = code * 8 + count_below(slot.blocks + slot.starts[0] + code * 8, x);
    if constexpr (n_levels > 2) code = code * 8 + count_below(slot.blocks + slot.starts[1] + code * 8, x);
    if constexpr (n_levels > 3) code = code * 8 + count_below(slot.blocks + slot.starts[2] + code * 8, x);
    codes[i] = values[i] == values[i] ? code : missing;
  }
}

BIDML_AVX2 void find_codes_of_slot(const NumberSlot& slot, uint32_t missing, size_t n, const double* values,
                                 uint32_t* codes) noexcept {
  switch (slot.n_levels) {
    case 1:
      return find_codes_by<1>(slot, missing, n, values, codes);
    case 2:
      return find_codes_by<2>(slot, missing, n, values, codes);
    case 3:
      return find_codes_by<3>(slot, missing, n, values, codes);
    case 4:
      return find_codes_by<4>(slot, missing, n, values, codes);
    default:
      return kScalarKernels.find_codes_of_slot(slot, missing, n, values, codes);
  }
}

// ---- trees -------------------------------------------------------------------------------------------------------

// The lanes of a head, 16 to a table, each table in both halves of a register.
template <uint32_t n_tables>
struct Lanes {
  __m256i tables[n_tables];
};

template <uint32_t n_tables>
BIDML_INLINE Lanes<n_tables> load_lanes(const uint8_t* ranks) {
  Lanes<n_tables> lanes;
  for (uint32_t i = 0; i < n_tables; ++i) {
    lanes.tables[i] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(ranks) + i));
  }
  return lanes;
}

// The ranks of 32 nodes. Bits 4, 5, 6 of a lane's index choose its table: shifted into the sign bit, they steer blends.
template <uint32_t n_tables>
BIDML_INLINE __m256i look_up(const Lanes<n_tables>& lanes, __m256i at) {
  __m256i found[n_tables];
  for (uint32_t i = 0; i < n_tables; ++i) found[i] = _mm256_shuffle_epi8(lanes.tables[i], at);
  int shift = 3;
  for (uint32_t n = n_tables; n > 1; n /= 2, --shift) {
    const __m256i choice = _mm256_slli_epi16(at, shift);
    for (uint32_t i = 0; i < n / 2; ++i) found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], choice);
  }
  return found[0];
}

// Bit i: node i of 64 says false.
template <uint32_t n_tables>
BIDML_INLINE uint64_t decide(const Lanes<n_tables>& lanes, const uint8_t* block) {
  uint64_t bits = 0;
  for (uint32_t half = 0; half < 2; ++half) {
    const __m256i at = _mm256_load_si256(reinterpret_cast<const __m256i*>(block) + half);
    const __m256i bars = _mm256_load_si256(reinterpret_cast<const __m256i*>(block) + 2 + half);
    const int says_false = _mm256_movemask_epi8(_mm256_avg_epu8(look_up(lanes, at), bars));
    bits |= uint64_t(uint32_t(says_false)) << (32 * half);
  }
  return bits;
}

constexpr uint32_t kGroupsAtOnce = 32;

// Walks the trees of one group: their words of decisions to cells 2^D .. 2^(D+1) - 1, as 32-bit numbers.
template <uint32_t D>
BIDML_INLINE void descend(const uint64_t* bits, uint32_t* cells) {
  constexpr uint32_t n_trees = 512u >> D;
  const auto* bytes = reinterpret_cast<const uint8_t*>(bits);
  const __m256i one = _mm256_set1_epi32(1);
  if constexpr (D == 6) {
    const __m256i one64 = _mm256_set1_epi64x(1), evens = _mm256_set_epi32(6, 4, 2, 0, 6, 4, 2, 0);
    for (uint32_t t = 0; t < n_trees; t += 4) {
      const __m256i word = _mm256_load_si256(reinterpret_cast<const __m256i*>(bits + t));
      __m256i at = one64;
      for (uint32_t level = 0; level < D; ++level) {
        at = _mm256_or_si256(_mm256_add_epi64(at, at), _mm256_and_si256(_mm256_srlv_epi64(word, at), one64));
      }
      const __m256i packed = _mm256_permutevar8x32_epi32(at, evens);
      _mm_store_si128(reinterpret_cast<__m128i*>(cells + t), _mm256_castsi256_si128(packed));
    }
  } else {
    for (uint32_t t = 0; t < n_trees; t += 8) {
      const uint8_t* from = bytes + t * (1u << D) / 8;
      const __m256i word =
          D == 5   ? _mm256_load_si256(reinterpret_cast<const __m256i*>(from))
          : D == 4 ? _mm256_cvtepu16_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(from)))
                   : _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
      __m256i at = one;
      for (uint32_t level = 0; level < D; ++level) {
        at = _mm256_or_si256(_mm256_add_epi32(at, at), _mm256_and_si256(_mm256_srlv_epi32(word, at), one));
      }
      _mm256_store_si256(reinterpret_cast<__m256i*>(cells + t), at);
    }
  }
}

template <uint32_t D, uint32_t n_tables>
BIDML_AVX2 double complete(const CompleteForest& forest, const uint8_t* ranks) noexcept {
  constexpr uint32_t n_trees = 512u >> D, n_cells = 1u << D;
  const Lanes<n_tables> lanes = load_lanes<n_tables>(ranks);
  alignas(64) uint64_t bits[kGroupsAtOnce * 8];
  alignas(64) uint32_t cells[kGroupsAtOnce * 64];
  double sums[8] = {};
  const uint8_t* block = forest.blocks;
  const double* leaves = forest.leaves;
  for (uint32_t first = 0; first < forest.n_groups; first += kGroupsAtOnce) {
    const uint32_t left = forest.n_groups - first, n = left < kGroupsAtOnce ? left : kGroupsAtOnce;
    for (uint32_t i = 0; i < n * 8; ++i, block += 128) bits[i] = decide<n_tables>(lanes, block);
    for (uint32_t g = 0; g < n; ++g) descend<D>(bits + g * 8, cells + g * n_trees);
    for (uint32_t t = 0; t < n * n_trees; t += 8, leaves += 8 * n_cells) {
#pragma GCC unroll 8
      for (uint32_t j = 0; j < 8; ++j) sums[j] += leaves[int64_t(j * n_cells) - n_cells + cells[t + j]];
    }
  }
  return sum_of_8(sums);
}

template <uint32_t n_tables>
BIDML_AVX2 double complete_lanes(const CompleteForest& forest, const uint8_t* ranks) noexcept {
  switch (forest.depth) {
    case 3:
      return complete<3, n_tables>(forest, ranks);
    case 4:
      return complete<4, n_tables>(forest, ranks);
    case 5:
      return complete<5, n_tables>(forest, ranks);
    default:
      return complete<6, n_tables>(forest, ranks);
  }
}

BIDML_AVX2 double complete_any(const CompleteForest& forest, const uint8_t* ranks) noexcept {
  return forest.n_lanes <= 32   ? complete_lanes<2>(forest, ranks)
         : forest.n_lanes <= 64 ? complete_lanes<4>(forest, ranks)
                                : complete_lanes<8>(forest, ranks);
}

// ---- what the portable kernels do as well --------------------------------------------------------------------------

const std::byte* find(const StringTable& table, const char* text, size_t size) noexcept {
  return kScalarKernels.find(table, text, size);
}

void locate_all(const StringTable* first, size_t step, size_t n, const TextRef* texts,
                const std::byte** cells) noexcept {
  kScalarKernels.locate_all(first, step, n, texts, cells);
}

void confirm_all(const StringTable* first, size_t step, size_t n, const TextRef* texts,
                 const std::byte** cells) noexcept {
  kScalarKernels.confirm_all(first, step, n, texts, cells);
}

double walk(const WalkForest& forest, const uint8_t* ranks) noexcept { return kScalarKernels.walk(forest, ranks); }

}  // namespace

const Kernels kAvx2Kernels = {portable_hash, find, locate_all, confirm_all, combine, find_codes, find_codes_of_slot,
                               complete_any, nullptr, walk};

}  // namespace bidml

#endif
