// Elementary functions on vectors, and the activations made of them.
#pragma once

#include "cpu/generic/simd.h"

namespace monosem::MONOSEM_ISA {

// e^x to about 1e-7 relative. Below -87.3 (also -infinity) the result is 0; above 88.3 it stays at e^88.3; NaN stays.
//
// x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts so that n ln 2 is exact; e^r by a polynomial of degree 6
// (minimax; the coefficients of Cephes' expf), 2^n by its exponent bits.
inline Floats exp(Floats x) {
  const Floats clamped = min(broadcast(88.3f), max(broadcast(-87.3f), x));
  const Ints n = roundToInts(clamped * broadcast(1.44269504088896341f));
  const Floats whole = toFloats(n);
  Floats r = negatedFma(whole, broadcast(0.693359375f), clamped);
  r = negatedFma(whole, broadcast(-2.12194440e-4f), r);
  Floats polynomial = broadcast(1.9875691500e-4f);
  polynomial = fma(polynomial, r, broadcast(1.3981999507e-3f));
  polynomial = fma(polynomial, r, broadcast(8.3334519073e-3f));
  polynomial = fma(polynomial, r, broadcast(4.1665795894e-2f));
  polynomial = fma(polynomial, r, broadcast(1.6666665459e-1f));
  polynomial = fma(polynomial, r, broadcast(5.0000001201e-1f));
  polynomial = fma(polynomial, r * r, r) + broadcast(1.0f);
  const Floats result = polynomial * fromBits(shiftLeft<23>(n + broadcastInt(127)));
  return select(broadcast(-87.3f) > x, zeros(), result);
}

// tanh x to about 2e-7 relative: near 0 an odd polynomial (Cephes' tanhf), elsewhere 1 - 2 / (e^2|x| + 1).
inline Floats tanh(Floats x) {
  const Floats magnitude = max(x, zeros() - x), square = x * x;
  Floats polynomial = broadcast(-5.70498872745e-3f);
  polynomial = fma(polynomial, square, broadcast(2.06390887954e-2f));
  polynomial = fma(polynomial, square, broadcast(-5.37397155531e-2f));
  polynomial = fma(polynomial, square, broadcast(1.33314422036e-1f));
  polynomial = fma(polynomial, square, broadcast(-3.33332819422e-1f));
  const Floats near = fma(polynomial * square, x, x);
  const Floats one = broadcast(1.0f);
  const Floats far = one - broadcast(2.0f) / (exp(magnitude + magnitude) + one);
  return select(broadcast(0.625f) > magnitude, near, select(zeros() > x, zeros() - far, far));
}

// erfc x = 1 - erf x to about 5e-7 relative while it is a normal number: near 0 by erf's odd polynomial, elsewhere
// e^(-x^2) / |x| times a polynomial in 1 / x^2, one for |x| < 2 and one beyond (the coefficients of Cephes' erff and
// erfcf).
inline Floats erfc(Floats x) {
  const Floats one = broadcast(1.0f), magnitude = max(x, zeros() - x), square = x * x;
  Floats nearZero = broadcast(7.853861353153693e-5f);
  nearZero = fma(nearZero, square, broadcast(-8.010193625184903e-4f));
  nearZero = fma(nearZero, square, broadcast(5.188327685732524e-3f));
  nearZero = fma(nearZero, square, broadcast(-2.685381193529856e-2f));
  nearZero = fma(nearZero, square, broadcast(1.128358514861418e-1f));
  nearZero = fma(nearZero, square, broadcast(-3.761262582423300e-1f));
  nearZero = fma(nearZero, square, broadcast(1.128379165726710f));
  nearZero = negatedFma(nearZero, x, one);

  const Floats inverse = one / max(one, magnitude), y = inverse * inverse;
  Floats middle = broadcast(2.326819970068386e-2f);
  middle = fma(middle, y, broadcast(-1.387039388740657e-1f));
  middle = fma(middle, y, broadcast(3.687424674597105e-1f));
  middle = fma(middle, y, broadcast(-5.824733027278666e-1f));
  middle = fma(middle, y, broadcast(6.210004621745983e-1f));
  middle = fma(middle, y, broadcast(-4.944515323274145e-1f));
  middle = fma(middle, y, broadcast(3.404879937665872e-1f));
  middle = fma(middle, y, broadcast(-2.741127028184656e-1f));
  middle = fma(middle, y, broadcast(5.638259427386472e-1f));
  Floats outer = broadcast(-1.047766399936249e1f);
  outer = fma(outer, y, broadcast(1.297719955372516e1f));
  outer = fma(outer, y, broadcast(-7.495518717768503f));
  outer = fma(outer, y, broadcast(2.921019019210786f));
  outer = fma(outer, y, broadcast(-1.015265279202700f));
  outer = fma(outer, y, broadcast(4.218463358204948e-1f));
  outer = fma(outer, y, broadcast(-2.820767439740514e-1f));
  outer = fma(outer, y, broadcast(5.641895067754075e-1f));
  // e^(-x^2) loses digits to the rounding of x^2, which `excess` gives back.
  const Floats excess = fma(x, x, zeros() - square);
  const Floats power = exp(zeros() - square);
  const Floats tail = negatedFma(power, excess, power) * inverse * select(broadcast(2.0f) > magnitude, middle, outer);
  return select(one > magnitude, nearZero, select(zeros() > x, broadcast(2.0f) - tail, tail));
}

inline Floats activate(Floats x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return max(zeros(), x);
    case Activation::geluTanh: {
      const Floats inner = x * fma(broadcast(0.044715f) * x, x, broadcast(1.0f));
      const Floats half = broadcast(0.5f) * x;
      return fma(half, tanh(broadcast(0.7978845608028654f) * inner), half);
    }
    case Activation::gelu:  // x (1 + erf(x / sqrt 2)) / 2, without the cancellation at negative x
      return broadcast(0.5f) * x * erfc(x * broadcast(-0.70710678118654752f));
    case Activation::exp: {  // beyond 88.3 as a square, which overflows where e^x does
      const Floats root = exp(broadcast(0.5f) * x);
      return select(x > broadcast(88.3f), root * root, exp(x));
    }
    case Activation::sigmoid:
      return broadcast(1.0f) / (broadcast(1.0f) + exp(zeros() - x));
    case Activation::tanh:
      return tanh(x);
    case Activation::heaviside:  // 1 where x > 0, else 0; NaN stays
      return select(x > zeros(), broadcast(1.0f), select(zeros() >= x, zeros(), x));
    case Activation::silu:
      return x / (broadcast(1.0f) + exp(zeros() - x));
  }
  return x;
}

inline void activation(Vector<const float> x, Activation activation, Vector<float> out, ThreadPool& pool) {
  pool.forEachRange(out.size, 4096, [&](int64_t begin, int64_t end, int) {
    forEachVector(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      storeLanes(out.data + i, activate(loadLanes(x.data + i, lanes), activation), lanes);
    });
  });
}

// out = activation(gate) * x; all may be the same memory.
inline void gatedActivation(Vector<const float> gate, Vector<const float> x, Activation activation, Vector<float> out,
                            ThreadPool& pool) {
  pool.forEachRange(out.size, 4096, [&](int64_t begin, int64_t end, int) {
    forEachVector(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      storeLanes(out.data + i, activate(loadLanes(gate.data + i, lanes), activation) * loadLanes(x.data + i, lanes),
                 lanes);
    });
  });
}

}  // namespace monosem::MONOSEM_ISA
