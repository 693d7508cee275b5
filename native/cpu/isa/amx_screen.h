// The short ways to exact selections that the matrix unit allows.
#pragma once

#include "cpu/isa/amx_above.h"
#include "cpu/isa/amx_sample.h"
#include "cpu/isa/amx_top_k.h"
