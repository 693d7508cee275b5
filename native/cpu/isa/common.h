// Everything from outside that the kernels use. An instruction set's file includes this before it switches the compiler
// to wider instructions: a library function compiled for them under its usual name could be the copy that the linker
// keeps, and would then crash an older processor.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/cache_size.h"
#include "cpu/isa/factories.h"
#include "cpu/thread_pool.h"
#include "engine/allocator.h"
#include "engine/codes.h"
#include "engine/error.h"
#include "engine/kernels.h"
#include "engine/views.h"
