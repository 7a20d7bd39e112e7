// AVX-512 (F, BW, VL, DQ, VBMI, with VAES): Intel Ice Lake and later servers, AMD Zen 4 and later.
//
// All lanes of a head sit in one register (two beyond 64). `vpermb` fetches the ranks of 64 nodes at once, and deciding
// every node of a tree costs less than one mispredicted branch. What remains is to find the leaf:
//   complete trees   the decisions of a tree are a word of bits, walked by i = 2i | bit i, all trees side by side;
//   leaf-wise trees  decisions select each node's successor, and in-register doublings of the successor map
//                    (next = next[next]) make it stride 8 or 16 nodes, so that one to three byte loads end it.
// What bounds both is the second cache: a tree's nodes and one line of its leaves, at about 30 bytes a cycle.
//
// No STL in this file: a template instantiated here could be chosen by the linker for machines without AVX-512.
#include "kernels.h"

#if BIDML_X86

#include <immintrin.h>

// GCC 12 takes the undefined register that its own intrinsics pass on for a mistake of ours (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace bidml {
namespace {

#define BIDML_INLINE static inline __attribute__((always_inline)) BIDML_AVX512

// ---- text --------------------------------------------------------------------------------------------------------

// One load of up to 64 bytes: bytes beyond the mask are neither read nor faulted on.
BIDML_INLINE __m512i load_text(const char* text, size_t size) {
  return _mm512_maskz_loadu_epi8(_bzhi_u64(~uint64_t{0}, unsigned(size)), text);
}

BIDML_INLINE uint64_t finish_hash(__m512i state) {
  const __m256i half = _mm256_aesenc_epi128(_mm512_castsi512_si256(state), _mm512_extracti64x4_epi64(state, 1));
  const __m128i quarter = _mm_aesenc_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  const __m128i mixed = _mm_aesenc_si128(quarter, quarter);
  return uint64_t(_mm_cvtsi128_si64(mixed));
}

BIDML_INLINE __m512i hash_key(size_t size, uint64_t seed) {
  const __m512i odd = _mm512_set_epi64(0x1B873593CC9E2D51, 0x38B34AE5A1E38B93, 0x85EBCA6BC2B2AE35, 0x27D4EB2F165667C5,
                                       0x61C8864680B583EB, 0x2545F4914F6CDD1D, 0x369DEA0F31A53F85, 0x106689D45497FDB5);
  return _mm512_xor_si512(odd, _mm512_set1_epi64(int64_t((uint64_t(size) + seed * 0x9E3779B97F4A7C15) * 0xD6E8FEB86659FD93)));
}

BIDML_INLINE uint64_t hash_short(__m512i text, size_t size, uint64_t seed) {
  const __m512i key = hash_key(size, seed);
  return finish_hash(_mm512_aesenc_epi128(_mm512_xor_si512(text, key), key));
}

__attribute__((noinline)) BIDML_AVX512 uint64_t hash_long(const char* text, size_t size, uint64_t seed) {
  const __m512i key = hash_key(size, seed);
  __m512i state = key;
  for (; size > 64; size -= 64, text += 64) {
    state = _mm512_aesenc_epi128(_mm512_xor_si512(state, _mm512_loadu_si512(text)), key);
  }
  return finish_hash(_mm512_aesenc_epi128(_mm512_xor_si512(state, load_text(text, size)), key));
}

BIDML_AVX512 uint64_t hash(const char* text, size_t size, uint64_t seed) {
  return size <= 64 ? hash_short(load_text(text, size), size, seed) : hash_long(text, size, seed);
}

BIDML_INLINE const std::byte* confirm_short(const StringTable& table, const std::byte* cell, __m512i text,
                                            size_t size) {
  // A stored key may end before `size` bytes, then other bytes of the arena are compared: the sizes differ anyway.
  const __mmask64 differs =
      _mm512_mask_cmpneq_epi8_mask(_bzhi_u64(~uint64_t{0}, unsigned(size)), text, _mm512_loadu_si512(table.key_of(cell)));
  return table.payload(cell, (uint64_t(differs) | (StringTable::size_of(cell) ^ size)) == 0);
}

__attribute__((noinline)) BIDML_AVX512 const std::byte* find_long(const StringTable& table, const char* text,
                                                                  size_t size) noexcept {
  const std::byte* cell = table.cell(hash_long(text, size, table.seed));
  return table.payload(cell, StringTable::size_of(cell) == size && __builtin_memcmp(table.key_of(cell), text, size) == 0);
}

BIDML_AVX512 const std::byte* find(const StringTable& table, const char* text, size_t size) noexcept {
  if (__builtin_expect(size > 64, 0)) return find_long(table, text, size);
  const __m512i bytes = load_text(text, size);
  return confirm_short(table, table.cell(hash_short(bytes, size, table.seed)), bytes, size);
}

BIDML_AVX512 void locate_all(const StringTable* first, size_t step, size_t n, const TextRef* texts,
                             const std::byte** cells) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const StringTable& table = first->after(i * step);
    if (__builtin_expect(texts[i].size > 64, 0)) continue;
    cells[i] = table.cell(hash_short(load_text(texts[i].data, texts[i].size), texts[i].size, table.seed));
    _mm_prefetch(reinterpret_cast<const char*>(cells[i]), _MM_HINT_T0);
  }
}

BIDML_AVX512 void confirm_all(const StringTable* first, size_t step, size_t n, const TextRef* texts,
                              const std::byte** cells) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const StringTable& table = first->after(i * step);
    cells[i] = __builtin_expect(texts[i].size > 64, 0)
                   ? find_long(table, texts[i].data, texts[i].size)
                   : confirm_short(table, cells[i], load_text(texts[i].data, texts[i].size), texts[i].size);
  }
}

BIDML_AVX512 void combine(std::byte* out, const std::byte* a, const std::byte* b, const std::byte* blank,
                          size_t n) noexcept {
  constexpr int xor_of_three = 0x96;
  for (size_t i = 0; i < n; i += 64) {
    _mm512_store_si512(out + i, _mm512_ternarylogic_epi64(_mm512_load_si512(a + i), _mm512_load_si512(b + i),
                                                          _mm512_load_si512(blank + i), xor_of_three));
  }
}

// ---- numbers -----------------------------------------------------------------------------------------------------

// How many of a block's breakpoints are below x.
BIDML_INLINE uint32_t count_below(const double* block, __m512d x) {
  return uint32_t(_mm_popcnt_u32(_mm512_cmp_pd_mask(x, _mm512_load_pd(block), _CMP_GT_OQ)));
}

BIDML_AVX512 void find_codes(const NumberSlot* slots, const uint32_t* missing, size_t n, const double* values,
                             uint32_t* codes) noexcept {
  // One by one: the values were written just now, and a wide load of them would wait until all are in the cache.
  for (size_t i = 0; i < n; ++i) {
    const NumberSlot& slot = slots[i];
    const __m512d x = _mm512_set1_pd(values[i]);
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
    // No breakpoint is below NaN, so that its code is 0 so far; without a branch, as numbers are missing at random.
    codes[i] = code | (values[i] != values[i] ? missing[i] : 0);
  }
}

template <uint32_t n_levels>
BIDML_AVX512 void find_codes_by(const NumberSlot& slot, uint32_t missing, size_t n, const double* values,
                            uint32_t* codes) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const __m512d x = _mm512_set1_pd(values[i]);
    uint32_t code = count_below(slot.blocks, x);
    if constexpr (n_levels > 1) code = code * 8 + count_below(slot.blocks + slot.starts[0] + code * 8, x);
    if constexpr (n_levels > 2) code = code * 8 + count_below(slot.blocks + slot.starts[1] + code * 8, x);
    if constexpr (n_levels > 3) code = code * 8 + count_below(slot.blocks + slot.starts[2] + code * 8, x);
    codes[i] = values[i] == values[i] ? code : missing;
  }
}

BIDML_AVX512 void find_codes_of_slot(const NumberSlot& slot, uint32_t missing, size_t n, const double* values,
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

// The lanes of a head in registers.
template <bool wide>
struct Lanes {
  __m512i low, high;
};

template <bool wide>
BIDML_INLINE Lanes<wide> load_lanes(const uint8_t* ranks) {
  return {_mm512_load_si512(ranks), wide ? _mm512_load_si512(ranks + 64) : _mm512_setzero_si512()};
}

// The ranks of the 64 nodes whose lanes are at `at`.
template <bool wide>
BIDML_INLINE __m512i look_up(const Lanes<wide>& lanes, const uint8_t* at) {
  const __m512i index = _mm512_load_si512(at);
  return wide ? _mm512_permutex2var_epi8(lanes.low, index, lanes.high) : _mm512_permutexvar_epi8(index, lanes.low);
}

// The decisions of the 8 blocks of a group, 64 bits each. The sign bits of 64 bytes become bits without a trip through
// mask registers: an affine map over GF(2) with the averages as matrices gathers 8 sign bits into byte b of each
// quadword for block b; one permutation and one reversal then put bytes and bits in order.
template <bool wide>
BIDML_INLINE __m512i decide_group(const Lanes<wide>& lanes, const uint8_t* group) {
  __m512i bits = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (uint32_t b = 0; b < 8; ++b) {
    const __m512i sign_to_byte_b = _mm512_set1_epi64(int64_t(uint64_t{0x80} << (8 * b)));
    const __m512i average =
        _mm512_avg_epu8(look_up<wide>(lanes, group + b * 128), _mm512_load_si512(group + b * 128 + 64));
    bits = _mm512_or_si512(bits, _mm512_gf2p8affine_epi64_epi8(sign_to_byte_b, average, 0));
  }
  const __m512i transpose = _mm512_set_epi64(0x3F372F271F170F07, 0x3E362E261E160E06, 0x3D352D251D150D05,
                                             0x3C342C241C140C04, 0x3B332B231B130B03, 0x3A322A221A120A02,
                                             0x3931292119110901, 0x3830282018100800);
  const __m512i reverse = _mm512_set1_epi64(int64_t(0x8040201008040201));
  return _mm512_gf2p8affine_epi64_epi8(_mm512_permutexvar_epi8(transpose, bits), reverse, 0);
}

// One step down in each tree, in the word size of depth D: at = 2 at | (bits >> at & 1).
template <uint32_t D>
BIDML_INLINE __m512i descend(__m512i bits, __m512i at) {
  constexpr int a_or_b_and_c = 0xF8;
  const __m512i twice = D == 6   ? _mm512_add_epi64(at, at)
                        : D == 5 ? _mm512_add_epi32(at, at)
                                 : _mm512_add_epi16(at, at);
  const __m512i shifted = D == 6   ? _mm512_srlv_epi64(bits, at)
                          : D == 5 ? _mm512_srlv_epi32(bits, at)
                                   : _mm512_srlv_epi16(bits, at);
  const __m512i one = D == 6   ? _mm512_set1_epi64(1)
                      : D == 5 ? _mm512_set1_epi32(1)
                               : _mm512_set1_epi16(1);
  return _mm512_ternarylogic_epi64(twice, shifted, one, a_or_b_and_c);
}

template <uint32_t D>
BIDML_INLINE __m512i walk_down(__m512i bits) {
  __m512i at = D == 6 ? _mm512_set1_epi64(1) : D == 5 ? _mm512_set1_epi32(1) : _mm512_set1_epi16(1);
#pragma GCC unroll 6
  for (uint32_t level = 0; level < D; ++level) at = descend<D>(bits, at);
  return at;
}

// Writes the final cell of each tree of a group.
template <uint32_t D, bool wide>
BIDML_INLINE void walk_group(const Lanes<wide>& lanes, const uint8_t* group, uint16_t* cells) {
  const __m512i bits = decide_group<wide>(lanes, group);
  if constexpr (D == 6) {
    _mm_store_si128(reinterpret_cast<__m128i*>(cells), _mm512_cvtepi64_epi16(walk_down<D>(bits)));
  } else if constexpr (D == 5) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(cells), _mm512_cvtepi32_epi16(walk_down<D>(bits)));
  } else if constexpr (D == 4) {
    _mm512_store_si512(cells, walk_down<D>(bits));
  } else {  // words of 8 bits are walked as words of 16
    _mm512_store_si512(cells, walk_down<D>(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(bits))));
    _mm512_store_si512(cells + 32, walk_down<D>(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(bits, 1))));
  }
}

// Cells written just now would stall their reader until the store retires, and leaves come from the second cache: so
// the leaves of a pair of groups are added while the next pair is decided.
template <uint32_t D, bool wide>
BIDML_AVX512 double complete(const CompleteForest& forest, const uint8_t* ranks) noexcept {
  constexpr uint32_t n_trees = 512u >> D, n_cells = 1u << D, n_at_once = 2;
  const Lanes<wide> lanes = load_lanes<wide>(ranks);
  alignas(64) uint16_t cells[2][n_at_once * n_trees];
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
  const uint8_t* group = forest.blocks;
  const double* first = forest.leaves - n_cells;  // of the next tree: leaf cells are n_cells .. 2 n_cells - 1
  uint32_t left = forest.n_groups, n_waiting = 0;
  for (uint32_t turn = 0; left + n_waiting != 0; turn ^= 1) {
    const uint32_t n = left < n_at_once ? left : n_at_once;
    for (uint32_t g = 0; g < n; ++g, group += 1024) walk_group<D>(lanes, group, cells[turn] + g * n_trees);
    left -= n;
    const uint16_t* cell = cells[turn ^ 1];
    for (uint32_t t = 0; t < n_waiting * n_trees; t += 8, cell += 8, first += 8 * n_cells) {
      s0 += first[cell[0]];
      s1 += first[cell[1] + 1 * n_cells];
      s2 += first[cell[2] + 2 * n_cells];
      s3 += first[cell[3] + 3 * n_cells];
      s4 += first[cell[4] + 4 * n_cells];
      s5 += first[cell[5] + 5 * n_cells];
      s6 += first[cell[6] + 6 * n_cells];
      s7 += first[cell[7] + 7 * n_cells];
    }
    n_waiting = n;
  }
  const double sums[8] = {s0, s1, s2, s3, s4, s5, s6, s7};
  return sum_of_8(sums);
}

template <bool wide>
BIDML_AVX512 double complete_lanes(const CompleteForest& forest, const uint8_t* ranks) noexcept {
  switch (forest.depth) {
    case 3:
      return complete<3, wide>(forest, ranks);
    case 4:
      return complete<4, wide>(forest, ranks);
    case 5:
      return complete<5, wide>(forest, ranks);
    default:
      return complete<6, wide>(forest, ranks);
  }
}

BIDML_AVX512 double complete_any(const CompleteForest& forest, const uint8_t* ranks) noexcept {
  return forest.n_lanes <= 64 ? complete_lanes<false>(forest, ranks) : complete_lanes<true>(forest, ranks);
}

// Each block of a chunk has a slot of 128 bytes: the successors of its 64 nodes, then of its 64 leaf codes, which lead
// to themselves.
using LeafwiseSlots = uint8_t[8][128];

constexpr uint8_t kLeafCode = 64;

BIDML_INLINE __m512i node_numbers() {
  return _mm512_set_epi64(0x3F3E3D3C3B3A3938, 0x3736353433323130, 0x2F2E2D2C2B2A2928, 0x2726252423222120,
                          0x1F1E1D1C1B1A1918, 0x1716151413121110, 0x0F0E0D0C0B0A0908, 0x0706050403020100);
}

template <bool wide, uint32_t parts>
BIDML_INLINE void stride_chunk(const Lanes<wide>& lanes, const uint8_t* block, const uint64_t* true_leaf,
                               LeafwiseSlots& slots) {
  const __m512i following = _mm512_add_epi8(node_numbers(), _mm512_set1_epi8(1));
  const __m512i leaf_codes = _mm512_add_epi8(node_numbers(), _mm512_set1_epi8(kLeafCode));
#pragma GCC unroll 8
  for (uint32_t b = 0; b < 8; ++b, block += 192) {
    const __mmask64 says_false = _mm512_cmpgt_epu8_mask(look_up<wide>(lanes, block), _mm512_load_si512(block + 64));
    __m512i next = _mm512_mask_mov_epi8(following, _cvtu64_mask64(true_leaf[b]), leaf_codes);
    next = _mm512_mask_mov_epi8(next, says_false, _mm512_load_si512(block + 128));
    for (uint32_t stride = 1; stride < leafwise_stride(parts); stride *= 2) {
      next = _mm512_permutex2var_epi8(next, next, leaf_codes);
    }
    _mm512_store_si512(slots[b], next);
  }
}

// As for complete trees, a chunk is chased while the next one is decided.
template <bool wide, uint32_t parts>
BIDML_AVX512 double leafwise(const LeafwiseForest& forest, const uint8_t* ranks) noexcept {
  const Lanes<wide> lanes = load_lanes<wide>(ranks);
  alignas(64) LeafwiseSlots slots[2];
  for (uint32_t i = 0; i < 16; ++i) {
    _mm512_store_si512(slots[i / 8][i % 8] + kLeafCode,
                       _mm512_add_epi8(node_numbers(), _mm512_set1_epi8(kLeafCode)));
  }
  double s[8] = {};
  const double* leaves = forest.leaves - kLeafCode;
  stride_chunk<wide, parts>(lanes, forest.blocks, forest.true_leaf, slots[0]);
  for (uint32_t chunk = 0; chunk < forest.n_chunks; ++chunk, leaves += 8 * 64) {
    if (const uint32_t next = chunk + 1; next < forest.n_chunks) {
      stride_chunk<wide, parts>(lanes, forest.blocks + next * (8 * 192), forest.true_leaf + next * 8, slots[next % 2]);
    }
    const LeafwiseSlots& mine = slots[chunk % 2];
    for (uint32_t part = 0; part < parts; ++part) {
      uint32_t at[8];
      for (uint32_t& code : at) code = part * (64 / parts);
      for (uint32_t step = 0; step < forest.steps[chunk]; ++step) {
#pragma GCC unroll 8
        for (uint32_t b = 0; b < 8; ++b) at[b] = mine[b][at[b]];
      }
#pragma GCC unroll 8
      for (uint32_t b = 0; b < 8; ++b) s[b] += leaves[b * 64 + at[b]];
    }
  }
  return sum_of_8(s);
}

template <bool wide>
BIDML_AVX512 double leafwise_lanes(const LeafwiseForest& forest, const uint8_t* ranks) noexcept {
  switch (forest.trees_per_block) {
    case 1:
      return leafwise<wide, 1>(forest, ranks);
    case 2:
      return leafwise<wide, 2>(forest, ranks);
    default:
      return leafwise<wide, 4>(forest, ranks);
  }
}

BIDML_AVX512 double leafwise_any(const LeafwiseForest& forest, const uint8_t* ranks) noexcept {
  return forest.n_lanes <= 64 ? leafwise_lanes<false>(forest, ranks) : leafwise_lanes<true>(forest, ranks);
}

double walk(const WalkForest& forest, const uint8_t* ranks) noexcept { return kScalarKernels.walk(forest, ranks); }

}  // namespace

const Kernels kAvx512Kernels = {hash, find, locate_all, confirm_all, combine, find_codes, find_codes_of_slot,
                               complete_any, leafwise_any, walk};

}  // namespace bidml

#endif
