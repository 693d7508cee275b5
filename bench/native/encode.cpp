// Times the fused encoder:  encode ROWS DIN DSAE SELECT L0 THREADS [REPETITIONS]
//
// SELECT is topk, batchtopk, positive, above (thresholds; a tenth more entries within the margin) or all; about L0
// entries per row are active. Pre-activations are normally distributed.
//
// Prints wall time, CPU-equivalent time ((user + system) / threads, which other programs on the machine hardly
// disturb), and the efficiency: multiply-adds per CPU second over what one core reaches with its operands in registers,
// measured right before and after, because clock rates wander.
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "cpu/cpu_backend.h"
#include "engine/host_allocator.h"
#include "normal_quantile.h"

namespace {

double wallSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double processSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return double(t.tv_sec) + 1e-6 * double(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double threadSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// Independent multiply-adds on vectors of `bytes` bytes, enough of them to hide their latency.
template <int bytes>
inline __attribute__((always_inline)) double multiplyAdds(int64_t rounds) {
  typedef float Lanes __attribute__((vector_size(bytes)));
  constexpr int chains = 12;
  Lanes sums[chains] = {};
  Lanes factor = Lanes{} + 0.999f, addend = Lanes{} + 0.5f;
  asm volatile("" : "+m"(factor), "+m"(addend));
  const double start = threadSeconds();
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = sums[i] * factor + addend;
  const double seconds = threadSeconds() - start;
  for (Lanes& sum : sums) asm volatile("" : "+m"(sum));
  return 2e-9 * double(rounds * chains * bytes / 4) / seconds;
}

constexpr int64_t probeRounds = 5'000'000;
#if defined(__x86_64__)
__attribute__((target("avx512f,fma"))) double probeAvx512() {
  return multiplyAdds<64>(probeRounds);
}
__attribute__((target("avx2,fma"))) double probeAvx2() {
  return multiplyAdds<32>(probeRounds);
}
#endif
double probeDefault() {
  return multiplyAdds<16>(probeRounds);
}

double gigaflopsOfOneCore(const std::string& instructionSet) {
#if defined(__x86_64__)
  if (instructionSet.rfind("avx512", 0) == 0) return probeAvx512();
  if (instructionSet == "avx2") return probeAvx2();
#endif
  return probeDefault();
}

}  // namespace

int main(int argumentCount, char** arguments) {
  if (argumentCount < 7) {
    std::fprintf(stderr, "usage: encode ROWS DIN DSAE SELECT L0 THREADS [REPETITIONS]\n");
    return 2;
  }
  const auto argument = [&](int i) { return std::strtoll(arguments[i], nullptr, 10); };
  const int64_t rows = argument(1), dIn = argument(2), dSae = argument(3), l0 = argument(5);
  const std::string select = arguments[4];
  const int threads = int(argument(6)), repetitions = argumentCount > 7 ? int(argument(7)) : 5;

  monosem::HostAllocator allocator;
  const std::unique_ptr<monosem::Kernels> kernels = monosem::makeCpuKernels(allocator, threads);
  const std::string instructionSet = kernels->description().substr(0, kernels->description().find(','));
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(size_t(rows * dIn)), encoder(size_t(dSae * dIn)), bias(size_t(dSae), 0.0f);
  for (float& value : x) value = normal(engine);
  for (float& value : encoder) value = normal(engine) / std::sqrt(float(dIn));
  monosem::Selection selection;
  selection.k = select == "batchtopk" ? l0 * rows : l0;
  const auto quantile = [&](double factor) { return normalQuantile(factor * double(l0) / double(dSae)); };
  const std::vector<float> thresholds(size_t(dSae), float(quantile(1)));
  if (select == "topk") {
    selection.select = monosem::Select::topk;
  } else if (select == "batchtopk") {
    selection.select = monosem::Select::batchtopk;
  } else if (select == "above") {
    selection.select = monosem::Select::above;
    selection.thresholds = {thresholds.data(), dSae};
    selection.margin = quantile(1) - quantile(1.1);
  } else if (select == "all") {
    selection.select = monosem::Select::all;
  } else {
    selection.select = monosem::Select::positive;
    std::fill(bias.begin(), bias.end(), float(-quantile(1)));
  }

  const double gigaflop = 2e-9 * double(rows) * double(dIn) * double(dSae);
  std::printf("%s, %lld x %lld -> %lld, %s, L0 %lld\n", kernels->description().c_str(), (long long)rows, (long long)dIn,
              (long long)dSae, select.c_str(), (long long)l0);
  std::vector<double> walls, equivalents;
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    const double before = gigaflopsOfOneCore(instructionSet);
    const double wallStart = wallSeconds(), cpuStart = processSeconds();
    const monosem::Codes codes =
        kernels->encode({x.data(), rows, dIn}, {encoder.data(), dSae, dIn}, {bias.data(), dSae}, selection);
    const double wall = wallSeconds() - wallStart, cpu = processSeconds() - cpuStart;
    const double peak = (before + gigaflopsOfOneCore(instructionSet)) / 2;
    if (repetition == 0) continue;  // the first one also meets cold caches and fresh memory
    walls.push_back(wall);
    equivalents.push_back(cpu / threads);
    std::printf("wall %7.1f ms   cpu-equivalent %7.1f ms   %6.1f GFLOP/s per cpu second   efficiency %.3f\n",
                1e3 * wall, 1e3 * cpu / threads, gigaflop / cpu, gigaflop / cpu / peak);
  }
  std::sort(walls.begin(), walls.end());
  std::sort(equivalents.begin(), equivalents.end());
  std::printf("median wall %.1f ms, cpu-equivalent %.1f ms\n", 1e3 * walls[walls.size() / 2],
              1e3 * equivalents[equivalents.size() / 2]);
  return 0;
}
