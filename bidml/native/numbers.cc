#include "numbers.h"

#include <limits>

#include "reference.h"

namespace bidml {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void pad(std::vector<double>& level) {
  do level.push_back(kInfinity);
  while (level.size() % 16 != 0);
  if (level[level.size() - 16] != kInfinity) level.insert(level.end(), 16, kInfinity);
}

std::vector<double> last_of_blocks(const std::vector<double>& level) {
  std::vector<double> lasts;
  for (size_t i = 15; i < level.size(); i += 16) lasts.push_back(level[i]);
  while (!lasts.empty() && lasts.back() == kInfinity) lasts.pop_back();
  return lasts;
}

}  // namespace

NumberSlot build_number_slot(const std::vector<PlacedLane>& lanes, Arena& arena) {
  NumberSlot slot;
  if (lanes.empty()) return slot;
  std::vector<SlotLane> steps;
  for (const PlacedLane& placed : lanes) steps.push_back({placed.lane, placed.rewrite});
  const std::vector<double> points = breakpoints(steps);
  slot.n_breaks = uint32_t(points.size());

  std::vector<ByteTarget> bytes;
  std::vector<WordTarget> words;
  for (const PlacedLane& placed : lanes) {
    std::vector<uint32_t> values;
    for (double point : points) values.push_back(placed.lane->value(rewritten(point, placed.rewrite)));
    values.push_back(placed.lane->value(rewritten(kInfinity, placed.rewrite)));
    values.push_back(placed.lane->missing);
    if (placed.is_byte) {
      bytes.push_back({placed.offset, arena.copy(std::vector<uint8_t>(values.begin(), values.end()))});
    } else {
      words.push_back({placed.offset, arena.copy(values)});
    }
  }
  slot.bytes = arena.copy(bytes);
  slot.n_bytes = uint32_t(bytes.size());
  slot.words = arena.copy(words);
  slot.n_words = uint32_t(words.size());

  std::vector<double> bottom = points;
  pad(bottom);
  std::vector<double> middle = last_of_blocks(bottom);
  std::vector<double> top = middle.size() > 16 ? middle : std::vector<double>{};
  slot.n_levels = points.size() <= 16 ? 1 : middle.size() <= 16 ? 2 : middle.size() <= 256 ? 3 : 4;
  slot.bottom = arena.copy(bottom);
  if (slot.n_levels == 2 || slot.n_levels == 3) {
    pad(middle);
    slot.middle = arena.copy(middle);
  }
  if (slot.n_levels == 3) {
    top = last_of_blocks(middle);
    top.resize(16, kInfinity);
    slot.top = arena.copy(top);
  }
  return slot;
}

}  // namespace bidml
