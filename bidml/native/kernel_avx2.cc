#include "kernels.h"
#if BIDML_X86
namespace bidml { const Kernels kAvx2Kernels = kScalarKernels; }
#endif
