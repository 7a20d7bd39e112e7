#include "engine.h"

#include <cstring>
#include <new>
#include <stdexcept>

#include "arena.h"
#include "encoder.h"
#include "forest.h"
#include "reference.h"
#include "validate.h"

namespace bidml {
namespace {

static_assert(Engine::kRowsAtOnce == int(kRowsAtOnce));

std::byte* bytes_of(Row& row) { return reinterpret_cast<std::byte*>(&row); }
const std::byte* bytes_of(const Row& row) { return reinterpret_cast<const std::byte*>(&row); }

struct Head {
  Forest forest;
  double intercept, scale, divisor;
  HeadInfo info;
};

// Rows up to this are combined as a whole, longer ones head by head.
constexpr size_t kShortRow = 2048;
// The widest head: three 32-bit lanes for each column, and its terms.
constexpr size_t kLongestHead = kMaxColumns * 3 * sizeof(uint32_t), kLongestTerms = kMaxColumns * sizeof(double);

}  // namespace

struct Engine::Impl {
  Isa isa = Isa::scalar;
  const Kernels* kernels = nullptr;
  int n_numbers = 0, n_categories = 0;
  Arena arena;
  Encoder encoder;
  std::vector<Head> heads;
  std::vector<ReferenceHead> reference;

  // lanes, terms: of this head in a complete row
  double margin(size_t head, const std::byte* lanes, const std::byte* terms) const noexcept {
    const Head& h = heads[head];
    double margin = h.forest.sum(*kernels, lanes) / h.divisor * h.scale + h.intercept;
    for (uint32_t i = 0; i < encoder.place(head).n_terms; ++i) {
      double term;
      std::memcpy(&term, terms + i * sizeof term, sizeof term);
      margin += term;
    }
    return margin;
  }

  void margins_by_head(const std::byte* rows, size_t stride, int count, uint32_t head_mask, double* out) const noexcept {
    const size_t n_heads = heads.size();
    for (size_t h = 0; h < n_heads; ++h) {
      if ((head_mask >> h & 1) == 0) continue;
      const HeadPlace& place = encoder.place(h);
      for (int i = 0; i < count; ++i) {
        const std::byte* row = rows + size_t(i) * stride;
        out[size_t(i) * n_heads + h] = margin(h, row + place.lanes, row + place.terms);
      }
    }
  }

  // Of two sides of a long row whose crosses need both.
  __attribute__((noinline)) void margins_of_crossed_rows(const Row& a, const Row& b, uint32_t head_mask,
                                                         double* out) const noexcept {
    auto* row = static_cast<std::byte*>(__builtin_alloca_with_align(encoder.row_bytes(), 512));
    kernels->combine(row, bytes_of(a), bytes_of(b), encoder.blank(), encoder.row_bytes());
    encoder.set_crosses(row);
    for (size_t h = 0; h < heads.size(); ++h) {
      if (head_mask >> h & 1) out[h] = margin(h, row + encoder.place(h).lanes, row + encoder.place(h).terms);
    }
  }

  // Not inlined: its scratch must not grow the stack of the common case.
  __attribute__((noinline)) void margins_of_long_rows(const std::byte* a, const std::byte* b, uint32_t head_mask,
                                                      double* out) const noexcept {
    alignas(64) std::byte lanes[kLongestHead];
    std::byte terms[kLongestTerms];
    const std::byte* blank = encoder.blank();
    for (size_t h = 0; h < heads.size(); ++h) {
      if ((head_mask >> h & 1) == 0) continue;
      const HeadPlace& place = encoder.place(h);
      kernels->combine(lanes, a + place.lanes, b + place.lanes, blank + place.lanes, place.lanes_bytes);
      for (size_t i = 0; i < place.n_terms * sizeof(double); ++i) {
        terms[i] = a[place.terms + i] ^ b[place.terms + i] ^ blank[place.terms + i];
      }
      out[h] = margin(h, lanes, terms);
    }
  }
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

std::unique_ptr<const Engine> Engine::build(const std::vector<HeadView>& heads, int n_numbers, int n_categories,
                                            Isa wanted, bool with_reference) {
  validate(heads, n_numbers, n_categories);
  auto impl = std::make_unique<Impl>();
  impl->isa = resolve_isa(wanted);
  impl->kernels = &kernels_of(impl->isa);
  impl->n_numbers = n_numbers;
  impl->n_categories = n_categories;
  std::vector<HeadLanes> lanes;
  for (const HeadView& head : heads) lanes.push_back(lanes_of(head));
  impl->encoder = Encoder(heads, lanes, n_numbers, n_categories, *impl->kernels, impl->arena);
  for (size_t h = 0; h < heads.size(); ++h) {
    const HeadView& view = heads[h];
    const size_t before = impl->arena.used();
    Forest forest(view, lanes[h], *impl->kernels, impl->arena);
    HeadInfo info{std::string(isa_name(impl->isa)) + " " + forest.shape(), forest.why(), view.trees.roots.size,
                  view.columns.size(), impl->arena.used() - before};
    impl->heads.push_back({std::move(forest), view.intercept, view.scale, view.divisor, std::move(info)});
    if (with_reference) impl->reference.emplace_back(view);
  }
  return std::unique_ptr<const Engine>(new Engine(std::move(impl)));
}

size_t Engine::n_heads() const noexcept { return impl_->heads.size(); }
int Engine::n_numbers() const noexcept { return impl_->n_numbers; }
int Engine::n_categories() const noexcept { return impl_->n_categories; }
Isa Engine::isa() const noexcept { return impl_->isa; }
size_t Engine::bytes() const noexcept { return impl_->arena.used(); }
size_t Engine::row_bytes() const noexcept { return impl_->encoder.row_bytes(); }

std::vector<HeadInfo> Engine::info() const {
  std::vector<HeadInfo> info;
  for (const Head& head : impl_->heads) info.push_back(head.info);
  return info;
}

void Engine::clear(Row& row) const noexcept { std::memcpy(bytes_of(row), impl_->encoder.blank(), row_bytes()); }

void Engine::set_category(Row& row, int slot, const char* utf8, size_t size) const noexcept {
  impl_->encoder.set_category(bytes_of(row), slot, utf8, size);
}

void Engine::set_categories(Row& row, int first, int count, const TextRef* texts) const noexcept {
  impl_->encoder.set_categories(bytes_of(row), first, count, texts);
}

void Engine::set_numbers(Row& row, int first, int count, const double* values) const noexcept {
  impl_->encoder.set_numbers(bytes_of(row), first, count, values);
}

void Engine::set_slots(Row& row, int first, int count, const TextRef* texts, int n_numbers,
                       const double* values) const noexcept {
  impl_->encoder.set_slots(bytes_of(row), first, count, texts, n_numbers, values);
}

bool Engine::is_unseen(int slot, std::string_view text) const noexcept {
  return impl_->encoder.is_unseen(slot, text);
}

void Engine::find_categories(int slot, int count, const TextRef* texts,
                             const std::byte** payloads) const noexcept {
  impl_->encoder.find_categories(slot, count, texts, payloads);
}

void Engine::set_category_of_rows(RowBuffer& rows, int count, int slot,
                                  const std::byte* const* payloads) const noexcept {
  impl_->encoder.set_category_of_rows(bytes_of(*rows), rows.stride(), slot, count, payloads);
}

void Engine::set_number_of_rows(RowBuffer& rows, int count, int slot, const double* values) const noexcept {
  impl_->encoder.set_number_of_rows(bytes_of(*rows), rows.stride(), slot, count, values);
}

void Engine::margins_of_rows(const RowBuffer& rows, int count, uint32_t head_mask, double* out) const noexcept {
  impl_->margins_by_head(bytes_of(*rows), rows.stride(), count, head_mask, out);
}

void Engine::margins_of_lines(const Row& request, const Row* const* lines, int count, uint32_t head_mask,
                              double* out) const noexcept {
  const size_t stride = row_bytes();
  if (stride > kShortRow) {
    for (int i = 0; i < count; ++i) margins(request, *lines[i], head_mask, out + size_t(i) * n_heads());
    return;
  }
  alignas(64) std::byte merged[kShortRow * kLinesAtOnce];
  for (int i = 0; i < count; ++i) {
    merge(reinterpret_cast<Row&>(merged[size_t(i) * stride]), request, *lines[i]);
  }
  impl_->margins_by_head(merged, stride, count, head_mask, out);
}

void Engine::merge(Row& out, const Row& request, const Row& line) const noexcept {
  impl_->kernels->combine(bytes_of(out), bytes_of(request), bytes_of(line), impl_->encoder.blank(), row_bytes());
  if (__builtin_expect(impl_->encoder.has_crosses(), 0)) impl_->encoder.set_crosses(bytes_of(out));
}

void Engine::cross(Row& row) const noexcept {
  if (impl_->encoder.has_crosses()) impl_->encoder.set_crosses(bytes_of(row));
}

void Engine::cross(RowBuffer& rows, int count) const noexcept {
  if (!impl_->encoder.has_crosses()) return;
  for (int i = 0; i < count; ++i) impl_->encoder.set_crosses(bytes_of(rows[size_t(i)]));
}

void Engine::margins(const Row& row, uint32_t head_mask, double* out) const noexcept {
  for (size_t h = 0; h < n_heads(); ++h) {
    if ((head_mask >> h & 1) == 0) continue;
    const HeadPlace& place = impl_->encoder.place(h);
    out[h] = impl_->margin(h, bytes_of(row) + place.lanes, bytes_of(row) + place.terms);
  }
}

double Engine::margin(const Row& row, size_t head) const noexcept {
  const HeadPlace& place = impl_->encoder.place(head);
  return impl_->margin(head, bytes_of(row) + place.lanes, bytes_of(row) + place.terms);
}

void Engine::margins(const Row& request, const Row& line, uint32_t head_mask, double* out) const noexcept {
  if (row_bytes() > kShortRow) {
    if (impl_->encoder.has_crosses()) {
      impl_->margins_of_crossed_rows(request, line, head_mask, out);
      return;
    }
    impl_->margins_of_long_rows(bytes_of(request), bytes_of(line), head_mask, out);
    return;
  }
  alignas(64) std::byte merged[kShortRow];
  Row& row = reinterpret_cast<Row&>(*merged);
  merge(row, request, line);
  margins(row, head_mask, out);
}

void Engine::margins_reference(const double* numbers, const TextRef* categories, uint32_t head_mask,
                               double* out) const {
  if (impl_->reference.size() != n_heads()) throw std::logic_error("the oracle was built; found none; ask build for it");
  for (size_t h = 0; h < n_heads(); ++h) {
    if (head_mask >> h & 1) out[h] = impl_->reference[h].margin(numbers, categories);
  }
}

RowBuffer::RowBuffer(const Engine& engine, size_t n_rows) : stride_(engine.row_bytes()) {
  bytes_.reset(static_cast<std::byte*>(::operator new(stride_ * n_rows, std::align_val_t{64})));
  for (size_t i = 0; i < n_rows; ++i) engine.clear((*this)[i]);
}

ScratchRow::ScratchRow(const Engine& engine) {
  if (engine.row_bytes() > sizeof bytes_) {
    heap_ = RowBuffer(engine);
    row_ = &*heap_;
  } else {
    row_ = reinterpret_cast<Row*>(bytes_);
    engine.clear(*row_);
  }
}

void RowBuffer::Free::operator()(std::byte* p) const noexcept { ::operator delete(p, std::align_val_t{64}); }

}  // namespace bidml
