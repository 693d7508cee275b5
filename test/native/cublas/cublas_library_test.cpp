// How cuBLAS is found, what is said where it is not, and what is asked of it: with a fake one (fake_cublas.cpp, in the
// folder FAKE_CUBLAS_FOLDER) and the emulated device.
#include <dlfcn.h>
#include <algorithm>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "cuda/library/context.h"
#include "cuda/library/cublas_library.h"
#include "cuda/library/matrix_products.h"

namespace monosem::cuda {
namespace {

int passed = 0, failed = 0;

void check(bool holds, const std::string& what) {
  holds ? ++passed : ++failed;
  if (!holds) std::printf("  FAILED %s\n", what.c_str());
}

const std::string folder = FAKE_CUBLAS_FOLDER;
const std::string file = folder + "/libcublas.so.13";

// An environment variable, until the end of the scope.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~Environment() { unsetenv(name_); }

 private:
  const char* name_;
};

template <class Work>
void refuses(const std::string& what, ErrorCode code, std::initializer_list<std::string> parts, const Work& work) {
  try {
    work();
    check(false, what + ": it was not refused");
  } catch (const EngineError& error) {
    check(error.code() == code, what + ": " + errorCodeName(error.code()));
    for (const std::string& part : parts)
      check(std::string(error.what()).find(part) != std::string::npos,
            what + ": no \"" + part + "\" in: " + error.what());
  }
}

void searchTests() {
  check(openCublas(folder.c_str()).file == file, "a folder to look in");
  check(openCublas(file.c_str()).file == file, "a file to open");
  {
    const Environment named("MONOSEM_CUBLAS", folder);
    check(openCublas(nullptr).file == file, "a folder in the environment");
    check(openCublas("").file == file, "an empty path is none");
    check(openCublas("/nowhere").file == file, "a path without cuBLAS goes on to the environment");
    check(openCublas("libm.so.6").file == file, "a library without cuBLAS's functions goes on to the environment");
  }
  {
    const Environment named("MONOSEM_CUBLAS", file);
    check(openCublas(nullptr).file == file, "a file in the environment");
  }
  {
    const Environment named("MONOSEM_CUBLAS", "/nowhere");
    check(openCublas(folder.c_str()).file == file, "a path goes before the environment");
  }
}

void missingTests() {
  try {
    std::printf("not tested, for this machine has cuBLAS: what is said where it is missing (%s)\n",
                openCublas(nullptr).file.c_str());
    return;
  } catch (const EngineError&) {
  }
  const Environment home("CUDA_HOME", "/nowhere/home");
  const Environment path("CUDA_PATH", "/nowhere/path");
  refuses("no cuBLAS", ErrorCode::unsupported,
          {"cuBLAS 12 or 13 was not found", "nvidia-cublas", "MONOSEM_CUBLAS", "libm.so.6 (it has no cublasCreate_v2)",
           " libcublas.so.13, libcublas.so.12, ", "/nowhere/home/lib64/libcublas.so.13",
           "/nowhere/home/targets/x86_64-linux/lib/libcublas.so.12", "/nowhere/path/lib64/libcublas.so.13"},
          [] { openCublas("libm.so.6"); });
  refuses("a file that is no library", ErrorCode::unsupported, {std::string(__FILE__) + " (", "invalid ELF header"},
          [] { openCublas(__FILE__); });
}

void statusTests() {
  const CublasLibrary library = openCublas(folder.c_str());
  library.check(cublas::Status::success, "a call");
  refuses("no memory", ErrorCode::outOfMemory, {"cublasGemmEx", "CUBLAS_STATUS_ALLOC_FAILED", file},
          [&] { library.check(cublas::Status::allocationFailed, "cublasGemmEx"); });
  refuses("not supported", ErrorCode::unsupported, {"CUBLAS_STATUS_NOT_SUPPORTED"},
          [&] { library.check(cublas::Status::notSupported, "cublasGemmEx"); });
  refuses("a failed kernel", ErrorCode::internal, {"CUBLAS_STATUS_EXECUTION_FAILED"},
          [&] { library.check(cublas::Status::executionFailed, "cublasGemmEx"); });
  refuses("a status of a later cuBLAS", ErrorCode::internal, {"status 4711"},
          [&] { library.check(cublas::Status(4711), "cublasGemmEx"); });
}

OpenOptions optionsFor(Precision precision) {
  OpenOptions options;
  options.precision = precision;
  options.cublasPath = folder.c_str();
  return options;
}

int openHandles() {
  void* library = dlopen(file.c_str(), RTLD_LAZY);
  return reinterpret_cast<int (*)()>(dlsym(library, "fakeCublasOpenHandles"))();
}

void handleTests() {
  {
    const Context one(optionsFor(Precision::float32)), other(optionsFor(Precision::float32));
    check(openHandles() == 2, "a handle for every context");
  }
  check(openHandles() == 0, "a handle goes with its context");
  const Environment failing("FAKE_CUBLAS_CREATE", "1");
  refuses("a driver that is too old", ErrorCode::unsupported, {"cublasCreate", "CUBLAS_STATUS_NOT_INITIALIZED", file},
          [] { Context(optionsFor(Precision::float32)); });
  check(openHandles() == 0, "no handle where none could be made");
}

struct Values {
  Values(int64_t rows, int64_t columns, unsigned seed) : rows(rows), columns(columns), data(size_t(rows * columns)) {
    for (float& value : data) {
      seed = seed * 1664525u + 1013904223u;
      value = float(seed >> 8) / float(1 << 23) - 1;
    }
  }
  Matrix<const float> view() const { return {data.data(), rows, columns}; }
  Matrix<float> view() { return {data.data(), rows, columns}; }

  int64_t rows, columns;
  std::vector<float> data;
};

// The factors as the precision rounds them: to so many bits after the leading one.
double inPrecision(Precision precision, float x) {
  if (precision == Precision::float32) return x;
  const double scale = std::ldexp(1.0, (precision == Precision::tf32 ? 10 : 7) - std::ilogb(x));
  return std::nearbyint(x * scale) / scale;
}

// Of the call that a product is part of.
struct Scratch {
  std::vector<std::unique_ptr<char[]>> blocks;
  const Memory memory{this,
                      [](void* owner, size_t bytes) -> void* {
                        auto& blocks = static_cast<Scratch*>(owner)->blocks;
                        blocks.push_back(std::make_unique<char[]>(bytes));
                        return blocks.back().get();
                      },
                      [](void* owner, const void* memory) {
                        auto& blocks = static_cast<Scratch*>(owner)->blocks;
                        const auto isThat = [memory](const auto& block) { return block.get() == memory; };
                        blocks.erase(std::find_if(blocks.begin(), blocks.end(), isThat));
                      }};
};

void productTests(Precision precision, int64_t m, int64_t n, int64_t k, float factor, float keep) {
  Context gpu(optionsFor(precision));
  const Scratch scratch;
  gpu.beginCall(1, &scratch.memory);
  const std::string size = std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k) +
                           ", keep = " + std::to_string(keep) + ", precision " + std::to_string(int(precision));
  const Values a(m, k, 1), aTransposed(k, m, 2), b(k, n, 3), bTransposed(n, k, 4);
  const Values before = keep == 0 ? Values(m, n, 0) : Values(m, n, 5);
  const auto test = [&](const char* name, const auto& multiply, const auto& left, const auto& right) {
    Values out = before;
    if (keep == 0) out.data.assign(out.data.size(), std::numeric_limits<float>::quiet_NaN());
    multiply(out.view());
    bool close = true;
    for (int64_t row = 0; row < m; ++row)
      for (int64_t column = 0; column < n; ++column) {
        double sum = 0;
        for (int64_t i = 0; i < k; ++i)
          sum += inPrecision(precision, left(row, i)) * inPrecision(precision, right(i, column));
        const double expected = factor * sum + (keep == 0 ? 0 : keep * double(before.view().row(row)[column]));
        close = close && std::fabs(out.view().row(row)[column] - expected) <= 2e-6 * (1 + double(k));
      }
    check(close, std::string(name) + " of " + size);
  };
  const auto of = [](const Values& values) {
    return [&](int64_t row, int64_t column) { return values.view().row(row)[column]; };
  };
  const auto transposed = [](const Values& values) {
    return [&](int64_t row, int64_t column) { return values.view().row(column)[row]; };
  };
  MatrixProducts& products = gpu.products();
  test(
      "a . b^T", [&](auto out) { products.abTransposed(a.view(), bTransposed.view(), factor, keep, out); }, of(a),
      transposed(bTransposed));
  test(
      "a . b", [&](auto out) { products.ab(a.view(), b.view(), factor, keep, out); }, of(a), of(b));
  // bf16 factors are exact in every precision.
  const auto brain = [](const Values& values) {
    std::vector<Bfloat16> bits;
    for (const float& value : values.data) {
      uint32_t whole;
      std::memcpy(&whole, &value, sizeof whole);
      bits.push_back({uint16_t(whole >> 16)});
    }
    return bits;
  };
  const auto cut = [](Values values) {
    for (float& value : values.data) {
      uint32_t whole;
      std::memcpy(&whole, &value, sizeof whole);
      whole &= 0xffff0000u;
      std::memcpy(&value, &whole, sizeof whole);
    }
    return values;
  };
  const std::vector<Bfloat16> brainA = brain(a), brainB = brain(bTransposed);
  const Values cutA = cut(a), cutB = cut(bTransposed);
  test(
      "a . b^T of bf16 factors",
      [&](auto out) {
        products.abTransposed(Matrix<const Bfloat16>{brainA.data(), m, k}, Matrix<const Bfloat16>{brainB.data(), n, k},
                              factor, keep, out);
      },
      of(cutA), transposed(cutB));
  test(
      "a^T . b", [&](auto out) { products.aTransposedB(aTransposed.view(), b.view(), factor, keep, out); },
      transposed(aTransposed), of(b));
}

int run() {
  for (const char* name : {"MONOSEM_CUBLAS", "CUDA_HOME", "CUDA_PATH", "FAKE_CUBLAS_CREATE"}) unsetenv(name);
  missingTests();  // first: once a libcublas.so.13 is open, the loader has one
  searchTests();
  statusTests();
  handleTests();
  for (const Precision precision : {Precision::float32, Precision::tf32, Precision::bfloat16})
    for (const float keep : {0.0f, 1.0f, -0.5f}) {
      productTests(precision, 3, 5, 7, 1, keep);
      productTests(precision, 8, 2, 4, 0.25f, keep);
      productTests(precision, 1, 1, 1, 1, keep);
      productTests(precision, 1, 6, 9, -2, keep);
      productTests(precision, 6, 1, 9, -2, keep);
      productTests(precision, 4, 3, 0, 1, keep);
      productTests(precision, 0, 3, 2, 1, keep);
      productTests(precision, 3, 0, 2, 1, keep);
      productTests(precision, 0, 0, 0, 1, keep);
    }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed ? 1 : 0;
}

}  // namespace
}  // namespace monosem::cuda

int main() {
  return monosem::cuda::run();
}
