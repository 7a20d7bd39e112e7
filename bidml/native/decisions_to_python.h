// What the hot calls return: tuples, as ever, with the propensity as an attribute beside their elements.
#pragma once

#include <Python.h>
#include <nanobind/nanobind.h>

#include <cmath>

namespace bidml {

// One of the types: a struct sequence whose last field is no element. Immutable after `make_type`; shared by threads.
class DecisionType {
 public:
  // Throws nb::python_error. `fields` ends with the propensity.
  void make_type(nanobind::module_& module, const char* name, PyStructSequence_Desc desc) {
    type_ = PyStructSequence_NewType(&desc);
    if (type_ == nullptr) throw nanobind::python_error();
    n_ = desc.n_in_sequence;
    not_varied_ = PyFloat_FromDouble(std::nan(""));
    if (not_varied_ == nullptr) throw nanobind::python_error();
    module.attr(name) = nanobind::handle(reinterpret_cast<PyObject*>(type_));
  }

  // Takes the references to its elements; null, with an error set, when one of them is, or without memory.
  PyObject* make(PyObject* a, PyObject* b, double propensity) const noexcept {
    PyObject* const elements[] = {a, b};
    return made(elements, propensity);
  }
  PyObject* make(PyObject* a, PyObject* b, PyObject* c, double propensity) const noexcept {
    PyObject* const elements[] = {a, b, c};
    return made(elements, propensity);
  }

 private:
  PyObject* made(PyObject* const* elements, double propensity) const noexcept {
    PyObject* last = std::isnan(propensity) ? Py_NewRef(not_varied_) : PyFloat_FromDouble(propensity);
    PyObject* out = last == nullptr ? nullptr : PyStructSequence_New(type_);
    for (int i = 0; i < n_; ++i) {
      if (elements[i] == nullptr) Py_CLEAR(out);
    }
    for (int i = 0; i < n_; ++i) {
      if (out != nullptr)
        PyStructSequence_SetItem(out, i, elements[i]);
      else
        Py_XDECREF(elements[i]);
    }
    if (out != nullptr)
      PyStructSequence_SetItem(out, n_, last);
    else
      Py_XDECREF(last);
    return out;
  }

  PyTypeObject* type_ = nullptr;
  PyObject* not_varied_ = nullptr;
  int n_ = 0;
};

struct DecisionTypes {
  DecisionType of_line, of_deals, of_lines, of_line_deals;

  void add_to(nanobind::module_& m) {
    static PyStructSequence_Field bid{"bid_cpm", "CPM of the artifact's currency; 0.0 is no bid"},
        reason{"reason", "the NoBidReason as an int; 0 is a bid"},
        deal{"deal", "the id to answer with; None for the open auction"},
        index{"index", "of the line item that bids; -1 for none"},
        propensity{"propensity", "density of ln bid_cpm where it was varied, else NaN: for the log's column"};
    static PyStructSequence_Field decision[] = {bid, reason, propensity, {nullptr, nullptr}},
                                  of_deal[] = {bid, reason, deal, propensity, {nullptr, nullptr}},
                                  of_best[] = {index, bid, propensity, {nullptr, nullptr}},
                                  of_best_deal[] = {index, bid, deal, propensity, {nullptr, nullptr}};
    constexpr const char* kDoc = "A tuple, with the propensity as an attribute.";
    of_line.make_type(m, "Decision", {"bidml.score._native.Decision", kDoc, decision, 2});
    of_deals.make_type(m, "DealDecision", {"bidml.score._native.DealDecision", kDoc, of_deal, 3});
    of_lines.make_type(m, "BestDecision", {"bidml.score._native.BestDecision", kDoc, of_best, 2});
    of_line_deals.make_type(m, "BestDealDecision", {"bidml.score._native.BestDealDecision", kDoc, of_best_deal, 3});
  }
};

}  // namespace bidml
