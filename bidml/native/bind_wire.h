// `bidml.score._native`: what score/wire.py reads in bulk.
#pragma once

#include <nanobind/nanobind.h>

namespace bidml {

void bind_wire(nanobind::module_& module);

}  // namespace bidml
