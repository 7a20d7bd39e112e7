// Attributes of Python objects, where a model is read.
#pragma once

#include <nanobind/nanobind.h>

namespace bidml {

// By an interned name. nanobind's own `attr` makes a new text each time, and CPython's cache of type attributes keeps the
// names that it is asked for: a few hundred small texts, scattered over megabytes that cannot be given back after a load.
inline nanobind::object attribute(nanobind::handle object, const char* name) {
  PyObject* text = PyUnicode_InternFromString(name);
  if (text == nullptr) throw nanobind::python_error();
  PyObject* found = PyObject_GetAttr(object.ptr(), text);
  Py_DECREF(text);
  if (found == nullptr) throw nanobind::python_error();
  return nanobind::steal(found);
}

}  // namespace bidml
