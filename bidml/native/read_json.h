// From the bytes of an OpenRTB request to the values that a plan wants, without building anything.
//
// One pass: keys of opened objects are looked up, everything else is skipped, and all of it is checked. What is accepted
// is what Python's `json.loads` accepts, and means the same: UTF-8 with or without a byte order mark (lone surrogates
// pass, and match no key), NaN and infinities (which are no numbers here), the last of duplicate keys, numbers rounded
// as `float()` rounds, integers of at most 4,300 digits. Refused besides what it refuses: nesting deeper than 512, and
// UTF-16 and UTF-32.
//
// Never reads beyond the bytes; never allocates, raises or calls the system. Time is linear in the size.
#pragma once

#include <cstddef>
#include <string_view>

#include "request_plan.h"
#include "request_values.h"

namespace bidml {

constexpr size_t kDeepestJson = 512;

// Sets all of `found` from the bytes of a request whose impression `imp` (from 0) is auctioned. False: the bytes are
// not JSON, or not an object. Texts in `found` point into the bytes. `element`: which one of a list of `Access::element`.
bool read_json(const RequestPlan& plan, std::string_view bytes, ptrdiff_t imp, std::string_view currency,
               Found& found, ptrdiff_t element = 0) noexcept;

}  // namespace bidml
