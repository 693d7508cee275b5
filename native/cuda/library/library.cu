// The library's entry point: the table, each entry of which runs a kernel and turns what it throws into a status.
#include <cstdio>
#include <new>
#include <string>

#include "cuda/library/context.h"
#include "cuda/library/dense_codes.h"
#include "cuda/library/kernels.h"

namespace monosem::cuda {
namespace {

constexpr int32_t success = 0;
// Of the call that failed last on this thread: uploads come from another one than kernels.
thread_local std::string lastMessage;

int32_t statusOf(ErrorCode code) {
  return int32_t(code) + 1;
}

// Runs `work`; what it throws becomes a status, and its message the last one.
template <class Work>
int32_t attempt(Context* context, const Work& work) noexcept {
  try {
    context->makeCurrent();
    work();
    return success;
  } catch (const EngineError& error) {
    lastMessage = error.what();
    return statusOf(error.code());
  } catch (const std::bad_alloc&) {
    lastMessage = "the system is out of memory";
    return statusOf(ErrorCode::outOfMemory);
  } catch (const std::exception& error) {
    lastMessage = error.what();
    return statusOf(ErrorCode::internal);
  }
}

template <auto kernel>
struct EntryFor;
template <class... Arguments, void (*kernel)(Context&, Arguments...)>
struct EntryFor<kernel> {
  static int32_t call(Context* context, uint64_t number, const Memory* memory, Arguments... arguments) {
    return attempt(context, [&] {
      context->beginCall(number, memory);
      kernel(*context, arguments...);
    });
  }
};
template <auto kernel>
constexpr auto entry = &EntryFor<kernel>::call;

Context* open(const OpenOptions& options, OpenFailure* failure) {
  const auto fail = [&](ErrorCode code, const char* message) -> Context* {
    failure->status = statusOf(code);
    std::snprintf(failure->message, sizeof failure->message, "%s", message);
    return nullptr;
  };
  try {
    return new Context(options);
  } catch (const EngineError& error) {
    return fail(error.code(), error.what());
  } catch (const std::exception& error) {
    return fail(ErrorCode::internal, error.what());
  }
}

int32_t allocate(Context* context, size_t bytes, void** memory) {
  *memory = nullptr;
  return attempt(context, [&] { *memory = context->allocateDevice(bytes); });
}

const Api table = {
    abiVersion,
    open,
    [](Context* context) { delete context; },
    [](const Context* context) { return context->description().c_str(); },
    [](const Context*) { return lastMessage.c_str(); },
    allocate,
    [](Context* context, void* memory) { attempt(context, [&] { context->releaseDevice(memory); }); },
    [](Context* context, const void* host, void* memory, size_t bytes) {
      return attempt(context, [&] { context->upload(host, memory, bytes); });
    },
    [](Context* context, const void* memory, void* host, size_t bytes) {
      return attempt(context, [&] { context->download(memory, host, bytes); });
    },
    [](Context* context, void* memory, size_t bytes) {
      return attempt(context, [&] { context->clear(memory, bytes); });
    },
    [](Context* context, uint64_t* call) {
      *call = 0;
      return attempt(context, [&] { context->settle(call); });
    },

    entry<encode>,
    entry<decode>,
    entry<decodeGradient>,
    [](const Context* context, const CodesView& codes) { return worthDense(*context, codes); },
    entry<orderByFeature>,
    entry<featureSums>,
    entry<featureCounts>,
    entry<densify>,
    entry<selectTop>,
    entry<updateRunningMinimum>,
    entry<entryProduct>,
    entry<power>,
    entry<featureRange>,
    entry<windowSums>,
    entry<rowGradientSquaredNorm>,
    entry<rowGradient>,
    entry<stepRows>,
    entry<stepVector>,
    entry<updateTokensSinceFired>,
    entry<featuresNotFiredFor>,

    entry<fill>,
    entry<add>,
    entry<scale>,
    entry<addRow>,
    entry<scaleRows>,
    entry<multiply>,
    entry<divide>,
    entry<scaleColumns>,
    entry<affineRows>,
    entry<standardiseRows>,
    entry<rowNorms>,
    entry<normaliseRows>,
    entry<columnSums>,
    entry<weightedRowSum>,
    entry<gatherRows>,
    entry<scatterRows>,
    entry<copyColumns>,
    entry<copyRows>,
    entry<transpose>,
    entry<dot>,
    entry<sum>,
    entry<accumulateColumnSums>,
    entry<sumOfRowCosines>,
    entry<convert>,
    entry<roundToBfloat16>,
    entry<randomUniform>,
    entry<randomNormal>,
    entry<randomPermutation>,
    entry<drawFeatures>,

    entry<linear>,
    entry<activation>,
    entry<layerNorm>,
    entry<attention>,
    entry<attentionScores>,
    entry<softmaxRows>,
    entry<attentionMix>,
    entry<appendPositions>,
    entry<logSoftmax>,
    entry<crossEntropy>,
    entry<klDivergence>,
    entry<sample>,
    entry<rmsNorm>,
    entry<rotate>,
    entry<gatedActivation>,
    entry<linearBrain>,
    entry<gatherBrainRows>,
};

}  // namespace
}  // namespace monosem::cuda

extern "C" const monosem::cuda::Api* monosem_cuda_api(uint32_t version) {
  return version == monosem::cuda::abiVersion ? &monosem::cuda::table : nullptr;
}
