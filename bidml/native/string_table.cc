#include "string_table.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace bidml {
namespace {

constexpr uint32_t kEmpty = ~uint32_t{0};
constexpr size_t kLongestInlineKey = 64;

// Displacements for `hashes`, or false: another seed is needed.
bool displace(const std::vector<uint64_t>& hashes, StringTable& table, std::vector<uint16_t>& displacements,
              std::vector<uint32_t>& owners) {
  const size_t n = hashes.size();
  std::vector<uint32_t> starts(table.n_buckets + 1), members(n);
  const auto bucket = [&](uint64_t hash) { return uint32_t(((hash >> 40) * table.n_buckets) >> 24); };
  for (uint64_t hash : hashes) ++starts[bucket(hash) + 1];
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  std::vector<uint32_t> next(starts.begin(), starts.end() - 1);
  for (size_t i = 0; i < n; ++i) members[next[bucket(hashes[i])]++] = uint32_t(i);
  std::vector<uint32_t> order(table.n_buckets);
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const uint32_t size_a = starts[a + 1] - starts[a], size_b = starts[b + 1] - starts[b];
    return size_a != size_b ? size_a > size_b : a < b;
  });

  displacements.assign(table.n_buckets, 0);
  owners.assign(table.n_cells, kEmpty);
  std::vector<uint32_t> cells;
  for (uint32_t b : order) {
    bool placed = starts[b] == starts[b + 1];
    for (uint32_t d = 0; !placed && d < 65536; ++d) {
      cells.clear();
      placed = true;
      for (uint32_t m = starts[b]; placed && m < starts[b + 1]; ++m) {
        const uint64_t hash = hashes[members[m]];
        const uint32_t at = uint32_t(hash) + d * (uint32_t(hash >> 8) | 1u);
        const uint32_t cell = uint32_t((uint64_t(at) * table.n_cells) >> 32);
        placed = owners[cell] == kEmpty && std::find(cells.begin(), cells.end(), cell) == cells.end();
        cells.push_back(cell);
      }
      if (!placed) continue;
      displacements[b] = uint16_t(d);
      for (uint32_t m = starts[b]; m < starts[b + 1]; ++m) owners[cells[m - starts[b]]] = members[m];
    }
    if (!placed) return false;
  }
  return true;
}

}  // namespace

StringTable build_string_table(const std::vector<std::string_view>& keys, const std::vector<std::byte>& payloads,
                               const std::vector<std::byte>& fallback, HashFunction hash, Arena& arena) {
  const size_t n = keys.size(), payload_bytes = fallback.size();
  StringTable table;
  size_t longest = 0, total = 0;
  for (const std::string_view key : keys) {
    longest = std::max(longest, key.size());
    total += key.size();
  }
  // Long or uneven keys would blow the cells up: those live side by side, one cache line further away.
  table.inline_keys = longest <= 16 || (longest <= kLongestInlineKey && longest * n <= total + total / 2);
  table.key_offset = uint32_t(sizeof(uint32_t) + payload_bytes);
  table.stride = uint32_t((table.key_offset + (table.inline_keys ? longest : sizeof(uint32_t)) + 3) / 4 * 4);
  table.n_cells = uint32_t(n + n / 4 + 1);
  table.n_buckets = uint32_t(n / 3 + 1);

  std::vector<uint64_t> hashes(n);
  std::vector<uint16_t> displacements;
  std::vector<uint32_t> owners;
  for (bool placed = false; !placed;) {
    if (++table.seed > 64) throw std::invalid_argument("keys can be hashed apart; found a set that cannot; report it");
    for (size_t i = 0; i < n; ++i) hashes[i] = hash(keys[i].data(), keys[i].size(), table.seed);
    placed = displace(hashes, table, displacements, owners);
  }

  const size_t text_at = size_t(table.n_cells) * table.stride, text_bytes = table.inline_keys ? 0 : total;
  if (text_at + text_bytes >= kEmpty) {
    throw std::invalid_argument("the table of a feature's keys is under 4 GB; found more; drop rare categories");
  }
  auto* fallback_cell = static_cast<std::byte*>(arena.allocate(table.stride + text_at + text_bytes));
  std::memset(fallback_cell, 0, table.stride + text_at);
  const auto put_payload = [&](std::byte* cell, const std::byte* payload) {
    if (payload_bytes) std::memcpy(cell + sizeof(uint32_t), payload, payload_bytes);
  };
  put_payload(fallback_cell, fallback.data());
  std::byte* cells = fallback_cell + table.stride;
  size_t text_end = text_at;
  for (uint32_t c = 0; c < table.n_cells; ++c) {
    std::byte* cell = cells + size_t(c) * table.stride;
    const uint32_t size = owners[c] == kEmpty ? kEmpty : uint32_t(keys[owners[c]].size());  // no text is that long
    std::memcpy(cell, &size, sizeof size);
    if (owners[c] == kEmpty) continue;
    put_payload(cell, payloads.data() + size_t(owners[c]) * payload_bytes);
    std::byte* key = cell + table.key_offset;
    if (!table.inline_keys) {
      const auto offset = uint32_t(text_end);
      std::memcpy(key, &offset, sizeof offset);
      key = cells + text_end;
      text_end += size;
    }
    if (size) std::memcpy(key, keys[owners[c]].data(), size);
  }
  table.cells = cells;
  table.displacements = arena.copy(displacements);
  return table;
}

uint64_t portable_hash(const char* text, size_t size, uint64_t seed) noexcept {
  constexpr uint64_t k0 = 0x9E3779B97F4A7C15u, k1 = 0xD6E8FEB86659FD93u;
  const auto mix = [](uint64_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__)
    const auto product = static_cast<unsigned __int128>(a) * b;
    return uint64_t(product) ^ uint64_t(product >> 64);
#else
    a = (a ^ b) * k1;
    a ^= a >> 32;
    return (a * k0) ^ (a >> 29);
#endif
  };
  const auto read8 = [](const char* p) {
    uint64_t x;
    std::memcpy(&x, p, 8);
    return x;
  };
  const auto read4 = [](const char* p) {
    uint32_t x;
    std::memcpy(&x, p, 4);
    return uint64_t(x);
  };
  uint64_t h = (seed + size) * k0;
  uint64_t a = 0, b = 0;
  if (size > 16) {
    const char* end = text + size;
    for (; size > 16; size -= 16, text += 16) h = mix(read8(text) ^ k1 ^ h, read8(text + 8) ^ k0);
    a = read8(end - 16);
    b = read8(end - 8);
  } else if (size >= 8) {
    a = read8(text);
    b = read8(text + size - 8);
  } else if (size >= 4) {
    a = read4(text);
    b = read4(text + size - 4);
  } else if (size > 0) {
    a = uint64_t(uint8_t(text[0])) << 16 | uint64_t(uint8_t(text[size / 2])) << 8 | uint8_t(text[size - 1]);
  }
  h = mix(a ^ k1 ^ h, b ^ k0 ^ h);
  return mix(h ^ k0, k1);
}

}  // namespace bidml
