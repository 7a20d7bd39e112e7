// The arguments of a hot call: (request, line item or several, imp=0), the request a decoded one or the bytes of one.
#pragma once

#include <Python.h>

#include <string_view>

#include "scorer.h"

namespace bidml {

inline bool imp_index_of(PyObject* const* args, Py_ssize_t n, Py_ssize_t* index) {
  *index = 0;
  if (n == 2) return true;
  if (n != 3) {
    PyErr_Format(PyExc_TypeError, "the arguments are (request, line, imp=0); found %zd", n);
    return false;
  }
  *index = PyNumber_AsSsize_t(args[2], PyExc_OverflowError);
  return !(*index == -1 && PyErr_Occurred());
}

// The bytes of a JSON request, borrowed while this lives.
class Bytes {
 public:
  // An error is set when `object` has no bytes.
  explicit Bytes(PyObject* object) noexcept {
    if (PyBytes_Check(object)) {
      view_ = {PyBytes_AS_STRING(object), static_cast<size_t>(PyBytes_GET_SIZE(object))};
    } else if (PyObject_GetBuffer(object, &buffer_, PyBUF_SIMPLE) == 0) {
      view_ = {static_cast<const char*>(buffer_.buf), static_cast<size_t>(buffer_.len)};
      held_ = true;
    } else {
      PyErr_Format(PyExc_TypeError, "a JSON request is bytes; found %.80s; encode it, or give a decoded one to bid",
                   Py_TYPE(object)->tp_name);
      failed_ = true;
    }
  }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  ~Bytes() {
    if (held_) PyBuffer_Release(&buffer_);
  }
  bool failed() const noexcept { return failed_; }
  std::string_view view() const noexcept { return view_; }

 private:
  std::string_view view_;
  Py_buffer buffer_{};
  bool held_ = false, failed_ = false;
};

// Calls `use` with the request of a hot call, false when an argument is wrong (an error is set).
template <class Use>
bool with_dict(PyObject* argument, Py_ssize_t imp, Use&& use) {
  use(DictRequest{argument, imp});
  return true;
}
template <class Use>
bool with_json(PyObject* argument, Py_ssize_t imp, Use&& use) {
  const Bytes bytes(argument);
  if (bytes.failed()) return false;
  use(JsonRequest{bytes.view(), imp});
  return true;
}
#define BIDML_WITH_REQUEST(is_json, argument, imp, use) \
  ((is_json) ? with_json(argument, imp, use) : with_dict(argument, imp, use))

}  // namespace bidml
