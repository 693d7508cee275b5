// A small test framework: groups of checks that run on every instruction set of this machine, and a count at the end.
//
//   KERNEL_TEST("decode", decodeTests) { ... test.close(...) ... }
//
// A group whose numbers are sums of products is a PRODUCT_TEST: it judges them by test.products, and runs also on
// backends that round the factors.
//
// A group receives a Test, which has the kernels of one backend: of an instruction set with 1, 2, 3 and 7 threads, or
// of emulated CUDA devices whose threads run in different orders. All of them must give the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends.h"
#include "engine/error.h"
#include "engine/kernels.h"
#include "memory.h"

namespace monosem::test {

class Test {
 public:
  explicit Test(const Backend& backend) : backend_(backend), kernels_(backend.make(allocator_)) {}

  const std::string& backend() const { return backend_.name; }
  double productError() const { return backend_.productError; }
  Allocator& allocator() { return allocator_; }
  Kernels& kernels() { return *kernels_[1]; }

  // What `compute` returns, which must be the same bits from all kernels of the backend.
  template <class T>
  std::vector<T> run(const std::string& what, const std::function<std::vector<T>(Kernels&)>& compute) {
    const std::vector<T> first = compute(*kernels_[0]);
    for (size_t i = 1; i < kernels_.size(); ++i) {
      const std::vector<T> other = compute(*kernels_[i]);
      check(first.size() == other.size() &&
                (first.empty() || std::memcmp(first.data(), other.data(), first.size() * sizeof(T)) == 0),
            what + ": the same bits on " + kernels_[0]->description() + " and on " + kernels_[i]->description());
    }
    return first;
  }
  std::vector<float> floats(const std::string& what, const std::function<std::vector<float>(Kernels&)>& compute) {
    return run<float>(what, compute);
  }
  double number(const std::string& what, const std::function<double(Kernels&)>& compute) {
    return run<double>(what, [&](Kernels& kernels) { return std::vector<double>{compute(kernels)}; })[0];
  }

  void check(bool holds, const std::string& what) {
    holds ? ++passed : ++failed;
    if (!holds && failed <= 20) std::printf("  FAILED [%s] %s\n", backend_.name.c_str(), what.c_str());
  }

  // |actual - expected| <= tolerance * (1 + |expected|), element by element; infinities and NaN must match.
  template <class T>
  void close(const std::string& what, const std::vector<T>& actual, const std::vector<double>& expected,
             double tolerance) {
    if (actual.size() != expected.size()) return check(false, what + ": size");
    for (size_t i = 0; i < actual.size(); ++i) {
      const double a = double(actual[i]), e = expected[i];
      const bool holds = std::isnan(e)   ? std::isnan(a)
                         : std::isinf(e) ? a == e
                                         : std::fabs(a - e) <= tolerance * (1 + std::fabs(e));
      if (!holds)
        return check(false, what + ": element " + std::to_string(i) + " is " + std::to_string(a) + ", expected " +
                                std::to_string(e));
    }
    check(true, what);
  }
  void close(const std::string& what, double actual, double expected, double tolerance) {
    close(what, std::vector<double>{actual}, std::vector<double>{expected}, tolerance);
  }

  // Sums of products, whose error is judged by `terms`, the sums of the products' absolute values, because a result
  // near 0 may be the difference of large terms (see Backend::productError); where the factors are not rounded, close
  // as well.
  template <class T>
  void products(const std::string& what, const std::vector<T>& actual, const std::vector<double>& expected,
                const std::vector<double>& terms, double tolerance) {
    if (!backend_.coarseProducts()) close(what, actual, expected, tolerance);
    if (actual.size() != expected.size() || terms.size() != expected.size()) return check(false, what + ": size");
    for (size_t i = 0; i < actual.size(); ++i) {
      const double error = std::fabs(double(actual[i]) - expected[i]);
      if (!(error <= 2 * productError() * terms[i]))
        return check(false, what + ": element " + std::to_string(i) + " is off by " + std::to_string(error) +
                                ", its terms' absolute values add up to " + std::to_string(terms[i]));
      squaredErrors += error * error;
      squaredTerms += terms[i] * terms[i];
    }
    check(true, what + ": products");
  }

  template <class T>
  void same(const std::string& what, const std::vector<T>& actual, const std::vector<T>& expected) {
    check(actual == expected, what);
  }

  void throws(const std::string& what, ErrorCode code, const std::function<void()>& action) {
    try {
      action();
      kernels().settle();
    } catch (const EngineError& error) {
      return check(error.code() == code, what + ": the error's code");
    }
    check(false, what + ": an error");
  }

  int passed = 0;
  int failed = 0;
  double squaredErrors = 0, squaredTerms = 0;  // over all products

 private:
  const Backend& backend_;
  ExactAllocator allocator_;
  std::vector<std::unique_ptr<Kernels>> kernels_;
};

struct Group {
  const char* name;
  void (*run)(Test& test);
  bool judgesProducts;  // allows for factors that are rounded: runs also where they are
};

inline std::vector<Group>& groups() {
  static std::vector<Group> all;
  return all;
}

struct Registration {
  Registration(const Group& group) { groups().push_back(group); }
};

#define REGISTERED_TEST(name, function, judgesProducts)                        \
  static void function(Test& test);                                            \
  static const Registration function##Group({name, function, judgesProducts}); \
  static void function(Test& test)
#define KERNEL_TEST(name, function) REGISTERED_TEST(name, function, false)
#define PRODUCT_TEST(name, function) REGISTERED_TEST(name, function, true)

}  // namespace monosem::test
