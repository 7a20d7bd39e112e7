// From an OpenRTB request, as Python's JSON decoders build it, to the values that a plan wants.
//
// Each object is opened once and each key read once. A key is looked for first where it was the last time (requests of
// an exchange have their keys in one order), then as every dict is searched.
//
// Nothing raises, and no foreign code can leave an error behind: a key whose __eq__ raises is a key that is not there.
// Where entries can be read in place no foreign code runs at all and references are borrowed; else, and for dicts with
// keys that are not text, every object on the way is held (`Held`) while its values are in use.
#pragma once

#include <Python.h>

#include <atomic>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "dict_entries.h"
#include "request_plan.h"
#include "request_values.h"

namespace bidml {

class Reference {  // owns one strong reference, or none
 public:
  Reference() = default;
  explicit Reference(PyObject* owned) : object_(owned) {}
  Reference(Reference&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
  Reference& operator=(Reference&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  ~Reference() { Py_XDECREF(object_); }
  PyObject* get() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

// What must stay alive while values read without `DictEntries` are in use.
class Held {
 public:
  PyObject* hold(Reference reference) noexcept {
    objects_[n_] = std::move(reference);
    return objects_[n_++].get();
  }

 private:
  Reference objects_[2 * (kMostLeaves + kMostContainers)];
  size_t n_ = 0;
};

// An object of Python as a value: a str, an int that is not a bool, or a finite float. Texts are borrowed.
Value value_of(PyObject* object) noexcept;

class DictReader {
 public:
  // Throws std::bad_alloc. `plan` outlives this.
  explicit DictReader(const RequestPlan& plan);

  // Which impression: an element of the list "imp", or a given object.
  struct Imp {
    Py_ssize_t index;
    PyObject* given;         // a dict, or null
    Py_ssize_t element = 0;  // of the list of `Access::element`
  };

  // Sets all of `found` from `request`, a dict. False: nothing is known, call `read_held`.
  bool read(PyObject* request, Imp imp, std::string_view currency, Found& found) const noexcept;
  void read_held(PyObject* request, Imp imp, std::string_view currency, Found& found, Held& held) const noexcept;

 private:
  // A key of the plan; `place`: the entry where it was last, a hint that is verified at each use.
  struct Key {
    WantedKey wanted;
    uint16_t leaf, child;
    Access access;
    mutable std::atomic<uint16_t> place{kNone};

    Key(PyObject* interned, const RequestPlan::Key& key) noexcept
        : wanted(interned), leaf(key.leaf), child(key.child), access(key.access) {}
    Key(Key&& other) noexcept
        : wanted(other.wanted), leaf(other.leaf), child(other.child), access(other.access) {}
  };

  template <class Lookup>
  bool read_by(Lookup& lookup, PyObject* request, Imp imp, std::string_view currency, Found& found) const noexcept;

  class InPlace;
  class ByCall;

  const RequestPlan& plan_;
  std::vector<Reference> interned_;
  std::vector<Key> keys_;  // (n_keys,)
  bool in_place_;
};

}  // namespace bidml
