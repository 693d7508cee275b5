// Bindings of the kernels that make synthetic data.
#include <limits>

#include "addon/call.h"
#include "addon/exports.h"

namespace monosem {
namespace {

void drawFeatures(Call& call) {
  const auto probabilities = call.read("probabilities");
  const auto factors = call.readOptional("factors");
  const auto means = call.read("means");
  const auto deviations = call.read("deviations");
  FeatureDistribution distribution;
  distribution.roots = call.integer("roots");
  distribution.children = call.integer("children");
  distribution.depth = call.integer("depth");
  const uint64_t seed = uint64_t(call.integer("seed"));
  const uint64_t offset = uint64_t(call.integer("offset"));
  const auto codes = call.codes("codes", Access::write);
  const int64_t features = probabilities.size();
  call.require(!factors || factors.rows() == features, "factors must be [features, rank]");
  call.require(means.size() == features && deviations.size() == features, "means and deviations must be [features]");
  call.require(codes->dSae == features, "the codes are of another number of features");
  call.require(features < int64_t(std::numeric_limits<uint32_t>::max()), "there are too many features");
  call.enqueue([=](Kernels& kernels) mutable {
    distribution.probabilities = probabilities.vector();
    distribution.factors = factors.matrix();
    distribution.means = means.vector();
    distribution.deviations = deviations.vector();
    codes->codes = kernels.drawFeatures(distribution, codes->rows, seed, offset);
  });
}

constexpr KernelBinding kBindings[] = {
    {"drawFeatures", drawFeatures},
};

}  // namespace

void exportSyntheticKernels(Napi::Env env, Napi::Object exports) {
  exportKernels(env, exports, kBindings);
}

}  // namespace monosem
