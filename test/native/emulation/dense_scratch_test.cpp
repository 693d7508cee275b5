// Codes so dense that products take them, chunk after chunk: what is rounded for one product is given back before the
// next, so that scratch does not grow with the number of chunks.
#include "check.h"
#include "data.h"
#include "rounding_device.h"

namespace monosem::test {
namespace {

constexpr int64_t rows = 8192, dSae = 8192, dIn = 2;
// dense_codes.cu has places for so many numbers in a chunk, of which here are four.
constexpr uint64_t placesPerChunk = uint64_t(1) << 24;
constexpr int64_t nth = 90;  // density 1.1 %

PlainCodes everyNthOf(Random& random) {
  PlainCodes codes;
  codes.rows = rows;
  codes.dSae = dSae;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t feature = row % nth; feature < dSae; feature += nth) {
      codes.features.push_back(uint32_t(feature));
      codes.values.push_back(1 + 0.1f * random.normal());
    }
    codes.offsets.push_back(codes.features.size());
  }
  codes.preActivations = codes.values;
  return codes;
}

KERNEL_TEST("bfloat16: scratch of dense codes", denseScratchTests) {
  Random random(71);
  RoundingDevice device;
  const Codes codes = device.uploaded(everyNthOf(random));
  const Block decoder = device.uploaded(random.normals(dSae * dIn)),
              dense = device.uploaded(random.normals(rows * dIn));
  const Block out = device.memory().allocateArray<float>(dSae * dIn);
  const Matrix<const float> decoderRows{decoder.as<const float>(), dSae, dIn}, x{dense.as<const float>(), rows, dIn};

  const auto staysSmall = [&](const char* what, const auto& work) {
    device.memory().resetPeak();
    const uint64_t before = device.memory().statistics().current;
    work();
    const uint64_t scratch = device.memory().statistics().peak - before;
    // A chunk in float32 and rounded, and little else.
    test.check(scratch < (4 + 2 + 1) * placesPerChunk,
               std::string(what) + ": scratch of " + std::to_string(scratch) + " bytes");
  };
  staysSmall("decode", [&] {
    device.kernels().decode(codes, decoderRows, {}, {}, {out.as<float>(), rows, dIn}, nullptr);
  });
  staysSmall("row gradient", [&] {
    RowGradient gradient;
    gradient.terms.push_back({&codes, nullptr, x, 1});
    device.kernels().rowGradient(gradient, decoderRows, {out.as<float>(), dSae, dIn});
  });
}

}  // namespace
}  // namespace monosem::test
