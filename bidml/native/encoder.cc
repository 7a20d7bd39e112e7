#include "encoder.h"

#include <algorithm>
#include <limits>

#include "reference.h"

namespace bidml {
namespace {

size_t up_to_64(size_t bytes) { return (bytes + 63) / 64 * 64; }

// One use of a category slot: a lane of a head's trees, or a term.
struct Use {
  const LookupView* lookup;
  const Lane* lane;  // null: a term
  Rewrite rewrite;
  bool is_byte;
  uint32_t offset;  // in the row
};

// The union of the keys of some lookups, ascending.
std::vector<std::string_view> all_keys(const std::vector<Use>& uses) {
  std::vector<std::string_view> keys;
  for (const Use& use : uses) {
    if (keys.empty()) {
      keys.assign(use.lookup->keys.begin(), use.lookup->keys.end());
      continue;
    }
    std::vector<std::string_view> both;
    std::set_union(keys.begin(), keys.end(), use.lookup->keys.begin(), use.lookup->keys.end(),
                   std::back_inserter(both));
    keys = std::move(both);
  }
  return keys;
}

void append(std::vector<std::byte>& payload, const Use& use, double value) {
  const auto append_bytes = [&](const void* from, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(from);
    payload.insert(payload.end(), bytes, bytes + size);
  };
  if (use.lane == nullptr) {
    append_bytes(&value, sizeof value);
    return;
  }
  const uint32_t rank = use.lane->value(rewritten(value, use.rewrite));
  if (use.is_byte) {
    payload.push_back(std::byte(rank));
  } else {
    append_bytes(&rank, sizeof rank);
  }
}

CategorySlot build_category_slot(std::vector<Use> uses, const Kernels& kernels, Arena& arena) {
  std::stable_sort(uses.begin(), uses.end(), [](const Use& a, const Use& b) {
    const auto kind = [](const Use& use) { return use.lane == nullptr ? 2 : use.is_byte ? 0 : 1; };
    return kind(a) < kind(b);
  });
  CategorySlot slot;
  std::vector<uint32_t> pieces;
  std::vector<std::byte> fallback, payloads;
  for (const Use& use : uses) {
    ++(use.lane == nullptr ? slot.n_terms : use.is_byte ? slot.n_bytes : slot.n_words);
    pieces.push_back(use.offset);
    append(fallback, use, use.lookup->default_value);
  }
  const std::vector<std::string_view> keys = all_keys(uses);
  std::vector<size_t> next(uses.size());  // keys are visited in order: one cursor per lookup
  for (const std::string_view key : keys) {
    for (size_t u = 0; u < uses.size(); ++u) {
      const LookupView& lookup = *uses[u].lookup;
      const bool known = next[u] < lookup.keys.size && lookup.keys[next[u]] == key;
      append(payloads, uses[u], known ? lookup.values[next[u]++] : lookup.default_value);
    }
  }
  slot.pieces = arena.copy(pieces);
  slot.table = build_string_table(keys, payloads, fallback, kernels.hash, arena);
  return slot;
}

// A lane of a number slot and where its value goes.
struct PlacedLane {
  const Lane* lane;
  Rewrite rewrite;
  uint32_t offset;
  bool is_byte;
};

// The number slots and the tables of their lanes, slot by slot.
struct NumberTables {
  std::vector<NumberSlot> slots;
  std::vector<NumberTarget> direct_targets, word_targets;
  std::vector<ByteTargets> byte_targets;
  std::vector<uint32_t> byte_offsets;
  std::vector<uint32_t> direct_starts{0}, byte_starts{0}, word_starts{0};
  std::vector<uint8_t> byte_values;
  std::vector<uint32_t> word_values;

  void add(const std::vector<PlacedLane>& lanes, Arena& arena) {
    std::vector<SlotLane> steps;
    for (const PlacedLane& placed : lanes) steps.push_back({placed.lane, placed.rewrite});
    const std::vector<double> points = breakpoints(steps);
    const auto slot = uint16_t(slots.size());
    slots.push_back(lanes.empty() ? NumberSlot{} : build_number_slot(points, arena));
    std::vector<std::vector<uint32_t>> by_table;  // the values of byte lanes that need a table
    const auto first_offset = uint32_t(byte_offsets.size());
    for (const PlacedLane& placed : lanes) {
      const auto value = [&](double x) { return placed.lane->value(rewritten(x, placed.rewrite)); };
      std::vector<uint32_t> values;
      for (double point : points) values.push_back(value(point));
      values.push_back(value(std::numeric_limits<double>::infinity()));
      values.push_back(placed.lane->missing);
      bool is_direct = placed.is_byte;
      for (size_t code = 0; code <= points.size(); ++code) is_direct = is_direct && values[code] == code;
      if (is_direct) {
        direct_targets.push_back({slot, uint16_t(points.size() + 1), placed.offset, placed.lane->missing});
      } else if (placed.is_byte) {
        byte_offsets.push_back(placed.offset);
        by_table.push_back(std::move(values));
      } else {
        word_targets.push_back({slot, 0, placed.offset, uint32_t(word_values.size())});
        word_values.insert(word_values.end(), values.begin(), values.end());
      }
    }
    if (!by_table.empty()) {
      byte_targets.push_back({slot, uint16_t(by_table.size()), uint32_t(byte_values.size()), first_offset});
      for (size_t code = 0; code < by_table[0].size(); ++code) {
        for (const std::vector<uint32_t>& values : by_table) byte_values.push_back(uint8_t(values[code]));
      }
    }
    direct_starts.push_back(uint32_t(direct_targets.size()));
    byte_starts.push_back(uint32_t(byte_targets.size()));
    word_starts.push_back(uint32_t(word_targets.size()));
  }
};

}  // namespace

Encoder::Encoder(const std::vector<HeadView>& heads, const std::vector<HeadLanes>& lanes, int n_numbers,
                 int n_categories, const Kernels& kernels, Arena& arena)
    : find_(kernels.find), locate_all_(kernels.locate_all), confirm_all_(kernels.confirm_all), find_codes_(kernels.find_codes),
      find_codes_of_slot_(kernels.find_codes_of_slot) {
  std::vector<std::vector<Use>> uses(static_cast<size_t>(n_categories));
  std::vector<std::vector<PlacedLane>> placed(static_cast<size_t>(n_numbers));
  size_t end = 0;
  for (size_t h = 0; h < heads.size(); ++h) {
    HeadPlace& place = places_.emplace_back();
    const bool bytes = lanes[h].bytes;
    place.lanes = uint32_t(end);
    // A line even for no lane: kernels load one, and trees of a single leaf look at its first.
    place.lanes_bytes = uint32_t(std::max<size_t>(up_to_64(lanes[h].lanes.size() * (bytes ? 1 : 4)), 64));
    for (size_t i = 0; i < lanes[h].lanes.size(); ++i) {
      const Lane& lane = lanes[h].lanes[i];
      const ColumnView& column = heads[h].columns[size_t(lane.column)];
      const auto offset = uint32_t(end + i * (bytes ? 1 : 4));
      if (column.is_category) {
        uses[size_t(column.lookup.slot)].push_back({&column.lookup, &lane, column.rewrite, bytes, offset});
      } else {
        placed[size_t(column.slot)].push_back({&lane, column.rewrite, offset, bytes});
      }
    }
    end += place.lanes_bytes;
  }
  for (size_t h = 0; h < heads.size(); ++h) {
    places_[h].terms = uint32_t(end);
    places_[h].n_terms = uint32_t(heads[h].terms.size());
    for (const LookupView& term : heads[h].terms) {
      uses[size_t(term.slot)].push_back({&term, nullptr, Rewrite::none, false, uint32_t(end)});
      end += sizeof(double);
    }
  }
  row_bytes_ = std::max<size_t>(up_to_64(end), 64);

  NumberTables tables;
  for (const std::vector<PlacedLane>& slot : placed) tables.add(slot, arena);
  numbers_ = arena.copy(tables.slots);
  std::vector<uint32_t> missing_codes;
  for (const NumberSlot& slot : tables.slots) missing_codes.push_back(slot.n_breaks + 1);
  missing_codes_ = arena.copy(missing_codes);
  direct_targets_ = arena.copy(tables.direct_targets);
  byte_targets_ = arena.copy(tables.byte_targets);
  byte_offsets_ = arena.copy(tables.byte_offsets);
  word_targets_ = arena.copy(tables.word_targets);
  direct_starts_ = arena.copy(tables.direct_starts);
  byte_starts_ = arena.copy(tables.byte_starts);
  word_starts_ = arena.copy(tables.word_starts);
  byte_values_ = arena.copy(tables.byte_values);
  word_values_ = arena.copy(tables.word_values);
  std::vector<CategorySlot> categories;
  for (const std::vector<Use>& slot : uses) categories.push_back(build_category_slot(slot, kernels, arena));
  categories_ = arena.copy(categories);

  auto* blank = static_cast<std::byte*>(arena.allocate(row_bytes_));
  std::memset(blank, 0, row_bytes_);
  const std::vector<double> missing(size_t(n_numbers), std::numeric_limits<double>::quiet_NaN());
  set_numbers(blank, 0, n_numbers, missing.data());
  for (int slot = 0; slot < n_categories; ++slot) set_category(blank, slot, "", 0);
  blank_ = blank;
}

}  // namespace bidml
