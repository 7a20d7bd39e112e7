#include "numbers.h"

#include <limits>

namespace bidml {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr size_t kBlock = 8;
constexpr size_t kMostSearched = 4096;

void pad(std::vector<double>& level) { level.resize((level.size() / kBlock + 1) * kBlock, kInfinity); }

// The last of every full block: a block with padding is never passed.
std::vector<double> last_of_blocks(const std::vector<double>& level) {
  std::vector<double> lasts;
  for (size_t i = kBlock - 1; i < level.size(); i += kBlock) lasts.push_back(level[i]);
  return lasts;
}

}  // namespace

NumberSlot build_number_slot(const std::vector<double>& points, Arena& arena) {
  NumberSlot slot;
  slot.n_breaks = uint32_t(points.size());
  std::vector<std::vector<double>> levels{points};  // bottom first
  if (points.size() > kMostSearched) {
    slot.n_levels = kBisected;
  } else {
    while (levels.back().size() > kBlock) levels.push_back(last_of_blocks(levels.back()));
    slot.n_levels = uint16_t(levels.size());
  }
  std::vector<double> blocks;
  for (size_t i = levels.size(); i-- > 0;) {
    const size_t below_top = levels.size() - 1 - i;
    if (below_top > 0) slot.starts[below_top - 1] = uint16_t(blocks.size());
    pad(levels[i]);
    blocks.insert(blocks.end(), levels[i].begin(), levels[i].end());
  }
  slot.blocks = arena.copy(blocks);
  return slot;
}

}  // namespace bidml
