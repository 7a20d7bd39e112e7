#include "read_dict.h"

namespace bidml {
namespace {

constexpr size_t kMostCurrencies = 64;  // of the list `cur` that are looked at

[[gnu::always_inline]] inline void set_text(Value& value, PyObject* text) noexcept {
  const auto length = size_t(PyUnicode_GET_LENGTH(text));
  if (__builtin_expect(PyUnicode_IS_COMPACT_ASCII(text) && length <= kLongestText, 1)) {
    value.kind = Kind::text;
    value.size = uint32_t(length);
    value.data = reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(text));
    return;
  }
#if PY_VERSION_HEX < 0x030C0000
  if (!PyUnicode_IS_READY(text)) {
    value = Value::of_text(kUnmatchable.data(), kUnmatchable.size());
    return;
  }
#endif
  value = Value::of_text(static_cast<const char*>(PyUnicode_DATA(text)), length, Kind::wide_text,
                         uint8_t(PyUnicode_KIND(text)));
}

[[gnu::noinline]] Value value_of_long_integer(PyObject* integer) noexcept {
  int overflow = 0;
  const long long x = PyLong_AsLongLongAndOverflow(integer, &overflow);
  if (!overflow) return Value::of_integer(x);
  double real = PyLong_AsDouble(integer);
  if (real == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    real = kMissing;
  }
  Value value = Value::of(Kind::big_integer);
  value.real = real;
  return value;
}

[[gnu::always_inline]] inline void set_integer(Value& value, PyObject* integer) noexcept {
#if PY_VERSION_HEX < 0x030C0000 && PYLONG_BITS_IN_DIGIT == 30
  const auto* digits = reinterpret_cast<const PyLongObject*>(integer)->ob_digit;
  const Py_ssize_t size = Py_SIZE(integer);
  if (size >= -1 && size <= 2) {
    value.kind = Kind::integer;
    value.integer = size == 2   ? int64_t(digits[1]) << 30 | int64_t(digits[0])
                    : size == 0 ? 0
                                : int64_t(digits[0]) * size;
    return;
  }
#elif PY_VERSION_HEX >= 0x030C0000
  if (PyUnstable_Long_IsCompact(reinterpret_cast<PyLongObject*>(integer))) {
    value.kind = Kind::integer;
    value.integer = PyUnstable_Long_CompactValue(reinterpret_cast<PyLongObject*>(integer));
    return;
  }
#endif
  value = value_of_long_integer(integer);
}

// Subclasses, and what is no feature.
[[gnu::noinline]] void set_rare(Value& value, PyObject* object) noexcept {
  value.kind = Kind::other;
  if (object == Py_None) {
    value.kind = Kind::null;
  } else if (PyUnicode_Check(object)) {
    set_text(value, object);
  } else if (PyLong_Check(object) && !PyBool_Check(object)) {
    set_integer(value, object);
  } else if (PyFloat_Check(object)) {
    value = Value::of_real(PyFloat_AS_DOUBLE(object));
  }
}

// An object of Python as a value: a str, an int that is not a bool, or a finite float.
[[gnu::always_inline]] inline void set_value(Value& value, PyObject* object) noexcept {
  if (object == nullptr) {
    value.kind = Kind::absent;
    return;
  }
  const PyTypeObject* type = Py_TYPE(object);
  if (type == &PyUnicode_Type) {
    set_text(value, object);
  } else if (type == &PyLong_Type) {
    set_integer(value, object);
  } else if (type == &PyFloat_Type) {
    const double x = PyFloat_AS_DOUBLE(object);
    value.kind = std::isfinite(x) ? Kind::real : Kind::other;
    value.real = x;
  } else {
    set_rare(value, object);
  }
}

// Whether bids may be in `currency`: it is in the list, or there is no list, or it is empty.
template <class ItemOf>
bool accepts(PyObject* list, std::string_view currency, ItemOf item_of) noexcept {
  if (list == nullptr || !PyList_Check(list)) return true;
  const Py_ssize_t n = PyList_GET_SIZE(list);
  for (Py_ssize_t i = 0; i < n && size_t(i) < kMostCurrencies; ++i) {
    const Value code = value_of(item_of(list, i));
    TextScratch scratch;
    if (code.is_text() && scratch.of(code) == currency) return true;
  }
  return n == 0;
}

}  // namespace

Value value_of(PyObject* object) noexcept {
  Value value;
  set_value(value, object);
  return value;
}

#if BIDML_DICT_ENTRIES

// Lookups that borrow, by entries read in place.
class DictReader::InPlace {
 public:
  bool is_exact = true;  // while false nothing read so far is known

  class Dict {
   public:
    Dict(InPlace& lookup, PyObject* dict) noexcept : lookup_(lookup), dict_(dict), entries_(dict) {
      if (!DictEntries::is_plain(dict)) lookup_.is_exact = false;
    }

    // Keys and values lie anywhere: what is about to be read comes from memory side by side.
    void expect(const Key* key, const Key* end) const noexcept {
      for (; key != end; ++key) {
        const size_t at = key->place.load(std::memory_order_relaxed);
        if (at >= entries_.size()) continue;
        __builtin_prefetch(entries_.key(at));
        __builtin_prefetch(entries_.value(at));
      }
    }

    PyObject* operator[](const Key& key) noexcept {
      const size_t at = key.place.load(std::memory_order_relaxed);
      if (__builtin_expect(at < entries_.size(), 1)) {
        PyObject* there = entries_.key(at);
        if (there != nullptr && is_exact(there) && key.wanted.is(there)) return entries_.value(at);
      }
      return lookup_.is_exact ? searched(key) : nullptr;
    }

   private:
    bool is_exact(PyObject* key) const noexcept { return entries_.has_text_keys() || PyUnicode_CheckExact(key); }

    __attribute__((noinline)) PyObject* searched(const Key& key) noexcept {
      size_t i = 0;
      if (entries_.has_text_keys() && entries_.is_small()) {
        i = entries_.find(key.wanted);
        if (i == DictEntries::kNowhere) return nullptr;
      } else if (entries_.has_text_keys()) {
        PyObject* found = PyDict_GetItemWithError(dict_, key.wanted.object);
        if (found == nullptr) return nullptr;
        while (entries_.value(i) != found || !key.wanted.is(entries_.key(i))) ++i;
      } else {
        for (;; ++i) {
          if (i == entries_.size()) return nullptr;
          PyObject* there = entries_.key(i);
          if (there == nullptr) continue;
          if (!is_exact(there)) {
            lookup_.is_exact = false;
            return nullptr;
          }
          if (key.wanted.is(there)) break;
        }
      }
      if (i < kNone) key.place.store(uint16_t(i), std::memory_order_relaxed);
      return entries_.value(i);
    }

    InPlace& lookup_;
    PyObject* dict_;
    const DictEntries entries_;
  };

  static PyObject* item_of(PyObject* list, Py_ssize_t i) noexcept { return PyList_GET_ITEM(list, i); }
  static void expect_object(PyObject* dict) noexcept { DictEntries::expect(dict); }
};

#endif

// Lookups that hold what they find, by public functions; foreign code may run in between.
class DictReader::ByCall {
 public:
  explicit ByCall(Held& held) : held_(held) {}
  static void expect_object(PyObject*) noexcept {}
  static constexpr bool is_exact = true;

  class Dict {
   public:
    Dict(ByCall& lookup, PyObject* dict) : lookup_(lookup), dict_(dict) {}
    void expect(const Key*, const Key*) const noexcept {}
    PyObject* operator[](const Key& key) noexcept {
      PyObject* wanted = key.wanted.object;
      PyObject* found = nullptr;
#if PY_VERSION_HEX >= 0x030D0000
      if (PyDict_GetItemRef(dict_, wanted, &found) < 0) PyErr_Clear();
#else
      found = PyDict_GetItemWithError(dict_, wanted);
      if (found == nullptr && PyErr_Occurred()) PyErr_Clear();
      Py_XINCREF(found);
#endif
      return found == nullptr ? nullptr : lookup_.held_.hold(Reference(found));
    }

   private:
    ByCall& lookup_;
    PyObject* dict_;
  };

  PyObject* item_of(PyObject* list, Py_ssize_t i) const noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject* owned = PyList_GetItemRef(list, i);
    if (owned == nullptr) PyErr_Clear();
#else
    PyObject* owned = i < PyList_GET_SIZE(list) ? Py_NewRef(PyList_GET_ITEM(list, i)) : nullptr;
#endif
    if (PyList_Check(list) && owned != nullptr) return held_.hold(Reference(owned));
    return nullptr;
  }

 private:
  Held& held_;
};

DictReader::DictReader(const RequestPlan& plan) : plan_(plan), in_place_(entries_are_readable()) {
  for (size_t k = 0; k < plan.n_keys(); ++k) {
    PyObject* interned = PyUnicode_InternFromString(plan.text(k));
    if (interned == nullptr) throw std::bad_alloc();
    interned_.emplace_back(interned);
    keys_.emplace_back(interned, plan.key(k));
  }
}

template <class Lookup>
bool DictReader::read_by(Lookup& lookup, PyObject* request, Imp imp, std::string_view currency,
                         Found& found) const noexcept {
  PyObject* objects[kMostContainers];
  objects[RequestPlan::kRoot] = request;
  found.imps = Imps::none;
  found.currency_accepted = true;
  found.n_elements = 0;
  const size_t n_containers = plan_.n_containers();
  for (size_t i = 0; i < n_containers; ++i) {
    const RequestPlan::Container& c = plan_.container(i);
    const Key *key = keys_.data() + c.first_key, *const end_key = keys_.data() + c.end_key;
    found.is_open[i] = objects[i] != nullptr;
    if (objects[i] == nullptr) {
      for (; key != end_key; ++key) {
        if (key->leaf != kNone) found.values[key->leaf].kind = Kind::absent;
        if (key->child != kNone) objects[key->child] = nullptr;
      }
      continue;
    }
    typename Lookup::Dict dict(lookup, objects[i]);
    if (!lookup.is_exact) return false;
    dict.expect(key, end_key);
    for (; key != end_key; ++key) {
      PyObject* value = dict[*key];
      if (key->leaf != kNone) set_value(found.values[key->leaf], value);
      if (key->child == kNone && key->access == Access::field) continue;
      if (key->access == Access::currencies) {
        found.currency_accepted =
            accepts(value, currency, [&](PyObject* list, Py_ssize_t at) { return lookup.item_of(list, at); });
        continue;
      }
      if (key->access == Access::imp && imp.given != nullptr) {
        value = imp.given;
      } else if (key->access != Access::field) {
        const bool is_list = value != nullptr && PyList_Check(value);
        Py_ssize_t at = key->access == Access::imp ? imp.index : 0;
        if (key->access == Access::imp && is_list) found.imps = Imps::no_such_object;
        if (key->access == Access::element) {
          at = imp.element;
          found.n_elements = is_list ? size_t(PyList_GET_SIZE(value)) : 0;
        }
        value = is_list && at >= 0 && at < PyList_GET_SIZE(value) ? lookup.item_of(value, at) : nullptr;
      }
      objects[key->child] = value != nullptr && PyDict_Check(value) ? value : nullptr;
      if (objects[key->child] != nullptr) Lookup::expect_object(value);
      if (key->access == Access::imp && objects[key->child] != nullptr) found.imps = Imps::found;
    }
    if (!lookup.is_exact) return false;
  }
  return true;
}

bool DictReader::read(PyObject* request, Imp imp, std::string_view currency, Found& found) const noexcept {
#if BIDML_DICT_ENTRIES
  if (in_place_) {
    InPlace lookup;
    return read_by(lookup, request, imp, currency, found);
  }
#endif
  return false;
}

void DictReader::read_held(PyObject* request, Imp imp, std::string_view currency, Found& found,
                           Held& held) const noexcept {
  ByCall lookup(held);
  read_by(lookup, request, imp, currency, found);
}

}  // namespace bidml
