// Where everything lives in a row, and how raw features get there.
//
// A row is, from its start: per head its lanes (one byte each in a 64-byte line, or 32-bit words), then one double per
// term. `blank` is the row whose every slot is missing. A category's payload, as the string tables hold it, is its byte
// lanes, then its word lanes, then its terms; a slot's `pieces` say where each goes.
//
// Rows combine by exclusive or: a ^ b ^ blank takes each slot from the side that set it.
//
// A cross of two categories is looked up once both are known, which may come from two sides. So what a slot's payload
// holds of a cross is the number of its text, a word of the row; the two numbers are the key of a table like those of
// texts, eight bytes long, whose payload is the final bytes of the row again.
#pragma once

#include <vector>

#include "kernels.h"
#include "lanes.h"
#include "numbers.h"
#include "string_table.h"

namespace bidml {

struct alignas(64) CategorySlot {  // one cache line
  StringTable table;
  const uint32_t* pieces = nullptr;  // row offsets: (n_bytes + n_words + n_terms,)
  uint16_t n_bytes = 0, n_words = 0, n_terms = 0;
};

struct CrossSlot {
  CategorySlot pairs;           // by the two numbers
  uint32_t first = 0, second = 0;  // where these are in the row
};

struct HeadPlace {
  uint32_t lanes = 0, lanes_bytes = 0;  // offset and size of its lanes
  uint32_t terms = 0, n_terms = 0;      // offset of its first term, and how many
};

constexpr size_t kRowsAtOnce = 32;
constexpr size_t kPairBytes = 2 * sizeof(uint32_t);

class Encoder {
 public:
  Encoder() = default;
  // lanes: one per head.
  Encoder(const std::vector<HeadView>& heads, const std::vector<HeadLanes>& lanes, int n_numbers, int n_categories,
          const Kernels& kernels, Arena& arena);

  const HeadPlace& place(size_t head) const { return places_[head]; }
  size_t row_bytes() const noexcept { return row_bytes_; }
  bool has_crosses() const noexcept { return n_crosses_ != 0; }
  const std::byte* blank() const noexcept { return blank_; }

  void set_category(std::byte* row, int slot, const char* text, size_t size) const noexcept {
    const CategorySlot& s = categories_[slot];
    write_payload(s, find_(s.table, TextRef(std::string_view(text, size)).data, size), row);
  }
  bool is_unseen(int slot, TextRef text) const noexcept {
    const StringTable& table = categories_[slot].table;
    return table.has_keys() && find_(table, text.data, text.size) == table.payload(table.cells, false);
  }
  void set_categories(std::byte* row, int first, int count, const TextRef* texts) const noexcept {
    set_slots(row, first, count, texts, 0, nullptr);
  }
  // Categories from `first`, numbers from 0: the numbers are searched while the texts' cells come from memory.
  void set_slots(std::byte* row, int first, int count, const TextRef* texts, int n_numbers,
                 const double* numbers) const noexcept {
    const std::byte* found[kMaxFeatures];
    const CategorySlot* slots = categories_ + first;
    locate_all_(&slots->table, sizeof *slots, size_t(count), texts, found);
    set_numbers(row, 0, n_numbers, numbers);
    confirm_all_(&slots->table, sizeof *slots, size_t(count), texts, found);
    for (int i = 0; i < count; ++i) write_payload(slots[i], found[i], row);
  }
  void set_numbers(std::byte* row, int first, int count, const double* values) const noexcept {
    uint32_t codes[kMaxFeatures + 8];
    find_codes_(numbers_ + first, missing_codes_ + first, size_t(count), values, codes);
    write_numbers(row, first, count, codes - first);
  }

  // Crosses, of a row whose categories are set.
  void set_crosses(std::byte* row) const noexcept {
    char keys[kMaxCrosses * kPairBytes];
    TextRef texts[kMaxCrosses];
    const std::byte* found[kMaxCrosses];
    for (size_t i = 0; i < n_crosses_; ++i) {
      char* key = keys + i * kPairBytes;
      std::memcpy(key, row + crosses_[i].first, sizeof(uint32_t));
      std::memcpy(key + sizeof(uint32_t), row + crosses_[i].second, sizeof(uint32_t));
      texts[i] = TextRef(key, kPairBytes);
    }
    locate_all_(&crosses_->pairs.table, sizeof *crosses_, n_crosses_, texts, found);
    confirm_all_(&crosses_->pairs.table, sizeof *crosses_, n_crosses_, texts, found);
    for (size_t i = 0; i < n_crosses_; ++i) write_payload(crosses_[i].pairs, found[i], row);
  }

  // Where the ranks of `count` texts of one slot are: their payloads. count is at most kRowsAtOnce.
  void find_categories(int slot, int count, const TextRef* texts, const std::byte** payloads) const noexcept {
    const StringTable& table = categories_[slot].table;
    locate_all_(&table, 0, size_t(count), texts, payloads);
    confirm_all_(&table, 0, size_t(count), texts, payloads);
  }
  // One slot of many rows, `stride` bytes apart.
  void set_category_of_rows(std::byte* rows, size_t stride, int slot, int count,
                            const std::byte* const* payloads) const noexcept {
    const CategorySlot& s = categories_[slot];
    for (int i = 0; i < count; ++i) write_payload(s, payloads[i], rows + size_t(i) * stride);
  }
  void set_number_of_rows(std::byte* rows, size_t stride, int slot, int count, const double* values) const noexcept {
    uint32_t codes[kRowsAtOnce + 8];
    find_codes_of_slot_(numbers_[slot], missing_codes_[slot], size_t(count), values, codes);
    for (int i = 0; i < count; ++i) write_numbers(rows + size_t(i) * stride, slot, 1, codes + i - slot);
  }

 private:
  // codes[s]: of slot s
  void write_numbers(std::byte* row, int first, int count, const uint32_t* codes) const noexcept {
    for (uint32_t i = direct_starts_[first]; i < direct_starts_[first + count]; ++i) {
      const NumberTarget& target = direct_targets_[i];
      const uint32_t code = codes[target.slot];
      row[target.offset] = std::byte(code == target.missing_code ? target.values : code);
    }
    for (uint32_t i = byte_starts_[first]; i < byte_starts_[first + count]; ++i) {
      const ByteTargets& targets = byte_targets_[i];
      const uint8_t* value = byte_values_ + targets.values + codes[targets.slot] * targets.n;
      const uint32_t* offset = byte_offsets_ + targets.offsets;
      for (uint32_t j = 0; j < targets.n; ++j) row[offset[j]] = std::byte{value[j]};
    }
    for (uint32_t i = word_starts_[first]; i < word_starts_[first + count]; ++i) {
      const NumberTarget& target = word_targets_[i];
      std::memcpy(row + target.offset, &word_values_[target.values + codes[target.slot]], sizeof(uint32_t));
    }
  }

  static void write_payload(const CategorySlot& slot, const std::byte* payload, std::byte* row) noexcept {
    const uint32_t* piece = slot.pieces;
    for (uint32_t i = 0; i < slot.n_bytes; ++i) row[*piece++] = *payload++;
    for (uint32_t i = 0; i < slot.n_words; ++i, payload += 4) std::memcpy(row + *piece++, payload, 4);
    for (uint32_t i = 0; i < slot.n_terms; ++i, payload += 8) std::memcpy(row + *piece++, payload, 8);
  }

  std::vector<HeadPlace> places_;
  const CategorySlot* categories_ = nullptr;  // (n_categories,)
  const CrossSlot* crosses_ = nullptr;        // (n_crosses,)
  size_t n_crosses_ = 0;
  const NumberSlot* numbers_ = nullptr;       // (n_numbers,)
  const uint32_t* missing_codes_ = nullptr;   // (n_numbers,)
  // The lanes of all number slots, by slot: those of slot s are starts[s] .. starts[s + 1].
  const NumberTarget *direct_targets_ = nullptr, *word_targets_ = nullptr;
  const ByteTargets* byte_targets_ = nullptr;
  const uint32_t* byte_offsets_ = nullptr;
  const uint32_t *direct_starts_ = nullptr, *byte_starts_ = nullptr, *word_starts_ = nullptr;  // (n_numbers + 1,)
  const uint8_t* byte_values_ = nullptr;
  const uint32_t* word_values_ = nullptr;
  const std::byte* blank_ = nullptr;          // (row_bytes,)
  size_t row_bytes_ = 0;
  decltype(Kernels::find) find_ = nullptr;
  decltype(Kernels::locate_all) locate_all_ = nullptr;
  decltype(Kernels::confirm_all) confirm_all_ = nullptr;
  decltype(Kernels::find_codes) find_codes_ = nullptr;
  decltype(Kernels::find_codes_of_slot) find_codes_of_slot_ = nullptr;
};

}  // namespace bidml
