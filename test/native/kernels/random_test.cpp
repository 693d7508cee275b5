// The counter-based generator and sampling.
#define MONOSEM_ISA test
#include "cpu/generic/philox.h"

#include <algorithm>
#include <numeric>

#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

KERNEL_TEST("philox", philoxTests) {
  // From Random123's kat_vectors.
  test.check(philox({0, 0, 0, 0}, {0, 0}) == std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
             "zeros");
  test.check(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
                 std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
             "ones");
  test.check(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
                 std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
             "digits of pi");
}

KERNEL_TEST("random", randomTests) {
  const int64_t size = 100003;
  const auto draw = [&](bool normal, uint64_t seed, uint64_t offset) {
    return test.floats("random", [=](Kernels& k) {
      Floats out(static_cast<size_t>(size));
      normal ? k.randomNormal(seed, offset, 2, view(out)) : k.randomUniform(seed, offset, -1, 3, view(out));
      return out;
    });
  };
  for (const bool normal : {false, true}) {
    const Floats values = draw(normal, 42, 0), shifted = draw(normal, 42, 5), other = draw(normal, 43, 0);
    test.check(std::equal(values.begin() + 5, values.end(), shifted.begin()),
               "element i depends on seed and offset + i alone");
    test.check(values != other, "another seed, other numbers");
    double mean = 0, variance = 0;
    for (const float value : values) mean += double(value) / double(size);
    for (const float value : values) variance += (double(value) - mean) * (double(value) - mean) / double(size);
    test.close("mean", mean, normal ? 0 : 1, 0.02);
    test.close("variance", variance, normal ? 4 : 16.0 / 12, 0.02);
    if (!normal) {
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      test.check(*low >= -1 && *high < 3, "uniform numbers stay in [low, high)");
    } else {
      const auto beyond = std::count_if(values.begin(), values.end(), [](float x) { return std::fabs(x) > 4; });
      test.close("share beyond two standard deviations", double(beyond) / double(size), 0.0455, 0.003);
    }
  }
  for (const int64_t count : {0, 1, 2, 17, 1000}) {
    std::vector<int32_t> permutation(static_cast<size_t>(count)), all(static_cast<size_t>(count));
    test.kernels().randomPermutation(1, 2, {permutation.data(), count});
    std::iota(all.begin(), all.end(), 0);
    std::vector<int32_t> sorted = permutation;
    std::sort(sorted.begin(), sorted.end());
    test.same("a permutation of " + std::to_string(count), sorted, all);
    test.check(count < 17 || permutation != all, "a shuffled one");
  }
  // Every permutation of three about equally often.
  std::vector<int> counts(27);
  for (uint64_t seed = 0; seed < 6000; ++seed) {
    std::vector<int32_t> p(3);
    test.kernels().randomPermutation(seed, 0, {p.data(), 3});
    ++counts[size_t(p[0] * 9 + p[1] * 3 + p[2])];
  }
  for (const size_t code : {5, 7, 11, 15, 19, 21})
    test.check(std::abs(counts[code] - 1000) < 150, "uniform permutations");
}

KERNEL_TEST("sample", sampleTests) {
  const float none = -std::numeric_limits<float>::infinity();
  const auto draw = [&](const Floats& logits, int64_t rows, const Sampling& sampling) {
    return test.run<int32_t>("sample", [&](Kernels& k) {
      std::vector<int32_t> out(static_cast<size_t>(rows));
      k.sample(matrix(logits, rows), sampling, {out.data(), rows});
      return out;
    });
  };
  Sampling greedy;
  greedy.temperature = 0;
  test.same("greedy takes the lowest index among equals", draw({1, 5, 5, 0, 7, 7}, 2, greedy),
            std::vector<int32_t>{1, 1});

  const int64_t rows = 5000;
  const Floats row = {0, 1, none, 2, 1000 - 998.5f, -200};
  Floats logits;
  for (int64_t r = 0; r < rows; ++r) logits.insert(logits.end(), row.begin(), row.end());
  const auto frequencies = [&](const Sampling& sampling) {
    Doubles counts(row.size(), 0.0);
    for (const int32_t choice : draw(logits, rows, sampling)) counts[size_t(choice)] += 1 / double(rows);
    return counts;
  };
  const auto expected = [&](double temperature, const std::vector<size_t>& kept) {
    Doubles probabilities(row.size(), 0.0);
    double sum = 0;
    for (const size_t c : kept) sum += probabilities[c] = std::exp(double(row[c]) / temperature);
    for (double& p : probabilities) p /= sum;
    return probabilities;
  };
  Sampling sampling;
  sampling.seed = 9;
  test.close("temperature 1", frequencies(sampling), expected(1, {0, 1, 3, 4, 5}), 0.015);
  sampling.temperature = 2;
  test.close("temperature 2", frequencies(sampling), expected(2, {0, 1, 3, 4, 5}), 0.015);
  sampling.topK = 2;
  test.close("top 2", frequencies(sampling), expected(2, {3, 4}), 0.015);
  sampling.topK = 0;
  sampling.temperature = 1;
  sampling.topP = 0.7;  // probabilities: 0.46, 0.28, 0.17, ...: two classes reach 0.7
  test.close("top p", frequencies(sampling), expected(1, {3, 4}), 0.015);
  sampling.topP = 1e-9;
  test.close("a tiny top p keeps one class", frequencies(sampling), expected(1, {3}), 1e-9);
  test.check(draw(logits, rows, {1, 0, 1, 1, 0}) != draw(logits, rows, {1, 0, 1, 2, 0}), "the seed matters");

  // Vocabularies, of which a GPU copies what is in question once that is little: against sorted classes, in double.
  Random random(17);
  for (const int64_t columns : {int64_t(4099), int64_t(9000)})
    for (const auto& [topK, topP] : std::initializer_list<std::pair<int64_t, double>>{
             {0, 1}, {50, 1}, {0, 0.9}, {50, 0.8}, {3000, 0.99}, {1, 1}, {0, 1e-6}}) {
      const int64_t many = 12;
      Floats vocabulary = random.normals(many * columns, 2);
      for (int64_t i = 0; i < int64_t(vocabulary.size()); ++i)
        if (i / columns % 2 == 0) vocabulary[size_t(i)] = std::round(8 * vocabulary[size_t(i)]) / 8;  // with ties
      vocabulary[7] = none;
      Sampling few;
      few.temperature = 0.7;
      few.topK = topK;
      few.topP = topP;
      few.seed = 5;
      few.offset = 100;
      std::vector<int32_t> expectedClasses;
      for (int64_t r = 0; r < many; ++r) {
        const float* classes = &vocabulary[size_t(r * columns)];
        std::vector<int32_t> kept(static_cast<size_t>(columns));
        std::iota(kept.begin(), kept.end(), 0);
        const auto weight = [&](int32_t c) { return std::exp(double(classes[c]) / few.temperature); };
        const auto totalOf = [&] {
          return std::accumulate(kept.begin(), kept.end(), 0.0, [&](double sum, int32_t c) { return sum + weight(c); });
        };
        if (topK > 0 || topP < 1)
          std::stable_sort(kept.begin(), kept.end(), [&](int32_t a, int32_t b) { return classes[a] > classes[b]; });
        if (topK > 0) kept.resize(size_t(topK));
        double total = totalOf(), reached = 0;
        size_t count = 0;
        while (topP < 1 && count < kept.size() && reached < topP * total) reached += weight(kept[count++]);
        if (topP < 1) kept.resize(count);
        total = totalOf();
        const std::array<uint32_t, 4> words = randomWords(few.seed, few.offset + uint64_t(r));
        double left = double((uint64_t(words[1]) << 32 | words[0]) >> 11) * 0x1p-53 * total;
        size_t chosen = 0;
        while (chosen + 1 < kept.size() && left >= weight(kept[chosen])) left -= weight(kept[chosen++]);
        expectedClasses.push_back(kept[chosen]);
      }
      test.same("top " + std::to_string(topK) + ", p " + std::to_string(topP) + " of " + std::to_string(columns),
                draw(vocabulary, many, few), expectedClasses);
    }

  test.throws("NaN", ErrorCode::nonFinite, [&] { draw({1, NAN}, 1, {}); });
  test.throws("no class possible", ErrorCode::nonFinite, [&] { draw({none, none}, 1, {}); });
}

}  // namespace
}  // namespace monosem::test
