#include "lanes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "reference.h"

namespace bidml {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void sort_distinct(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

size_t position(const std::vector<double>& sorted, double x) {
  return size_t(std::lower_bound(sorted.begin(), sorted.end(), x) - sorted.begin());
}

bool contains(const std::vector<double>& sorted, double x) {
  const size_t at = position(sorted, x);
  return at < sorted.size() && sorted[at] == x;
}

// Doubles in order as integers, so that the set of all doubles can be bisected.
int64_t ordered(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits >= 0 ? bits : std::numeric_limits<int64_t>::min() - bits;
}

double from_ordered(int64_t order) {
  const int64_t bits = order >= 0 ? order : std::numeric_limits<int64_t>::min() - order;
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The greatest raw x with trunc(x) <= t, by bisection over all doubles: trunc is monotone.
double last_truncated_to(double t) {
  int64_t low = ordered(-kInfinity), high = ordered(kInfinity);
  while (low < high) {
    const int64_t middle = high - int64_t((uint64_t(high) - uint64_t(low)) / 2);
    if (std::trunc(from_ordered(middle)) <= t) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return from_ordered(low);
}

double below(double x) { return std::nextafter(x, -kInfinity); }

// Collects the nodes of one column that share a kind, and their sets.
struct ColumnUse {
  std::vector<size_t> nodes;           // threshold nodes
  std::vector<size_t> members;         // membership nodes
  std::vector<std::vector<double>> sets;  // alongside members, sorted
};

class Planner {
 public:
  explicit Planner(const HeadView& head) : head_(head), uses_(head.columns.size()) {
    const TreesView& t = head.trees;
    size_t member = 0;
    for (size_t i = 0; i < t.column.size; ++i) {
      // A tree of one leaf decides nothing: no lane needs to know its threshold.
      if (t.mode[i] == 0 && t.true_is_leaf[i] && t.false_is_leaf[i] && t.true_child[i] == t.false_child[i]) continue;
      ColumnUse& use = uses_[size_t(t.column[i])];
      if (t.mode[i] == 0) {
        use.nodes.push_back(i);
        continue;
      }
      use.members.push_back(i);
      std::vector<double>& set = use.sets.emplace_back();
      while (!std::isnan(t.membership[member])) set.push_back(t.membership[member++]);
      ++member;
      sort_distinct(set);
    }
  }

  HeadLanes plan(bool flags) {
    plan_ = HeadLanes{};
    plan_.nodes.assign(head_.trees.column.size, LaneNode{0, 0});
    for (size_t column = 0; column < uses_.size(); ++column) {
      thresholds(int(column), uses_[column].nodes);
      if (flags) {
        member_flags(int(column), uses_[column]);
      } else {
        member_positions(int(column), uses_[column]);
      }
    }
    return std::move(plan_);
  }

 private:
  bool missing_true(size_t node) const { return head_.trees.missing_true[node] != 0; }

  // One lane if NaN's rank can serve all nodes; else the nodes that send NaN one way, and the others.
  void thresholds(int column, const std::vector<size_t>& nodes) {
    std::vector<size_t> to_true, to_false;
    for (size_t node : nodes) (missing_true(node) ? to_true : to_false).push_back(node);
    const auto is_lower = [this](size_t a, size_t b) { return head_.trees.threshold[a] < head_.trees.threshold[b]; };
    if (to_true.empty() || to_false.empty() ||
        is_lower(*std::max_element(to_false.begin(), to_false.end(), is_lower),
                 *std::min_element(to_true.begin(), to_true.end(), is_lower))) {
      if (!nodes.empty()) threshold_lane(column, nodes);
      return;
    }
    threshold_lane(column, to_true);
    threshold_lane(column, to_false);
  }

  // NaN ranks just above the last threshold whose node sends it to the false side.
  void threshold_lane(int column, const std::vector<size_t>& nodes) {
    Lane lane;
    lane.column = column;
    for (size_t node : nodes) lane.steps.push_back(head_.trees.threshold[node]);
    sort_distinct(lane.steps);
    lane.n_values = uint32_t(lane.steps.size()) + 1;
    for (size_t node : nodes) {
      const auto k = uint32_t(position(lane.steps, head_.trees.threshold[node]));
      if (!missing_true(node)) lane.missing = std::max(lane.missing, k + 1);
    }
    for (size_t node : nodes) {
      const size_t k = position(lane.steps, head_.trees.threshold[node]);
      plan_.nodes[node] = {uint32_t(plan_.lanes.size()), uint32_t(k)};
    }
    plan_.lanes.push_back(std::move(lane));
  }

  void member_flags(int column, const ColumnUse& use) {
    std::map<std::pair<bool, std::vector<double>>, uint32_t> known;
    for (size_t i = 0; i < use.members.size(); ++i) {
      const bool side = missing_true(use.members[i]);
      const auto [found, is_new] = known.try_emplace({side, use.sets[i]}, uint32_t(plan_.lanes.size()));
      if (is_new) plan_.lanes.push_back(Lane{column, Lane::Kind::flag, use.sets[i], side ? 0u : 1u, 2});
      plan_.nodes[use.members[i]] = {found->second, 0};
    }
  }

  void member_positions(int column, const ColumnUse& use) {
    if (use.members.empty()) return;
    Lane lane;
    lane.column = column;
    lane.kind = Lane::Kind::position;
    for (const std::vector<double>& set : use.sets) lane.steps.insert(lane.steps.end(), set.begin(), set.end());
    sort_distinct(lane.steps);
    const uint32_t n = uint32_t(lane.steps.size());
    lane.missing = n + 1;  // n is: none of them
    lane.n_values = n + 2;
    for (size_t i = 0; i < use.members.size(); ++i) {
      std::vector<uint32_t> bits((lane.n_values + 31) / 32);
      for (double member : use.sets[i]) {
        const size_t at = position(lane.steps, member);
        bits[at / 32] |= 1u << (at % 32);
      }
      if (missing_true(use.members[i])) bits[lane.missing / 32] |= 1u << (lane.missing % 32);
      plan_.nodes[use.members[i]] = {uint32_t(plan_.lanes.size()), uint32_t(plan_.bit_sets.size())};
      plan_.bit_sets.push_back(std::move(bits));
    }
    plan_.lanes.push_back(std::move(lane));
  }

  const HeadView& head_;
  std::vector<ColumnUse> uses_;
  HeadLanes plan_;
};

}  // namespace

uint32_t Lane::value(double x) const noexcept {
  if (std::isnan(x)) return missing;
  switch (kind) {
    case Kind::flag:
      return contains(steps, x) ? 0 : 1;
    case Kind::position:
      return contains(steps, x) ? uint32_t(position(steps, x)) : uint32_t(steps.size());
    case Kind::threshold:
      break;
  }
  return uint32_t(position(steps, x));
}

HeadLanes lanes_of(const HeadView& head) {
  Planner planner(head);
  HeadLanes plan = planner.plan(true);
  size_t longest = 0;
  for (const Lane& lane : plan.lanes) longest = std::max<size_t>(longest, lane.n_values);
  if (plan.lanes.size() > kByteLanes) {
    plan.why_not_bytes = std::to_string(plan.lanes.size()) + " lanes of at most " + std::to_string(kByteLanes);
  } else if (longest > kByteValues) {
    plan.why_not_bytes = "a column has " + std::to_string(longest - 1) + " thresholds of at most " + std::to_string(kByteValues - 1);
  } else {
    plan.bytes = true;
    return plan;
  }
  std::string why = plan.why_not_bytes;
  plan = planner.plan(false);
  plan.why_not_bytes = std::move(why);
  return plan;
}

std::vector<double> breakpoints(const std::vector<SlotLane>& lanes) {
  std::vector<double> points;
  for (const auto& [lane, rewrite] : lanes) {
    std::vector<double> steps = lane->steps;
    if (lane->kind != Lane::Kind::threshold) {
      for (double member : lane->steps) steps.push_back(below(member));
    }
    if (rewrite == Rewrite::zero_is_missing) {
      const double zero = 1.0000000180025095e-35;
      steps.push_back(below(-zero));
      steps.push_back(zero);
    }
    if (rewrite == Rewrite::truncate) {
      for (double& step : steps) step = last_truncated_to(step);
    }
    points.insert(points.end(), steps.begin(), steps.end());
  }
  sort_distinct(points);
  // No x is beyond +inf.
  if (!points.empty() && points.back() == kInfinity) points.pop_back();
  return points;
}

}  // namespace bidml
