#include "request_values.h"

namespace bidml {
namespace {

bool is_surrogate(uint32_t c) { return c >= 0xD800 && c < 0xE000; }

uint32_t hex_of(const char* digits) {
  uint32_t x = 0;
  for (int i = 0; i < 4; ++i) {
    const auto c = uint32_t(uint8_t(digits[i]));
    x = x * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return x;
}

}  // namespace

// The rule of both readers: at most kLongestText characters, each begun with 4 bytes to spare in kLongestText + 8.
bool TextScratch::put(size_t& n, uint32_t c) noexcept {
  if (n + 4 > kMostOfOne || is_surrogate(c)) return false;
  char* to = buffer_ + used_ + n;
  if (c < 0x80) {
    *to = char(c);
    n += 1;
  } else if (c < 0x800) {
    to[0] = char(0xC0 | (c >> 6));
    to[1] = char(0x80 | (c & 0x3F));
    n += 2;
  } else if (c < 0x10000) {
    to[0] = char(0xE0 | (c >> 12));
    to[1] = char(0x80 | ((c >> 6) & 0x3F));
    to[2] = char(0x80 | (c & 0x3F));
    n += 3;
  } else {
    to[0] = char(0xF0 | (c >> 18));
    to[1] = char(0x80 | ((c >> 12) & 0x3F));
    to[2] = char(0x80 | ((c >> 6) & 0x3F));
    to[3] = char(0x80 | (c & 0x3F));
    n += 4;
  }
  return true;
}

std::string_view TextScratch::of_long(const Value& value) noexcept {
  if (value.size > 4 * kLongestText) return kUnmatchable;
  size_t n_characters = 0, last = 0;
  for (size_t i = 0; i < value.size; ++i) {
    if ((uint8_t(value.data[i]) & 0xC0) == 0x80) continue;
    ++n_characters;
    last = i;
  }
  if (n_characters > kLongestText || last + 4 > kMostOfOne) return kUnmatchable;
  return {value.data, value.size};
}

std::string_view TextScratch::of_wide(const Value& value) noexcept {
  if (value.size > kLongestText) return kUnmatchable;
  size_t n = 0;
  for (size_t i = 0; i < value.size; ++i) {
    uint32_t c = 0;
    std::memcpy(&c, value.data + i * value.width, value.width);  // little-endian, as every machine of a wheel
    if (!put(n, c)) return kUnmatchable;
  }
  const std::string_view text(buffer_ + used_, n);
  used_ += n;
  return text;
}

std::string_view TextScratch::of_json(const Value& value) noexcept {
  size_t n = 0, n_characters = 0;
  for (const char *p = value.data, *end = p + value.size; p < end;) {
    uint32_t c = uint8_t(*p);
    if (c == '\\') {
      switch (p[1]) {
        case 'b': c = '\b'; break;
        case 'f': c = '\f'; break;
        case 'n': c = '\n'; break;
        case 'r': c = '\r'; break;
        case 't': c = '\t'; break;
        case 'u': {
          c = hex_of(p + 2);
          p += 4;
          if ((c & 0xFC00) == 0xD800 && end - p > 7 && p[2] == '\\' && p[3] == 'u') {
            const uint32_t low = hex_of(p + 4);
            if ((low & 0xFC00) == 0xDC00) {
              c = 0x10000 + ((c & 0x3FF) << 10 | (low & 0x3FF));
              p += 6;
            }
          }
          break;
        }
        default: c = uint8_t(p[1]);
      }
      p += 2;
    } else if (c < 0x80) {
      p += 1;
    } else {
      const int n_more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
      c &= 0x3Fu >> n_more;
      for (int i = 1; i <= n_more; ++i) c = c << 6 | (uint8_t(p[i]) & 0x3F);
      p += 1 + n_more;
    }
    if (++n_characters > kLongestText || !put(n, c)) return kUnmatchable;
  }
  const std::string_view text(buffer_ + used_, n);
  used_ += n;
  return text;
}

}  // namespace bidml
