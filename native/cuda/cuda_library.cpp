#include "cuda/cuda_library.h"

#include <cstdlib>
#include <vector>

#include "engine/error.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

namespace monosem::cuda {
namespace {

constexpr const char* fileName = "libmonosem_cuda.so";

#if !defined(_WIN32)

// The folder of the file that holds this code.
std::string ownFolder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&ownFolder), &info) == 0 || !info.dli_fname) return {};
  const std::string file = info.dli_fname;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? std::string() : file.substr(0, slash + 1);
}

std::string namedInEnvironment() {
  const char* named = std::getenv("MONOSEM_CUDA_LIBRARY");
  return named ? named : "";
}

std::vector<std::string> placesToLook(const std::string& path, const std::string& named) {
  if (!path.empty()) return {path};
  if (!named.empty()) return {named};
  return {ownFolder() + fileName, fileName};
}

#endif

ErrorCode codeOf(int32_t status) {
  return ErrorCode(status - 1);
}

Context* openContext(const Api& api, const OpenOptions& options) {
  OpenFailure failure;
  Context* context = api.open(options, &failure);
  if (!context) throw EngineError(codeOf(failure.status), failure.message);
  return context;
}

}  // namespace

const Api& openLibrary([[maybe_unused]] const std::string& path) {
#if defined(_WIN32)
  throw EngineError(ErrorCode::unsupported, "there is no CUDA backend for Windows yet");
#else
  const std::string named = namedInEnvironment();
  std::string reasons;
  for (const std::string& place : placesToLook(path, named)) {
    void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      reasons += (reasons.empty() ? "" : "; ") + std::string(dlerror());
      continue;
    }
    const auto entry = reinterpret_cast<decltype(&monosem_cuda_api)>(dlsym(library, "monosem_cuda_api"));
    if (!entry) throw EngineError(ErrorCode::unsupported, place + " is not monosem's CUDA library");
    const Api* api = entry(abiVersion);
    if (!api)
      throw EngineError(ErrorCode::unsupported, place + " belongs to another version of monosem: build it again");
    return *api;
  }
  if (path.empty() && !named.empty())
    throw EngineError(ErrorCode::unsupported, "MONOSEM_CUDA_LIBRARY names a library that cannot be opened: " + reasons);
  throw EngineError(ErrorCode::unsupported,
                    "no CUDA backend in this build: " + reasons +
                        ". Where there is nvcc, \"npm run build:native\" in a clone of monosem makes it; "
                        "MONOSEM_CUDA_LIBRARY names one that is elsewhere");
#endif
}

OpenContext::OpenContext(const Api& api, const OpenOptions& options)
    : api(api), precision(options.precision), context(openContext(api, options)) {}

void OpenContext::check(int32_t status) const {
  if (status != 0) throw EngineError(codeOf(status), api.message(context));
}

}  // namespace monosem::cuda
