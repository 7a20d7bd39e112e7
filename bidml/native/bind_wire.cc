#include "bind_wire.h"

#include "wire.h"

namespace nb = nanobind;

namespace bidml {
namespace {

nb::object owned(PyObject* object) {
  if (object == nullptr) throw nb::python_error();
  return nb::steal(object);
}

const uint8_t* checked_bytes(nb::bytes data, size_t start, size_t end) {
  if (start > end || end > data.size()) throw nb::value_error("a run lies inside its bytes");
  return reinterpret_cast<const uint8_t*>(data.c_str());
}

nb::object result(nb::object items, const Run& run) {
  return owned(Py_BuildValue("(Ons)", items.ptr(), Py_ssize_t(run.end), run.problem));
}

nb::object numbers(nb::bytes data, size_t start, size_t end, uint8_t tag, size_t most) {
  const uint8_t* bytes = checked_bytes(data, start, end);
  const Run run = scan_numbers(bytes, start, end, tag, most);
  const size_t count = *run.problem ? 0 : run.count;
  nb::object values = owned(PyBytes_FromStringAndSize(nullptr, Py_ssize_t(count * sizeof(int64_t))));
  read_numbers(bytes, start, count, reinterpret_cast<int64_t*>(PyBytes_AS_STRING(values.ptr())));
  return result(values, run);
}

nb::object texts(nb::bytes data, size_t start, size_t end, uint8_t tag, size_t most) {
  const uint8_t* bytes = checked_bytes(data, start, end);
  Run run = scan_texts(bytes, start, end, tag, most);
  if (*run.problem) return result(nb::tuple(), run);
  nb::object found = owned(PyTuple_New(Py_ssize_t(run.count)));
  size_t at = start;
  for (size_t i = 0; i < run.count; ++i) {
    const TextSpan span = text_span(bytes, at);
    PyObject* text = PyUnicode_DecodeUTF8(reinterpret_cast<const char*>(bytes) + span.start,
                                          Py_ssize_t(span.stop - span.start), nullptr);
    if (text == nullptr) {
      if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) throw nb::python_error();
      PyErr_Clear();
      return result(nb::tuple(), {i, span.start, "text"});
    }
    PyTuple_SET_ITEM(found.ptr(), Py_ssize_t(i), text);
    at = span.stop;
  }
  return result(found, run);
}

}  // namespace

void bind_wire(nb::module_& module) {
  module.def("read_numbers", &numbers,
             "(data, start, end, tag, most) -> (int64 values as bytes, where it stopped, problem or \"\"). See wire.h.");
  module.def("read_texts", &texts, "(data, start, end, tag, most) -> (texts, where it stopped, problem or \"\").");
}

}  // namespace bidml
