// The small parts of JSON: white space, strings, numbers, literals. Each takes where to begin and the end of the bytes,
// and returns where its part ends, or null where it is malformed. read_json.h says what is accepted.
#pragma once

#include <charconv>
#include <cstdint>
#include <cstring>
#include <limits>

#include "request_values.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace bidml::json {

using Text = const char*;

constexpr size_t kMostIntegerDigits = 4300;  // sys.int_info.default_max_str_digits

inline bool is_digit(char c) noexcept { return uint8_t(c - '0') < 10; }
inline bool is_hex(char c) noexcept { return is_digit(c) || uint8_t((c | 0x20) - 'a') < 6; }

// The byte at p, 0 at the end: no token begins with a zero byte.
inline char at(Text p, Text end) noexcept { return p != end ? *p : '\0'; }

inline Text after_space(Text p, Text end) noexcept {
  if (__builtin_expect(p != end && uint8_t(*p) > ' ', 1)) return p;
  while (p != end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) ++p;
  return p;
}

// ---- strings -----------------------------------------------------------------------------------------------------

// UTF-8 as Python decodes it with "surrogatepass"; p is at a byte from 0x80.
inline Text after_sequence(Text p, Text end) noexcept {
  const auto byte = [p](int i) { return uint8_t(p[i]); };
  const auto continues = [&](int i) { return (byte(i) & 0xC0) == 0x80; };
  const uint8_t first = byte(0);
  if (first < 0xC2) return nullptr;
  if (first < 0xE0) return end - p > 1 && continues(1) ? p + 2 : nullptr;
  if (first < 0xF0) {
    if (end - p < 3 || !continues(1) || !continues(2) || (first == 0xE0 && byte(1) < 0xA0)) return nullptr;
    return p + 3;
  }
  if (first > 0xF4 || end - p < 4 || !continues(1) || !continues(2) || !continues(3)) return nullptr;
  if ((first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) > 0x8F)) return nullptr;
  return p + 4;
}

inline Text after_escape(Text p, Text end) noexcept {
  if (end - p < 2) return nullptr;
  switch (p[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
      return p + 2;
    case 'u':
      if (end - p < 6 || !is_hex(p[2]) || !is_hex(p[3]) || !is_hex(p[4]) || !is_hex(p[5])) return nullptr;
      return p + 6;
    default:
      return nullptr;
  }
}

// The first byte from p that is a quote, a backslash, a control or not ASCII.
inline Text to_special(Text p, Text end) noexcept {
#if defined(__SSE2__)
  while (end - p >= 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'));
    const __m128i escapes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
    const __m128i below = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));  // signed: bytes from 0x80 too
    const int special = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quotes, escapes), below));
    if (special) return p + __builtin_ctz(unsigned(special));
    p += 16;
  }
#endif
  while (p != end && *p != '"' && *p != '\\' && static_cast<signed char>(*p) >= 0x20) ++p;
  return p;
}

struct String {
  Text begin = nullptr;
  Text end = nullptr;  // the closing quote
  bool has_escape = false;
  bool has_surrogate = false;  // encoded as UTF-8

  size_t size() const noexcept { return size_t(end - begin); }
  Value value() const noexcept {
    if (has_surrogate) return Value::of_text(kUnmatchable.data(), kUnmatchable.size());
    return Value::of_text(begin, size(), has_escape ? Kind::json_text : Kind::text);
  }
};

// p: after the opening quote.
inline Text after_string(Text p, Text end, String& string) noexcept {
  string = {p, nullptr, false, false};
  for (;;) {
    p = to_special(p, end);
    if (p == end) return nullptr;
    if (*p == '"') {
      string.end = p;
      return p + 1;
    }
    if (*p == '\\') {
      string.has_escape = true;
      p = after_escape(p, end);
    } else if (static_cast<signed char>(*p) < 0) {
      string.has_surrogate |= uint8_t(*p) == 0xED && end - p > 1 && uint8_t(p[1]) >= 0xA0;
      p = after_sequence(p, end);
    } else {
      return nullptr;  // a control character
    }
    if (p == nullptr) return nullptr;
  }
}

// ---- numbers -----------------------------------------------------------------------------------------------------

struct Number {
  Text begin = nullptr;
  Text end = nullptr;
  uint64_t digits = 0;  // all of them, before and after the point, as an integer; wraps beyond 19
  uint32_t n_digits = 0;
  uint32_t n_decimals = 0;
  bool is_integer = true, has_exponent = false, is_negative = false;

  Value value() const noexcept;
};

// p: at '-' or a digit. What follows the number is for the caller to judge.
inline Text after_number(Text p, Text end, Number& number) noexcept {
  number = Number{};
  number.begin = p;
  if (*p == '-') {
    number.is_negative = true;
    ++p;
  }
  const Text first = p;
  uint64_t digits = 0;
  while (p != end && is_digit(*p)) digits = digits * 10 + uint64_t(*p++ - '0');
  const auto n_whole = size_t(p - first);
  if (n_whole == 0 || (n_whole > 1 && *first == '0')) return nullptr;
  size_t n_digits = n_whole;
  if (end - p > 1 && *p == '.' && is_digit(p[1])) {
    number.is_integer = false;
    const Text point = p++;
    while (p != end && is_digit(*p)) digits = digits * 10 + uint64_t(*p++ - '0');
    number.n_decimals = uint32_t(p - point - 1);
    n_digits += size_t(p - point - 1);
  }
  if (p != end && (*p | 0x20) == 'e') {
    Text exponent = p + 1;
    if (exponent != end && (*exponent == '+' || *exponent == '-')) ++exponent;
    if (exponent == end || !is_digit(*exponent)) return nullptr;
    while (exponent != end && is_digit(*exponent)) ++exponent;
    p = exponent;
    number.is_integer = false;
    number.has_exponent = true;
  }
  if (number.is_integer && n_whole > kMostIntegerDigits) return nullptr;
  number.digits = digits;
  number.n_digits = uint32_t(n_digits > 1'000'000 ? 1'000'000 : n_digits);
  number.end = p;
  return p;
}

// true, false, null, NaN, Infinity, -Infinity; p is at its first letter or sign.
inline Text after_literal(Text p, Text end, Value& value) noexcept {
  const auto is = [&](const char* word, size_t size) {
    return size_t(end - p) >= size && std::memcmp(p, word, size) == 0;
  };
  value = Value::of(Kind::other);
  switch (*p) {
    case 't': return is("true", 4) ? p + 4 : nullptr;
    case 'f': return is("false", 5) ? p + 5 : nullptr;
    case 'n':
      value = Value::of(Kind::null);
      return is("null", 4) ? p + 4 : nullptr;
    case 'N': return is("NaN", 3) ? p + 3 : nullptr;
    case 'I': return is("Infinity", 8) ? p + 8 : nullptr;
    case '-': return is("-Infinity", 9) ? p + 9 : nullptr;
    default: return nullptr;
  }
}

}  // namespace bidml::json
