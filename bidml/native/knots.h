// A broken line: an increasing map of log-odds through knots, of slope 1 before the first and behind the last one.
//
// At most 64 knots (contract.MAX_KNOTS): counting those at or below takes no branch that a processor could mispredict.
// `bidml/oracle.py` is the readable twin; both do the same operations.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <vector>

namespace bidml {

class Knots {
 public:
  Knots() = default;  // none: for who asks `empty` first

  // (n_knots,) both; `x` rises.
  Knots(const std::vector<double>& x, const std::vector<double>& y) : x_(x) {
    if (x.size() < 2 || x.size() != y.size()) throw std::invalid_argument("knots are two or more, with as many x as y");
    lines_.push_back({x[0], y[0], 1.0});
    for (size_t i = 0; i + 1 < x.size(); ++i) {
      if (!(x[i] < x[i + 1])) throw std::invalid_argument("the x of knots rise");
      lines_.push_back({x[i], y[i], (y[i + 1] - y[i]) / (x[i + 1] - x[i])});
    }
    lines_.push_back({x.back(), y.back(), 1.0});
  }

  bool empty() const noexcept { return x_.empty(); }

  double bent(double t) const noexcept {
    size_t below = 0;
    for (const double x : x_) below += size_t(x <= t);
    const Line& line = lines_[below];
    return line.y + line.slope * (t - line.x);
  }

 private:
  struct Line {
    double x, y, slope;
  };
  std::vector<double> x_;    // (n_knots,)
  std::vector<Line> lines_;  // (n_knots + 1,): line i is where i knots lie at or below
};

}  // namespace bidml
