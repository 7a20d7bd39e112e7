// What varies bids, number by number, for tests: the hot path calls it in C++.
#include <nanobind/nanobind.h>

#include "exploration.h"

namespace nb = nanobind;

namespace bidml {

void bind_exploration(nb::module_& module) {
  module.def(
      "explored",
      [](double share, double sigma, uint64_t key_low, uint64_t key_high, nb::bytes auction_id, uint64_t imp, double bid,
         double lowest, double highest) {
        const Exploration how{share, sigma, {key_low, key_high}};
        const Explored found = explored(how, {auction_id.c_str(), auction_id.size()}, imp, bid, lowest, highest);
        return nb::make_tuple(found.bid_cpm, found.propensity);
      },
      "(share, sigma, key_low, key_high, auction_id, imp, bid, lowest, highest) -> (bid, density of ln bid or NaN).");
  module.def("siphash_2_4", [](uint64_t low, uint64_t high, nb::bytes text) {
    return siphash_2_4({low, high}, {text.c_str(), text.size()});
  });
  module.def("normal_tail", &normal_tail, "P(Z > x), x >= 0.");
  module.def("normal_mass_up_to", &normal_mass_up_to, "P(0 < Z < x), x >= 0.");
  module.def("normal_upper_quantile", &normal_upper_quantile, "The x >= 0 with P(Z > x) = q, 0 < q <= 1/2.");
}

}  // namespace bidml
