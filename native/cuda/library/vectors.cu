// Vectors, element by element, and conversions to float32.
#include <string>

#include "cuda/library/kernels.h"
#include "cuda/library/pack.h"

namespace monosem::cuda {
namespace {

template <int width, class Operation, class... Operands>
__device__ void mapPack(const Operation& operation, float* out, const Pack<Operands, width>&... operands) {
  Pack<float, width> result;
  for (int i = 0; i < width; ++i) result.at[i] = operation(operands.at[i]...);
  storePack(out, result);
}

// out[i] = operation(operands[i]...) for i in [0, size); `out` may be one of the operands. A thread takes a pack of
// `width` elements at a time; the elements that fill no pack fall to the first block.
template <int width, class Operation, class... Operands>
__global__ void mapKernel(Operation operation, int64_t size, float* out, const Operands*... operands) {
  FOR_EACH_ELEMENT(pack, size / width) {
    const int64_t i = pack * width;
    mapPack<width>(operation, out + i, loadPack<width>(operands + i)...);
  }
  const int64_t rest = size / width * width + threadIdx.x;
  if (blockIdx.x == 0 && rest < size) mapPack<1>(operation, out + rest, loadPack<1>(operands + rest)...);
}

template <class Operation, class... Operands>
void map(Context& gpu, const Operation& operation, Vector<float> out, const Operands*... operands) {
  withPackWidth(packsAt(out.data) && (packsAt(operands) && ...), [&](auto width) {
    void (*const kernel)(Operation, int64_t, float*, const Operands*...) = mapKernel<width>;
    launch(gpu, kernel, elementwise(gpu, (out.size + width - 1) / width), operation, out.size, out.data, operands...);
  });
}

struct Constant {
  float value;
  __device__ float operator()() const { return value; }
};
struct Scaled {
  float factor;
  __device__ float operator()(float a) const { return factor * a; }
};
struct ScaledSum {
  float scale;
  __device__ float operator()(float a, float b) const { return fmaf(scale, b, a); }
};
struct Product {
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct Quotient {
  __device__ float operator()(float a, float b) const { return a / b; }
};
// In double: CUDA's powf is off by several units in the last place.
struct Power {
  double exponent;
  __device__ float operator()(float x) const { return x <= 0 ? 0.0f : float(pow(double(x), exponent)); }
};

struct FromDouble {
  __device__ float operator()(double number) const { return float(number); }
};
// A bf16 number is the first half of the float32 number that it stands for.
struct FromBrain {
  __device__ float operator()(uint16_t bits) const { return __uint_as_float(uint32_t(bits) << 16); }
};
// The bits of an f16 number in a float32 number's places say the same with an exponent that is 112 too small, subnormal
// numbers included; infinity and NaN need the exponent 255 instead.
struct FromHalf {
  __device__ float operator()(uint16_t bits) const {
    constexpr uint32_t largestExponent = 0x7c00, sign = 0x8000;
    const uint32_t magnitude = uint32_t(bits & ~sign) << 13;
    const uint32_t number = (bits & largestExponent) == largestExponent
                                ? magnitude | 0x7f800000u
                                : __float_as_uint(__uint_as_float(magnitude) * 0x1p112f);
    return __uint_as_float(number | uint32_t(bits & sign) << 16);
  }
};

}  // namespace

void fill(Context& gpu, Vector<float> out, float value) {
  map(gpu, Constant{value}, out);
}

void add(Context& gpu, Floats a, Floats b, double scale, Vector<float> out) {
  map(gpu, ScaledSum{float(scale)}, out, a.data, b.data);
}

void scale(Context& gpu, Floats a, double factor, Vector<float> out) {
  map(gpu, Scaled{float(factor)}, out, a.data);
}

void multiply(Context& gpu, Floats a, Floats b, Vector<float> out) {
  map(gpu, Product(), out, a.data, b.data);
}

void divide(Context& gpu, Floats a, Floats b, Vector<float> out) {
  map(gpu, Quotient(), out, a.data, b.data);
}

void power(Context& gpu, Floats x, double exponent, Vector<float> out) {
  map(gpu, Power{double(float(exponent))}, out, x.data);
}

void convert(Context& gpu, const void* source, int32_t sourceBits, bool brain, Vector<float> out) {
  if (sourceBits == 64) return map(gpu, FromDouble(), out, static_cast<const double*>(source));
  if (sourceBits != 16)
    throw EngineError(ErrorCode::invalidArgument,
                      "convert reads 16-bit and 64-bit floats, not " + std::to_string(sourceBits) + "-bit ones.");
  const uint16_t* numbers = static_cast<const uint16_t*>(source);
  return brain ? map(gpu, FromBrain(), out, numbers) : map(gpu, FromHalf(), out, numbers);
}

}  // namespace monosem::cuda
