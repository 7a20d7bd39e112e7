// One home for all tables of an engine: few, huge pages.
//
// A request touches some hundred cache lines scattered over the tables; with 4 KB pages each of them may also miss the
// TLB. Tables are copied here when they are final, 64-byte aligned, in chunks of 2 MB that the kernel may back with huge
// pages. Nothing is freed before the arena is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bidml {

class Arena {
 public:
  // Uninitialised, 64-byte aligned, and readable for 64 bytes past its end.
  void* allocate(size_t bytes) {
    const size_t wanted = (bytes + kPadding + 63) / 64 * 64;
    if (wanted > left_) open(wanted);
    std::byte* result = next_;
    next_ += wanted;
    left_ -= wanted;
    used_ += wanted;
    return result;
  }

  template <class T>
  const T* copy(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    void* to = allocate(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(to, values.data(), values.size() * sizeof(T));
    return static_cast<const T*>(to);
  }

  size_t used() const { return used_; }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kChunk = 64;  // each table alone, so that a read beyond it is seen
#else
  static constexpr size_t kChunk = size_t{2} << 20;
#endif
  static constexpr size_t kPadding = 64;

  struct Free {
    void operator()(std::byte* p) const noexcept { std::free(p); }
  };

  void open(size_t wanted) {
    const size_t size = (wanted + kChunk - 1) / kChunk * kChunk;
    auto* chunk = static_cast<std::byte*>(std::aligned_alloc(kChunk, size));
    if (chunk == nullptr) throw std::bad_alloc();
    chunks_.emplace_back(chunk);
#if defined(__linux__)
    (void)madvise(chunk, size, MADV_HUGEPAGE);  // a hint; refusal changes nothing but speed
#endif
    next_ = chunk;
    left_ = size;
  }

  std::vector<std::unique_ptr<std::byte, Free>> chunks_;
  std::byte* next_ = nullptr;
  size_t left_ = 0, used_ = 0;
};

}  // namespace bidml
