// `Engine` for Python: tests, benchmarks and batches. The bid path does not come through here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/unique_ptr.h>

#include <stdexcept>

#include "engine_from_python.h"
#include "gil.h"

namespace nb = nanobind;

namespace bidml {
namespace {

constexpr uint32_t kAllHeads = ~uint32_t{0};

// A C-contiguous buffer of doubles, released at the end of the scope.
class Doubles {
 public:
  Doubles(PyObject* object, const char* what, bool writable = false) {
    if (PyObject_GetBuffer(object, &buffer_, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0)) != 0) {
      throw nb::python_error();
    }
    if (buffer_.itemsize != sizeof(double) || buffer_.format == nullptr || std::string_view(buffer_.format) != "d") {
      const std::string format = buffer_.format == nullptr ? "B" : buffer_.format;
      PyBuffer_Release(&buffer_);
      throw std::invalid_argument(std::string(what) + " is a contiguous buffer of doubles; found format " + format +
                                  "; pass float64");
    }
  }
  ~Doubles() { PyBuffer_Release(&buffer_); }
  Doubles(const Doubles&) = delete;
  Doubles& operator=(const Doubles&) = delete;

  size_t size() const { return size_t(buffer_.len) / sizeof(double); }
  double* data() const { return static_cast<double*>(buffer_.buf); }
  void demand_size(size_t wanted, const char* what) const {
    if (size() != wanted) {
      throw std::invalid_argument(std::string(what) + " has " + std::to_string(wanted) + " doubles; found " +
                                  std::to_string(size()) + "; pass one per slot and row");
    }
  }

 private:
  Py_buffer buffer_;
};

// Borrows the text of str and bytes; None is the missing text.
std::string_view text_of(PyObject* object) {
  if (object == Py_None) return {};
  if (PyBytes_Check(object)) return {PyBytes_AS_STRING(object), size_t(PyBytes_GET_SIZE(object))};
  Py_ssize_t size = 0;
  const char* utf8 = PyUnicode_AsUTF8AndSize(object, &size);
  if (utf8 == nullptr) throw nb::python_error();
  return {utf8, size_t(size)};
}

std::vector<TextRef> texts_of(const nb::object& fast_sequence) {
  const size_t n = size_t(PySequence_Fast_GET_SIZE(fast_sequence.ptr()));
  std::vector<TextRef> texts(n);
  for (size_t i = 0; i < n; ++i) texts[i] = text_of(PySequence_Fast_GET_ITEM(fast_sequence.ptr(), Py_ssize_t(i)));
  return texts;
}

nb::object fast_sequence(nb::handle object) {
  PyObject* fast = PySequence_Fast(object.ptr(), "categories is a sequence of str or bytes");
  if (fast == nullptr) throw nb::python_error();
  return nb::steal(fast);
}

void demand_count(size_t found, size_t wanted) {
  if (found != wanted) {
    throw std::invalid_argument("there is one text per category slot and row, " + std::to_string(wanted) + "; found " +
                                std::to_string(found) + "; pass all of them");
  }
}

nb::tuple tuple_of(const double* margins, size_t n) {
  PyObject* tuple = PyTuple_New(Py_ssize_t(n));
  if (tuple == nullptr) throw nb::python_error();
  for (size_t i = 0; i < n; ++i) PyTuple_SET_ITEM(tuple, Py_ssize_t(i), PyFloat_FromDouble(margins[i]));
  return nb::steal<nb::tuple>(tuple);
}

nb::tuple margins(const Engine& engine, nb::handle numbers, nb::handle categories, bool reference) {
  const Doubles doubles(numbers.ptr(), "numbers");
  doubles.demand_size(size_t(engine.n_numbers()), "numbers");
  const nb::object sequence = fast_sequence(categories);
  const std::vector<TextRef> texts = texts_of(sequence);
  demand_count(texts.size(), size_t(engine.n_categories()));
  double out[kMaxHeads];
  if (reference) {
    engine.margins_reference(doubles.data(), texts.data(), kAllHeads, out);
  } else {
    RowBuffer row(engine);
    engine.set_numbers(*row, 0, engine.n_numbers(), doubles.data());
    engine.set_categories(*row, 0, engine.n_categories(), texts.data());
    engine.cross(*row);
    engine.margins(*row, kAllHeads, out);
  }
  return tuple_of(out, engine.n_heads());
}

nb::tuple margins_of_sides(const Engine& engine, nb::handle numbers, nb::handle categories, int n_request_numbers,
                           int n_request_categories, bool merged) {
  const Doubles doubles(numbers.ptr(), "numbers");
  doubles.demand_size(size_t(engine.n_numbers()), "numbers");
  const nb::object sequence = fast_sequence(categories);
  const std::vector<TextRef> texts = texts_of(sequence);
  demand_count(texts.size(), size_t(engine.n_categories()));
  if (n_request_numbers < 0 || n_request_numbers > engine.n_numbers() || n_request_categories < 0 ||
      n_request_categories > engine.n_categories()) {
    throw std::invalid_argument("the request has some of the slots; found " + std::to_string(n_request_numbers) +
                                " and " + std::to_string(n_request_categories) + "; pass how many");
  }
  RowBuffer rows(engine, 2);
  engine.set_numbers(rows[0], 0, n_request_numbers, doubles.data());
  engine.set_categories(rows[0], 0, n_request_categories, texts.data());
  engine.set_numbers(rows[1], n_request_numbers, engine.n_numbers() - n_request_numbers,
                     doubles.data() + n_request_numbers);
  for (int slot = n_request_categories; slot < engine.n_categories(); ++slot) {
    engine.set_category(rows[1], slot, texts[size_t(slot)].data, texts[size_t(slot)].size);
  }
  double out[kMaxHeads];
  if (merged) {
    engine.merge(rows[1], rows[0], rows[1]);
    engine.margins(rows[1], kAllHeads, out);
  } else {
    engine.margins(rows[0], rows[1], kAllHeads, out);
  }
  return tuple_of(out, engine.n_heads());
}

void margins_many(const Engine& engine, nb::handle numbers, nb::handle categories, nb::handle out, bool reference) {
  const Doubles margins(out.ptr(), "out", true);
  const size_t n_heads = engine.n_heads(), n_numbers = size_t(engine.n_numbers());
  const size_t n_categories = size_t(engine.n_categories());
  const size_t n_rows = margins.size() / n_heads;
  margins.demand_size(n_rows * n_heads, "out");
  const Doubles doubles(numbers.ptr(), "numbers");
  doubles.demand_size(n_rows * n_numbers, "numbers");
  const nb::object sequence = fast_sequence(categories);
  const std::vector<TextRef> texts = texts_of(sequence);
  demand_count(texts.size(), n_rows * n_categories);
  const GilReleased released;
  RowBuffer row(engine);
  for (size_t i = 0; i < n_rows; ++i) {
    const double* x = doubles.data() + i * n_numbers;
    const TextRef* text = texts.data() + i * n_categories;
    double* to = margins.data() + i * n_heads;
    if (reference) {
      engine.margins_reference(x, text, kAllHeads, to);
      continue;
    }
    engine.set_numbers(*row, 0, int(n_numbers), x);
    engine.set_categories(*row, 0, int(n_categories), text);
    engine.cross(*row);
    engine.margins(*row, kAllHeads, to);
  }
}

// The lean entry: one buffer of n_numbers doubles → the margin of head 0, as a plain C method without argument parsing.
PyObject* score_vector(PyObject* self, PyObject* vector) {
  const Engine& engine = *nb::inst_ptr<Engine>(self);
  Py_buffer buffer;
  if (PyObject_GetBuffer(vector, &buffer, PyBUF_SIMPLE) != 0) return nullptr;
  const bool fits = buffer.len == Py_ssize_t(size_t(engine.n_numbers()) * sizeof(double));
  double margin = 0.0;
  if (fits) {
    ScratchRow row(engine);
    engine.set_numbers(*row, 0, engine.n_numbers(), static_cast<const double*>(buffer.buf));
    engine.margins(*row, 1, &margin);
  }
  PyBuffer_Release(&buffer);
  if (!fits) {
    PyErr_Format(PyExc_ValueError, "the vector has one double per number slot; found %zd bytes; pass %d doubles",
                 buffer.len, engine.n_numbers());
    return nullptr;
  }
  return PyFloat_FromDouble(margin);
}

PyMethodDef score_vector_definition = {"score_vector", score_vector, METH_O,
                                       "score_vector(vector: Buffer) -> float\n--\n\nThe margin of head 0 for a vector "
                                       "of one double per number slot; categories are missing."};

nb::list info(const Engine& engine) {
  nb::list heads;
  for (const HeadInfo& head : engine.info()) {
    nb::dict entry;
    entry["path"] = head.path.c_str();
    entry["why"] = head.why.c_str();
    entry["n_trees"] = head.n_trees;
    entry["n_columns"] = head.n_columns;
    entry["bytes"] = head.bytes;
    heads.append(entry);
  }
  return heads;
}

nb::dict limits() {
  nb::dict limits;
  limits["MAX_FEATURES"] = kMaxFeatures;
  limits["MAX_COLUMNS"] = kMaxColumns;
  limits["MAX_TREES"] = kMaxTrees;
  limits["MAX_NODES"] = kMaxNodes;
  limits["MAX_KEYS"] = kMaxKeys;
  limits["MAX_CROSSES"] = kMaxCrosses;
  limits["MAX_DEPTH"] = kMaxDepth;
  limits["MAX_ABS_LEAF"] = kMaxAbsLeaf;
  return limits;
}

}  // namespace

void bind_engine(nb::module_& module) {
  using namespace nb::literals;
  module.def("engine_limits", &limits, "The limits of bidml.contract as compiled.");
  module.def(
      "isa_available", [](std::string_view name) { return isa_available(isa_from_name(name)); }, "name"_a,
      "Whether this machine runs the kernels of `name`: scalar, avx2, avx512.");
  nb::class_<Engine> cls(module, "Engine", "Heads of a blueprint, lowered to rank space; immutable, shared by threads.");
  cls.def(nb::new_([](nb::handle heads, nb::handle slots, int n_numbers, int n_categories, std::string_view isa) {
            auto engine = engine_from_python(heads, slots, n_numbers, n_categories, isa_from_name(isa), true);
            return std::unique_ptr<Engine>(const_cast<Engine*>(engine.release()));
          }),
          "heads"_a, "slots"_a, "n_numbers"_a, "n_categories"_a, "isa"_a = "best",
          "heads: bidml.blueprint.Head objects; slots: feature name -> (is_category, slot).")
      .def(
          "margins",
          [](const Engine& engine, nb::handle numbers, nb::handle categories) {
            return margins(engine, numbers, categories, false);
          },
          "numbers"_a, "categories"_a = nb::make_tuple(),
          "(n_numbers,) doubles and (n_categories,) str or bytes -> (n_heads,) margins.")
      .def(
          "margins_reference",
          [](const Engine& engine, nb::handle numbers, nb::handle categories) {
            return margins(engine, numbers, categories, true);
          },
          "numbers"_a, "categories"_a = nb::make_tuple(), "The oracle: the double walk, summed in tree order.")
      .def("margins_of_sides", &margins_of_sides, "numbers"_a, "categories"_a, "n_request_numbers"_a,
           "n_request_categories"_a, nb::kw_only(), "merged"_a = false,
           "As margins, with the first slots encoded in one row, the others in a second.")
      .def(
          "margins_many",
          [](const Engine& engine, nb::handle numbers, nb::handle categories, nb::handle out) {
            margins_many(engine, numbers, categories, out, false);
          },
          "numbers"_a, "categories"_a, "out"_a,
          "(n_rows, n_numbers) doubles, n_rows * n_categories texts, row by row; fills out (n_rows, n_heads) without "
          "the GIL.")
      .def(
          "margins_many_reference",
          [](const Engine& engine, nb::handle numbers, nb::handle categories, nb::handle out) {
            margins_many(engine, numbers, categories, out, true);
          },
          "numbers"_a, "categories"_a, "out"_a, "As margins_many, by the oracle.")
      .def("info", &info, "Per head: path, why, n_trees, n_columns, bytes.")
      .def_prop_ro("isa", [](const Engine& engine) { return isa_name(engine.isa()); })
      .def_prop_ro("bytes", &Engine::bytes)
      .def_prop_ro("row_bytes", &Engine::row_bytes);
  PyObject* method = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(cls.ptr()), &score_vector_definition);
  if (method == nullptr) throw nb::python_error();
  cls.attr("score_vector") = nb::steal(method);
}

}  // namespace bidml
