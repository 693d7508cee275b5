// Four lanes in plain C++, in a form that compilers turn into whatever vectors their default target has; see
// generic/simd.h.
#pragma once

namespace monosem::baseline {

struct Floats {
  static constexpr int width = 4;
  float lanes[4];
};
struct Ints {
  int32_t lanes[4];
};
struct Mask {
  uint32_t lanes[4];  // all bits or none
};

constexpr int registerBlock = 8;

#define MONOSEM_FOR_LANES(Result, expression)               \
  Result result;                                            \
  for (int i = 0; i < 4; ++i) result.lanes[i] = expression; \
  return result

inline Floats load(const float* p) {
  MONOSEM_FOR_LANES(Floats, p[i]);
}
inline Floats loadFirst(const float* p, int n) {
  MONOSEM_FOR_LANES(Floats, i < n ? p[i] : 0);
}
inline void store(float* p, Floats x) {
  for (int i = 0; i < 4; ++i) p[i] = x.lanes[i];
}
inline void storeFirst(float* p, Floats x, int n) {
  for (int i = 0; i < n; ++i) p[i] = x.lanes[i];
}
inline Floats broadcast(float x) {
  MONOSEM_FOR_LANES(Floats, x);
}
inline Floats zeros() {
  return broadcast(0);
}

inline Floats operator+(Floats a, Floats b) {
  MONOSEM_FOR_LANES(Floats, a.lanes[i] + b.lanes[i]);
}
inline Floats operator-(Floats a, Floats b) {
  MONOSEM_FOR_LANES(Floats, a.lanes[i] - b.lanes[i]);
}
inline Floats operator*(Floats a, Floats b) {
  MONOSEM_FOR_LANES(Floats, a.lanes[i] * b.lanes[i]);
}
inline Floats operator/(Floats a, Floats b) {
  MONOSEM_FOR_LANES(Floats, a.lanes[i] / b.lanes[i]);
}
inline Floats fma(Floats a, Floats b, Floats c) {
  return a * b + c;
}  // rounded twice: no such instruction here
inline Floats negatedFma(Floats a, Floats b, Floats c) {
  return c - a * b;
}
inline Floats sqrt(Floats a) {
  MONOSEM_FOR_LANES(Floats, std::sqrt(a.lanes[i]));
}
inline Floats max(Floats a, Floats b) {
  MONOSEM_FOR_LANES(Floats, a.lanes[i] > b.lanes[i] ? a.lanes[i] : b.lanes[i]);
}
inline Floats min(Floats a, Floats b) {
  MONOSEM_FOR_LANES(Floats, a.lanes[i] < b.lanes[i] ? a.lanes[i] : b.lanes[i]);
}

inline Mask operator>(Floats a, Floats b) {
  MONOSEM_FOR_LANES(Mask, a.lanes[i] > b.lanes[i] ? ~0u : 0u);
}
inline Mask operator>=(Floats a, Floats b) {
  MONOSEM_FOR_LANES(Mask, a.lanes[i] >= b.lanes[i] ? ~0u : 0u);
}
inline Floats select(Mask mask, Floats yes, Floats no) {
  MONOSEM_FOR_LANES(Floats, mask.lanes[i] ? yes.lanes[i] : no.lanes[i]);
}
inline uint32_t maskBits(Mask mask) {
  return (mask.lanes[0] & 1) | (mask.lanes[1] & 2) | (mask.lanes[2] & 4) | (mask.lanes[3] & 8);
}

inline Ints loadInts(const int32_t* p) {
  MONOSEM_FOR_LANES(Ints, p[i]);
}
inline void storeInts(int32_t* p, Ints x) {
  for (int i = 0; i < 4; ++i) p[i] = x.lanes[i];
}
inline Ints broadcastInt(int32_t x) {
  MONOSEM_FOR_LANES(Ints, x);
}
inline Ints laneIndices() {
  MONOSEM_FOR_LANES(Ints, i);
}
inline Ints operator+(Ints a, Ints b) {
  MONOSEM_FOR_LANES(Ints, int32_t(uint32_t(a.lanes[i]) + uint32_t(b.lanes[i])));
}
inline Ints operator-(Ints a, Ints b) {
  MONOSEM_FOR_LANES(Ints, int32_t(uint32_t(a.lanes[i]) - uint32_t(b.lanes[i])));
}
inline Ints operator^(Ints a, Ints b) {
  MONOSEM_FOR_LANES(Ints, a.lanes[i] ^ b.lanes[i]);
}
inline void multiplyWide(Ints a, Ints b, Ints& high, Ints& low) {
  for (int i = 0; i < 4; ++i) {
    const uint64_t product = uint64_t(uint32_t(a.lanes[i])) * uint32_t(b.lanes[i]);
    high.lanes[i] = int32_t(product >> 32);
    low.lanes[i] = int32_t(product);
  }
}
template <int bits>
inline Ints shiftLeft(Ints a) {
  MONOSEM_FOR_LANES(Ints, int32_t(uint32_t(a.lanes[i]) << bits));
}
inline Ints bitsOf(Floats a) {
  Ints result;
  std::memcpy(&result, &a, sizeof result);
  return result;
}
// To nearest, ties to even, for |a| < 2^22: the addition leaves the integer in the low bits of the fraction.
inline Ints roundToInts(Floats a) {
  return bitsOf(a + broadcast(12582912.0f)) - broadcastInt(0x4B400000);
}
inline Floats toFloats(Ints a) {
  MONOSEM_FOR_LANES(Floats, float(a.lanes[i]));
}
inline Floats fromBits(Ints a) {
  Floats result;
  std::memcpy(&result, &a, sizeof result);
  return result;
}

inline int compressStore(float* p, Floats x, Mask mask) {
  int count = 0;
  for (int i = 0; i < 4; ++i)
    if (mask.lanes[i]) p[count++] = x.lanes[i];
  return count;
}
inline int compressStore(uint32_t* p, Ints x, Mask mask) {
  int count = 0;
  for (int i = 0; i < 4; ++i)
    if (mask.lanes[i]) p[count++] = uint32_t(x.lanes[i]);
  return count;
}

inline float sum(Floats a) {
  return (a.lanes[0] + a.lanes[2]) + (a.lanes[1] + a.lanes[3]);
}
inline float maximum(Floats a) {
  return std::max(std::max(a.lanes[0], a.lanes[2]), std::max(a.lanes[1], a.lanes[3]));
}

class DoubleSum {
 public:
  void add(Floats x) {
    for (int i = 0; i < 4; ++i) sums_[i] += double(x.lanes[i]);
  }
  void addProduct(Floats x, Floats y) {
    for (int i = 0; i < 4; ++i) sums_[i] += double(x.lanes[i]) * double(y.lanes[i]);
  }
  double total() const { return (sums_[0] + sums_[2]) + (sums_[1] + sums_[3]); }

 private:
  double sums_[4] = {0, 0, 0, 0};
};

// IEEE half precision by moving its fields into a float; subnormals are renormalised by a multiplication.
inline float halfToFloat(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
  if (exponent == 0) {
    const float magnitude = float(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline Floats loadHalf(const uint16_t* p) {
  MONOSEM_FOR_LANES(Floats, halfToFloat(p[i]));
}
inline Floats loadBrain(const uint16_t* p) {
  Ints bits;
  for (int i = 0; i < 4; ++i) bits.lanes[i] = int32_t(uint32_t(p[i]) << 16);
  return fromBits(bits);
}

#undef MONOSEM_FOR_LANES

inline void transposeSquare(const float* const* rows, int64_t column, float* out, int64_t stride) {
  for (int i = 0; i < 4; ++i)
    for (int lane = 0; lane < 4; ++lane) out[i * stride + lane] = rows[lane][column + i];
}

}  // namespace monosem::baseline
