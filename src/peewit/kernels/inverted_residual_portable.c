/* inverted_residual_work.h for other processors: vectors of 128 bits, as in SSE2 and NEON */
#if defined(__GNUC__)
#define WORK inverted_residual_portable
#define LANES 4
#include "inverted_residual_work.h"
#endif
