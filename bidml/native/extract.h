// From a request, a dict or JSON, to the raw slots of the feature spec, and to the terms of the auction.
//
// The spec's paths become one plan (request_plan.h), which also holds what derived features and the auction's terms
// need; a reader fills a `Found` by it, in one pass over the request; and here the values get their meaning, once for
// both kinds of request, for training and bidding.
//
// Types are strict: a category is text, or an integer in decimal; a number is an integer or a finite real; a bool is
// neither. Whatever else is found is missing ("" or NaN). Text longer than any key of a model cannot match.
//
// Sink: void category(int slot, std::string_view utf8), in the order of the slots; void number(int slot, double).
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "request_plan.h"
#include "request_values.h"

namespace bidml {

enum class Derived : uint8_t {
  none,
  hour_of_day,
  weekday,
  banner_size,
  app_or_site,
  inventory,
  ad_format,
  os_version_major
};

class Extractor {
 public:
  struct Source {
    std::string path;  // OpenRTB path, or derived.<name>; line-item features are not given
    bool is_category;
    int slot;  // of its kind, in ascending order
  };

  // What the auction's terms are read from.
  struct TermLeaves {
    uint16_t auction_type, private_auction, floor, floor_currency;
  };

  // Throws std::invalid_argument for an unknown derived feature and for a plan beyond its limits.
  Extractor(const std::vector<Source>& sources, const std::string& timestamp_ms_path);

  const RequestPlan& plan() const noexcept { return *plan_; }
  const TermLeaves& terms() const noexcept { return terms_; }
  int n_categories() const noexcept { return int(categories_.size()); }

  // The text of category slot `slot`; in `scratch`, which has room, or borrowed from the request.
  std::string_view category(const Found& found, int slot, TextScratch& scratch) const noexcept {
    const Field& field = categories_[size_t(slot)];
    if (__builtin_expect(field.derived != Derived::none, 0)) return derived_text(found, field.derived, scratch);
    const Value& value = found.values[field.leaf];
    if (__builtin_expect(value.kind == Kind::text && value.size <= kLongestText, 1)) return {value.data, value.size};
    return scratch.of(value);
  }
  // All number slots of the request, into numbers[slot].
  void numbers(const Found& found, double* numbers) const noexcept {
    for (const Field& field : numbers_) numbers[field.slot] = found.values[field.leaf].number();
    if (!derived_numbers_.empty()) derive_numbers(found, numbers);
  }

 private:
  struct Field {
    uint16_t leaf = kNone;  // of an underived one
    Derived derived = Derived::none;
    int slot = 0;
  };
  struct Size {  // of a creative: an object's w and h
    uint16_t object = kNone, w = kNone, h = kNone;
  };
  struct Clock {
    double hour_of_day, weekday;
  };

  std::string_view derived_text(const Found& found, Derived derived, TextScratch& scratch) const noexcept;
  void derive_numbers(const Found& found, double* numbers) const noexcept;
  Clock local_time(const Found& found) const noexcept;
  std::string_view banner_size(const Found& found, TextScratch& scratch) const noexcept;
  std::string_view text_of_size(const Found& found, const Size& size, TextScratch& scratch) const noexcept;

  std::unique_ptr<const RequestPlan> plan_;
  std::vector<Field> categories_;  // by slot
  std::vector<Field> numbers_, derived_numbers_;
  TermLeaves terms_{};
  uint16_t timestamp_ = kNone, utcoffset_ = kNone, osv_ = kNone;
  uint16_t app_ = kNone, site_ = kNone, bundle_ = kNone, domain_ = kNone;
  uint16_t formats_[4] = {kNone, kNone, kNone, kNone};  // objects banner, video, audio, native
  Size banner_, first_format_, video_;
};

}  // namespace bidml
