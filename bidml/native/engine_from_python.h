// bidml.blueprint.Head objects → an Engine. The arrays are read through the buffer protocol and copied by build().
#pragma once

#include <nanobind/nanobind.h>

#include "engine.h"

namespace bidml {

// heads: sequence of Head; slots: mapping of feature name → (is_category, slot). Throws std::invalid_argument (a
// ValueError in Python) for what the engine refuses, nanobind::python_error for missing attributes or wrong types.
// `with_reference`: as Engine::build.
std::unique_ptr<const Engine> engine_from_python(nanobind::handle heads, nanobind::handle slots, int n_numbers,
                                                 int n_categories, Isa isa, bool with_reference);

void bind_engine(nanobind::module_& module);

}  // namespace bidml
