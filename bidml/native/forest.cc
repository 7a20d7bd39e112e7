#include "forest.h"

#include <algorithm>
#include <array>

namespace bidml {
namespace {

constexpr uint32_t kShallow = 6, kShallowest = 3;
constexpr int64_t kPadding = -1;
constexpr uint32_t kLargestWalk = 60'000;  // nodes and leaves of a tree: distances are 16 bits

// What the sorter needs to know of a tree.
struct TreeSize {
  uint32_t depth = 0;    // nodes on the longest path; 0 for a single leaf
  uint32_t n_nodes = 0;  // internal
};

// The trees of a head with children by side, and one-leaf trees recognised.
class TreeReader {
 public:
  TreeReader(const HeadView& head, const HeadLanes& lanes) : t_(head.trees), lanes_(lanes) {}

  struct Side {
    bool is_leaf;
    int64_t at;
  };
  Side side(int64_t node, bool goes_true) const {
    return goes_true ? Side{t_.true_is_leaf[node] != 0, t_.true_child[node]}
                     : Side{t_.false_is_leaf[node] != 0, t_.false_child[node]};
  }
  Side root(size_t tree) const {
    const int64_t node = t_.roots[tree];
    const Side a = side(node, true), b = side(node, false);
    return a.is_leaf && b.is_leaf && a.at == b.at ? a : Side{false, node};
  }
  double leaf(int64_t at) const { return t_.leaf[size_t(at)]; }
  LaneNode node(int64_t at) const { return lanes_.nodes[size_t(at)]; }
  size_t n_trees() const { return t_.roots.size; }

  TreeSize size(size_t tree) const {
    TreeSize size;
    std::vector<std::pair<Side, uint32_t>> open{{root(tree), 0}};
    while (!open.empty()) {
      const auto [at, depth] = open.back();
      open.pop_back();
      size.depth = std::max(size.depth, depth);
      if (at.is_leaf) continue;
      ++size.n_nodes;
      open.push_back({side(at.at, true), depth + 1});
      open.push_back({side(at.at, false), depth + 1});
    }
    return size;
  }

 private:
  const TreesView& t_;
  const HeadLanes& lanes_;
};

using Order = std::vector<int64_t>;  // trees, or kPadding

void pad(Order& order, size_t multiple) {
  while (order.size() % multiple != 0) order.push_back(kPadding);
}

// ---- complete ----------------------------------------------------------------------------------------------------

void fill_complete(const TreeReader& reader, TreeReader::Side at, uint32_t depth, uint32_t cell, uint32_t level,
                   uint8_t* lanes, uint8_t* bars, double* leaves) {
  if (level == depth) {
    leaves[cell - (1u << depth)] = reader.leaf(at.at);
    return;
  }
  if (at.is_leaf) {  // nodes below never say false, so only the first leaf is reached
    fill_complete(reader, at, depth, 2 * cell, level + 1, lanes, bars, leaves);
    return;
  }
  const LaneNode node = reader.node(at.at);
  lanes[cell] = uint8_t(node.lane);
  bars[cell] = uint8_t(254 - node.k);
  fill_complete(reader, reader.side(at.at, true), depth, 2 * cell, level + 1, lanes, bars, leaves);
  fill_complete(reader, reader.side(at.at, false), depth, 2 * cell + 1, level + 1, lanes, bars, leaves);
}

CompleteForest build_complete(const TreeReader& reader, const Order& order, uint32_t depth, uint32_t n_lanes,
                              Arena& arena) {
  const size_t cells = size_t{1} << depth, trees_per_block = 64 / cells;
  const size_t n_blocks = order.size() / trees_per_block;
  std::vector<uint8_t> blocks(n_blocks * 128);
  std::vector<double> leaves(order.size() * cells);
  for (size_t t = 0; t < order.size(); ++t) {
    if (order[t] == kPadding) continue;
    uint8_t* lanes = blocks.data() + t / trees_per_block * 128 + t % trees_per_block * cells;
    fill_complete(reader, reader.root(size_t(order[t])), depth, 1, 0, lanes, lanes + 64, leaves.data() + t * cells);
  }
  return {arena.copy(blocks), arena.copy(leaves), uint32_t(n_blocks / 8), depth, n_lanes};
}

// ---- leaf-wise ---------------------------------------------------------------------------------------------------

class LeafwiseBuilder {
 public:
  LeafwiseBuilder(const TreeReader& reader, size_t n_blocks)
      : reader_(reader), blocks_(n_blocks * 192), true_leaf_(n_blocks), leaves_(n_blocks * 64) {}

  // Puts a tree at `root` of a block, or a tree of zeros for kPadding.
  void add(int64_t tree, size_t block, uint32_t root) {
    block_ = block;
    next_ = root;
    false_leaves_.clear();
    if (tree == kPadding) {
      true_leaf_[block_] |= uint64_t{1} << root;
      field(2)[root] = uint8_t(64 + root);
      return;
    }
    node(reader_.root(size_t(tree)).at);
    uint32_t free = root;
    for (const auto& [node, value] : false_leaves_) {
      while (true_leaf_[block_] >> free & 1) ++free;
      field(2)[node] = uint8_t(64 + free);
      leaves_[block_ * 64 + free++] = value;
    }
  }

  LeafwiseForest finish(const std::vector<uint8_t>& steps, uint32_t trees_per_block, uint32_t n_lanes,
                        Arena& arena) const {
    return {arena.copy(blocks_), arena.copy(true_leaf_), arena.copy(leaves_), arena.copy(steps),
            uint32_t(steps.size()), trees_per_block, n_lanes};
  }

 private:
  uint8_t* field(uint32_t which) { return blocks_.data() + block_ * 192 + which * 64; }

  void node(int64_t at) {
    const uint32_t mine = next_++;
    const LaneNode node_here = reader_.node(at);
    field(0)[mine] = uint8_t(node_here.lane);
    field(1)[mine] = uint8_t(node_here.k);
    const TreeReader::Side yes = reader_.side(at, true), no = reader_.side(at, false);
    if (yes.is_leaf) {
      true_leaf_[block_] |= uint64_t{1} << mine;
      leaves_[block_ * 64 + mine] = reader_.leaf(yes.at);
    } else {
      node(yes.at);
    }
    if (no.is_leaf) {
      false_leaves_.emplace_back(mine, reader_.leaf(no.at));
    } else {
      field(2)[mine] = uint8_t(next_);
      node(no.at);
    }
  }

  const TreeReader& reader_;
  std::vector<uint8_t> blocks_;
  std::vector<uint64_t> true_leaf_;
  std::vector<double> leaves_;
  std::vector<std::pair<uint32_t, double>> false_leaves_;  // of the tree at hand: node, value
  size_t block_ = 0;
  uint32_t next_ = 0;
};

// order: chunk by chunk, part by part, block by block, so that tree t adds to accumulator t mod 8, its block.
LeafwiseForest build_leafwise(const TreeReader& reader, const Order& order, const std::vector<TreeSize>& sizes,
                              uint32_t trees_per_block, uint32_t n_lanes, Arena& arena) {
  const size_t chunk = 8 * trees_per_block;
  LeafwiseBuilder builder(reader, order.size() / trees_per_block);
  std::vector<uint8_t> steps;
  for (size_t t = 0; t < order.size(); ++t) {
    if (t % chunk == 0) steps.push_back(1);
    const uint32_t part = uint32_t(t % chunk / 8);
    builder.add(order[t], t / chunk * 8 + t % 8, part * (64 / trees_per_block));
    if (order[t] == kPadding) continue;
    const uint32_t depth = sizes[size_t(order[t])].depth, stride = leafwise_stride(trees_per_block);
    steps.back() = std::max(steps.back(), uint8_t((depth + stride - 1) / stride));
  }
  return builder.finish(steps, trees_per_block, n_lanes, arena);
}

// ---- walks -------------------------------------------------------------------------------------------------------

WalkForest build_walk(const TreeReader& reader, const Order& order, Arena& arena) {
  constexpr uint32_t leaf_node = 255u << 8;
  std::vector<uint32_t> nodes, roots;
  std::vector<double> leaves;
  for (int64_t tree : order) {
    roots.push_back(uint32_t(nodes.size()));
    nodes.push_back(leaf_node);
    leaves.push_back(0.0);
    if (tree == kPadding) continue;
    std::vector<std::pair<TreeReader::Side, size_t>> open{{reader.root(size_t(tree)), nodes.size() - 1}};
    for (size_t i = 0; i < open.size(); ++i) {  // breadth first: siblings are neighbours
      const auto [at, place] = open[i];
      if (at.is_leaf) {
        leaves[place] = reader.leaf(at.at);
        continue;
      }
      const LaneNode node = reader.node(at.at);
      const size_t pair = nodes.size();
      nodes[place] = node.lane | node.k << 8 | uint32_t(pair - place) << 16;
      nodes.insert(nodes.end(), 2, leaf_node);
      leaves.insert(leaves.end(), 2, 0.0);
      open.push_back({reader.side(at.at, true), pair});
      open.push_back({reader.side(at.at, false), pair + 1});
    }
  }
  return {arena.copy(nodes), arena.copy(leaves), arena.copy(roots), uint32_t(roots.size())};
}

WideForest build_wide(const TreeReader& reader, const HeadLanes& lanes, Arena& arena) {
  std::vector<WideNode> nodes;
  std::vector<double> leaves;
  std::vector<uint32_t> roots, bit_sets, starts;
  for (const std::vector<uint32_t>& bits : lanes.bit_sets) {
    starts.push_back(uint32_t(bit_sets.size()));
    bit_sets.insert(bit_sets.end(), bits.begin(), bits.end());
  }
  const auto add_leaf = [&] {
    nodes.push_back({0, ~uint32_t{0}, uint32_t(nodes.size()), 0});
    leaves.push_back(0.0);
    return nodes.size() - 1;
  };
  for (size_t tree = 0; tree < (reader.n_trees() + 7) / 8 * 8; ++tree) {
    roots.push_back(uint32_t(add_leaf()));
    if (tree >= reader.n_trees()) continue;
    std::vector<std::pair<TreeReader::Side, size_t>> open{{reader.root(tree), roots.back()}};
    while (!open.empty()) {  // depth first, true side first
      const auto [at, place] = open.back();
      open.pop_back();
      if (at.is_leaf) {
        leaves[place] = reader.leaf(at.at);
        continue;
      }
      const LaneNode node = reader.node(at.at);
      const Lane& lane = lanes.lanes[node.lane];
      const bool is_set = lane.kind == Lane::Kind::position;
      const size_t side = add_leaf();
      add_leaf();
      nodes[place] = {node.lane, is_set ? starts[node.k] : node.k, uint32_t(side), is_set ? lane.n_values : 0};
      open.push_back({reader.side(at.at, false), side + 1});
      open.push_back({reader.side(at.at, true), side});
    }
  }
  return {arena.copy(nodes),    arena.copy(leaves),     arena.copy(roots),
          arena.copy(bit_sets), uint32_t(roots.size()), !bit_sets.empty()};
}

// ---- sorting -----------------------------------------------------------------------------------------------------

// Trees by the shape they run in.
struct Shapes {
  std::array<Order, kShallow + 1> complete;  // by depth
  std::array<Order, 3> leafwise;             // 4, 2 and 1 trees per block
  Order walk;
};

Shapes sorted_into_shapes(const std::vector<TreeSize>& sizes) {
  Shapes shapes;
  for (size_t t = 0; t < sizes.size(); ++t) {
    const TreeSize& size = sizes[t];
    const auto tree = int64_t(t);
    if (size.depth <= kShallow) {
      shapes.complete[std::max(size.depth, kShallowest)].push_back(tree);
    } else if (size.n_nodes < 64) {
      shapes.leafwise[size.n_nodes < 16 ? 0 : size.n_nodes < 32 ? 1 : 2].push_back(tree);
    } else {
      shapes.walk.push_back(tree);
    }
  }
  // What does not fill a group of its own runs with the next deeper trees.
  for (uint32_t depth = kShallowest; depth < kShallow; ++depth) {
    Order& mine = shapes.complete[depth];
    const auto is_filled = [](const Order& order) { return !order.empty(); };
    if (std::none_of(shapes.complete.begin() + depth + 1, shapes.complete.end(), is_filled)) break;
    const size_t whole = mine.size() / (512u >> depth) * (512u >> depth);
    Order& deeper = shapes.complete[depth + 1];
    deeper.insert(deeper.begin(), mine.begin() + int64_t(whole), mine.end());
    mine.resize(whole);
  }
  for (Order& order : shapes.leafwise) {
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return sizes[size_t(a)].depth < sizes[size_t(b)].depth; });
  }
  return shapes;
}

void append(std::string& text, const std::string& more) { text += (text.empty() ? "" : " + ") + more; }

}  // namespace

Forest::Forest(const HeadView& head, const HeadLanes& lanes, const Kernels& kernels, Arena& arena) {
  const TreeReader reader(head, lanes);
  std::vector<TreeSize> sizes;
  uint32_t largest = 0;
  for (size_t t = 0; t < reader.n_trees(); ++t) {
    sizes.push_back(reader.size(t));
    largest = std::max(largest, 2 * sizes.back().n_nodes + 1);
  }
  if (!lanes.bytes || largest > kLargestWalk) {
    why_ = lanes.bytes ? "a tree of " + std::to_string(largest) + " nodes and leaves" : lanes.why_not_bytes;
    shape_ = "wide walk";
    wide_.push_back(build_wide(reader, lanes, arena));
    return;
  }
  const uint32_t n_lanes = lanes.lanes.size() <= 32 ? 32 : lanes.lanes.size() <= 64 ? 64 : 128;
  Shapes shapes = sorted_into_shapes(sizes);
  for (uint32_t depth = kShallowest; depth <= kShallow; ++depth) {
    Order& order = shapes.complete[depth];
    if (order.empty()) continue;
    pad(order, 512u >> depth);
    complete_.push_back(build_complete(reader, order, depth, n_lanes, arena));
    append(shape_, "complete depth " + std::to_string(depth));
  }
  for (size_t i = 0; i < shapes.leafwise.size(); ++i) {
    Order& order = shapes.leafwise[i];
    if (order.empty()) continue;
    const uint32_t trees_per_block = 4u >> i;
    append(why_, std::to_string(order.size()) + " trees deeper than " + std::to_string(kShallow));
    pad(order, 8 * trees_per_block);
    if (kernels.leafwise != nullptr) {
      leafwise_.push_back(build_leafwise(reader, order, sizes, trees_per_block, n_lanes, arena));
      append(shape_, "leafwise " + std::to_string(64 / trees_per_block));
    } else {
      walk_.push_back(build_walk(reader, order, arena));
      append(shape_, "walk");
    }
  }
  if (!shapes.walk.empty()) {
    append(why_, std::to_string(shapes.walk.size()) + " trees of over 64 leaves");
    pad(shapes.walk, 8);
    walk_.push_back(build_walk(reader, shapes.walk, arena));
    append(shape_, "walk");
  }
}

double Forest::sum(const Kernels& kernels, const std::byte* ranks) const noexcept {
  const auto* bytes = reinterpret_cast<const uint8_t*>(ranks);
  double sum = 0.0;
  for (const CompleteForest& forest : complete_) sum += kernels.complete(forest, bytes);
  for (const LeafwiseForest& forest : leafwise_) sum += kernels.leafwise(forest, bytes);
  for (const WalkForest& forest : walk_) sum += kernels.walk(forest, bytes);
  for (const WideForest& forest : wide_) sum += wide_walk(forest, reinterpret_cast<const uint32_t*>(ranks));
  return sum;
}

std::string Forest::shape() const { return shape_.empty() ? "no trees" : shape_; }

}  // namespace bidml
