// Bindings of codes, entry values and feature sets: making the handles that kernels fill, and reading them.
#include <napi.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "addon/call.h"
#include "addon/environment.h"
#include "addon/exports.h"
#include "addon/handles.h"
#include "addon/host_array.h"

namespace monosem {
namespace {

// The garbage collector's guess at codes whose size is not known yet.
constexpr int64_t kExpectedEntriesPerRow = 64;
constexpr int64_t kBytesPerEntry = 12;

// newCodes(device, rows, dSae)
Napi::Value newCodes(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Call call(info, "newCodes");
    const int64_t rows = call.integer("rows");
    const int64_t dSae = call.integer("dSae");
    const int64_t bytes = rows * kBytesPerEntry * std::min(dSae, kExpectedEntriesPerRow);
    return wrapResult(info.Env(), HandleKind::codes, call.device(), std::make_shared<CodesResult>(rows, dSae),
                      {rows, dSae}, bytes);
  });
}

// newEntryValues(codes)
Napi::Value newEntryValues(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Handle& handle = unwrap(info[0], HandleKind::codes, "codes");
    const auto codes = std::static_pointer_cast<CodesResult>(handle.result);
    return wrapResult(info.Env(), HandleKind::entryValues, handle.device, std::make_shared<EntryValuesResult>(codes),
                      handle.shape, handle.bytes / 3);
  });
}

// newEntryValuesLike(entryValues): for the same codes
Napi::Value newEntryValuesLike(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Handle& handle = unwrap(info[0], HandleKind::entryValues, "entry values");
    const auto codes = std::static_pointer_cast<EntryValuesResult>(handle.result)->codes;
    return wrapResult(info.Env(), HandleKind::entryValues, handle.device, std::make_shared<EntryValuesResult>(codes),
                      handle.shape, handle.bytes);
  });
}

// newFeatureSet(device, dSae)
Napi::Value newFeatureSet(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Call call(info, "newFeatureSet");
    const int64_t dSae = call.integer("dSae");
    return wrapResult(info.Env(), HandleKind::featureSet, call.device(), std::make_shared<FeatureSetResult>(dSae),
                      {dSae}, dSae * 4);
  });
}

// newKeptGradient(device)
Napi::Value newKeptGradient(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Call call(info, "newKeptGradient");
    return wrapResult(info.Env(), HandleKind::keptGradient, call.device(), std::make_shared<KeptGradientResult>(), {},
                      0);
  });
}

// How many elements a read will give is known only when the codes are. So a read has two parts: the first waits for
// the codes, then the arrays are made (on the JavaScript thread) and a second part, which waits for nothing else, fills
// them.
struct Part {
  DType dtype;
  int64_t elements;
  std::function<void(Allocator&, void*)> fill;
};

template <class ArraysOf>
Napi::Value readInTwoParts(const Napi::CallbackInfo& info, const Handle& handle, const char* name, ArraysOf arraysOf) {
  Environment& environment = Environment::of(info.Env());
  const auto device = handle.device;
  auto begun = environment.beginRead(
      device, Napi::Object::New(info.Env()),
      [device, arraysOf](Napi::Env env, uint64_t number, const Napi::Object&) -> std::optional<Napi::Value> {
        std::vector<std::pair<Part, void*>> transfers;
        const auto arrays = Napi::Array::New(env);
        for (Part& part : arraysOf()) {
          void* host = nullptr;
          arrays.Set(arrays.Length(), newHostArray(env, part.dtype, part.elements, &host));
          transfers.emplace_back(std::move(part), host);
        }
        auto completion = Environment::of(env).continueRead(
            number, arrays,
            [](Napi::Env, uint64_t, const Napi::Object& kept) { return std::optional<Napi::Value>(kept); });
        device->readMore(
            [transfers](Allocator& allocator) {
              for (const auto& [part, host] : transfers) part.fill(allocator, host);
            },
            std::move(completion));
        return std::nullopt;
      });
  device->read(
      handle.result, name, [](Allocator&) {}, std::move(begun.completion));
  return begun.promise;
}

// readCodes(codes) -> promise of [rowOffsets, features, preActivations, values]
Napi::Value readCodes(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Handle& handle = unwrap(info[0], HandleKind::codes, "codes");
    const auto result = std::static_pointer_cast<CodesResult>(handle.result);
    return readInTwoParts(info, handle, "codes", [result] {
      const Codes& codes = result->codes;
      const auto offsets = [result](Allocator& allocator, void* host) {
        std::vector<uint64_t> offsets(size_t(result->rows) + 1);
        allocator.download(result->codes.rowOffsets, offsets.data(), offsets.size() * sizeof(uint64_t));
        std::copy(offsets.begin(), offsets.end(), static_cast<double*>(host));
      };
      const auto entries = [result](const Block& block) {
        return [result, block](Allocator& allocator, void* host) {
          allocator.download(block, host, size_t(result->codes.entries) * 4);
        };
      };
      return std::vector<Part>{
          {DType::f64, result->rows + 1, offsets},
          {DType::u32, codes.entries, entries(codes.features)},
          {DType::f32, codes.entries, entries(codes.preActivations)},
          {DType::f32, codes.entries, entries(codes.values ? codes.values : codes.preActivations)},
      };
    });
  });
}

// readEntryValues(entryValues) -> promise of [values]
Napi::Value readEntryValues(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Handle& handle = unwrap(info[0], HandleKind::entryValues, "entry values");
    const auto result = std::static_pointer_cast<EntryValuesResult>(handle.result);
    return readInTwoParts(info, handle, "entry values", [result] {
      const int64_t entries = result->codes->codes.entries;
      return std::vector<Part>{{DType::f32, entries, [result, entries](Allocator& allocator, void* host) {
                                  allocator.download(result->block, host, size_t(entries) * 4);
                                }}};
    });
  });
}

// readFeatureSet(featureSet) -> promise of [indices]
Napi::Value readFeatureSet(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Handle& handle = unwrap(info[0], HandleKind::featureSet, "feature set");
    const auto result = std::static_pointer_cast<FeatureSetResult>(handle.result);
    return readInTwoParts(info, handle, "a feature set", [result] {
      const auto set = result->set;
      return std::vector<Part>{{DType::u32, set->count, [set](Allocator& allocator, void* host) {
                                  allocator.download(set->indices, host, size_t(set->count) * 4);
                                }}};
    });
  });
}

}  // namespace

void exportCodes(Napi::Env env, Napi::Object exports) {
  exports.Set("newCodes", Napi::Function::New<newCodes>(env, "newCodes"));
  exports.Set("newEntryValues", Napi::Function::New<newEntryValues>(env, "newEntryValues"));
  exports.Set("newEntryValuesLike", Napi::Function::New<newEntryValuesLike>(env, "newEntryValuesLike"));
  exports.Set("newFeatureSet", Napi::Function::New<newFeatureSet>(env, "newFeatureSet"));
  exports.Set("newKeptGradient", Napi::Function::New<newKeptGradient>(env, "newKeptGradient"));
  exports.Set("readCodes", Napi::Function::New<readCodes>(env, "readCodes"));
  exports.Set("readEntryValues", Napi::Function::New<readEntryValues>(env, "readEntryValues"));
  exports.Set("readFeatureSet", Napi::Function::New<readFeatureSet>(env, "readFeatureSet"));
}

}  // namespace monosem
