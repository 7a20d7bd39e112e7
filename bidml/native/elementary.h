// exp and ln for the price: a few nanoseconds, inline, and the same bits on every machine.
//
// Both reduce the argument by a table of 32 and add a short polynomial (Tang 1989, 1990). No fused multiply-add is used
// or needed: differences are taken where they are exact. Errors are below 1.5 ulp for exp and below 2e-16 max(1, |ln x|)
// for ln (a test compares with Python's); outside their range the library's are called.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace bidml {

inline uint64_t bits_of(double x) noexcept {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline double double_of(uint64_t bits) noexcept {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// 2^(i/32)
constexpr double kExpTable[32] = {
    0x1.0000000000000p+0, 0x1.059b0d3158574p+0, 0x1.0b5586cf9890fp+0, 0x1.11301d0125b51p+0,
    0x1.172b83c7d517bp+0, 0x1.1d4873168b9aap+0, 0x1.2387a6e756238p+0, 0x1.29e9df51fdee1p+0,
    0x1.306fe0a31b715p+0, 0x1.371a7373aa9cbp+0, 0x1.3dea64c123422p+0, 0x1.44e086061892dp+0,
    0x1.4bfdad5362a27p+0, 0x1.5342b569d4f82p+0, 0x1.5ab07dd485429p+0, 0x1.6247eb03a5585p+0,
    0x1.6a09e667f3bcdp+0, 0x1.71f75e8ec5f74p+0, 0x1.7a11473eb0187p+0, 0x1.82589994cce13p+0,
    0x1.8ace5422aa0dbp+0, 0x1.93737b0cdc5e5p+0, 0x1.9c49182a3f090p+0, 0x1.a5503b23e255dp+0,
    0x1.ae89f995ad3adp+0, 0x1.b7f76f2fb5e47p+0, 0x1.c199bdd85529cp+0, 0x1.cb720dcef9069p+0,
    0x1.d5818dcfba487p+0, 0x1.dfc97337b9b5fp+0, 0x1.ea4afa2a490dap+0, 0x1.f50765b6e4540p+0,
};

// Of the 32 cells of the mantissa from 0.6875: a point c inside, 1/c and ln c.
struct LogCell {
  double centre, reciprocal, log;
};
alignas(32) constexpr LogCell kLogTable[32] = {
    {0x1.6400000000000p-1, 0x1.702e05c0b8170p+0, -0x1.741d876c67bb1p-2},
    {0x1.6c00000000000p-1, 0x1.6816816816817p+0, -0x1.5d5bddf595f30p-2},
    {0x1.7400000000000p-1, 0x1.6058160581606p+0, -0x1.4718dc271c41bp-2},
    {0x1.7c00000000000p-1, 0x1.58ed2308158edp+0, -0x1.314f1e1d35ce4p-2},
    {0x1.8400000000000p-1, 0x1.51d07eae2f815p+0, -0x1.1bf99635a6b95p-2},
    {0x1.8c00000000000p-1, 0x1.4afd6a052bf5bp+0, -0x1.07138604d5862p-2},
    {0x1.9400000000000p-1, 0x1.446f86562d9fbp+0, -0x1.e530effe71012p-3},
    {0x1.9c00000000000p-1, 0x1.3e22cbce4a902p+0, -0x1.bd087383bd8adp-3},
    {0x1.a400000000000p-1, 0x1.3813813813814p+0, -0x1.95a5adcf7017fp-3},
    {0x1.ac00000000000p-1, 0x1.323e34a2b10bfp+0, -0x1.6f0128b756abcp-3},
    {0x1.b400000000000p-1, 0x1.2c9fb4d812ca0p+0, -0x1.4913d8333b561p-3},
    {0x1.bc00000000000p-1, 0x1.27350b8812735p+0, -0x1.23d712a49c202p-3},
    {0x1.c400000000000p-1, 0x1.21fb78121fb78p+0, -0x1.fe89139dbd566p-4},
    {0x1.cc00000000000p-1, 0x1.1cf06ada2811dp+0, -0x1.b6ac88dad5b1cp-4},
    {0x1.d400000000000p-1, 0x1.1811811811812p+0, -0x1.700d30aeac0e1p-4},
    {0x1.dc00000000000p-1, 0x1.135c81135c811p+0, -0x1.2aa04a44717a5p-4},
    {0x1.e400000000000p-1, 0x1.0ecf56be69c90p+0, -0x1.ccb73cdddb2ccp-5},
    {0x1.ec00000000000p-1, 0x1.0a6810a6810a7p+0, -0x1.466aed42de3eap-5},
    {0x1.f400000000000p-1, 0x1.0624dd2f1a9fcp+0, -0x1.8492528c8cabfp-6},
    {0x1.0000000000000p+0, 0x1.0000000000000p+0, 0x0.0p+0},
    {0x1.0000000000000p+0, 0x1.0000000000000p+0, 0x0.0p+0},
    {0x1.0c00000000000p+0, 0x1.e9131abf0b767p-1, 0x1.77458f632dcfcp-5},
    {0x1.1400000000000p+0, 0x1.dae6076b981dbp-1, 0x1.341d7961bd1d1p-4},
    {0x1.1c00000000000p+0, 0x1.cd85689039b0bp-1, 0x1.a926d3a4ad563p-4},
    {0x1.2400000000000p+0, 0x1.c0e070381c0e0p-1, 0x1.0d77e7cd08e59p-3},
    {0x1.2c00000000000p+0, 0x1.b4e81b4e81b4fp-1, 0x1.44d2b6ccb7d1ep-3},
    {0x1.3400000000000p+0, 0x1.a98ef606a63bep-1, 0x1.7ab890210d909p-3},
    {0x1.3c00000000000p+0, 0x1.9ec8e951033d9p-1, 0x1.af3c94e80bff3p-3},
    {0x1.4400000000000p+0, 0x1.948b0fcd6e9e0p-1, 0x1.e27076e2af2e6p-3},
    {0x1.4c00000000000p+0, 0x1.8acb90f6bf3aap-1, 0x1.0a324e27390e3p-2},
    {0x1.5400000000000p+0, 0x1.8181818181818p-1, 0x1.22941fbcf7966p-2},
    {0x1.5c00000000000p+0, 0x1.78a4c8178a4c8p-1, 0x1.3a64c556945eap-2},
};

constexpr double kLn2High = 0x1.62e42fefa3000p-1, kLn2Low = 0x1.3de6af278ece6p-42;
constexpr double kRounder = 0x1.8p52;  // adding and subtracting it rounds to an integer

inline double exp_of(double x) noexcept {
  if (__builtin_expect(!(std::fabs(x) < 700.0), 0)) return std::exp(x);
  constexpr double kHigh = 0x1.62e42fee00000p-6, kLow = 0x1.a39ef35793c76p-38;  // ln 2 / 32
  const double shifted = x * 0x1.71547652b82fep+5 + kRounder;
  const double n = shifted - kRounder;
  const double r = (x - n * kHigh) - n * kLow;
  const double r2 = r * r;
  const double p = (r + r2 * (0.5 + r * (1.0 / 6))) + (r2 * r2) * ((1.0 / 24 + r * (1.0 / 120)) + r2 * (1.0 / 720));
  const auto k = int32_t(bits_of(shifted));
  const double t = kExpTable[k & 31];
  const double scaled = t + t * p;
  return double_of(bits_of(scaled) + (uint64_t(int64_t(k >> 5)) << 52));
}

inline double log_of(double x) noexcept {
  constexpr uint64_t kFirst = 0x3FE6000000000000;  // 0.6875
  const uint64_t bits = bits_of(x);
  if (__builtin_expect(bits - 0x0010000000000000 >= 0x7FE0000000000000, 0)) return std::log(x);
  const uint64_t above = bits - kFirst;
  const double k = double(int64_t(above) >> 52);
  const LogCell& cell = kLogTable[above >> 47 & 31];
  const double z = double_of(bits - (above & 0xFFF0000000000000));
  const double r = (z - cell.centre) * cell.reciprocal;
  const double r2 = r * r, r4 = r2 * r2;
  const double low = (-0.5 + r * (1.0 / 3)) + r2 * (-0.25 + r * 0.2);
  const double high = (-1.0 / 6 + r * (1.0 / 7)) + r2 * (-0.125 + r * (1.0 / 9));
  return (k * kLn2High + cell.log) + (r + (k * kLn2Low + r2 * (low + r4 * high)));
}

// ---- rough ones: relative errors below 1e-4, for the first steps of an iteration ----------------------------------

// e^x for x <= 0; about 1e-261 below -600.
inline double rough_exp_of_negative(double x) noexcept {
  const double shifted = std::max(x, -600.0) * 0x1.71547652b82fep+0 + kRounder;
  const double f = std::max(x, -600.0) * 0x1.71547652b82fep+0 - (shifted - kRounder);
  const double f2 = f * f;
  const double p = (1.0 + f * 0.69312105) + f2 * ((0.24022349 + f * 0.05592198) + f2 * 0.00966637);
  return double_of(bits_of(p) + (uint64_t(int64_t(int32_t(bits_of(shifted)))) << 52));
}

// ln(1 + u) for 0 <= u <= 1
inline double rough_log_1_plus(double u) noexcept {
  const double u2 = u * u;
  return u * ((0.99993682 - u * 0.49678875) + u2 * ((0.30539998 - u * 0.15602953) + u2 * 0.04066344));
}

// ln x for normal x >= 1
inline double rough_log(double x) noexcept {
  const uint64_t bits = bits_of(x);
  const double exponent = double(int64_t(bits >> 52) - 1023);
  return exponent * 0x1.62e42fefa39efp-1 +
         rough_log_1_plus(double_of((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000) - 1.0);
}

}  // namespace bidml
