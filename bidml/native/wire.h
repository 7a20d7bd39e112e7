// Runs of one repeated field of a protobuf message, in bulk: the long parts of an artifact, for score/wire.py.
//
// A run is `tag item tag item ...` with a tag of one byte. Every function stays inside [start, end) and says where it
// stopped; nothing allocates. A run is scanned, which counts and validates it, and may then be read without a check.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bidml {

struct Run {
  size_t count = 0;  // items
  size_t end = 0;    // behind the last one; of the item that is none, where there is a problem
  const char* problem = "";
};

// A number in base 128, least digits first; bytes after `at`, or 0 where it does not end within `longest` bytes.
inline size_t varint_size(const uint8_t* data, size_t at, size_t end, size_t longest) noexcept {
  for (size_t size = 1; size <= longest && at + size <= end; ++size)
    if (data[at + size - 1] < 0x80) return size;
  return 0;
}
inline uint64_t varint(const uint8_t* data, size_t at, size_t size) noexcept {
  uint64_t value = 0;
  while (size-- > 0) value = value << 7 | (data[at + size] & 0x7f);
  return value;
}
inline bool is_shortest(const uint8_t* data, size_t at, size_t size) noexcept {
  return size == 1 || data[at + size - 1] != 0;
}

constexpr size_t kLongestNumber = 5;  // bytes: below 2^35

// Problems: "number" (it is larger, or does not end), "form" (it has a shorter form), "many" (over `most`).
inline Run scan_numbers(const uint8_t* data, size_t start, size_t end, uint8_t tag, size_t most) noexcept {
  Run run{0, start, ""};
  while (run.end < end && data[run.end] == tag) {
    const size_t at = run.end + 1, size = varint_size(data, at, end, kLongestNumber);
    if (size == 0) run.problem = "number";
    else if (!is_shortest(data, at, size)) run.problem = "form";
    else if (++run.count > most) run.problem = "many";
    if (*run.problem) return run;
    run.end = at + size;
  }
  return run;
}

inline void read_numbers(const uint8_t* data, size_t at, size_t count, int64_t* out) noexcept {
  for (size_t i = 0; i < count; ++i) {
    const size_t size = varint_size(data, at + 1, at + 1 + kLongestNumber, kLongestNumber);
    out[i] = int64_t(varint(data, at + 1, size));
    at += 1 + size;
  }
}

// The text at `at`, from its tag on: where its bytes start and stop. It was scanned.
struct TextSpan {
  size_t start, stop;
};
inline TextSpan text_span(const uint8_t* data, size_t at) noexcept {
  const size_t size = varint_size(data, at + 1, at + 1 + kLongestNumber, kLongestNumber);
  const size_t start = at + 1 + size;
  return {start, start + size_t(varint(data, at + 1, size))};
}

// Problems: "length" (it is none, or goes beyond the end), "form", "many".
inline Run scan_texts(const uint8_t* data, size_t start, size_t end, uint8_t tag, size_t most) noexcept {
  Run run{0, start, ""};
  while (run.end < end && data[run.end] == tag) {
    const size_t at = run.end + 1, size = varint_size(data, at, end, kLongestNumber);
    if (size == 0 || varint(data, at, size) > end - at - size) run.problem = "length";
    else if (!is_shortest(data, at, size)) run.problem = "form";
    else if (++run.count > most) run.problem = "many";
    if (*run.problem) return run;
    run.end = text_span(data, run.end).stop;
  }
  return run;
}

}  // namespace bidml
