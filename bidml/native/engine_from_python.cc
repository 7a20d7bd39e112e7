#include "engine_from_python.h"

#include <nanobind/stl/string_view.h>

#include <deque>
#include <map>
#include <stdexcept>

#include "attribute.h"

namespace nb = nanobind;

namespace bidml {
namespace {

std::string text_of(nb::handle object) { return nb::str(object).c_str(); }

// What the views of a build borrow from Python, released when it ends.
class Borrowed {
 public:
  ~Borrowed() {
    for (Py_buffer& buffer : buffers_) PyBuffer_Release(&buffer);
  }

  template <class T>
  Span<T> array(nb::handle owner, const char* name, const char* formats) {
    const nb::object object = attribute(owner, name);
    Py_buffer& buffer = buffers_.emplace_back();
    if (PyObject_GetBuffer(object.ptr(), &buffer, PyBUF_FORMAT | PyBUF_ND) != 0) {
      buffers_.pop_back();
      throw nb::python_error();
    }
    const std::string_view format = buffer.format == nullptr ? "B" : buffer.format;
    if (buffer.ndim != 1 || buffer.itemsize != sizeof(T) || format.size() != 1 ||
        std::string_view(formats).find(format) == std::string_view::npos) {
      throw std::invalid_argument(std::string(name) + " is a one-dimensional contiguous array of type " + formats +
                                  "; found " + std::string(format) + "; pass array.array");
    }
    return {static_cast<const T*>(buffer.buf), size_t(buffer.len) / sizeof(T)};
  }

  // slot_of(feature): its category slot.
  template <class SlotOf>
  LookupView lookup(nb::handle object, const SlotOf& slot_of) {
    LookupView view;
    view.is_cross = nb::hasattr(object, "codes");
    if (view.is_cross) {
      view.first = vocabulary(attribute(object, "first"), slot_of);
      view.second = vocabulary(attribute(object, "second"), slot_of);
      view.codes = array<double>(object, "codes", "d");
    } else {
      view.slot = slot_of(attribute(object, "feature"));
      view.keys = texts(attribute(object, "keys"));
    }
    view.values = array<double>(object, "values", "d");
    view.default_value = nb::cast<double>(attribute(object, "default"));
    return view;
  }

 private:
  // Lookups share vocabularies: one object is one view.
  template <class SlotOf>
  VocabularyView vocabulary(const nb::object& object, const SlotOf& slot_of) {
    const auto known = vocabularies_.find(object.ptr());
    if (known != vocabularies_.end()) return known->second;
    const VocabularyView view{slot_of(attribute(object, "feature")), texts(attribute(object, "keys"))};
    kept_.push_back(object);
    vocabularies_.emplace(object.ptr(), view);
    return view;
  }

  Span<std::string_view> texts(const nb::object& keys) {
    std::vector<std::string_view>& texts = texts_.emplace_back();
    for (nb::handle key : keys) {
      Py_ssize_t size = 0;
      const char* utf8 = PyUnicode_AsUTF8AndSize(key.ptr(), &size);
      if (utf8 == nullptr) throw nb::python_error();
      texts.emplace_back(utf8, size_t(size));
    }
    kept_.push_back(keys);
    return {texts.data(), texts.size()};
  }

  std::deque<Py_buffer> buffers_;
  std::deque<std::vector<std::string_view>> texts_;
  std::vector<nb::object> kept_;
  std::map<PyObject*, VocabularyView> vocabularies_;
};

int slot_of(nb::handle slots, nb::handle feature, bool is_category) {
  const nb::object entry = slots[feature];
  if (nb::cast<bool>(entry[0]) != is_category) {
    throw std::invalid_argument(std::string("a feature with a lookup is a category, one without a number; found ") +
                                text_of(feature) + "; correct the spec");
  }
  return nb::cast<int>(entry[1]);
}

Rewrite rewrite_of(nb::handle object) {
  const nb::object value = attribute(object, "value");
  const std::string name(nb::cast<std::string_view>(value));
  if (name == "none") return Rewrite::none;
  if (name == "zero_is_missing") return Rewrite::zero_is_missing;
  if (name == "truncate") return Rewrite::truncate;
  throw std::invalid_argument("a rewrite is none, zero_is_missing or truncate; found " + name + "; export again");
}

HeadView head_of(nb::handle object, nb::handle slots, Borrowed& borrowed) {
  HeadView head;
  const auto category_slot = [&](const nb::object& feature) { return slot_of(slots, feature, true); };
  for (nb::handle column : attribute(object, "columns")) {
    ColumnView view;
    const nb::object lookup = attribute(column, "lookup");
    view.is_category = !lookup.is_none();
    if (!view.is_category) view.slot = slot_of(slots, attribute(column, "feature"), false);
    view.rewrite = rewrite_of(attribute(column, "rewrite"));
    if (view.is_category) view.lookup = borrowed.lookup(lookup, category_slot);
    head.columns.push_back(view);
  }
  for (nb::handle term : attribute(object, "terms")) {
    head.terms.push_back(borrowed.lookup(term, category_slot));
  }
  head.intercept = nb::cast<double>(attribute(object, "intercept"));
  head.scale = nb::cast<double>(attribute(object, "scale"));
  head.divisor = nb::cast<double>(attribute(object, "divisor"));
  const nb::object trees = attribute(object, "trees");
  head.has_trees = !trees.is_none();
  if (head.has_trees) {
    TreesView& t = head.trees;
    const char* integers = "ql";
    t.roots = borrowed.array<int64_t>(trees, "roots", integers);
    t.column = borrowed.array<int64_t>(trees, "column", integers);
    t.mode = borrowed.array<uint8_t>(trees, "mode", "B");
    t.threshold = borrowed.array<double>(trees, "threshold", "d");
    t.true_child = borrowed.array<int64_t>(trees, "true_child", integers);
    t.false_child = borrowed.array<int64_t>(trees, "false_child", integers);
    t.true_is_leaf = borrowed.array<int64_t>(trees, "true_is_leaf", integers);
    t.false_is_leaf = borrowed.array<int64_t>(trees, "false_is_leaf", integers);
    t.missing_true = borrowed.array<int64_t>(trees, "missing_true", integers);
    t.membership = borrowed.array<double>(trees, "membership", "d");
    t.leaf = borrowed.array<double>(trees, "leaf", "d");
  }
  return head;
}

}  // namespace

std::unique_ptr<const Engine> engine_from_python(nb::handle heads, nb::handle slots, int n_numbers, int n_categories,
                                                 Isa isa, bool with_reference) {
  Borrowed borrowed;
  std::vector<HeadView> views;
  for (nb::handle head : heads) views.push_back(head_of(head, slots, borrowed));
  return Engine::build(views, n_numbers, n_categories, isa, with_reference);
}

}  // namespace bidml
