#include "reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace bidml {

double rewritten(double x, Rewrite rewrite) noexcept {
  constexpr double lightgbm_zero = 1.0000000180025095e-35;  // float32(1e-35), as LightGBM compares
  switch (rewrite) {
    case Rewrite::zero_is_missing:
      return std::abs(x) <= lightgbm_zero ? std::numeric_limits<double>::quiet_NaN() : x;
    case Rewrite::truncate:
      return std::trunc(x);
    case Rewrite::none:
      break;
  }
  return x;
}

ReferenceHead::Keys::Keys(int slot, Span<std::string_view> keys) : slot(slot), starts{0} {
  for (const std::string_view key : keys) {
    text += key;
    starts.push_back(text.size());
  }
}

size_t ReferenceHead::Keys::operator()(const TextRef* categories) const {
  size_t low = 0, high = size();
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const auto key = std::string_view(text).substr(starts[middle], starts[middle + 1] - starts[middle]);
    const int order = std::string_view(categories[slot]).compare(key);
    if (order == 0) return middle;
    (order < 0 ? high : low) = order < 0 ? middle : middle + 1;
  }
  return size();
}

ReferenceHead::Lookup::Lookup(const LookupView& view)
    : codes(view.codes.begin(), view.codes.end()),
      values(view.values.begin(), view.values.end()),
      default_value(view.default_value) {
  if (view.is_cross) {
    keys.emplace_back(view.first.slot, view.first.keys);
    keys.emplace_back(view.second.slot, view.second.keys);
  } else {
    keys.emplace_back(view.slot, view.keys);
  }
}

double ReferenceHead::Lookup::operator()(const TextRef* categories) const {
  size_t at = keys[0](categories);
  if (keys.size() == 2) {
    const double code = double(at) * double(keys[1].size() + 1) + double(keys[1](categories));
    const auto found = std::lower_bound(codes.begin(), codes.end(), code);
    at = found != codes.end() && *found == code ? size_t(found - codes.begin()) : values.size();
  }
  return at < values.size() ? values[at] : default_value;
}

ReferenceHead::ReferenceHead(const HeadView& head)
    : intercept_(head.intercept), scale_(head.scale), divisor_(head.divisor) {
  for (const ColumnView& column : head.columns) {
    Column& mine = columns_.emplace_back(Column{column.is_category ? -1 : column.slot, {}, column.rewrite});
    if (column.is_category) mine.lookup.emplace_back(column.lookup);
  }
  for (const LookupView& term : head.terms) terms_.emplace_back(term);
  if (!head.has_trees) return;
  const TreesView& t = head.trees;
  roots_.assign(t.roots.begin(), t.roots.end());
  leaves_.assign(t.leaf.begin(), t.leaf.end());
  size_t member = 0;
  for (size_t i = 0; i < t.column.size; ++i) {
    int32_t set = -1;
    if (t.mode[i] != 0) {
      set = int32_t(sets_.size());
      sets_.emplace_back();
      while (!std::isnan(t.membership[member])) sets_.back().push_back(t.membership[member++]);
      ++member;
    }
    nodes_.push_back(Node{t.threshold[i], int32_t(t.column[i]), int32_t(t.true_child[i]), int32_t(t.false_child[i]), set,
                          t.true_is_leaf[i] != 0, t.false_is_leaf[i] != 0, t.missing_true[i] != 0});
  }
}

double ReferenceHead::tree(int64_t root, const double* x) const {
  for (int64_t i = root;;) {
    const Node& node = nodes_[i];
    const double value = x[node.column];
    bool goes_true;
    if (std::isnan(value)) {
      goes_true = node.missing_true;
    } else if (node.set < 0) {
      goes_true = value <= node.threshold;
    } else {
      goes_true = false;
      for (double member : sets_[node.set]) goes_true |= value == member;
    }
    i = goes_true ? node.true_child : node.false_child;
    if (goes_true ? node.true_is_leaf : node.false_is_leaf) return leaves_[i];
  }
}

double ReferenceHead::margin(const double* numbers, const TextRef* categories) const {
  std::vector<double> x;
  x.reserve(columns_.size());
  for (const Column& column : columns_) {
    const double raw = column.number_slot >= 0 ? numbers[column.number_slot] : column.lookup[0](categories);
    x.push_back(rewritten(raw, column.rewrite));
  }
  double sum = 0.0;
  for (int64_t root : roots_) sum += tree(root, x.data());
  double margin = sum / divisor_ * scale_ + intercept_;
  for (const Lookup& term : terms_) margin += term(categories);
  return margin;
}

}  // namespace bidml
