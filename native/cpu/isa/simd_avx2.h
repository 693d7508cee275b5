// Eight lanes; see generic/simd.h.
#pragma once

namespace monosem::avx2 {

struct Floats {
  static constexpr int width = 8;
  __m256 lanes;
};
struct Ints {
  __m256i lanes;
};
struct Mask {
  __m256 lanes;
};

constexpr int registerBlock = 8;

inline __m256i firstLanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Floats load(const float* p) {
  return {_mm256_loadu_ps(p)};
}
inline Floats loadFirst(const float* p, int n) {
  return {_mm256_maskload_ps(p, firstLanes(n))};
}
inline void store(float* p, Floats x) {
  _mm256_storeu_ps(p, x.lanes);
}
inline void storeFirst(float* p, Floats x, int n) {
  _mm256_maskstore_ps(p, firstLanes(n), x.lanes);
}
inline Floats broadcast(float x) {
  return {_mm256_set1_ps(x)};
}
inline Floats zeros() {
  return {_mm256_setzero_ps()};
}

inline Floats operator+(Floats a, Floats b) {
  return {_mm256_add_ps(a.lanes, b.lanes)};
}
inline Floats operator-(Floats a, Floats b) {
  return {_mm256_sub_ps(a.lanes, b.lanes)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm256_mul_ps(a.lanes, b.lanes)};
}
inline Floats operator/(Floats a, Floats b) {
  return {_mm256_div_ps(a.lanes, b.lanes)};
}
inline Floats fma(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.lanes, b.lanes, c.lanes)};
}
inline Floats negatedFma(Floats a, Floats b, Floats c) {
  return {_mm256_fnmadd_ps(a.lanes, b.lanes, c.lanes)};
}
inline Floats sqrt(Floats a) {
  return {_mm256_sqrt_ps(a.lanes)};
}
inline Floats max(Floats a, Floats b) {
  return {_mm256_max_ps(a.lanes, b.lanes)};
}
inline Floats min(Floats a, Floats b) {
  return {_mm256_min_ps(a.lanes, b.lanes)};
}

inline Mask operator>(Floats a, Floats b) {
  return {_mm256_cmp_ps(a.lanes, b.lanes, _CMP_GT_OQ)};
}
inline Mask operator>=(Floats a, Floats b) {
  return {_mm256_cmp_ps(a.lanes, b.lanes, _CMP_GE_OQ)};
}
inline Floats select(Mask mask, Floats yes, Floats no) {
  return {_mm256_blendv_ps(no.lanes, yes.lanes, mask.lanes)};
}
inline uint32_t maskBits(Mask mask) {
  return uint32_t(_mm256_movemask_ps(mask.lanes));
}

inline Ints loadInts(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
inline void storeInts(int32_t* p, Ints x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.lanes);
}
inline Ints broadcastInt(int32_t x) {
  return {_mm256_set1_epi32(x)};
}
inline Ints laneIndices() {
  return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)};
}
inline Ints operator+(Ints a, Ints b) {
  return {_mm256_add_epi32(a.lanes, b.lanes)};
}
inline Ints operator-(Ints a, Ints b) {
  return {_mm256_sub_epi32(a.lanes, b.lanes)};
}
inline Ints operator^(Ints a, Ints b) {
  return {_mm256_xor_si256(a.lanes, b.lanes)};
}
inline void multiplyWide(Ints a, Ints b, Ints& high, Ints& low) {
  const __m256i even = _mm256_mul_epu32(a.lanes, b.lanes);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a.lanes, 32), _mm256_srli_epi64(b.lanes, 32));
  high = {_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA)};
  low = {_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA)};
}
template <int bits>
inline Ints shiftLeft(Ints a) {
  return {_mm256_slli_epi32(a.lanes, bits)};
}
inline Ints roundToInts(Floats a) {
  return {_mm256_cvtps_epi32(a.lanes)};
}
inline Floats toFloats(Ints a) {
  return {_mm256_cvtepi32_ps(a.lanes)};
}
inline Ints bitsOf(Floats a) {
  return {_mm256_castps_si256(a.lanes)};
}
inline Floats fromBits(Ints a) {
  return {_mm256_castsi256_ps(a.lanes)};
}

// The permutation that packs the selected lanes: eight 4-bit lane numbers, spread from the mask by BMI2.
inline __m256i packingOf(uint32_t bits) {
  const uint64_t spread = _pdep_u64(bits, 0x1111111111111111u) * 0xf;
  const uint64_t lanes = _pext_u64(0x76543210u, spread);
  const __m256i numbers = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(_pdep_u64(lanes, 0x0f0f0f0f0f0f0f0fu))));
  return numbers;
}
inline int compressStore(float* p, Floats x, Mask mask) {
  const uint32_t bits = maskBits(mask);
  _mm256_storeu_ps(p, _mm256_permutevar8x32_ps(x.lanes, packingOf(bits)));
  return __builtin_popcount(bits);
}
inline int compressStore(uint32_t* p, Ints x, Mask mask) {
  const uint32_t bits = maskBits(mask);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(x.lanes, packingOf(bits)));
  return __builtin_popcount(bits);
}

inline float sum(Floats a) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.lanes), _mm256_extractf128_ps(a.lanes, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float maximum(Floats a) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(a.lanes), _mm256_extractf128_ps(a.lanes, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

class DoubleSum {
 public:
  DoubleSum()
      : low_(_mm256_setzero_pd()),
        high_(_mm256_setzero_pd()) {}  // written out: an implicit one would not get the wider instructions
  void add(Floats x) {
    low_ = _mm256_add_pd(low_, _mm256_cvtps_pd(_mm256_castps256_ps128(x.lanes)));
    high_ = _mm256_add_pd(high_, _mm256_cvtps_pd(_mm256_extractf128_ps(x.lanes, 1)));
  }
  void addProduct(Floats x, Floats y) {
    low_ = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x.lanes)),
                           _mm256_cvtps_pd(_mm256_castps256_ps128(y.lanes)), low_);
    high_ = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(x.lanes, 1)),
                            _mm256_cvtps_pd(_mm256_extractf128_ps(y.lanes, 1)), high_);
  }
  double total() const {
    const __m256d both = _mm256_add_pd(low_, high_);
    const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(both), _mm256_extractf128_pd(both, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
  }

 private:
  __m256d low_, high_;
};

inline Floats loadHalf(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline Floats loadBrain(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}

inline void transposeSquare(const float* const* rows, int64_t column, float* out, int64_t stride) {
  __m256 a[8], b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(rows[i] + column);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(out + i * stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(out + (i + 4) * stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
}

}  // namespace monosem::avx2
