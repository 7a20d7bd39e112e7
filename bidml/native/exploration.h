// Bids that vary on purpose. On a share of a line item's auctions ln b is normal around ln of the intended bid, cut off
// outside [floor, min(cap, value)]; the density of ln b goes into the log. `bidml.pricing.explore` is the readable twin.
//
// Nothing is drawn: an auction's id, hashed with the line item's key by SipHash-2-4 (Aumasson & Bernstein 2012), is
// the seed of a SplitMix64 stream (Steele, Lea & Flood 2014), from which its impression i takes the numbers 2i and 2i + 1. So a
// retry, another bidder and a replay explore alike, no state is shared, and who sends the requests cannot choose.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>

#include "elementary.h"
#include "normal.h"

namespace bidml {

struct SipKey {
  uint64_t low = 0, high = 0;
};

inline uint64_t siphash_2_4(SipKey key, std::string_view text) noexcept {
  uint64_t a = key.low ^ 0x736f6d6570736575, b = key.high ^ 0x646f72616e646f6d;
  uint64_t c = key.low ^ 0x6c7967656e657261, d = key.high ^ 0x7465646279746573;
  const auto rotated = [](uint64_t x, int by) { return x << by | x >> (64 - by); };
  const auto rounds = [&](int n) {
    while (n-- > 0) {
      a += b, b = rotated(b, 13) ^ a, a = rotated(a, 32);
      c += d, d = rotated(d, 16) ^ c;
      a += d, d = rotated(d, 21) ^ a;
      c += b, b = rotated(b, 17) ^ c, c = rotated(c, 32);
    }
  };
  const auto add = [&](uint64_t word) { d ^= word, rounds(2), a ^= word; };
  const auto word_of = [](const char* from, size_t n) {  // little-endian
    uint64_t word = 0;
    for (size_t i = 0; i < n; ++i) word |= uint64_t{static_cast<unsigned char>(from[i])} << 8 * i;
    return word;
  };
  size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) add(word_of(text.data() + at, 8));
  add(word_of(text.data() + at, text.size() - at) | uint64_t{text.size() & 0xff} << 56);
  c ^= 0xff;
  rounds(4);
  return a ^ b ^ c ^ d;
}

// Number `i` of the stream, in (0, 1) and at least 2^-53 away from both.
inline double uniform_of(uint64_t seed, uint64_t i) noexcept {
  uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return (double(z >> 12) + 0.5) * 0x1p-52;
}

struct Exploration {
  double share = 0.0;  // of the impressions, in [0, 1]
  double sigma = 1.0;  // of ln b, above 0
  SipKey key;
};

struct Explored {
  double bid_cpm;
  double propensity;  // density of ln b, the choice to explore included; NaN: the bid is the intended one
};

// The bid at quantile `u` of the cut normal, 0 < lowest ≤ bid ≤ highest or lowest = 0, and the density there.
inline Explored jittered(double bid, double lowest, double highest, double sigma, double u) noexcept {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  // The cuts in standard deviations from the centre, which lies between them: no difference of near numbers is taken.
  const double below = lowest > 0.0 ? log_of(bid / lowest) / sigma : std::numeric_limits<double>::infinity();
  const double above = log_of(highest / bid) / sigma;
  const double mass_below = normal_mass_up_to(below), mass = mass_below + normal_mass_up_to(above);
  const double taken = u * mass;
  const double z = taken < mass_below ? -normal_upper_quantile(std::min(normal_tail(below) + taken, 0.5))
                                      : normal_upper_quantile(std::min(normal_tail(above) + (mass - taken), 0.5));
  const double b = std::min(std::max(bid * exp_of(sigma * z), lowest), highest);
  const double at = log_of(b / bid) / sigma;
  const double density = exp_of(-0.5 * at * at) / (sigma * kRootOfTwoPi * mass);
  if (!(b > 0.0 && b >= lowest && b <= highest && density > 0.0 && density < std::numeric_limits<double>::infinity()))
    return {bid, kNone};
  return {b, density};
}

// The bid of an auction's impression `imp`, whose intended bid lies in [lowest, highest].
inline Explored explored(const Exploration& how, std::string_view auction_id, uint64_t imp, double bid, double lowest,
                         double highest) noexcept {
  const uint64_t seed = siphash_2_4(how.key, auction_id);
  if (!(uniform_of(seed, 2 * imp) < how.share && lowest < highest))
    return {bid, std::numeric_limits<double>::quiet_NaN()};
  Explored found = jittered(bid, lowest, highest, how.sigma, uniform_of(seed, 2 * imp + 1));
  found.propensity *= how.share;
  return found;
}

}  // namespace bidml
