// The oracle: one head evaluated the obvious way, in double, node by node, in tree order.
//
// It shares nothing with the fast paths but the blueprint. Its tree sum is bit-equal to LightGBM's own
// (`output += tree.predict(x)`, first tree first). It owns a copy of the blueprint.
#pragma once

#include "engine.h"

namespace bidml {

class ReferenceHead {
 public:
  explicit ReferenceHead(const HeadView& head);  // of a validated blueprint
  double margin(const double* numbers, const TextRef* categories) const;

 private:
  struct Keys {  // searched by bisection
    int slot;
    std::string text;              // all keys, ascending
    std::vector<uint64_t> starts;  // (n_keys + 1,) into text
    Keys(int slot, Span<std::string_view> keys);
    size_t operator()(const TextRef* categories) const;  // the place of the text, or n_keys
    size_t size() const { return starts.size() - 1; }
  };
  struct Lookup {
    std::vector<Keys> keys;      // one, of a cross two
    std::vector<double> codes;   // of a cross
    std::vector<double> values;
    double default_value;
    explicit Lookup(const LookupView& view);
    double operator()(const TextRef* categories) const;
  };
  struct Column {
    int number_slot;  // -1: a lookup
    std::vector<Lookup> lookup;  // 0 or 1
    Rewrite rewrite;
  };
  struct Node {
    double threshold;
    int32_t column, true_child, false_child, set;  // set: -1, or an index of sets_
    bool true_is_leaf, false_is_leaf, missing_true;
  };
  double tree(int64_t root, const double* x) const;

  std::vector<Column> columns_;
  std::vector<Lookup> terms_;
  std::vector<int64_t> roots_;
  std::vector<Node> nodes_;
  std::vector<std::vector<double>> sets_;
  std::vector<double> leaves_;
  double intercept_, scale_, divisor_;
};

// What the trees see of a raw number.
double rewritten(double x, Rewrite rewrite) noexcept;

}  // namespace bidml
