#include "read_json.h"

#include "json_text.h"

namespace bidml {
namespace json {
namespace {

constexpr size_t kMostCurrencies = 64;  // of the list `cur` that are looked at

constexpr double kPowersOf10[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

// The nearest double, ties to even, as Python's float(); infinite beyond the largest.
double nearest(Text begin, Text end) noexcept {
  double x = kMissing;
  const auto parsed = std::from_chars(begin, end, x);
  if (parsed.ec != std::errc::result_out_of_range) return x;
  // Too large or too small, which the standard leaves open: the place of the first digit that is not 0 decides.
  const bool is_negative = *begin == '-';
  int64_t place = 0, exponent = 0;
  bool seen_point = false, seen_digit = false;
  Text p = begin + is_negative;
  for (; p != end && (*p | 0x20) != 'e'; ++p) {
    if (*p == '.') {
      seen_point = true;
    } else {
      seen_digit |= *p != '0';
      if (seen_digit && !seen_point) ++place;
      if (!seen_digit && seen_point) --place;
    }
  }
  if (p != end) {
    const bool is_small = p[1] == '-';
    for (p += 1 + (p[1] == '+' || is_small); p != end; ++p) {
      if (exponent < 1'000'000'000'000) exponent = exponent * 10 + (*p - '0');
    }
    if (is_small) exponent = -exponent;
  }
  const double size = seen_digit && place + exponent > 0 ? std::numeric_limits<double>::infinity() : 0.0;
  return is_negative ? -size : size;
}

// A reader of one request.
class Reader {
 public:
  Reader(const RequestPlan& plan, Text end, ptrdiff_t imp, ptrdiff_t element, std::string_view currency,
         Found& found) noexcept
      : plan_(plan), end_(end), imp_(imp), element_(element), currency_(currency), found_(found) {}

  // p: after the brace of an object that is container `number`.
  Text object(Text p, size_t number, size_t depth) noexcept {
    const RequestPlan::Container& c = plan_.container(number);
    found_.is_open[number] = true;
    p = after_space(p, end_);
    if (at(p, end_) == '}') return p + 1;
    for (;;) {
      String name;
      if (at(p, end_) != '"' || (p = after_string(p + 1, end_, name)) == nullptr) return nullptr;
      p = after_space(p, end_);
      if (at(p, end_) != ':') return nullptr;
      p = after_space(p + 1, end_);
      const RequestPlan::Key* key = find(c, name);
      p = key == nullptr ? skipped(p, depth) : wanted(p, *key, depth);
      if (p == nullptr) return nullptr;
      p = after_space(p, end_);
      if (at(p, end_) == '}') return p + 1;
      if (at(p, end_) != ',') return nullptr;
      p = after_space(p + 1, end_);
    }
  }

  // Nothing of container `number` has been found.
  void clear(size_t number) noexcept {
    const RequestPlan::Container& c = plan_.container(number);
    for (size_t i = c.first_leaf; i < c.end_leaf; ++i) found_.values[i].kind = Kind::absent;
    for (size_t i = number; i < c.end_container; ++i) found_.is_open[i] = false;
  }

 private:
  const RequestPlan::Key* find(const RequestPlan::Container& c, const String& name) const noexcept {
    if (__builtin_expect(!name.has_escape, 1)) return plan_.find(c, name.begin, name.size(), end_);
    return find_escaped(c, name);
  }
  // Not inlined: its scratch must not grow every frame.
  __attribute__((noinline)) const RequestPlan::Key* find_escaped(const RequestPlan::Container& c,
                                                                 const String& name) const noexcept {
    if (name.size() > 6 * 64) return nullptr;
    TextScratch scratch;
    const std::string_view text = scratch.of(name.value());
    return plan_.find(c, text.data(), text.size(), text.data() + text.size());
  }

  // The value of a key of the plan.
  Text wanted(Text p, const RequestPlan::Key& key, size_t depth) noexcept {
    const char first = at(p, end_);
    if (key.child != kNone) {
      if (found_.is_open[key.child] || key.access != Access::field) forget(key);  // the last of duplicate keys counts
      if (first == '{' && key.access == Access::field) {
        if (key.leaf != kNone) found_.values[key.leaf] = Value::of(Kind::other);
        return depth < kDeepestJson ? object(p + 1, key.child, depth + 1) : nullptr;
      }
      if (first == '[' && key.access != Access::field) {
        return elements(p + 1, key, depth);
      }
    }
    if (key.access == Access::currencies) {
      found_.currency_accepted = true;
      if (first == '[') return currencies(p + 1, depth);
    }
    Value value;
    p = scalar_or_skipped(p, depth, value);
    if (key.leaf != kNone) found_.values[key.leaf] = value;
    return p;
  }

  void forget(const RequestPlan::Key& key) noexcept {
    clear(key.child);
    if (key.access == Access::imp) found_.imps = Imps::none;
    if (key.access == Access::element) found_.n_elements = 0;
  }

  // p: after the bracket of a list of which one element may be opened.
  Text elements(Text p, const RequestPlan::Key& key, size_t depth) noexcept {
    if (depth >= kDeepestJson) return nullptr;
    const ptrdiff_t opened = key.access == Access::imp ? imp_ : key.access == Access::element ? element_ : 0;
    if (key.access == Access::imp) found_.imps = Imps::no_such_object;
    p = after_space(p, end_);
    if (at(p, end_) == ']') return p + 1;
    for (ptrdiff_t i = 0;; ++i) {
      if (i == opened && at(p, end_) == '{') {
        if (depth + 1 >= kDeepestJson) return nullptr;
        if (key.access == Access::imp) found_.imps = Imps::found;
        p = object(p + 1, key.child, depth + 2);
      } else {
        p = skipped(p, depth + 1);
      }
      if (p == nullptr) return nullptr;
      if (key.access == Access::element) found_.n_elements = size_t(i) + 1;
      p = after_space(p, end_);
      if (at(p, end_) == ']') return p + 1;
      if (at(p, end_) != ',') return nullptr;
      p = after_space(p + 1, end_);
    }
  }

  // p: after the bracket of the list of accepted currencies.
  Text currencies(Text p, size_t depth) noexcept {
    if (depth >= kDeepestJson) return nullptr;
    p = after_space(p, end_);
    if (at(p, end_) == ']') return p + 1;
    found_.currency_accepted = false;
    for (size_t i = 0;; ++i) {
      Value code;
      p = scalar_or_skipped(p, depth + 1, code);
      if (p == nullptr) return nullptr;
      if (i < kMostCurrencies && code.is_text()) {
        TextScratch scratch;
        found_.currency_accepted |= scratch.of(code) == currency_;
      }
      p = after_space(p, end_);
      if (at(p, end_) == ']') return p + 1;
      if (at(p, end_) != ',') return nullptr;
      p = after_space(p + 1, end_);
    }
  }

  // A value that is kept if it is a scalar.
  Text scalar_or_skipped(Text p, size_t depth, Value& value) noexcept {
    const char first = at(p, end_);
    if (first == '"') {
      String string;
      p = after_string(p + 1, end_, string);
      if (p != nullptr) value = string.value();
      return p;
    }
    if (is_digit(first) || (first == '-' && is_digit(at(p + 1, end_)))) {
      Number number;
      p = after_number(p, end_, number);
      if (p != nullptr) value = number.value();
      return p;
    }
    value = Value::of(Kind::other);
    if (first == '{' || first == '[') return skipped(p, depth);
    return p == end_ ? nullptr : after_literal(p, end_, value);
  }

  // Any value, checked and not kept; `depth`: of what encloses it.
  Text skipped(Text p, size_t depth) noexcept;

  const RequestPlan& plan_;
  Text end_;
  ptrdiff_t imp_, element_;
  std::string_view currency_;
  Found& found_;
};

Text Reader::skipped(Text p, size_t depth) noexcept {
  uint64_t is_object[kDeepestJson / 64 + 1];  // by depth
  const size_t outside = depth;
  String string;
  Number number;
  Value value;
  for (;;) {
    const char first = at(p, end_);
    if (first == '"') {
      p = after_string(p + 1, end_, string);
    } else if (first == '{' || first == '[') {
      if (depth >= kDeepestJson) return nullptr;
      const char closing = first == '{' ? '}' : ']';
      p = after_space(p + 1, end_);
      if (at(p, end_) != closing) {
        uint64_t& word = is_object[depth / 64];
        const uint64_t bit = uint64_t{1} << depth % 64;
        word = first == '{' ? word | bit : word & ~bit;
        ++depth;
        if (first == '[') continue;
        if (at(p, end_) != '"' || (p = after_string(p + 1, end_, string)) == nullptr) return nullptr;
        p = after_space(p, end_);
        if (at(p, end_) != ':') return nullptr;
        p = after_space(p + 1, end_);
        continue;
      }
      ++p;
    } else if (is_digit(first) || (first == '-' && is_digit(at(p + 1, end_)))) {
      p = after_number(p, end_, number);
    } else {
      p = p == end_ ? nullptr : after_literal(p, end_, value);
    }
    if (p == nullptr) return nullptr;
    // after a value: close what ends here, go on to the next
    for (;;) {
      if (depth == outside) return p;
      p = after_space(p, end_);
      const bool in_object = is_object[(depth - 1) / 64] >> (depth - 1) % 64 & 1;
      const char c = at(p, end_);
      if (c == ',') {
        p = after_space(p + 1, end_);
        if (!in_object) break;
        if (at(p, end_) != '"' || (p = after_string(p + 1, end_, string)) == nullptr) return nullptr;
        p = after_space(p, end_);
        if (at(p, end_) != ':') return nullptr;
        p = after_space(p + 1, end_);
        break;
      }
      if (c != (in_object ? '}' : ']')) return nullptr;
      ++p;
      --depth;
    }
  }
}

}  // namespace

Value Number::value() const noexcept {
  if (is_integer) {
    constexpr uint64_t kLargest = uint64_t(std::numeric_limits<int64_t>::max());
    if (n_digits < 19 || (n_digits == 19 && digits <= kLargest + is_negative)) {
      return Value::of_integer(int64_t(is_negative ? 0 - digits : digits));
    }
    Value value = Value::of(Kind::big_integer);
    const double x = nearest(begin, end);
    value.real = std::isfinite(x) ? x : kMissing;
    return value;
  }
  // Digits and power of ten are exact doubles, so that one rounding is left (Clinger 1990).
  if (n_digits <= 15 && n_decimals <= 22 && !has_exponent) {
    const double x = double(digits) / kPowersOf10[n_decimals];
    return Value::of_real(is_negative ? -x : x);
  }
  return Value::of_real(nearest(begin, end));
}

}  // namespace json

bool read_json(const RequestPlan& plan, std::string_view bytes, ptrdiff_t imp, std::string_view currency,
               Found& found, ptrdiff_t element) noexcept {
  if (bytes.size() >= 3 && std::memcmp(bytes.data(), "\xEF\xBB\xBF", 3) == 0) bytes.remove_prefix(3);
  const char* end = bytes.data() + bytes.size();
  // All of a usual request comes from memory at once, instead of line by line as it is read.
  constexpr size_t kUsual = 4096;
  for (size_t i = 0; i < bytes.size() && i < kUsual; i += 64) __builtin_prefetch(bytes.data() + i);
  found.imps = Imps::none;
  found.currency_accepted = true;
  found.n_elements = 0;
  json::Reader reader(plan, end, imp, element, currency, found);
  reader.clear(RequestPlan::kRoot);
  const char* p = json::after_space(bytes.data(), end);
  if (json::at(p, end) != '{') return false;
  p = reader.object(p + 1, RequestPlan::kRoot, 1);
  return p != nullptr && json::after_space(p, end) == end;
}

}  // namespace bidml
