#include "isa.h"

#include <cstdlib>
#include <stdexcept>

namespace bidml {

bool isa_available(Isa isa) noexcept {
  switch (isa) {
    case Isa::scalar:
    case Isa::best:
      return true;
#if BIDML_X86
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
             __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    case Isa::avx512:
      return isa_available(Isa::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("vaes") && __builtin_cpu_supports("aes") &&
             __builtin_cpu_supports("gfni");
#endif
    default:
      return false;
  }
}

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::best:
      break;
  }
  return "best";
}

Isa isa_from_name(std::string_view name) {
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::best}) {
    if (name == isa_name(isa)) return isa;
  }
  throw std::invalid_argument("an instruction set is scalar, avx2, avx512 or best; found " + std::string(name) +
                              "; correct the isa argument or BIDML_ISA");
}

Isa resolve_isa(Isa wanted) {
  if (const char* forced = std::getenv("BIDML_ISA"); forced != nullptr && *forced != '\0') {
    wanted = isa_from_name(forced);
  }
  if (!isa_available(wanted)) {
    throw std::invalid_argument(std::string("the instruction set is one this machine has; found ") + isa_name(wanted) +
                                "; use best");
  }
  if (wanted != Isa::best) return wanted;
  if (isa_available(Isa::avx512)) return Isa::avx512;
  return isa_available(Isa::avx2) ? Isa::avx2 : Isa::scalar;
}

}  // namespace bidml
