// What each file of bindings adds to the module.
#pragma once

#include <napi.h>

namespace monosem {

void exportDevice(Napi::Env env, Napi::Object exports);
void exportTensors(Napi::Env env, Napi::Object exports);
void exportCodes(Napi::Env env, Napi::Object exports);
void exportSaeKernels(Napi::Env env, Napi::Object exports);
void exportEntryKernels(Napi::Env env, Napi::Object exports);
void exportDenseKernels(Napi::Env env, Napi::Object exports);
void exportSyntheticKernels(Napi::Env env, Napi::Object exports);
void exportTransformerKernels(Napi::Env env, Napi::Object exports);

}  // namespace monosem
