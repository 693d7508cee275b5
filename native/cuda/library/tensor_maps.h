// How the tensor memory accelerator finds a matrix.
#pragma once

#include <cuda.h>

#include "cuda/library/bfloat16.h"

namespace monosem::cuda {

// For copies of tiles [tileRows, tileColumns], whose rows of 128 bytes are swizzled as matrix units want them. The
// matrix begins at a multiple of 16 bytes, and so does each of its rows.
CUtensorMap tensorMap(Matrix<const Bfloat16> matrix, int tileRows, int tileColumns);

}  // namespace monosem::cuda
