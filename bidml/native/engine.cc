#include "engine.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>

#include "isa.h"
#include "reference.h"
#include "validate.h"

namespace bidml {

struct Engine::Impl {
  std::vector<ReferenceHead> reference;
  std::vector<HeadInfo> info;
  int n_numbers = 0, n_categories = 0;
  Isa isa = Isa::scalar;
  size_t row_bytes = 0;
};

namespace {
struct FirstRow {
  double numbers[kMaxFeatures];
  std::string_view categories[kMaxFeatures];
};
}  // namespace

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

std::unique_ptr<const Engine> Engine::build(const std::vector<HeadView>& heads, int n_numbers, int n_categories,
                                            Isa wanted) {
  validate(heads, n_numbers, n_categories);
  auto impl = std::make_unique<Impl>();
  impl->isa = resolve_isa(wanted);
  impl->n_numbers = n_numbers;
  impl->n_categories = n_categories;
  impl->row_bytes = (sizeof(FirstRow) + 63) / 64 * 64;
  for (const HeadView& head : heads) {
    impl->reference.emplace_back(head);
    impl->info.push_back({"double walk", "", head.trees.roots.size, head.columns.size(), 0});
  }
  return std::unique_ptr<const Engine>(new Engine(std::move(impl)));
}

size_t Engine::n_heads() const noexcept { return impl_->reference.size(); }
int Engine::n_numbers() const noexcept { return impl_->n_numbers; }
int Engine::n_categories() const noexcept { return impl_->n_categories; }
Isa Engine::isa() const noexcept { return impl_->isa; }
std::vector<HeadInfo> Engine::info() const { return impl_->info; }
size_t Engine::bytes() const noexcept { return 0; }
size_t Engine::row_bytes() const noexcept { return impl_->row_bytes; }

void Engine::clear(Row& row) const noexcept {
  auto& r = reinterpret_cast<FirstRow&>(row);
  for (double& x : r.numbers) x = std::numeric_limits<double>::quiet_NaN();
  for (std::string_view& text : r.categories) text = {};
}

void Engine::set_category(Row& row, int slot, const char* utf8, size_t size) const noexcept {
  reinterpret_cast<FirstRow&>(row).categories[slot] = {utf8, size};
}

void Engine::set_categories(Row& row, int first, int count, const std::string_view* text) const noexcept {
  for (int i = 0; i < count; ++i) set_category(row, first + i, text[i].data(), text[i].size());
}

void Engine::set_numbers(Row& row, int first, int count, const double* values) const noexcept {
  for (int i = 0; i < count; ++i) reinterpret_cast<FirstRow&>(row).numbers[first + i] = values[i];
}

void Engine::merge(Row& out, const Row& request, const Row& line) const noexcept {
  const auto &a = reinterpret_cast<const FirstRow&>(request), &b = reinterpret_cast<const FirstRow&>(line);
  auto& to = reinterpret_cast<FirstRow&>(out);
  for (size_t i = 0; i < kMaxFeatures; ++i) {
    to.numbers[i] = a.numbers[i] == a.numbers[i] ? a.numbers[i] : b.numbers[i];
    to.categories[i] = a.categories[i].empty() ? b.categories[i] : a.categories[i];
  }
}

void Engine::margins(const Row& row, uint32_t head_mask, double* out) const noexcept {
  const auto& r = reinterpret_cast<const FirstRow&>(row);
  margins_reference(r.numbers, r.categories, head_mask, out);
}

void Engine::margins(const Row& request, const Row& line, uint32_t head_mask, double* out) const noexcept {
  FirstRow merged;
  merge(reinterpret_cast<Row&>(merged), request, line);
  margins(reinterpret_cast<Row&>(merged), head_mask, out);
}

void Engine::margins_reference(const double* numbers, const std::string_view* categories, uint32_t head_mask,
                               double* out) const {
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
