// The arguments of a hot call: (request, line item or several, imp=0, soft_floor_cpm=None), the request a decoded one or the bytes of one.
#pragma once

#include <Python.h>

#include <string_view>

#include "scorer.h"

namespace bidml {

// What follows the request and the line item.
struct CallOptions {
  Py_ssize_t imp = 0;
  double soft_floor_cpm = kMissing;

  // From the arguments of a hot call; false where one is wrong (an error is set).
  bool read(PyObject* const* args, Py_ssize_t n) noexcept {
    if (n == 2) return true;
    if (n != 3 && n != 4) {
      PyErr_Format(PyExc_TypeError, "the arguments are (request, line, imp=0, soft_floor_cpm=None); found %zd", n);
      return false;
    }
    imp = PyNumber_AsSsize_t(args[2], PyExc_OverflowError);
    if (imp == -1 && PyErr_Occurred()) return false;
    if (n == 4) soft_floor_cpm = soft_floor_of(args[3]);
    return true;
  }

  // NaN for None; negative for what is no number of at least 0: it may come from a request, so it is no error.
  static double soft_floor_of(PyObject* object) noexcept {
    if (object == Py_None) return kMissing;
    const double x = value_of(object).number();
    return x >= 0.0 ? x : -1.0;
  }
};

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
bool with_dict(PyObject* argument, const CallOptions& options, Use&& use) {
  use(DictRequest{argument, options.imp, options.soft_floor_cpm});
  return true;
}
template <class Use>
bool with_json(PyObject* argument, const CallOptions& options, Use&& use) {
  const Bytes bytes(argument);
  if (bytes.failed()) return false;
  use(JsonRequest{bytes.view(), options.imp, options.soft_floor_cpm});
  return true;
}
#define BIDML_WITH_REQUEST(is_json, argument, options, use) \
  ((is_json) ? with_json(argument, options, use) : with_dict(argument, options, use))

}  // namespace bidml
