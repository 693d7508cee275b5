// Bindings of the kernels that compute with the entries of codes. Arguments in the order in which they are read.
#include <memory>
#include <string>

#include "addon/call.h"
#include "addon/exports.h"

namespace monosem {
namespace {

// The values or pre-activations of codes as entry values, which share their memory.
void entries(Call& call) {
  const auto codes = call.codes("codes");
  const std::string which = call.text("which");
  const auto out = call.writeEntryValues("out", codes, Access::make);
  call.require(which == "values" || which == "preActivations", "which must be \"values\" or \"preActivations\"");
  call.enqueue([=](Kernels&) {
    const Codes& content = codes->codes;
    out->block = which == "values" && content.values ? content.values : content.preActivations;
  });
}

void entryProduct(Call& call) {
  const auto codes = call.codes("codes");
  const auto a = call.entryValues("a", codes);
  const auto b = call.entryValues("b", codes);
  const auto perFeature = call.readOptional("perFeature");
  const double scale = call.number("scale");
  const auto plus = call.entryValues("plus", codes);
  const auto out = call.writeEntryValues("out", codes);
  call.require(!perFeature || perFeature.size() == codes->dSae, "perFeature must be [dSae]");
  call.enqueue([=](Kernels& kernels) {
    kernels.entryProduct(codes->codes, {dataOf(a), dataOf(b), perFeature.vector(), scale, dataOf(plus)},
                         outputOf(out).data);
  });
}

// activation(values), element by element.
void entryActivation(Call& call) {
  const auto values = call.entryValues("values");
  const Activation activation = call.activation("activation");
  const auto out = call.writeEntryValues("out", values->codes);
  call.enqueue([=](Kernels& kernels) { kernels.activation(vectorOf(values), activation, outputOf(out)); });
}

void entryPower(Call& call) {
  const auto values = call.entryValues("values");
  const double exponent = call.number("exponent");
  const auto out = call.writeEntryValues("out", values->codes);
  call.enqueue([=](Kernels& kernels) { kernels.power(vectorOf(values), exponent, outputOf(out)); });
}

// Codes with entries at the same places. Without values they are max(preActivation, 0).
void withValues(Call& call) {
  const auto codes = call.codes("codes");
  const auto preActivations = call.entryValues("preActivations", codes);
  const auto values = call.entryValues("values", codes);
  const auto out = call.codes("out", Access::write);
  call.require(out->rows == codes->rows && out->dSae == codes->dSae, "codes and out must be of the same size");
  Allocator* allocator = &call.device()->allocator();
  call.enqueue([=](Kernels& kernels) {
    const Codes& content = codes->codes;
    const Block& newPreActivations = preActivations ? preActivations->block : content.preActivations;
    Block newValues;
    if (values) {
      newValues = values->block;
    } else {
      newValues = allocator->allocateArray<float>(content.entries);
      kernels.activation({newPreActivations.as<const float>(), content.entries}, Activation::relu,
                         {newValues.as<float>(), content.entries});
    }
    out->codes = content.withValues(newPreActivations, newValues);
  });
}

void featureRange(Call& call) {
  const auto codes = call.codes("codes");
  const int64_t from = call.integer("from");
  const int64_t to = call.integer("to");
  const auto out = call.codes("out", Access::write);
  call.require(from <= to && to <= codes->dSae, "expected from <= to <= dSae");
  call.require(out->rows == codes->rows && out->dSae == codes->dSae, "codes and out must be of the same size");
  call.enqueue([=](Kernels& kernels) { out->codes = kernels.featureRange(codes->codes, from, to); });
}

void windowSums(Call& call) {
  const auto codes = call.codes("codes");
  const auto thresholds = call.read("thresholds");
  const double bandwidth = call.number("bandwidth");
  const auto coefficients = call.entryValues("coefficients", codes);
  const double scale = call.number("scale");
  const auto out = call.write("out");
  call.require(thresholds.size() == codes->dSae && out.size() == codes->dSae, "thresholds and out must be [dSae]");
  call.enqueue([=](Kernels& kernels) {
    kernels.windowSums(codes->codes, thresholds.vector(), bandwidth, dataOf(coefficients), scale, out.vector());
  });
}

constexpr KernelBinding kBindings[] = {
    {"entries", entries},       {"entryProduct", entryProduct}, {"entryActivation", entryActivation},
    {"entryPower", entryPower}, {"withValues", withValues},     {"featureRange", featureRange},
    {"windowSums", windowSums},
};

}  // namespace

void exportEntryKernels(Napi::Env env, Napi::Object exports) {
  exportKernels(env, exports, kBindings);
}

}  // namespace monosem
