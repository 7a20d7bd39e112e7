// From text straight to ranks: one hash, one probe, whatever the text.
//
// The keys of a category slot are placed by a perfect hash (hash and displace: Belazzougui, Botelho, Dietzfelbinger,
// "Hash, displace, and compress", ESA 2009): `displacement[bucket]` was chosen at build time so that no two keys share a
// cell. A lookup is therefore hash → displacement → cell → compare the text itself → the cell's payload or the
// default's, with no loop and hardly a branch. The payload is the final bytes of the row: ranks and term weights.
//
// The hash function belongs to the kernel set (kernels.h): a table is built with the one it will be probed with.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "arena.h"

namespace bidml {

using HashFunction = uint64_t (*)(const char* text, size_t size, uint64_t seed);

struct StringTable {
  // The fallback's cell, then at `cells` (n_cells, stride): size (4), payload, key or the key's offset from `cells`;
  // then the keys that are not in the cells.
  const std::byte* cells = nullptr;
  const uint16_t* displacements = nullptr;  // (n_buckets,)
  uint64_t seed = 0;
  uint32_t n_cells = 0, n_buckets = 0;
  uint32_t stride = 0, key_offset = 0;
  uint32_t inline_keys = 1;

  const std::byte* cell(uint64_t hash) const noexcept {
    const uint32_t bucket = uint32_t(((hash >> 40) * n_buckets) >> 24);
    const uint32_t at = uint32_t(hash) + displacements[bucket] * (uint32_t(hash >> 8) | 1u);
    return cells + ((uint64_t(at) * n_cells) >> 32) * stride;
  }
  bool has_keys() const noexcept { return n_cells > 1; }
  static uint32_t size_of(const std::byte* cell) noexcept {
    uint32_t size;
    std::memcpy(&size, cell, sizeof size);
    return size;
  }
  const char* key_of(const std::byte* cell) const noexcept {
    if (inline_keys) return reinterpret_cast<const char*>(cell + key_offset);
    uint32_t offset;
    std::memcpy(&offset, cell + key_offset, sizeof offset);
    return reinterpret_cast<const char*>(cells + offset);
  }
  // The table `bytes` after this one, in an array of structures that hold them.
  const StringTable& after(size_t bytes) const noexcept {
    return *reinterpret_cast<const StringTable*>(reinterpret_cast<const std::byte*>(this) + bytes);
  }
  // Without a branch: unseen texts come at random.
  const std::byte* payload(const std::byte* cell, bool found) const noexcept {
    const auto is_found = -intptr_t{found};
    const std::byte* chosen = cells + (((cell - cells) & is_found) | (-intptr_t(stride) & ~is_found));
    return chosen + sizeof(uint32_t);
  }
};

// keys distinct; payloads (n_keys, payload_bytes); fallback (payload_bytes,).
StringTable build_string_table(const std::vector<std::string_view>& keys, const std::vector<std::byte>& payloads,
                               const std::vector<std::byte>& fallback, HashFunction hash, Arena& arena);

// The hash of the portable kernels.
uint64_t portable_hash(const char* text, size_t size, uint64_t seed) noexcept;

}  // namespace bidml
