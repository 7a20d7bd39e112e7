#include "validate.h"

#include <cmath>
#include <cstdio>
#include <set>
#include <stdexcept>
#include <tuple>

namespace bidml {
namespace {

constexpr uint8_t kLeq = 0;
constexpr uint8_t kMember = 6;

std::string text(double value) {
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.17g", value);
  return buffer;
}

// A macro, so that the words of an error are put together where there is one only: they took most of a load.
#define DEMAND(holds, rule, found, remedy)     \
  do {                                         \
    if (!(holds)) refuse(rule, found, remedy); \
  } while (false)

// One head at a time; `where_` names it in messages.
class Checker {
 public:
  Checker(int n_numbers, int n_categories) : n_numbers_(n_numbers), n_categories_(n_categories) {}

  void head(const HeadView& head, size_t index) {
    where_ = "head " + std::to_string(index) + ": ";
    DEMAND(head.columns.size() <= kMaxColumns, "at most " + std::to_string(kMaxColumns) + " columns",
           std::to_string(head.columns.size()), "use fewer features");
    DEMAND(std::isfinite(head.intercept), "intercept is finite", text(head.intercept), "export the model again");
    DEMAND(std::isfinite(head.scale), "scale is finite", text(head.scale), "export the model again");
    DEMAND(std::isfinite(head.divisor) && head.divisor > 0, "divisor is positive and finite", text(head.divisor),
           "export the model again");
    for (const ColumnView& column : head.columns) {
      if (column.is_category) {
        lookup(column.lookup, true);
      } else {
        slot(column.slot, n_numbers_, "number slot");
      }
      DEMAND(column.rewrite <= Rewrite::truncate, "rewrite is none, zero_is_missing or truncate",
             std::to_string(int(column.rewrite)), "export the model again");
    }
    DEMAND(head.terms.size() <= kMaxColumns, "at most " + std::to_string(kMaxColumns) + " terms",
           std::to_string(head.terms.size()), "use fewer features");
    for (const LookupView& term : head.terms) lookup(term, false);
    if (head.has_trees) trees(head.trees, head.columns.size());
  }

  size_t n_keys = 0;
  size_t n_nodes = 0;

 private:
  [[noreturn]] void refuse(const std::string& rule, const std::string& found, const char* remedy) const {
    throw std::invalid_argument(where_ + rule + "; found " + found + "; " + remedy);
  }

  void slot(int slot, int n_slots, const char* what) const {
    DEMAND(slot >= 0 && slot < n_slots, std::string(what) + " is in [0, " + std::to_string(n_slots) + ")",
           std::to_string(slot), "pass the slots of the spec");
  }

  void lookup(const LookupView& lookup, bool missing_allowed) {
    const size_t n = lookup.is_cross ? lookup.codes.size : lookup.keys.size;
    DEMAND(n == lookup.values.size, "a lookup has one value per key",
           std::to_string(lookup.values.size) + " values for " + std::to_string(n) + " keys",
           "export the model again");
    if (lookup.is_cross) {
      cross(lookup);
    } else {
      keys(lookup.slot, lookup.keys);
    }
    for (size_t i = 0; i < n; ++i) value(lookup.values[i], missing_allowed);
    value(lookup.default_value, missing_allowed);
  }

  void keys(int of_slot, const Span<std::string_view>& keys) {
    slot(of_slot, n_categories_, "category slot");
    count(keys.size);
    for (size_t i = 1; i < keys.size; ++i) {
      DEMAND(keys[i - 1] < keys[i], "the keys of a lookup are distinct and ascending",
             std::string(keys[i].substr(0, 100)), "sort them");
    }
  }

  void cross(const LookupView& lookup) {
    for (const VocabularyView* vocabulary : {&lookup.first, &lookup.second}) {
      // those that lookups share are looked at once
      if (!vocabularies_.insert({vocabulary->slot, vocabulary->keys.data}).second) continue;
      keys(vocabulary->slot, vocabulary->keys);
    }
    crosses_.insert({lookup.first.slot, lookup.first.keys.data, lookup.second.slot, lookup.second.keys.data});
    DEMAND(crosses_.size() <= kMaxCrosses, "at most " + std::to_string(kMaxCrosses) + " crosses",
           std::to_string(crosses_.size()), "cross fewer categories");
    count(lookup.codes.size);
    const double n_pairs = double(lookup.first.keys.size + 1) * double(lookup.second.keys.size + 1);
    for (size_t i = 0; i < lookup.codes.size; ++i) {
      const double code = lookup.codes[i];
      DEMAND(code >= 0.0 && code < n_pairs && code == std::trunc(code), "the code of a pair is an integer in range",
             text(code), "export the model again");
      DEMAND(i == 0 || lookup.codes[i - 1] < code, "the codes of a cross are distinct and ascending", text(code),
             "sort them");
    }
  }

  void count(size_t n) {
    n_keys += n;
    DEMAND(n_keys <= kMaxKeys, "at most " + std::to_string(kMaxKeys) + " keys in all", std::to_string(n_keys),
           "drop rare categories");
  }

  void value(double value, bool missing_allowed) const {
    if (missing_allowed) {
      DEMAND(!std::isinf(value), "a lookup value is finite or NaN", text(value), "export the model again");
    } else {
      DEMAND(std::abs(value) <= kMaxAbsLeaf, "a term is finite and at most 1e6", text(value), "export the model again");
    }
  }

  void trees(const TreesView& t, size_t n_columns) {
    const size_t n = t.column.size;
    DEMAND(t.roots.size <= kMaxTrees, "at most " + std::to_string(kMaxTrees) + " trees", std::to_string(t.roots.size),
           "train fewer");
    n_nodes += n;
    DEMAND(n_nodes <= kMaxNodes, "at most " + std::to_string(kMaxNodes) + " nodes in all", std::to_string(n_nodes),
           "train smaller trees");
    DEMAND(t.leaf.size <= 2 * kMaxNodes, "at most " + std::to_string(2 * kMaxNodes) + " leaves",
           std::to_string(t.leaf.size), "train smaller trees");
    const size_t sizes[] = {t.mode.size,         t.threshold.size,     t.true_child.size,  t.false_child.size,
                            t.true_is_leaf.size, t.false_is_leaf.size, t.missing_true.size};
    for (size_t size : sizes) {
      DEMAND(size == n, "all node arrays have the same length", std::to_string(size) + " and " + std::to_string(n),
             "export the model again");
    }
    for (double leaf : t.leaf) {
      DEMAND(std::abs(leaf) <= kMaxAbsLeaf, "a leaf is finite and at most 1e6", text(leaf), "export the model again");
    }

    constexpr uint32_t unreached = 0;
    std::vector<uint32_t> depth(n, unreached);  // of a node: 1 for a root
    for (int64_t root : t.roots) {
      DEMAND(root >= 0 && size_t(root) < n, "a root is a node", std::to_string(root), "export the model again");
      DEMAND(depth[root] == unreached, "every node belongs to one tree", "node " + std::to_string(root) + " twice",
             "export the model again");
      depth[root] = 1;
    }
    size_t n_members = 0;
    for (size_t i = 0; i < n; ++i) {
      DEMAND(t.column[i] >= 0 && size_t(t.column[i]) < n_columns,
             "a node's column is in [0, " + std::to_string(n_columns) + ")", std::to_string(t.column[i]),
             "export the model again");
      DEMAND(t.mode[i] == kLeq || t.mode[i] == kMember, "a node's mode is 0 or 6", std::to_string(t.mode[i]),
             "export the model again");
      // LightGBM splits missing values from all others by a threshold of +inf.
      DEMAND(!std::isnan(t.threshold[i]), "a threshold is a number", text(t.threshold[i]), "export the model again");
      DEMAND((t.missing_true[i] & ~int64_t{1}) == 0, "missing_true is 0 or 1", std::to_string(t.missing_true[i]),
             "export the model again");
      DEMAND(depth[i] != unreached, "every node belongs to one tree", "node " + std::to_string(i) + " in none before it",
             "export the model again");
      DEMAND(depth[i] <= kMaxDepth, "a tree is at most " + std::to_string(kMaxDepth) + " deep",
             std::to_string(depth[i]), "train with max_depth");
      n_members += t.mode[i] == kMember;
      child(t, depth, i, t.true_child[i], t.true_is_leaf[i]);
      child(t, depth, i, t.false_child[i], t.false_is_leaf[i]);
    }

    size_t n_sets = 0;
    for (double member : t.membership) {
      DEMAND(!std::isinf(member), "a member is finite", text(member), "export the model again");
      n_sets += std::isnan(member);
    }
    const bool closed = t.membership.size == 0 || std::isnan(t.membership[t.membership.size - 1]);
    DEMAND(closed && n_sets == n_members, "each membership node has one set closed by NaN",
           std::to_string(n_sets) + " sets for " + std::to_string(n_members) + " nodes", "export the model again");
  }

  void child(const TreesView& t, std::vector<uint32_t>& depth, size_t parent, int64_t child, int64_t is_leaf) const {
    DEMAND((is_leaf & ~int64_t{1}) == 0, "is_leaf is 0 or 1", std::to_string(is_leaf), "export the model again");
    if (is_leaf) {
      DEMAND(child >= 0 && size_t(child) < t.leaf.size,
             "a leaf index is in [0, " + std::to_string(t.leaf.size) + ")", std::to_string(child),
             "export the model again");
      return;
    }
    DEMAND(child > int64_t(parent) && size_t(child) < t.column.size, "a child comes after its parent",
           std::to_string(child) + " below " + std::to_string(parent), "export the model again");
    DEMAND(depth[child] == 0, "every node belongs to one tree", "node " + std::to_string(child) + " twice",
           "export the model again");
    depth[child] = depth[parent] + 1;
  }

  int n_numbers_;
  int n_categories_;
  std::set<std::pair<int, const std::string_view*>> vocabularies_;
  std::set<std::tuple<int, const std::string_view*, int, const std::string_view*>> crosses_;
  std::string where_;
};

#undef DEMAND

}  // namespace

void validate(const std::vector<HeadView>& heads, int n_numbers, int n_categories) {
  if (heads.empty() || heads.size() > kMaxHeads) {
    throw std::invalid_argument("an engine has 1 to " + std::to_string(kMaxHeads) + " heads; found " +
                                std::to_string(heads.size()) + "; build several engines");
  }
  if (n_numbers < 0 || n_categories < 0 || size_t(n_numbers) + size_t(n_categories) > kMaxFeatures) {
    throw std::invalid_argument("at most " + std::to_string(kMaxFeatures) + " features; found " +
                                std::to_string(n_numbers) + " numbers and " + std::to_string(n_categories) +
                                " categories; declare fewer");
  }
  Checker checker(n_numbers, n_categories);
  for (size_t i = 0; i < heads.size(); ++i) checker.head(heads[i], i);
}

}  // namespace bidml
