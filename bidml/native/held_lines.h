// The list of line items that a call of `best` is given.
#pragma once

#include <Python.h>

namespace bidml {

// The line items of a call as they were when it began: reading a request may run foreign code, which may change a list.
// Up to kOnStack of a list are held here; a tuple does not change, and what called holds it.
class HeldLines {
 public:
  // An error is set where this is false.
  explicit HeldLines(PyObject* sequence) noexcept {
    if (PyTuple_CheckExact(sequence)) {
      items_ = &PyTuple_GET_ITEM(sequence, 0);
      size_ = PyTuple_GET_SIZE(sequence);
      return;
    }
#ifndef Py_GIL_DISABLED  // another thread may change the list meanwhile
    if (PyList_CheckExact(sequence) && PyList_GET_SIZE(sequence) <= kOnStack) {
      n_held_ = size_ = PyList_GET_SIZE(sequence);
      for (Py_ssize_t i = 0; i < n_held_; ++i) held_[i] = Py_NewRef(PyList_GET_ITEM(sequence, i));
      items_ = held_;
      return;
    }
#endif
    tuple_ = PySequence_Tuple(sequence);
    if (tuple_ == nullptr) return;
    items_ = &PyTuple_GET_ITEM(tuple_, 0);
    size_ = PyTuple_GET_SIZE(tuple_);
  }
  HeldLines(const HeldLines&) = delete;
  HeldLines& operator=(const HeldLines&) = delete;
  ~HeldLines() {
    for (Py_ssize_t i = 0; i < n_held_; ++i) Py_DECREF(held_[i]);
    Py_XDECREF(tuple_);
  }
  explicit operator bool() const noexcept { return items_ != nullptr; }
  Py_ssize_t size() const noexcept { return size_; }
  PyObject* operator[](Py_ssize_t i) const noexcept { return items_[i]; }

 private:
  static constexpr Py_ssize_t kOnStack = 256;
  PyObject* const* items_ = nullptr;
  PyObject* tuple_ = nullptr;
  Py_ssize_t size_ = 0, n_held_ = 0;
  PyObject* held_[kOnStack];
};

}  // namespace bidml
