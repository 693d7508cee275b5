// Host code only; the file is a .cu like all of this library.
#include "cuda/library/cublas_library.h"

#include <dlfcn.h>
#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/error.h"

namespace monosem::cuda {
namespace {

using cublas::Status;

constexpr const char* fileNames[] = {"libcublas.so.13", "libcublas.so.12"};

bool isFolder(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

// The files to try, in order, each once.
class Candidates {
 public:
  void addFile(const std::string& file) {
    if (std::find(files_.begin(), files_.end(), file) == files_.end()) files_.push_back(file);
  }
  void addFolder(const std::string& folder) {
    for (const char* name : fileNames) addFile(folder + "/" + name);
  }
  void addFolderOrFile(const char* path) {
    if (!path || !*path) return;
    isFolder(path) ? addFolder(path) : addFile(path);
  }
  void addToolkit(const char* folder) {
    if (!folder || !*folder) return;
    for (const char* libraries : {"/lib64", "/targets/x86_64-linux/lib"}) addFolder(std::string(folder) + libraries);
  }
  void addFoldersLike(const char* pattern) {
    glob_t found;
    if (glob(pattern, 0, nullptr, &found) == 0)
      for (size_t i = 0; i < found.gl_pathc; ++i) addFolder(found.gl_pathv[i]);
    globfree(&found);
  }

  const std::vector<std::string>& files() const { return files_; }

 private:
  std::vector<std::string> files_;
};

std::vector<std::string> candidates(const char* path) {
  Candidates all;
  all.addFolderOrFile(path);
  all.addFolderOrFile(std::getenv("MONOSEM_CUBLAS"));
  for (const char* name : fileNames) all.addFile(name);
  all.addToolkit(std::getenv("CUDA_HOME"));
  all.addToolkit(std::getenv("CUDA_PATH"));
  all.addFolder("/usr/local/cuda/lib64");
  all.addFoldersLike("/usr/local/cuda*/lib64");
  return all.files();
}

// Opens the libcublasLt that was made with this libcublas, if it is there. libcublas asks for it by its bare name, for
// which the loader may find one of another release, in LD_LIBRARY_PATH for example; it takes one that is open already.
void* openCompanion(const std::string& file) {
  const std::string stem = "libcublas";
  const size_t at = file.rfind(stem);
  if (at == std::string::npos) return nullptr;
  return dlopen(std::string(file).insert(at + stem.size(), "Lt").c_str(), RTLD_LAZY | RTLD_LOCAL);
}

// The first function that the library lacks; null: none.
const char* findFunctions(void* library, cublas::Functions& functions) {
  const char* missing = nullptr;
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
    if (!function && !missing) missing = name;
  };
  find("cublasCreate_v2", functions.cublasCreate_v2);
  find("cublasDestroy_v2", functions.cublasDestroy_v2);
  find("cublasSetStream_v2", functions.cublasSetStream_v2);
  find("cublasSetWorkspace_v2", functions.cublasSetWorkspace_v2);
  find("cublasGemmEx_64", functions.cublasGemmEx_64);
  return missing;
}

// The file that holds a function.
std::string fileOf(const void* function, const std::string& otherwise) {
  Dl_info info;
  return dladdr(function, &info) != 0 && info.dli_fname ? info.dli_fname : otherwise;
}

// Whether `file` could be opened and has all functions; else what to say of it.
//
// A library once opened is never closed: others in the process may use it as well (the loader counts, so that opening
// it again costs nothing), and cuBLAS cannot be unloaded cleanly, for the driver and the process's exit keep pointers
// into it.
bool tryToOpen(const std::string& file, CublasLibrary& library, std::string& refusal) {
  void* companion = openCompanion(file);
  void* opened = dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (!opened) {
    const std::string reason = dlerror();
    const bool absent = reason == file + ": cannot open shared object file: No such file or directory";
    refusal = absent ? file : file + " (" + reason + ")";
    if (companion) dlclose(companion);
    return false;
  }
  if (const char* missing = findFunctions(opened, library.functions)) {
    refusal = file + " (it has no " + missing + ")";
    return false;
  }
  library.file = fileOf(reinterpret_cast<const void*>(library.functions.cublasCreate_v2), file);
  return true;
}

struct StatusMeaning {
  Status status;
  const char* reason;
  ErrorCode code;
};
constexpr StatusMeaning meanings[] = {
    {Status::notInitialized,
     "CUBLAS_STATUS_NOT_INITIALIZED (the driver is too old for this cuBLAS, or the GPU has no memory left)",
     ErrorCode::unsupported},
    {Status::allocationFailed, "CUBLAS_STATUS_ALLOC_FAILED", ErrorCode::outOfMemory},
    {Status::invalidValue, "CUBLAS_STATUS_INVALID_VALUE", ErrorCode::internal},
    {Status::architectureMismatch, "CUBLAS_STATUS_ARCH_MISMATCH", ErrorCode::unsupported},
    {Status::mappingError, "CUBLAS_STATUS_MAPPING_ERROR", ErrorCode::internal},
    {Status::executionFailed, "CUBLAS_STATUS_EXECUTION_FAILED", ErrorCode::internal},
    {Status::internalError, "CUBLAS_STATUS_INTERNAL_ERROR", ErrorCode::internal},
    {Status::notSupported, "CUBLAS_STATUS_NOT_SUPPORTED", ErrorCode::unsupported},
    {Status::licenseError, "CUBLAS_STATUS_LICENSE_ERROR", ErrorCode::unsupported},
};

}  // namespace

void CublasLibrary::check(Status status, const char* call) const {
  if (status == Status::success) return;
  std::string reason = "status " + std::to_string(int(status));
  ErrorCode code = ErrorCode::internal;
  for (const StatusMeaning& meaning : meanings)
    if (meaning.status == status) {
      reason = meaning.reason;
      code = meaning.code;
    }
  throw EngineError(code, std::string(call) + " of " + file + " failed: " + reason + ".");
}

CublasLibrary openCublas(const char* path) {
  CublasLibrary library;
  std::string refusals;
  for (const std::string& file : candidates(path)) {
    std::string refusal;
    if (tryToOpen(file, library, refusal)) return library;
    refusals += (refusals.empty() ? "" : ", ") + refusal;
  }
  // What to do first: the list may be longer than what a reader sees.
  throw EngineError(ErrorCode::unsupported,
                    "cuBLAS 12 or 13 was not found. Install the CUDA toolkit, or the Python package nvidia-cublas and "
                    "set MONOSEM_CUBLAS to the folder of its libcublas.so. Looked for: " +
                        refusals + ".");
}

}  // namespace monosem::cuda
