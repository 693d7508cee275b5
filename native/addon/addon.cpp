// The module.
#include <napi.h>

#include "addon/environment.h"
#include "addon/exports.h"

namespace monosem {
namespace {

// setErrorClass(MonosemError): a class constructed with (code, message).
void setErrorClass(const Napi::CallbackInfo& info) {
  if (!info[0].IsFunction()) throw Napi::TypeError::New(info.Env(), "setErrorClass: expected a class");
  Environment::of(info.Env()).setErrorClass(info[0].As<Napi::Function>());
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Environment(env));
  exports.Set("setErrorClass", Napi::Function::New<setErrorClass>(env, "setErrorClass"));
  exportDevice(env, exports);
  exportTensors(env, exports);
  exportCodes(env, exports);
  exportSaeKernels(env, exports);
  exportEntryKernels(env, exports);
  exportDenseKernels(env, exports);
  exportSyntheticKernels(env, exports);
  exportTransformerKernels(env, exports);
  return exports;
}

}  // namespace
}  // namespace monosem

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return monosem::initialise(env, exports);
}

NODE_API_MODULE(NODE_GYP_MODULE_NAME, Init)
