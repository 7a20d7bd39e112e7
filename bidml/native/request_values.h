// What a request holds at the places that a model reads, whoever read it: a dict (read_dict.h) or JSON (read_json.h).
//
// A `Value` is typed strictly, so that both readers mean the same: text, an integer, a real, or one of the things that
// are never a feature. `Found` is one request's values, scratch on the stack; texts are borrowed from the request.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>

namespace bidml {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kLongestText = 1024;                 // characters; longer text matches no key
constexpr std::string_view kUnmatchable{"\xff", 1};  // not UTF-8: no key equals it

enum class Kind : uint8_t {
  absent,
  null,
  other,        // bool, list, object, infinity, NaN, foreign
  integer,      // of 64 bits
  big_integer,  // beyond them: a number (NaN beyond double's range), and a text that no key equals
  real,         // finite
  text,         // UTF-8
  wide_text,    // `size` code points of `width` bytes each, not all ASCII
  json_text,    // UTF-8 with JSON's escapes, known to be well-formed
};

struct Value {
  Kind kind;
  uint8_t width;
  uint32_t size;
  union {
    int64_t integer;
    double real;
    const char* data;
  };

  static Value of(Kind kind) noexcept {
    Value v;
    v.kind = kind;
    return v;
  }
  static Value of_integer(int64_t x) noexcept {
    Value v;
    v.kind = Kind::integer;
    v.integer = x;
    return v;
  }
  // infinities and NaN are no number
  static Value of_real(double x, Kind kind = Kind::real) noexcept {
    Value v;
    v.kind = std::isfinite(x) ? kind : Kind::other;
    v.real = x;
    return v;
  }
  static Value of_text(const char* data, size_t size, Kind kind = Kind::text, uint8_t width = 1) noexcept {
    Value v;
    v.kind = size > std::numeric_limits<uint32_t>::max() ? Kind::text : kind;
    v.width = width;
    v.size = uint32_t(size);
    v.data = data;
    if (size > std::numeric_limits<uint32_t>::max()) {
      v.size = uint32_t(kUnmatchable.size());
      v.data = kUnmatchable.data();
    }
    return v;
  }

  bool is_text() const noexcept { return kind >= Kind::text; }
  bool is_given() const noexcept { return kind > Kind::null; }
  // NaN for whatever is not a number
  double number() const noexcept {
    if (kind == Kind::integer) return double(integer);
    return kind == Kind::real || kind == Kind::big_integer ? real : kMissing;
  }
};

// Texts as UTF-8: borrowed where they are it already, else written here.
class TextScratch {
 public:
  bool has_room() const noexcept { return kSize - used_ >= kMostOfOne; }
  void reset() noexcept { used_ = 0; }

  // `text`, at most 64 bytes, kept. Needs room.
  std::string_view copy(std::string_view text) noexcept {
    char* to = buffer_ + used_;
    std::memcpy(to, text.data(), text.size());
    used_ += text.size();
    return {to, text.size()};
  }

  // Empty for what is not a text; an integer is its decimal text. Needs room.
  std::string_view of(const Value& value) noexcept {
    switch (value.kind) {
      case Kind::text:
        return value.size <= kLongestText ? std::string_view(value.data, value.size) : of_long(value);
      case Kind::integer: {
        char* begin = buffer_ + used_;
        char* end = std::to_chars(begin, begin + kMostOfOne, value.integer).ptr;
        used_ = size_t(end - buffer_);
        return {begin, size_t(end - begin)};
      }
      case Kind::wide_text:
        return of_wide(value);
      case Kind::json_text:
        return of_json(value);
      case Kind::big_integer:
        return kUnmatchable;
      default:
        return {};
    }
  }

 private:
  static constexpr size_t kSize = 4096, kMostOfOne = kLongestText + 8;

  static std::string_view of_long(const Value& value) noexcept;
  std::string_view of_wide(const Value& value) noexcept;
  std::string_view of_json(const Value& value) noexcept;
  bool put(size_t& n, uint32_t code_point) noexcept;

  size_t used_ = 0;
  char buffer_[kSize];
};

constexpr size_t kMostLeaves = 320;  // contract.MAX_FEATURES, and what the terms of the auction and derived features read
constexpr size_t kMostContainers = 64;

enum class Imps : uint8_t { none, no_such_object, found };

struct Found {
  Imps imps = Imps::none;
  bool currency_accepted = true;
  size_t n_elements = 0;  // of the last list of `Access::element` that was read
  bool is_open[kMostContainers];  // an object is there
  Value values[kMostLeaves];

  Found() noexcept {}  // the arrays are left as they are: a reader sets what the plan has of them
};

}  // namespace bidml
