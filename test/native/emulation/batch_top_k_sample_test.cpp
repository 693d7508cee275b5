// BatchTopK guesses from a sample of the rows above which bound the k largest of all are. Where the sample is like the
// batch, one pass finds them; each further pass waits for the device once more.
#include "check.h"
#include "cuda_host.h"
#include "data.h"
#include "rounding_device.h"

namespace monosem::test {
namespace {

constexpr int64_t rows = 640, dSae = 96, dIn = 24, k = 8 * rows;

// How often the host waits for the device.
int waitsToEncode(Test& test, RoundingDevice& device, const Floats& x, const Floats& encoder, const Floats& bias) {
  const Block onDevice[] = {device.uploaded(x), device.uploaded(encoder), device.uploaded(bias)};
  Selection selection;
  selection.select = Select::batchtopk;
  selection.k = k;
  const int before = cuda_host::hostWork.waits;
  const Codes codes =
      device.kernels().encode({onDevice[0].as<const float>(), rows, dIn}, {onDevice[1].as<const float>(), dSae, dIn},
                              {onDevice[2].as<const float>(), dSae}, selection);
  const int waits = cuda_host::hostWork.waits - before;
  test.check(codes.entries == k, "k entries are taken");
  return waits;
}

KERNEL_TEST("batch top k: the sample is of the whole batch", batchSampleTests) {
  for (const cuda::Precision precision : {cuda::Precision::float32, cuda::Precision::bfloat16}) {
    Random random(95);
    RoundingDevice device(precision);
    const Floats x = random.normals(rows * dIn), encoder = random.normals(dSae * dIn), bias(size_t(dSae), 0.0f);
    const auto scaled = [&](const auto& factorOfRow) {
      Floats result = x;
      for (int64_t i = 0; i < rows * dIn; ++i) result[size_t(i)] *= factorOfRow(i / dIn);
      return result;
    };
    const int alike = waitsToEncode(test, device, x, encoder, bias);
    const Floats weakFirst = scaled([](int64_t row) { return row < rows / 4 ? 0.01f : 1.0f; }),
                 strongFirst = scaled([](int64_t row) { return row < rows / 4 ? 1.0f : 0.01f; });
    test.check(waitsToEncode(test, device, weakFirst, encoder, bias) == alike,
               "one pass where the first rows are weak");
    test.check(waitsToEncode(test, device, strongFirst, encoder, bias) == alike,
               "one pass where the first rows are strong");
  }
}

}  // namespace
}  // namespace monosem::test
