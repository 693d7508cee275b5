// What all products have in common: rounding to bfloat16, and products of nothing.
//
// In bfloat16 both factors are copied, rounded, before every product, unless there are copies that are kept (see
// cuda/rounded_copies.h): of what an encode or a row gradient multiplies, made by the first of them, and of the encoder
// of a model that is trained, made by the step. A product alone would not be worth the latter: rounding anew reads 4
// bytes and writes 2 per element, keeping costs the step 2 written ones. But the decoder has such a copy as well, and
// of that a row is read for every entry of the codes, by kernels which that bounds: of TopK with k = 32 and
// 4096 x 768 -> 24576 on an H200, decode took 73 us and its gradient 78 with rows in float32.
#include "cuda/library/matrix_products.h"

#include "cuda/library/kernels.h"

namespace monosem::cuda {

MatrixProducts::Factor MatrixProducts::factorOf(Strided<const float> matrix, bool transposed) {
  if (gpu_.precision() != Precision::bfloat16)
    return {matrix.data, matrix.rows, matrix.columns, matrix.stride, transposed, Element::float32};
  const Matrix<const Bfloat16> rounded = roundedToBfloat16(gpu_, {matrix.data, matrix.rows, matrix.stride});
  return factorOf({rounded.data, matrix.rows, matrix.columns, matrix.stride}, transposed);
}

MatrixProducts::Factor MatrixProducts::factorOf(Strided<const Bfloat16> matrix, bool transposed) {
  return {matrix.data, matrix.rows, matrix.columns, matrix.stride, transposed, Element::bfloat16};
}

template <class A, class B>
void MatrixProducts::multiplyAny(A a, bool aTransposed, B b, bool bTransposed, int64_t depth, float factor, float keep,
                                 Strided<float> out) {
  if (isOfNothing(depth, keep, out)) return;
  const Factor left = factorOf(a, aTransposed), right = factorOf(b, bTransposed);
  multiply(left, right, depth, factor, keep, out);
  // What was rounded for this product: a call may make many of them.
  if (left.data != a.data) gpu_.release(left.data);
  if (right.data != b.data) gpu_.release(right.data);
}

bool MatrixProducts::isOfNothing(int64_t depth, float keep, Strided<float> out) {
  const int64_t size = out.rows * out.stride;
  if (size > 0 && depth > 0) return false;
  if (keep == 0)
    gpu_.clear(out.data, sizeof(float) * size_t(size));
  else
    scale(gpu_, {out.data, size}, keep, {out.data, size});
  return true;
}

void MatrixProducts::abTransposed(Strided<const float> a, Strided<const float> b, float factor, float keep,
                                  Strided<float> out) {
  multiplyAny(a, false, b, true, a.columns, factor, keep, out);
}

void MatrixProducts::abTransposedExactly(Rows a, Rows b, Matrix<float> out) {
  if (isOfNothing(a.columns, 0, out)) return;
  multiply({a.data, a.rows, a.columns, a.columns, false, Element::exactFloat32},
           {b.data, b.rows, b.columns, b.columns, true, Element::exactFloat32}, a.columns, 1, 0, out);
}

void MatrixProducts::ab(Strided<const float> a, Strided<const float> b, float factor, float keep, Strided<float> out) {
  multiplyAny(a, false, b, false, a.columns, factor, keep, out);
}

void MatrixProducts::aTransposedB(Strided<const float> a, Strided<const float> b, float factor, float keep,
                                  Strided<float> out) {
  multiplyAny(a, true, b, false, a.rows, factor, keep, out);
}

void MatrixProducts::abTransposed(Strided<const Bfloat16> a, Strided<const Bfloat16> b, float factor, float keep,
                                  Strided<float> out) {
  multiplyAny(a, false, b, true, a.columns, factor, keep, out);
}

void MatrixProducts::ab(Strided<const Bfloat16> a, Strided<const Bfloat16> b, float factor, float keep,
                        Strided<float> out) {
  multiplyAny(a, false, b, false, a.columns, factor, keep, out);
}

void MatrixProducts::aTransposedB(Strided<const Bfloat16> a, Strided<const Bfloat16> b, float factor, float keep,
                                  Strided<float> out) {
  multiplyAny(a, true, b, false, a.rows, factor, keep, out);
}

}  // namespace monosem::cuda
