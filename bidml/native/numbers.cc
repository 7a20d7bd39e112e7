#include "numbers.h"

#include <limits>

namespace bidml {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void pad(std::vector<double>& level) {
  level.resize(level.size() / 16 * 16 + 16, kInfinity);
  if (level[level.size() - 16] != kInfinity) level.insert(level.end(), 16, kInfinity);
}

std::vector<double> last_of_blocks(const std::vector<double>& level) {
  std::vector<double> lasts;
  for (size_t i = 15; i < level.size(); i += 16) lasts.push_back(level[i]);
  while (!lasts.empty() && lasts.back() == kInfinity) lasts.pop_back();
  return lasts;
}

}  // namespace

NumberSlot build_number_slot(const std::vector<double>& points, Arena& arena) {
  NumberSlot slot;
  slot.n_breaks = uint32_t(points.size());
  std::vector<double> bottom = points;
  pad(bottom);
  std::vector<double> middle = last_of_blocks(bottom);
  slot.n_levels = points.size() <= 16 ? 1 : middle.size() <= 16 ? 2 : middle.size() <= 256 ? 3 : 4;
  slot.bottom = arena.copy(bottom);
  if (slot.n_levels == 2 || slot.n_levels == 3) {
    pad(middle);
    slot.middle = arena.copy(middle);
  }
  if (slot.n_levels == 3) {
    std::vector<double> top = last_of_blocks(middle);
    top.resize(16, kInfinity);
    slot.top = arena.copy(top);
  }
  return slot;
}

}  // namespace bidml
