// The engine: from raw features to margins, exactly, without walking a tree.
//
// The idea. A tree ensemble never sees a number, only on which side of its finitely many thresholds the number lies.
// So every raw feature is replaced once by small integers ("ranks"), a string by one hash probe, a number by one
// search, and everything after that is integer comparison. `Row` holds those ranks; the kernels (kernel_*.h) turn
// them into leaves; leaves are summed in double. The leaf of every tree is the one that `x <= threshold` in double
// would find, for every x: on a threshold, one ulp beside it, NaN, infinities, -0.0, unseen text.
//
// Life of a request:   clear(row) → set_numbers(row, ...) → set_category(row, ...) → cross(row) → margins(row, ...)
// Many line items:     encode each side once into its own row, then margins(request, line, ...).
//
// Everything declared noexcept neither allocates, locks, throws nor calls the system. An Engine never changes after
// build(): any number of threads may share it, each with its own rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bidml {

// ---- the blueprint, borrowed for the time of build() -------------------------------------------------------------

template <class T>
struct Span {
  const T* data = nullptr;
  size_t size = 0;
  const T& operator[](size_t i) const { return data[i]; }
  const T* begin() const { return data; }
  const T* end() const { return data + size; }
};

enum class Rewrite : uint8_t {
  none,
  zero_is_missing,  // |x| <= 1e-35 becomes NaN
  truncate,         // toward zero
};

// The arrays of bidml/blueprint.py::Trees, which documents them. mode: 0 is `x <= threshold`, 6 is membership.
struct TreesView {
  Span<int64_t> roots;  // (n_trees,)
  Span<int64_t> column;  // (n_nodes,), as all below
  Span<uint8_t> mode;
  Span<double> threshold;
  Span<int64_t> true_child;
  Span<int64_t> false_child;
  Span<int64_t> true_is_leaf;
  Span<int64_t> false_is_leaf;
  Span<int64_t> missing_true;
  Span<double> membership;  // the sets of the membership nodes in node order, each followed by one NaN
  Span<double> leaf;        // (n_leaves,)
};

// One side of a cross: a text's number is the place of its key, or keys.size.
struct VocabularyView {
  int slot = 0;                  // category slot
  Span<std::string_view> keys;  // strictly ascending UTF-8
};

struct LookupView {
  int slot = 0;                  // category slot
  Span<std::string_view> keys;  // strictly ascending UTF-8
  Span<double> values;           // (keys.size,), of a cross (codes.size,)
  double default_value = 0.0;    // for every other text or pair
  // A cross of two categories has no slot and keys of its own, but these:
  bool is_cross = false;
  VocabularyView first, second;
  Span<double> codes;  // strictly ascending: the first number · (second.keys.size + 1) + the second
};

struct ColumnView {
  bool is_category = false;
  int slot = 0;  // number slot, where !is_category
  Rewrite rewrite = Rewrite::none;
  LookupView lookup;  // where is_category
};

// margin = Σ trees / divisor · scale + intercept + Σ terms
struct HeadView {
  std::vector<ColumnView> columns;
  bool has_trees = false;
  TreesView trees;
  std::vector<LookupView> terms;
  double intercept = 0.0;
  double scale = 1.0;
  double divisor = 1.0;
};

// ---- limits: those of bidml/contract.py (a test compares) --------------------------------------------------------

constexpr size_t kMaxHeads = 8;
constexpr size_t kMaxFeatures = 256;  // numbers and categories together
constexpr size_t kMaxColumns = 1024;
constexpr size_t kMaxTrees = 20'000;
constexpr size_t kMaxNodes = 4'000'000;
constexpr size_t kMaxKeys = 4'000'000;
constexpr size_t kMaxCrosses = 64;
constexpr size_t kMaxDepth = 512;
constexpr double kMaxAbsLeaf = 1e6;

// A text as the engine takes it, not initialised: a request has arrays of them. `data` is never null.
struct TextRef {
  const char* data;
  size_t size;

  TextRef() = default;
  TextRef(const char* text, size_t n) noexcept : data(text), size(n) {}
  TextRef(std::string_view text) noexcept : data(text.empty() ? "" : text.data()), size(text.size()) {}
  operator std::string_view() const noexcept { return {data, size}; }
};

// ---- rows --------------------------------------------------------------------------------------------------------

// An encoded row, or one side of it: opaque, `Engine::row_bytes()` long, 64-byte aligned.
struct Row;

class Engine;

// Rows on the heap. Not for the hot path: allocate when a line item or a scratch area is made.
class RowBuffer {
 public:
  RowBuffer() = default;
  explicit RowBuffer(const Engine& engine, size_t n_rows = 1);  // rows are cleared
  Row& operator[](size_t i) noexcept { return *reinterpret_cast<Row*>(bytes_.get() + i * stride_); }
  const Row& operator[](size_t i) const noexcept { return *reinterpret_cast<const Row*>(bytes_.get() + i * stride_); }
  Row& operator*() noexcept { return (*this)[0]; }
  const Row& operator*() const noexcept { return (*this)[0]; }
  size_t stride() const noexcept { return stride_; }

 private:
  struct Free {
    void operator()(std::byte* p) const noexcept;
  };
  std::unique_ptr<std::byte, Free> bytes_;
  size_t stride_ = 0;
};

// One row of scratch: on the stack where it fits (every model of the fast paths), else on the heap.
class ScratchRow {
 public:
  explicit ScratchRow(const Engine& engine);  // cleared
  Row& operator*() noexcept { return *row_; }

 private:
  alignas(64) std::byte bytes_[8192];
  RowBuffer heap_;
  Row* row_;
};

// ---- the engine --------------------------------------------------------------------------------------------------

enum class Isa : uint8_t { scalar, avx2, avx512, best };

// "scalar", "avx2", "avx512", "best"; throws std::invalid_argument otherwise.
Isa isa_from_name(std::string_view name);
const char* isa_name(Isa isa) noexcept;
// What this machine can run; `best` is resolved to it.
bool isa_available(Isa isa) noexcept;

struct HeadInfo {
  std::string path;  // "avx512 complete depth 5"
  std::string why;   // why not a faster one; empty for the fastest
  size_t n_trees = 0;
  size_t n_columns = 0;
  size_t bytes = 0;
};

class Engine {
 public:
  // Checks every index and number again; throws std::invalid_argument("rule; found value; remedy").
  // `wanted` is overridden by the environment variable BIDML_ISA, read here; an unavailable one is refused.
  // A bidder's engine is built without the oracle, which keeps a copy of the blueprint.
  static std::unique_ptr<const Engine> build(const std::vector<HeadView>& heads, int n_numbers, int n_categories,
                                             Isa wanted = Isa::best, bool with_reference = true);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  size_t n_heads() const noexcept;
  int n_numbers() const noexcept;
  int n_categories() const noexcept;
  Isa isa() const noexcept;
  std::vector<HeadInfo> info() const;
  size_t bytes() const noexcept;  // resident, all tables together

  // -- encode: a slot that is not set is missing: NaN, or the empty text --
  size_t row_bytes() const noexcept;
  void clear(Row& row) const noexcept;
  // text need not be UTF-8 and may be anything; a text without an entry gets the defaults.
  void set_category(Row& row, int slot, const char* utf8, size_t size) const noexcept;
  // Whether a text has no entry in a slot that has some.
  bool is_unseen(int slot, std::string_view text) const noexcept;
  // slots first .. first+count-1 at once; values[i] and texts[i] belong to slot first+i. Number the slots of the
  // request before those of the line item, and each side is one call.
  void set_categories(Row& row, int first, int count, const TextRef* texts) const noexcept;
  void set_numbers(Row& row, int first, int count, const double* values) const noexcept;
  // Both in less time: categories first .. first+count-1 and numbers 0 .. n_numbers-1.
  void set_slots(Row& row, int first, int count, const TextRef* texts, int n_numbers,
                 const double* values) const noexcept;

  // One slot of the first `count` rows at once, at most kRowsAtOnce. A text is found first, which can be remembered: its
  // payload is the engine's and lives as long.
  static constexpr int kRowsAtOnce = 32;
  void find_categories(int slot, int count, const TextRef* texts, const std::byte** payloads) const noexcept;
  void set_category_of_rows(RowBuffer& rows, int count, int slot, const std::byte* const* payloads) const noexcept;
  void set_number_of_rows(RowBuffer& rows, int count, int slot, const double* values) const noexcept;

  // What crosses of categories say, once both sides of a row are set. `merge` and what takes two sides do it.
  void cross(Row& row) const noexcept;
  void cross(RowBuffer& rows, int count) const noexcept;

  // -- score: out[h] for every head h whose bit is set in head_mask --
  void margins(const Row& row, uint32_t head_mask, double* out) const noexcept;
  double margin(const Row& row, size_t head) const noexcept;
  // Two partial rows of which each slot is set in at most one.
  void margins(const Row& request, const Row& line, uint32_t head_mask, double* out) const noexcept;
  // Many at once, head by head, so that a head's trees stay in the first cache: out (count, n_heads).
  void margins_of_rows(const RowBuffer& rows, int count, uint32_t head_mask, double* out) const noexcept;
  // lines[i] with the request; count at most kLinesAtOnce.
  static constexpr int kLinesAtOnce = 16;
  void margins_of_lines(const Row& request, const Row* const* lines, int count, uint32_t head_mask,
                        double* out) const noexcept;
  // out may be either input.
  void merge(Row& out, const Row& request, const Row& line) const noexcept;

  // The oracle: doubles compared node by node, summed in tree order. numbers (n_numbers,), categories (n_categories,).
  // Throws std::logic_error without it.
  void margins_reference(const double* numbers, const TextRef* categories, uint32_t head_mask,
                         double* out) const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bidml
