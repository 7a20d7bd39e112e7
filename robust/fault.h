// Included before everything else in a broken build: which of the faults of faults.py is the one in force.
#pragma once

#include <cstdlib>

namespace bidml_fault {
inline int number_in_force() {
  const char* number = std::getenv("BIDML_FAULT");
  return number == nullptr ? -1 : std::atoi(number);
}
inline const int kInForce = number_in_force();
}  // namespace bidml_fault

#define BIDML_FAULT(number) (::bidml_fault::kInForce == (number))
