// Runs every group on every backend. With arguments: only the groups whose name contains one.
// KERNEL_TESTS_ON=best: only on the first backend, the best instruction set; any other value: only on backends whose
// name contains it. KERNEL_TESTS_SHARD=1/2: only every second group, from the first on;
// 2/2: the others.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"

int main(int argumentCount, char** arguments) {
  using namespace monosem::test;
  int passed = 0, failed = 0;
  const char* on = std::getenv("KERNEL_TESTS_ON");
  const std::vector<Backend> all = backends();
  const auto chosen = [&](const Backend& backend) {
    if (!on) return true;
    if (std::string(on) == "best") return &backend == &all.front();
    return backend.name.find(on) != std::string::npos;
  };
  int shard = 1, shards = 1;
  if (const char* text = std::getenv("KERNEL_TESTS_SHARD")) {
    if (std::sscanf(text, "%d/%d", &shard, &shards) != 2 || shard < 1 || shard > shards) {
      std::fprintf(stderr, "KERNEL_TESTS_SHARD: \"%s\" is not like 1/2\n", text);
      return 2;
    }
  }
  int run = 0;
  for (const Backend& backend : all) {
    if (!chosen(backend)) continue;
    double squaredErrors = 0, squaredTerms = 0;
    for (const Group& group : groups()) {
      const bool wanted = argumentCount == 1 || std::any_of(arguments + 1, arguments + argumentCount, [&](char* part) {
                            return std::strstr(group.name, part) != nullptr;
                          });
      if (!wanted || (backend.coarseProducts() && !group.judgesProducts)) continue;
      if (run++ % shards != shard - 1) continue;
      Test test(backend);
      try {
        group.run(test);
      } catch (const std::exception& error) {
        test.check(false, std::string("no exception, but: ") + error.what());
      }
      std::printf("%-8s %-28s %5d passed%s\n", backend.name.c_str(), group.name, test.passed,
                  test.failed ? (", " + std::to_string(test.failed) + " FAILED").c_str() : "");
      passed += test.passed;
      failed += test.failed;
      squaredErrors += test.squaredErrors;
      squaredTerms += test.squaredTerms;
    }
    if (squaredTerms == 0) continue;
    const double error = std::sqrt(squaredErrors / squaredTerms);
    error <= backend.productError ? ++passed : ++failed;
    std::printf("%-8s products: relative error %.2e, allowed %.0e%s\n", backend.name.c_str(), error,
                backend.productError, error <= backend.productError ? "" : ", FAILED");
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed ? 1 : 0;
}
