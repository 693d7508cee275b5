// Four lanes; see generic/simd.h.
#pragma once

namespace monosem::neon {

struct Floats {
  static constexpr int width = 4;
  float32x4_t lanes;
};
struct Ints {
  int32x4_t lanes;
};
struct Mask {
  uint32x4_t lanes;
};

constexpr int registerBlock = 16;

inline Floats load(const float* p) {
  return {vld1q_f32(p)};
}
inline Floats loadFirst(const float* p, int n) {
  float all[4] = {0, 0, 0, 0};
  for (int i = 0; i < n; ++i) all[i] = p[i];
  return load(all);
}
inline void store(float* p, Floats x) {
  vst1q_f32(p, x.lanes);
}
inline void storeFirst(float* p, Floats x, int n) {
  float all[4];
  store(all, x);
  for (int i = 0; i < n; ++i) p[i] = all[i];
}
inline Floats broadcast(float x) {
  return {vdupq_n_f32(x)};
}
inline Floats zeros() {
  return broadcast(0);
}

inline Floats operator+(Floats a, Floats b) {
  return {vaddq_f32(a.lanes, b.lanes)};
}
inline Floats operator-(Floats a, Floats b) {
  return {vsubq_f32(a.lanes, b.lanes)};
}
inline Floats operator*(Floats a, Floats b) {
  return {vmulq_f32(a.lanes, b.lanes)};
}
inline Floats operator/(Floats a, Floats b) {
  return {vdivq_f32(a.lanes, b.lanes)};
}
inline Floats fma(Floats a, Floats b, Floats c) {
  return {vfmaq_f32(c.lanes, a.lanes, b.lanes)};
}
inline Floats negatedFma(Floats a, Floats b, Floats c) {
  return {vfmsq_f32(c.lanes, a.lanes, b.lanes)};
}
inline Floats sqrt(Floats a) {
  return {vsqrtq_f32(a.lanes)};
}
inline Floats max(Floats a, Floats b) {
  return {vmaxq_f32(a.lanes, b.lanes)};
}
inline Floats min(Floats a, Floats b) {
  return {vminq_f32(a.lanes, b.lanes)};
}

inline Mask operator>(Floats a, Floats b) {
  return {vcgtq_f32(a.lanes, b.lanes)};
}
inline Mask operator>=(Floats a, Floats b) {
  return {vcgeq_f32(a.lanes, b.lanes)};
}
inline Floats select(Mask mask, Floats yes, Floats no) {
  return {vbslq_f32(mask.lanes, yes.lanes, no.lanes)};
}
inline uint32_t maskBits(Mask mask) {
  const uint32_t weights[4] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(mask.lanes, vld1q_u32(weights)));
}

inline Ints loadInts(const int32_t* p) {
  return {vld1q_s32(p)};
}
inline void storeInts(int32_t* p, Ints x) {
  vst1q_s32(p, x.lanes);
}
inline Ints broadcastInt(int32_t x) {
  return {vdupq_n_s32(x)};
}
inline Ints laneIndices() {
  const int32_t indices[4] = {0, 1, 2, 3};
  return loadInts(indices);
}
inline Ints operator+(Ints a, Ints b) {
  return {vaddq_s32(a.lanes, b.lanes)};
}
inline Ints operator-(Ints a, Ints b) {
  return {vsubq_s32(a.lanes, b.lanes)};
}
inline Ints operator^(Ints a, Ints b) {
  return {veorq_s32(a.lanes, b.lanes)};
}
inline void multiplyWide(Ints a, Ints b, Ints& high, Ints& low) {
  const uint32x4_t x = vreinterpretq_u32_s32(a.lanes), y = vreinterpretq_u32_s32(b.lanes);
  const uint32x4_t first = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(x), vget_low_u32(y)));
  const uint32x4_t last = vreinterpretq_u32_u64(vmull_high_u32(x, y));
  high = {vreinterpretq_s32_u32(vuzp2q_u32(first, last))};
  low = {vreinterpretq_s32_u32(vuzp1q_u32(first, last))};
}
template <int bits>
inline Ints shiftLeft(Ints a) {
  return {vshlq_n_s32(a.lanes, bits)};
}
inline Ints roundToInts(Floats a) {
  return {vcvtnq_s32_f32(a.lanes)};
}
inline Floats toFloats(Ints a) {
  return {vcvtq_f32_s32(a.lanes)};
}
inline Ints bitsOf(Floats a) {
  return {vreinterpretq_s32_f32(a.lanes)};
}
inline Floats fromBits(Ints a) {
  return {vreinterpretq_f32_s32(a.lanes)};
}

inline int compressStore(float* p, Floats x, Mask mask) {
  float all[4];
  store(all, x);
  const uint32_t bits = maskBits(mask);
  int count = 0;
  for (int i = 0; i < 4; ++i)
    if (bits >> i & 1) p[count++] = all[i];
  return count;
}
inline int compressStore(uint32_t* p, Ints x, Mask mask) {
  int32_t all[4];
  storeInts(all, x);
  const uint32_t bits = maskBits(mask);
  int count = 0;
  for (int i = 0; i < 4; ++i)
    if (bits >> i & 1) p[count++] = uint32_t(all[i]);
  return count;
}

inline float sum(Floats a) {
  const float32x2_t half = vadd_f32(vget_low_f32(a.lanes), vget_high_f32(a.lanes));
  return vget_lane_f32(half, 0) + vget_lane_f32(half, 1);
}
inline float maximum(Floats a) {
  return vmaxvq_f32(a.lanes);
}

class DoubleSum {
 public:
  DoubleSum() : low_(vdupq_n_f64(0)), high_(vdupq_n_f64(0)) {}
  void add(Floats x) {
    low_ = vaddq_f64(low_, vcvt_f64_f32(vget_low_f32(x.lanes)));
    high_ = vaddq_f64(high_, vcvt_high_f64_f32(x.lanes));
  }
  void addProduct(Floats x, Floats y) {
    low_ = vfmaq_f64(low_, vcvt_f64_f32(vget_low_f32(x.lanes)), vcvt_f64_f32(vget_low_f32(y.lanes)));
    high_ = vfmaq_f64(high_, vcvt_high_f64_f32(x.lanes), vcvt_high_f64_f32(y.lanes));
  }
  double total() const {
    const float64x2_t both = vaddq_f64(low_, high_);
    return vgetq_lane_f64(both, 0) + vgetq_lane_f64(both, 1);
  }

 private:
  float64x2_t low_, high_;
};

inline Floats loadHalf(const uint16_t* p) {
  return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))};
}
inline Floats loadBrain(const uint16_t* p) {
  return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))};
}

inline void transposeSquare(const float* const* rows, int64_t column, float* out, int64_t stride) {
  const float32x4x2_t first = vtrnq_f32(vld1q_f32(rows[0] + column), vld1q_f32(rows[1] + column));
  const float32x4x2_t second = vtrnq_f32(vld1q_f32(rows[2] + column), vld1q_f32(rows[3] + column));
  for (int i = 0; i < 2; ++i) {
    vst1q_f32(out + i * stride, vcombine_f32(vget_low_f32(first.val[i]), vget_low_f32(second.val[i])));
    vst1q_f32(out + (i + 2) * stride, vcombine_f32(vget_high_f32(first.val[i]), vget_high_f32(second.val[i])));
  }
}

}  // namespace monosem::neon
