#include "encoder.h"

#include <algorithm>
#include <deque>
#include <limits>

#include "reference.h"

namespace bidml {
namespace {

size_t up_to_64(size_t bytes) { return (bytes + 63) / 64 * 64; }

// One use of a category slot or a cross: a lane of a head's trees, a term, or (of a slot) the number of its text.
struct Use {
  const LookupView* lookup;
  const Lane* lane;  // null: a term, or a number
  Rewrite rewrite;
  bool is_byte;
  uint32_t offset;  // in the row
  bool is_number = false;
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
  if (use.is_number) {
    const auto number = uint32_t(value);
    append_bytes(&number, sizeof number);
    return;
  }
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

// Sorts the uses as their pieces lie in a payload; a slot without its table, and the payload of what has no entry.
CategorySlot begin_slot(std::vector<Use>& uses, std::vector<std::byte>& fallback, Arena& arena) {
  const auto kind = [](const Use& use) { return use.is_byte ? 0 : use.is_number || use.lane != nullptr ? 1 : 2; };
  std::stable_sort(uses.begin(), uses.end(), [&](const Use& a, const Use& b) { return kind(a) < kind(b); });
  CategorySlot slot;
  std::vector<uint32_t> pieces;
  for (const Use& use : uses) {
    ++(kind(use) == 0 ? slot.n_bytes : kind(use) == 1 ? slot.n_words : slot.n_terms);
    pieces.push_back(use.offset);
    append(fallback, use, use.lookup->default_value);
  }
  slot.pieces = arena.copy(pieces);
  return slot;
}

CategorySlot build_category_slot(std::vector<Use> uses, const Kernels& kernels, Arena& arena) {
  std::vector<std::byte> fallback, payloads;
  CategorySlot slot = begin_slot(uses, fallback, arena);
  const std::vector<std::string_view> keys = all_keys(uses);
  std::vector<size_t> next(uses.size());  // keys are visited in order: one cursor per lookup
  for (const std::string_view key : keys) {
    for (size_t u = 0; u < uses.size(); ++u) {
      const LookupView& lookup = *uses[u].lookup;
      const bool known = next[u] < lookup.keys.size && lookup.keys[next[u]] == key;
      append(payloads, uses[u], known ? lookup.values[next[u]++] : lookup.default_value);
    }
  }
  slot.table = build_string_table(keys, payloads, fallback, kernels.hash, arena);
  return slot;
}

bool same(const VocabularyView& a, const VocabularyView& b) {
  return a.slot == b.slot && a.keys.size == b.keys.size &&
         (a.keys.data == b.keys.data || std::equal(a.keys.begin(), a.keys.end(), b.keys.begin()));
}

// The crosses of all heads, and the numbers that they need of their slots.
class Crosses {
 public:
  // A use of the cross `use.lookup`.
  void add(const Use& use) {
    const size_t first = number_of(use.lookup->first), second = number_of(use.lookup->second);
    for (Cross& cross : crosses_) {
      if (cross.first == first && cross.second == second) {
        cross.uses.push_back(use);
        return;
      }
    }
    crosses_.push_back({first, second, {use}});
  }
  // Gives each number a word of the row from `end` on, and makes it a use of its slot.
  void place(size_t& end, std::vector<std::vector<Use>>& uses) {
    for (Number& number : numbers_) {
      number.offset = uint32_t(end);
      end += sizeof(uint32_t);
      const Use use{&number.lookup, nullptr, Rewrite::none, false, number.offset, true};
      uses[size_t(number.lookup.slot)].push_back(use);
    }
  }
  std::vector<CrossSlot> build(const Kernels& kernels, Arena& arena) const {
    std::vector<CrossSlot> slots;
    for (const Cross& cross : crosses_) slots.push_back(build(cross, kernels, arena));
    return slots;
  }

 private:
  struct Number {
    std::vector<double> values;
    LookupView lookup;  // key → its place
    uint32_t offset = 0;
  };
  struct Cross {
    size_t first, second;  // of numbers_
    std::vector<Use> uses;
  };

  size_t number_of(const VocabularyView& vocabulary) {
    for (size_t i = 0; i < numbers_.size(); ++i) {
      if (same({numbers_[i].lookup.slot, numbers_[i].lookup.keys}, vocabulary)) return i;
    }
    Number& number = numbers_.emplace_back();
    for (size_t i = 0; i < vocabulary.keys.size; ++i) number.values.push_back(double(i));
    number.lookup.slot = vocabulary.slot;
    number.lookup.keys = vocabulary.keys;
    number.lookup.values = {number.values.data(), number.values.size()};
    number.lookup.default_value = double(vocabulary.keys.size);
    return numbers_.size() - 1;
  }

  CrossSlot build(const Cross& cross, const Kernels& kernels, Arena& arena) const {
    CrossSlot slot;
    slot.first = numbers_[cross.first].offset;
    slot.second = numbers_[cross.second].offset;
    std::vector<Use> uses = cross.uses;
    std::vector<std::byte> fallback, payloads;
    slot.pairs = begin_slot(uses, fallback, arena);
    std::vector<double> codes;
    for (const Use& use : uses) codes.insert(codes.end(), use.lookup->codes.begin(), use.lookup->codes.end());
    std::sort(codes.begin(), codes.end());
    codes.erase(std::unique(codes.begin(), codes.end()), codes.end());
    const uint64_t n_second = numbers_[cross.second].values.size() + 1;
    std::string bytes;
    std::vector<size_t> next(uses.size());
    for (const double code : codes) {
      const uint32_t pair[] = {uint32_t(uint64_t(code) / n_second), uint32_t(uint64_t(code) % n_second)};
      bytes.append(reinterpret_cast<const char*>(pair), kPairBytes);
      for (size_t u = 0; u < uses.size(); ++u) {
        const LookupView& lookup = *uses[u].lookup;
        const bool known = next[u] < lookup.codes.size && lookup.codes[next[u]] == code;
        append(payloads, uses[u], known ? lookup.values[next[u]++] : lookup.default_value);
      }
    }
    std::vector<std::string_view> keys;
    for (size_t i = 0; i < codes.size(); ++i) keys.push_back(std::string_view(bytes).substr(i * kPairBytes, kPairBytes));
    slot.pairs.table = build_string_table(keys, payloads, fallback, kernels.hash, arena);
    return slot;
  }

  std::deque<Number> numbers_;  // uses point into them
  std::vector<Cross> crosses_;
};

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
  Crosses crosses;
  const auto add = [&](const Use& use) {
    if (use.lookup->is_cross) {
      crosses.add(use);
    } else {
      uses[size_t(use.lookup->slot)].push_back(use);
    }
  };
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
        add({&column.lookup, &lane, column.rewrite, bytes, offset});
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
      add({&term, nullptr, Rewrite::none, false, uint32_t(end)});
      end += sizeof(double);
    }
  }
  crosses.place(end, uses);
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
  const std::vector<CrossSlot> cross_slots = crosses.build(kernels, arena);
  crosses_ = arena.copy(cross_slots);
  n_crosses_ = cross_slots.size();

  auto* blank = static_cast<std::byte*>(arena.allocate(row_bytes_));
  std::memset(blank, 0, row_bytes_);
  const std::vector<double> missing(size_t(n_numbers), std::numeric_limits<double>::quiet_NaN());
  set_numbers(blank, 0, n_numbers, missing.data());
  for (int slot = 0; slot < n_categories; ++slot) set_category(blank, slot, "", 0);
  if (has_crosses()) set_crosses(blank);
  blank_ = blank;
}

}  // namespace bidml
