// Sixteen lanes; see generic/simd.h.
#pragma once

namespace monosem::avx512 {

struct Floats {
  static constexpr int width = 16;
  __m512 lanes;
};
struct Ints {
  __m512i lanes;
};
struct Mask {
  __mmask16 lanes;
};

constexpr int registerBlock = 12;

inline __mmask16 firstLanes(int n) {
  return __mmask16((1u << n) - 1);
}

inline Floats load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline Floats loadFirst(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(firstLanes(n), p)};
}
inline void store(float* p, Floats x) {
  _mm512_storeu_ps(p, x.lanes);
}
inline void storeFirst(float* p, Floats x, int n) {
  _mm512_mask_storeu_ps(p, firstLanes(n), x.lanes);
}
inline Floats broadcast(float x) {
  return {_mm512_set1_ps(x)};
}
inline Floats zeros() {
  return {_mm512_setzero_ps()};
}

inline Floats operator+(Floats a, Floats b) {
  return {_mm512_add_ps(a.lanes, b.lanes)};
}
inline Floats operator-(Floats a, Floats b) {
  return {_mm512_sub_ps(a.lanes, b.lanes)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm512_mul_ps(a.lanes, b.lanes)};
}
inline Floats operator/(Floats a, Floats b) {
  return {_mm512_div_ps(a.lanes, b.lanes)};
}
inline Floats fma(Floats a, Floats b, Floats c) {
  return {_mm512_fmadd_ps(a.lanes, b.lanes, c.lanes)};
}
inline Floats negatedFma(Floats a, Floats b, Floats c) {
  return {_mm512_fnmadd_ps(a.lanes, b.lanes, c.lanes)};
}
inline Floats sqrt(Floats a) {
  return {_mm512_sqrt_ps(a.lanes)};
}
inline Floats max(Floats a, Floats b) {
  return {_mm512_max_ps(a.lanes, b.lanes)};
}
inline Floats min(Floats a, Floats b) {
  return {_mm512_min_ps(a.lanes, b.lanes)};
}

inline Mask operator>(Floats a, Floats b) {
  return {_mm512_cmp_ps_mask(a.lanes, b.lanes, _CMP_GT_OQ)};
}
inline Mask operator>=(Floats a, Floats b) {
  return {_mm512_cmp_ps_mask(a.lanes, b.lanes, _CMP_GE_OQ)};
}
inline Floats select(Mask mask, Floats yes, Floats no) {
  return {_mm512_mask_blend_ps(mask.lanes, no.lanes, yes.lanes)};
}
inline uint32_t maskBits(Mask mask) {
  return mask.lanes;
}

inline Ints loadInts(const int32_t* p) {
  return {_mm512_loadu_si512(p)};
}
inline void storeInts(int32_t* p, Ints x) {
  _mm512_storeu_si512(p, x.lanes);
}
inline Ints broadcastInt(int32_t x) {
  return {_mm512_set1_epi32(x)};
}
inline Ints laneIndices() {
  return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
}
inline Ints operator+(Ints a, Ints b) {
  return {_mm512_add_epi32(a.lanes, b.lanes)};
}
inline Ints operator-(Ints a, Ints b) {
  return {_mm512_sub_epi32(a.lanes, b.lanes)};
}
inline Ints operator^(Ints a, Ints b) {
  return {_mm512_xor_si512(a.lanes, b.lanes)};
}
inline void multiplyWide(Ints a, Ints b, Ints& high, Ints& low) {
  const __m512i even = _mm512_mul_epu32(a.lanes, b.lanes);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.lanes, 32), _mm512_srli_epi64(b.lanes, 32));
  high = {_mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xAAAA, odd)};
  low = {_mm512_mask_mov_epi32(even, 0xAAAA, _mm512_slli_epi64(odd, 32))};
}
template <int bits>
inline Ints shiftLeft(Ints a) {
  return {_mm512_slli_epi32(a.lanes, bits)};
}
inline Ints roundToInts(Floats a) {
  return {_mm512_cvtps_epi32(a.lanes)};
}
inline Floats toFloats(Ints a) {
  return {_mm512_cvtepi32_ps(a.lanes)};
}
inline Ints bitsOf(Floats a) {
  return {_mm512_castps_si512(a.lanes)};
}
inline Floats fromBits(Ints a) {
  return {_mm512_castsi512_ps(a.lanes)};
}

inline int compressStore(float* p, Floats x, Mask mask) {
  _mm512_storeu_ps(p, _mm512_maskz_compress_ps(mask.lanes, x.lanes));  // faster than the masked store on Zen
  return __builtin_popcount(mask.lanes);
}
inline int compressStore(uint32_t* p, Ints x, Mask mask) {
  _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(mask.lanes, x.lanes));
  return __builtin_popcount(mask.lanes);
}

inline float sum(Floats a) {
  return _mm512_reduce_add_ps(a.lanes);
}
inline float maximum(Floats a) {
  return _mm512_reduce_max_ps(a.lanes);
}

class DoubleSum {
 public:
  DoubleSum()
      : low_(_mm512_setzero_pd()),
        high_(_mm512_setzero_pd()) {}  // written out: an implicit one would not get the wider instructions
  void add(Floats x) {
    low_ = _mm512_add_pd(low_, _mm512_cvtps_pd(_mm512_castps512_ps256(x.lanes)));
    high_ = _mm512_add_pd(high_, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.lanes, 1)));
  }
  void addProduct(Floats x, Floats y) {
    low_ = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x.lanes)),
                           _mm512_cvtps_pd(_mm512_castps512_ps256(y.lanes)), low_);
    high_ = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(x.lanes, 1)),
                            _mm512_cvtps_pd(_mm512_extractf32x8_ps(y.lanes, 1)), high_);
  }
  double total() const { return _mm512_reduce_add_pd(_mm512_add_pd(low_, high_)); }

 private:
  __m512d low_, high_;
};

inline Floats loadHalf(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Floats loadBrain(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

inline __m512 unpackLowPairs(__m512 x, __m512 y) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
}
inline __m512 unpackHighPairs(__m512 x, __m512 y) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
}

inline void transposeSquare(const float* const* rows, int64_t column, float* out, int64_t stride) {
  __m512 a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(rows[i] + column);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = unpackLowPairs(b[i], b[i + 2]);
    a[i + 1] = unpackHighPairs(b[i], b[i + 2]);
    a[i + 2] = unpackLowPairs(b[i + 1], b[i + 3]);
    a[i + 3] = unpackHighPairs(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88);
    b[i + 4] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
    b[i + 8] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
    b[i + 12] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    _mm512_storeu_ps(out + i * stride, _mm512_shuffle_f32x4(b[i], b[i + 8], 0x88));
    _mm512_storeu_ps(out + (i + 8) * stride, _mm512_shuffle_f32x4(b[i], b[i + 8], 0xdd));
  }
}

}  // namespace monosem::avx512
