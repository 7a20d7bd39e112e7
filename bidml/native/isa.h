// Which instruction sets the kernels are written for, and which of them this machine has.
//
// One binary holds all of them, compiled with GCC target attributes on the functions that need them; the choice is made
// once, when an engine is built. The macros below are those attributes.
#pragma once

#include "engine.h"

#if defined(__x86_64__)
#define BIDML_X86 1
#define BIDML_AVX2 __attribute__((target("avx2,fma,bmi,bmi2,popcnt")))
#define BIDML_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,vaes,aes,gfni,avx2,fma,bmi,bmi2,popcnt")))
#else
#define BIDML_X86 0
#endif

namespace bidml {

// `wanted`, or what the environment variable BIDML_ISA says instead; `best` becomes the best available one. Throws
// std::invalid_argument for a name that does not exist and for an instruction set that this machine lacks.
Isa resolve_isa(Isa wanted);

}  // namespace bidml
