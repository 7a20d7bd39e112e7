// Every float32 as a model's output through the price: price_sweep SETTING [STRIDE [FIRST]]. A test-only program over
// native/price.h.
//
// For all 2^32 float32 values, as pctr and (every 64th) as a margin, the decision must keep the contract: never NaN,
// never negative, at most cap and value, at least the floor, else 0 with a reason. Prints violations and trials.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "price.h"

namespace {

using namespace bidml;

struct Setting {
  double value_per_click, floor_cpm, cap_cpm, pacing_multiplier;
  int auction_type;
  double location, shape, gamma;
  double value_per_impression_cpm = 0.0;
};

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const Setting kSettings[] = {
    {2.0, 0.05, 9.0, 1.0, 1, 0.5, 2.0, 1.3},
    {2.0, 0.0, 9.0, 0.7, 1, -3.0, 0.05, 1.0, 0.25},
    {0.45, 1.5, 1.5, 1.0, 1, 0.0, 54.0, 1.0},
    {1e-6, 0.0, 1e-12, 1.0, 1, -30.0, 1.0, 0.001},
    {1e6, 1e-3, 1e9, 1e-9, 1, 7.0, 3.0, 1000.0},
    {2.0, 0.05, 9.0, 1.0, 2, 0.5, 2.0, 1.3},
    {1e300, 0.0, 1e300, 1.0, 1, 600.0, 1.0, 1.0},
    {5e-324, 0.0, 1.0, 1.0, 1, 0.0, 1.0, 1.0},
    {2.0, 0.0, kInfinity, 1.0, 1, 1e9, 54598.0, 1000.0},
    {2.0, 0.0, kInfinity, 1.0, 1, -1e9, 5e-5, 0.001},
    {0.0, 0.0, 9.0, 1.0, 1, 0.5, 2.0, 1.0},
    {2.0, 10.0, 9.0, 1.0, 1, 0.5, 2.0, 1.0},
};

bool keeps_the_contract(const Decision& d, const PriceInputs& in, double v) {
  if (d.reason != Reason::kBid) return d.bid_cpm == 0.0;
  return d.bid_cpm > 0.0 && d.bid_cpm >= in.floor_cpm && d.bid_cpm <= in.cap_cpm && d.bid_cpm <= v &&
         d.win_rate >= 0.0 && d.win_rate <= 1.0;
}

struct Tally {
  uint64_t n_trials = 0, n_bids = 0, n_violations = 0;
};

Tally sweep(const Setting& s, uint64_t first, uint64_t stride) {
  Tally tally;
  const PriceInputs in{s.value_per_click, s.floor_cpm, s.cap_cpm, s.pacing_multiplier, s.auction_type,
                       0.0,               s.value_per_impression_cpm};
  const WinCurve curve{s.location, s.shape};
  const WinParameters win{0.5, 1.1, 0.1, s.gamma};
  const auto judge = [&](double pctr, const WinCurve& c) {
    const Decision d = price(pctr, c, s.gamma, in);
    const double v = (s.value_per_impression_cpm + 1000.0 * pctr * s.value_per_click) * s.pacing_multiplier;
    ++tally.n_trials;
    tally.n_bids += d.reason == Reason::kBid;
    if (!keeps_the_contract(d, in, v) && ++tally.n_violations == 1) {
      std::printf("pctr %a, location %a, shape %a: bid %a, win rate %a, reason %d\n", pctr, c.location, c.shape,
                  d.bid_cpm, d.win_rate, int(d.reason));
    }
  };
  for (uint64_t bits = first, i = 0; bits < (uint64_t{1} << 32); bits += stride, ++i) {
    const auto word = uint32_t(bits);
    float x;
    std::memcpy(&x, &word, sizeof x);
    judge(double(x), curve);
    if (i % 64 == 0) {  // as margins: calibration, sigmoid and clamps come before the price
      const double pctr = sigmoid(calibrated({1.1, 0.9, 0.1}, double(x)));
      judge(pctr, win_curve(win, double(x), double(x)));
    }
  }
  return tally;
}

}  // namespace

int main(int argc, char** argv) {
  const auto setting = size_t(argc > 1 ? std::atoi(argv[1]) : 0);
  const uint64_t stride = argc > 2 ? uint64_t(std::atoll(argv[2])) : 1;  // 1: every value
  const uint64_t first = argc > 3 ? uint64_t(std::atoll(argv[3])) : 0;
  if (setting >= sizeof kSettings / sizeof *kSettings || stride == 0) return 2;
  const Tally total = sweep(kSettings[setting], first, stride);
  std::printf("%llu %llu %llu\n", static_cast<unsigned long long>(total.n_trials),
              static_cast<unsigned long long>(total.n_bids), static_cast<unsigned long long>(total.n_violations));
  return 0;
}
