// Drawing the features of synthetic data, against a plain loop in double over the same random numbers.
#define MONOSEM_ISA test
#include <map>

#include "check.h"
#include "cpu/generic/normal_quantile.h"
#include "cpu/generic/philox.h"
#include "data.h"

namespace monosem::test {
namespace {

struct Distribution {
  Floats probabilities, factors, means, deviations;
  int64_t roots = 0, children = 0, depth = 0;

  int64_t features() const { return int64_t(probabilities.size()); }
  FeatureDistribution view() const {
    FeatureDistribution view;
    view.probabilities = test::view(probabilities);
    if (!factors.empty()) view.factors = matrix(factors, features());
    view.means = test::view(means);
    view.deviations = test::view(deviations);
    view.roots = roots;
    view.children = children;
    view.depth = depth;
    return view;
  }
};

Distribution randomDistribution(Random& random, int64_t features, int64_t rank, double highest) {
  Distribution d;
  for (int64_t f = 0; f < features; ++f) {
    d.probabilities.push_back(float(highest * random.uniform()));
    d.means.push_back(float(0.5 + random.uniform()));
    d.deviations.push_back(float(random.uniform()));
  }
  const double largest = rank > 0 ? 0.95 / std::sqrt(double(rank)) : 0;
  for (int64_t i = 0; i < features * rank; ++i) d.factors.push_back(float(largest * (2 * random.uniform() - 1)));
  return d;
}

struct Sample {
  std::vector<std::pair<uint32_t, double>> entries;
  bool decided = true;  // no comparison was close enough for rounding to turn it
};

uint32_t word(uint64_t seed, uint64_t sample, uint32_t index, uint32_t purpose, int which) {
  return philox({uint32_t(sample), uint32_t(sample >> 32), index, purpose},
                {uint32_t(seed), uint32_t(seed >> 32)})[size_t(which)];
}
uint32_t blockWord(uint64_t seed, uint64_t sample, int64_t number, uint32_t purpose) {
  return word(seed, sample, uint32_t(number / 64 * 16 + number % 16), purpose, int(number / 16 % 4));
}
double normal(uint32_t bits) {
  return normalQuantile((double(bits) + 0.5) / 4294967296.0);
}

Sample draw(const Distribution& d, uint64_t seed, uint64_t sample) {
  const int64_t features = d.features(), rank = int64_t(d.factors.size()) / features;
  Sample result;
  Doubles g;
  for (int64_t k = 0; k < rank; ++k) g.push_back(normal(blockWord(seed, sample, k, 1)));
  const auto fires = [&](int64_t f) {
    double shift = 0, explained = 0;
    for (int64_t k = 0; k < rank; ++k) {
      const double factor = double(d.factors[size_t(f * rank + k)]);
      shift += factor * g[size_t(k)];
      explained += factor * factor;
    }
    const double threshold = -normalQuantile(double(d.probabilities[size_t(f)]));
    const double probability = std::erfc((threshold - shift) / std::sqrt(2 * (1 - explained))) / 2;
    const double uniform = double(blockWord(seed, sample, f, 2) >> 1) / 2147483648.0;
    if (probability > 0 && probability < 1 && std::fabs(uniform - probability) < 2e-5 * probability + 1e-7)
      result.decided = false;
    return uniform < probability;
  };
  std::map<int64_t, double> active;
  const auto offer = [&](int64_t f) {  // its magnitude, if it fires
    if (!fires(f)) return 0.0;
    const double m =
        double(d.means[size_t(f)]) + double(d.deviations[size_t(f)]) * normal(word(seed, sample, uint32_t(f), 3, 0));
    if (std::fabs(m) < 1e-5) result.decided = false;
    return std::max(0.0, m);
  };
  // Parents and their children by counting, breadth first.
  std::vector<int64_t> level, next;
  int64_t used = std::min(d.roots, features);
  for (int64_t f = 0; f < used; ++f) {
    if (const double m = offer(f); m > 0) active[f] = m;
    level.push_back(f);
  }
  for (int64_t depth = 1; depth <= d.depth; ++depth) {
    next.clear();
    for (const int64_t parent : level) {
      std::vector<std::pair<int64_t, double>> candidates;
      for (int64_t i = 0; i < d.children && used < features; ++i, ++used) {
        next.push_back(used);
        if (active.count(parent))
          if (const double m = offer(used); m > 0) candidates.push_back({used, m});
      }
      if (candidates.empty()) continue;
      const size_t chosen = size_t((uint64_t(word(seed, sample, uint32_t(parent), 4, 0)) * candidates.size()) >> 32);
      active[candidates[chosen].first] = candidates[chosen].second * active[parent] / double(d.means[size_t(parent)]);
    }
    level = next;
  }
  for (int64_t f = used; f < features; ++f)
    if (const double m = offer(f); m > 0) active[f] = m;
  for (const auto& [f, value] : active) result.entries.push_back({uint32_t(f), value});
  return result;
}

// Offsets, features and values one after another, to be compared between numbers of threads.
std::vector<double> flat(const Codes& codes) {
  std::vector<double> all(codes.offsets(), codes.offsets() + codes.rows + 1);
  all.insert(all.end(), codes.feature(), codes.feature() + codes.entries);
  all.insert(all.end(), codes.value(), codes.value() + codes.entries);
  return all;
}

KERNEL_TEST("drawFeatures", drawFeaturesTests) {
  Random random(1);
  struct Shape {
    int64_t rows, features, rank, roots, children, depth;
    double highest;
  };
  const Shape shapes[] = {{300, 1, 0, 0, 0, 0, 1.0},    {257, 17, 3, 2, 3, 2, 1.0},    {100, 200, 25, 0, 0, 0, 0.1},
                          {300, 341, 25, 8, 4, 3, 0.9}, {129, 1000, 70, 5, 7, 2, 0.5}, {64, 100, 5, 3, 40, 3, 1.0},
                          {50, 65, 1, 200, 4, 3, 0.3},  {40, 33, 2, 4, 0, 3, 0.5},     {0, 10, 2, 1, 2, 1, 0.5},
                          {500, 85, 64, 1, 4, 3, 0.95}};
  for (const Shape& s : shapes) {
    Distribution d = randomDistribution(random, s.features, s.rank, s.highest);
    d.roots = s.roots;
    d.children = s.children;
    d.depth = s.depth;
    const std::string what = "drawFeatures " + std::to_string(s.rows) + "x" + std::to_string(s.features);
    const uint64_t seed = 77 + uint64_t(s.features), offset = (uint64_t(1) << 32) - 20;
    test.run<double>(what, [&](Kernels& k) { return flat(k.drawFeatures(d.view(), s.rows, seed, offset)); });
    const Codes codes = test.kernels().drawFeatures(d.view(), s.rows, seed, offset);
    test.check(codes.rows == s.rows && codes.dSae == s.features && codes.entries == int64_t(codes.offsets()[s.rows]),
               what + ": sizes");
    int64_t undecided = 0;
    for (int64_t row = 0; row < s.rows; ++row) {
      const Sample expected = draw(d, seed, offset + uint64_t(row));
      if (!expected.decided) {
        ++undecided;
        continue;
      }
      std::vector<uint32_t> features;
      Doubles values;
      for (const auto& [feature, value] : expected.entries) {
        features.push_back(feature);
        values.push_back(value);
      }
      const auto begin = ptrdiff_t(codes.offsets()[row]), end = ptrdiff_t(codes.offsets()[row + 1]);
      test.same(what + ": features of sample " + std::to_string(row),
                std::vector<uint32_t>(codes.feature() + begin, codes.feature() + end), features);
      test.close(what + ": values", Floats(codes.value() + begin, codes.value() + end), values, 2e-6);
    }
    test.check(undecided <= s.rows / 10, what + ": nearly every sample is decided");

    if (s.rows < 50) continue;
    const Codes later = test.kernels().drawFeatures(d.view(), s.rows - 7, seed, offset + 7);
    const int64_t skipped = int64_t(codes.offsets()[7]);
    test.check(later.entries == codes.entries - skipped &&
                   std::equal(later.value(), later.value() + later.entries, codes.value() + skipped),
               what + ": a sample depends on the seed and its number alone");
    test.check(flat(test.kernels().drawFeatures(d.view(), s.rows, seed + 1, offset)) != flat(codes),
               what + ": another seed, other samples");
  }
}

KERNEL_TEST("drawFeatures extremes", drawFeaturesExtremesTests) {
  Distribution d;
  d.probabilities = {1, 0, 1, 0, 1};
  d.factors = {0.5, 0.9f, 0, 0.1f, 0.99f};
  d.means = {1, 1, 2, 1, 3};
  d.deviations = {0, 0, 0, 0, 0};
  const Codes codes = test.kernels().drawFeatures(d.view(), 10000, 3, 0);
  bool certain = codes.entries == 30000;
  for (int64_t e = 0; certain && e < codes.entries; e += 3)
    certain = codes.feature()[e] == 0 && codes.feature()[e + 1] == 2 && codes.feature()[e + 2] == 4 &&
              codes.value()[e] == 1 && codes.value()[e + 1] == 2 && codes.value()[e + 2] == 3;
  test.check(certain, "probability 1 fires always, probability 0 never, deviation 0 gives the mean");

  d.means[0] = 1e-9f;  // half of the magnitudes are cut at 0
  d.deviations[0] = 1;
  const Codes cut = test.kernels().drawFeatures(d.view(), 10000, 3, 0);
  test.close("magnitude 0 is not active", double(cut.entries), 25000, 0.006);

  const auto refused = [&](const char* what, const std::function<void(Distribution&)>& spoil) {
    Distribution bad = d;
    spoil(bad);
    test.throws(what, ErrorCode::invalidArgument, [&] { test.kernels().drawFeatures(bad.view(), 1, 0, 0); });
  };
  refused("probability below 0", [](Distribution& b) { b.probabilities[1] = -0.1f; });
  refused("probability above 1", [](Distribution& b) { b.probabilities[1] = 1.1f; });
  refused("probability NaN", [](Distribution& b) { b.probabilities[1] = NAN; });
  refused("factors of norm 1", [](Distribution& b) { b.factors[4] = 1; });
  refused("factors NaN", [](Distribution& b) { b.factors[4] = NAN; });
  refused("mean 0", [](Distribution& b) { b.means[0] = 0; });
  refused("mean infinite", [](Distribution& b) { b.means[0] = INFINITY; });
  refused("deviation below 0", [](Distribution& b) { b.deviations[0] = -1; });
  refused("deviation NaN", [](Distribution& b) { b.deviations[0] = NAN; });
}

KERNEL_TEST("drawFeatures statistics", drawFeaturesStatisticsTests) {
  // Two features with correlation 0.5 * 0.6 fire together with the probability of the bivariate normal orthant:
  // for thresholds 0 that is 1/4 + asin(correlation) / (2 pi).
  Distribution d;
  d.probabilities = {0.5, 0.5};
  d.factors = {0.5, 0, 0.6f, 0.3f};
  d.means = {5, 4};
  d.deviations = {0.5, 1};
  const int64_t rows = 200000;
  const Codes codes = test.kernels().drawFeatures(d.view(), rows, 11, 0);
  double together = 0, sum = 0, squares = 0, count = 0;
  for (int64_t row = 0; row < rows; ++row) together += codes.offsets()[row + 1] - codes.offsets()[row] == 2;
  for (int64_t e = 0; e < codes.entries; ++e)
    if (codes.feature()[e] == 0) {
      ++count;
      sum += double(codes.value()[e]);
      squares += double(codes.value()[e]) * double(codes.value()[e]);
    }
  test.close("firing together", together / double(rows), 0.25 + std::asin(0.3) / (2 * 3.14159265358979), 0.003);
  test.close("firing", count / double(rows), 0.5, 0.003);
  test.close("mean magnitude", sum / count, 5, 0.002);
  test.close("variance of the magnitude", squares / count - sum / count * (sum / count), 0.25, 0.005);
}

KERNEL_TEST("normalQuantile", normalQuantileTests) {
  test.close("median", normalQuantile(0.5), 0, 1e-16);
  test.close("0.975", normalQuantile(0.975), 1.959963984540054, 1e-15);
  test.close("1e-20", normalQuantile(1e-20), -9.262340089798408, 1e-15);
  for (const double p : {1e-300, 1e-12, 1e-3, 0.074, 0.076, 0.3, 0.9, 0.999999})
    test.close("inverse of Phi", std::erfc(-normalQuantile(p) / std::sqrt(2.0)) / 2 / p, 1, 1e-12);
  test.check(normalQuantile(0) == -INFINITY && normalQuantile(1) == INFINITY, "the ends");
  test.check(std::isnan(normalQuantile(-0.1)) && std::isnan(normalQuantile(1.1)) && std::isnan(normalQuantile(NAN)),
             "no probability");
}

}  // namespace
}  // namespace monosem::test
