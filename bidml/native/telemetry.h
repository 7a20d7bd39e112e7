// What a scorer has done, in numbers for a monitor: counters, and histograms on a logarithmic scale.
//
// Counting takes no lock, allocates nothing and calls no system: some additions per decision. What costs more (the
// time a decision took, which features it missed) is done for one decision in `kLookEvery`, after gaps of random length, so
// that no rhythm of the traffic hides from it. Under the GIL one thread counts at a time; without it counters are atomic.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "price.h"

namespace bidml {

inline void add(uint64_t& counter, uint64_t n = 1) noexcept {
#ifdef Py_GIL_DISABLED
  reinterpret_cast<std::atomic<uint64_t>&>(counter).fetch_add(n, std::memory_order_relaxed);
#else
  counter += n;
#endif
}

inline void add(double& sum, double x) noexcept {
#ifdef Py_GIL_DISABLED
  auto& shared = reinterpret_cast<std::atomic<double>&>(sum);
  double before = shared.load(std::memory_order_relaxed);
  while (!shared.compare_exchange_weak(before, before + x, std::memory_order_relaxed)) {
  }
#else
  sum += x;
#endif
}

// Bucket i holds 2^first · (1 + (i mod 4) / 4) · 2^(i / 4) up to the next; what lies beyond goes to the outermost.
template <int first_exponent, int octaves>
struct LogHistogram {
  static constexpr int kFirstExponent = first_exponent, kBits = 2, kBuckets = octaves << kBits;

  uint64_t counts[kBuckets] = {};
  double sum = 0.0;

  // x at least 0, not NaN: the exponent and the first bits of the mantissa, read as an integer, rise with x.
  void count(double x) noexcept {
    uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const int64_t at = int64_t(bits >> (52 - kBits)) - (int64_t{1023 + first_exponent} << kBits);
    add(counts[std::min(std::max(at, int64_t{0}), int64_t{kBuckets - 1})]);
    add(sum, x);
  }
  void merge(const LogHistogram& other) noexcept {
    for (int i = 0; i < kBuckets; ++i) add(counts[i], other.counts[i]);
    add(sum, other.sum);
  }
};

// A clock that is read without a call: the processor's, in its own unit.
inline uint64_t ticks() noexcept {
#if defined(__x86_64__)
  return __rdtsc();
#elif defined(__aarch64__)
  uint64_t now;
  asm volatile("mrs %0, cntvct_el0" : "=r"(now));
  return now;
#else
  return uint64_t(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
}

// Measured once, against the system's clock: the first caller spins for 5 ms.
inline double seconds_per_tick() {
  static const double measured = [] {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const uint64_t first = ticks();
    auto now = start;
    while (now - start < std::chrono::milliseconds(5)) now = Clock::now();
    return std::chrono::duration<double>(now - start).count() / double(ticks() - first);
  }();
  return measured;
}

// Of decisions looked at closely: how many, and by feature (categories by slot, then numbers) what was not there, and
// which texts no lookup of the model knows.
struct FeatureCounts {
  uint64_t looked_at = 0;
  std::vector<uint64_t> missing, unseen;

  FeatureCounts() = default;
  explicit FeatureCounts(int n_features) : missing(size_t(n_features)), unseen(size_t(n_features)) {}
};

struct Telemetry {
  static constexpr uint32_t kLookEvery = 16;

  uint64_t decisions[kReasons] = {};
  uint64_t lowered = 0, raised = 0;   // bids that the cap held below the optimum, that the floor lifted above it
  uint64_t explored = 0;              // bids that were varied on purpose, in neither of these
  LogHistogram<-20, 20> pctr;         // of every decision that was scored
  LogHistogram<-20, 20> pcvr;         // of those whose line item pays for conversions
  LogHistogram<-10, 24> bid_cpm;      // of every bid
  LogHistogram<4, 28> ticks_taken;    // of decisions looked at
  FeatureCounts features;

  Telemetry() = default;
  explicit Telemetry(int n_features) : features(n_features) {}

  // Whether this decision is to be looked at closely.
  bool is_due() noexcept {
#ifdef Py_GIL_DISABLED
    if (reinterpret_cast<std::atomic<uint32_t>&>(until_next_).fetch_sub(1, std::memory_order_relaxed) != 1) return false;
#else
    if (--until_next_ != 0) return false;
#endif
    random_ ^= random_ << 13;  // xorshift (Marsaglia 2003)
    random_ ^= random_ >> 17;
    random_ ^= random_ << 5;
    until_next_ = 1 + uint32_t((uint64_t{random_} * (2 * kLookEvery - 1)) >> 32);  // 1 .. 31: 16 in the mean
    return true;
  }

  // `scored` is NaN where the decision fell before the model was asked, `converts` where conversions are not paid for,
  // `propensity` where the bid is the intended one.
  void count(Reason reason, double bid, double optimum_cpm, double scored, double converts,
             double propensity) noexcept {
    add(decisions[static_cast<int>(reason)]);
    if (scored == scored) pctr.count(scored);
    if (__builtin_expect(converts == converts, 0)) pcvr.count(converts);
    if (reason != Reason::kBid) return;
    bid_cpm.count(bid);
    if (__builtin_expect(propensity == propensity, 0)) {
      add(explored);
      return;
    }
    if (bid < optimum_cpm) add(lowered);
    if (bid > optimum_cpm) add(raised);
  }
  void took(uint64_t start) noexcept {
    const auto passed = int64_t(ticks() - start);  // another core's clock may be behind
    ticks_taken.count(double(std::max(passed, int64_t{0})));
  }
  // A batch's own counts; they have no features.
  void merge(const Telemetry& other) noexcept {
    for (int r = 0; r < kReasons; ++r) add(decisions[r], other.decisions[r]);
    add(lowered, other.lowered);
    add(raised, other.raised);
    add(explored, other.explored);
    pctr.merge(other.pctr);
    pcvr.merge(other.pcvr);
    bid_cpm.merge(other.bid_cpm);
  }

 private:
  uint32_t until_next_ = 1, random_ = 2463534242u;
};

}  // namespace bidml
