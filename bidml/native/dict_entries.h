// A dict's entries, read where they lie: what `PyDict_Next` walks, without a call for each.
//
// The layout is CPython's own (Include/internal/pycore_dict.h), the same from 3.11 to 3.13; `entries_are_readable`
// compares it once with the public functions, and where it says no, or on a build without the GIL, nothing here is used.
// Reading entries compares only exact str with str: no foreign code runs, so borrowed references stay valid.
#pragma once

#include <Python.h>

#include <cstdint>
#include <cstring>

#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED) && !defined(PYPY_VERSION)
#define BIDML_DICT_ENTRIES 1
#else
#define BIDML_DICT_ENTRIES 0
#endif

namespace bidml {

#if BIDML_DICT_ENTRIES

struct DictKeys {
  Py_ssize_t refcount;
  uint8_t log2_size, log2_index_bytes, kind;
  uint32_t version;
  Py_ssize_t n_usable, n_entries;
  // the index, of 1 << log2_index_bytes bytes; then the entries
};
constexpr uint8_t kGeneralKeys = 0, kTextKeys = 1;

// The entries of a dict in order of insertion; deleted ones have no key and no value.
class DictEntries {
 public:
  // `dict` is a dict whose values lie in its entries (`is_plain`).
  explicit DictEntries(PyObject* dict) noexcept {
    const auto* keys = reinterpret_cast<const DictKeys*>(reinterpret_cast<PyDictObject*>(dict)->ma_keys);
    const bool is_general = keys->kind == kGeneralKeys;
    keys_ = keys;
    n_ = size_t(keys->n_entries);
    words_ = is_general ? 3 : 2;  // an entry of a general table begins with its hash
    first_ = reinterpret_cast<PyObject* const*>(reinterpret_cast<const char*>(keys + 1) +
                                                (size_t{1} << keys->log2_index_bytes)) + is_general;
  }
  static bool is_plain(PyObject* dict) noexcept {
    const auto* d = reinterpret_cast<PyDictObject*>(dict);
    return d->ma_values == nullptr && reinterpret_cast<const DictKeys*>(d->ma_keys)->kind <= kTextKeys;
  }

  // `dict` is about to be read: its table, of up to 20 entries, comes from memory meanwhile.
  static void expect(PyObject* dict) noexcept {
    const auto* table = reinterpret_cast<const char*>(reinterpret_cast<PyDictObject*>(dict)->ma_keys);
    for (size_t i = 0; i < 6; ++i) __builtin_prefetch(table + 64 * i);
  }

  size_t size() const noexcept { return n_; }
  // Every key is an exact str.
  bool has_text_keys() const noexcept { return words_ == 2; }
  PyObject* key(size_t i) const noexcept { return first_[i * words_]; }
  PyObject* value(size_t i) const noexcept { return first_[i * words_ + 1]; }
  // The index has one byte for each of its cells: dicts of up to 170 entries.
  bool is_small() const noexcept { return keys_->log2_index_bytes == keys_->log2_size; }

  // Where `wanted` is in a small dict with text keys, or kNowhere: the search of every dict, without a call.
  static constexpr size_t kNowhere = ~size_t{0};
  template <class Wanted>
  size_t find(const Wanted& wanted) const noexcept {
    const auto* index = reinterpret_cast<const int8_t*>(keys_ + 1);
    const size_t mask = (size_t{1} << keys_->log2_size) - 1;
    size_t perturb = size_t(wanted.hash), at = perturb & mask;
    for (;;) {
      const int8_t entry = index[at];
      if (entry == -1) return kNowhere;
      if (entry >= 0) {
        PyObject* there = key(size_t(entry));
        if (there == wanted.object) return size_t(entry);
        if (reinterpret_cast<PyASCIIObject*>(there)->hash == wanted.hash && wanted.is(there)) return size_t(entry);
      }
      perturb >>= 5;
      at = (at * 5 + perturb + 1) & mask;
    }
  }

 private:
  const DictKeys* keys_;
  PyObject* const* first_;
  size_t n_, words_;
};

// A wanted key, ready to be compared with the keys of dicts.
struct WantedKey {
  PyObject* object = nullptr;  // interned, ASCII
  const char* text = nullptr;  // of `object`
  Py_ssize_t size = 0;
  Py_hash_t hash = 0;
  uint64_t head = 0, head_mask = 0;  // its first 8 bytes

  explicit WantedKey(PyObject* interned) noexcept
      : object(interned), text(reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(interned))),
        size(PyUnicode_GET_LENGTH(interned)), hash(PyObject_Hash(interned)) {
    head_mask = size >= 8 ? ~uint64_t{0} : (uint64_t{1} << 8 * size) - 1;
    std::memcpy(&head, text, size >= 8 ? 8 : size_t(size));
  }

  // `key`: an exact str. The first word of a str's data is aligned, so that reading all of it stays on its page.
  bool is(PyObject* key) const noexcept {
    if (key == object) return true;
    if (PyUnicode_GET_LENGTH(key) != size || !PyUnicode_IS_COMPACT_ASCII(key)) return false;
    const auto* data = reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(key));
    return ((first_word(data) ^ head) & head_mask) == 0 && (size <= 8 || tail_is(data));
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  [[gnu::no_sanitize_address]]
#endif
  static uint64_t first_word(const char* at) noexcept {
    uint64_t x;
    std::memcpy(&x, at, sizeof x);
    return x;
  }
  static uint64_t word(const char* at) noexcept {
    uint64_t x;
    std::memcpy(&x, at, sizeof x);
    return x;
  }
  bool tail_is(const char* data) const noexcept {
    uint64_t differs = word(data + size - 8) ^ word(text + size - 8);
    for (Py_ssize_t i = 8; i + 8 < size; i += 8) differs |= word(data + i) ^ word(text + i);
    return differs == 0;
  }
};

#endif

// Whether this build of Python lays dicts out as above: checked on dicts of both kinds, with and without deletions.
bool entries_are_readable();

}  // namespace bidml
