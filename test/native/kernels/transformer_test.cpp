// The transformer's kernels, except the linear layer.
#include <limits>

#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// Relative to the number itself: activations must be right for small arguments too.
KERNEL_TEST("activation", activationTests) {
  Floats x = {0, -0.0f, 1e-6f, -1e-6f, 0.624f, 0.626f, -0.626f, 3, -3, 20, -20, 1e4f, -1e4f, 88.5f, -88.5f};
  Random random(10);
  for (int i = 0; i < 3000; ++i) x.push_back(3 * random.normal());
  for (const Activation kind :
       {Activation::none, Activation::geluTanh, Activation::gelu, Activation::relu, Activation::silu}) {
    const Floats out = test.floats("activation", [&](Kernels& k) {
      Floats result(x.size(), NAN);
      k.activation(view(static_cast<const Floats&>(x)), kind, view(result));
      return result;
    });
    bool close = true;
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = reference::activation(double(x[i]), kind);
      close = close && std::fabs(double(out[i]) - expected) <=
                           (kind == Activation::gelu && std::fabs(x[i]) < 8
                                ? (1e-6 + 2e-7 * double(x[i]) * double(x[i])) * std::fabs(expected)
                                : 4e-7 * (std::fabs(double(x[i])) * 0.5 + std::fabs(expected)));
    }
    test.check(close, "activation " + std::to_string(int(kind)));
    Floats nan = {NAN};
    test.kernels().activation(view(static_cast<const Floats&>(nan)), kind, view(nan));
    test.check(std::isnan(nan[0]), "NaN stays NaN in activation " + std::to_string(int(kind)));
  }
}

// The functions with a bounded relative error, and where they end.
KERNEL_TEST("exp, sigmoid, tanh, heaviside", elementaryFunctionTests) {
  Floats x = {0,   -0.0f, 1e-6f, -1e-6f, 0.624f, 0.626f, -0.626f, 20,      -20,      87,
              -87, 88.2f, 88.4f, 88.7f,  1e4f,   -1e4f,  1e-30f,  -1e-30f, infinity, -infinity};
  Random random(12);
  for (int i = 0; i < 3000; ++i) x.push_back(float(i % 40) * random.normal());
  for (const Activation kind : {Activation::exp, Activation::sigmoid, Activation::tanh, Activation::heaviside}) {
    const std::string name = "function " + std::to_string(int(kind));
    const Floats out = test.floats(name, [&](Kernels& k) {
      Floats result(x.size(), NAN);
      k.activation(view(static_cast<const Floats&>(x)), kind, view(result));
      return result;
    });
    for (size_t i = 0; i < x.size(); ++i) {
      const double value = double(out[i]), exact = reference::activation(double(x[i]), kind);
      const double expected = exact > double(std::numeric_limits<float>::max()) ? double(infinity) : exact;
      // The smallest normal numbers and below may count as zero.
      if (!(value == expected || std::fabs(value - expected) <= 5e-7 * std::fabs(expected) + 2e-38))
        test.check(false, name + " of " + std::to_string(x[i]) + " is " + std::to_string(value));
    }
    Floats nan = {NAN};
    test.kernels().activation(view(static_cast<const Floats&>(nan)), kind, view(nan));
    test.check(std::isnan(nan[0]), "NaN stays NaN in " + name);
  }
}

KERNEL_TEST("standardiseRows", standardiseRowsTests) {
  Random random(13);
  for (const int64_t columns : {1, 2, 3, 17, 100, 129, 768})
    for (const int64_t rows : {1, 37}) {
      Floats x = random.normals(rows * columns, 3);
      for (float& value : x) value += 10;
      std::fill(x.begin(), x.begin() + columns, 0.1f);  // a row without deviation
      const std::string name = "standardiseRows " + std::to_string(rows) + "x" + std::to_string(columns);
      const Floats all = test.floats(name, [&](Kernels& k) {
        Floats normalized(x.size(), NAN), mean(size_t(rows), NAN), deviation(size_t(rows), NAN);
        k.standardiseRows(matrix(static_cast<const Floats&>(x), rows), 1e-5, matrix(normalized, rows), view(mean),
                          view(deviation));
        normalized.insert(normalized.end(), mean.begin(), mean.end());
        normalized.insert(normalized.end(), deviation.begin(), deviation.end());
        return normalized;
      });
      Doubles expected, means, deviations;
      for (int64_t r = 0; r < rows; ++r) {
        const float* row = &x[size_t(r * columns)];
        double mean = 0, squares = 0;
        for (int64_t c = 0; c < columns; ++c) mean += double(row[c]) / double(columns);
        for (int64_t c = 0; c < columns; ++c) squares += (double(row[c]) - mean) * (double(row[c]) - mean);
        means.push_back(mean);
        deviations.push_back(columns > 1 ? std::sqrt(squares / double(columns - 1)) : 0);
        for (int64_t c = 0; c < columns; ++c)
          expected.push_back(r == 0 || columns == 1 ? 0 : (double(row[c]) - mean) / (deviations.back() + 1e-5));
      }
      deviations[0] = 0;  // what the double's rounding left
      expected.insert(expected.end(), means.begin(), means.end());
      expected.insert(expected.end(), deviations.begin(), deviations.end());
      test.close(name, all, expected, 2e-6);
    }
  Floats x = {1, NAN, 3}, normalized(3), mean(1), deviation(1);
  test.kernels().standardiseRows(matrix(static_cast<const Floats&>(x), 1), 1e-5, matrix(normalized, 1), view(mean),
                                 view(deviation));
  test.check(std::isnan(normalized[0]) && std::isnan(mean[0]) && std::isnan(deviation[0]), "NaN shows");
}

KERNEL_TEST("layerNorm", layerNormTests) {
  Random random(11);
  for (const int64_t columns : {1, 3, 17, 100, 129, 768})
    for (const int64_t rows : {1, 37}) {
      Floats x = random.normals(rows * columns, 3);
      for (float& value : x) value += 10;
      const Floats weight = random.normals(columns), bias = random.normals(columns);
      const double epsilon = 1e-5;
      Doubles out, normalized, scale;
      for (int64_t r = 0; r < rows; ++r) {
        double mean = 0, variance = 0;
        for (int64_t c = 0; c < columns; ++c) mean += double(x[size_t(r * columns + c)]) / double(columns);
        for (int64_t c = 0; c < columns; ++c)
          variance += std::pow(double(x[size_t(r * columns + c)]) - mean, 2) / double(columns);
        scale.push_back(std::sqrt(variance + epsilon));
        for (int64_t c = 0; c < columns; ++c) {
          normalized.push_back((double(x[size_t(r * columns + c)]) - mean) / scale.back());
          out.push_back(normalized.back() * double(weight[size_t(c)]) + double(bias[size_t(c)]));
        }
      }
      const auto part = [&](int which) {
        return test.floats("layerNorm", [&, which](Kernels& k) {
          Floats a(x.size(), NAN), b(x.size(), NAN), s(size_t(rows), NAN);
          k.layerNorm(matrix(static_cast<const Floats&>(x), rows), view(weight), view(bias), epsilon,
                      which == 2 ? Matrix<float>{} : matrix(a, rows), which == 1 ? Matrix<float>{} : matrix(b, rows),
                      which == 1 ? Vector<float>{} : view(s));
          return which == 1 ? a : which == 2 ? b : s;
        });
      };
      const std::string name = "layerNorm " + std::to_string(rows) + "x" + std::to_string(columns);
      const double tolerance = columns == 1 ? 1e-3 : 1e-5;  // one column: 0 / sqrt(epsilon)
      test.close(name + ": out", part(1), out, tolerance);
      test.close(name + ": normalized", part(2), normalized, tolerance);
      test.close(name + ": scale", part(3), scale, 1e-5);
    }
}

struct Shape {
  int64_t batch, heads, dHead, queries, keys, capacity;
};
const Shape shapes[] = {{1, 1, 1, 1, 1, 1},        {1, 2, 3, 5, 5, 5},      {2, 3, 17, 7, 9, 12},
                        {1, 4, 64, 1, 33, 40},     {2, 2, 64, 70, 70, 70},  {1, 1, 100, 17, 130, 130},
                        {1, 2, 32, 129, 129, 129}, {3, 1, 16, 33, 300, 301}};

KERNEL_TEST("attention", attentionTests) {
  Random random(12);
  for (const Shape& s : shapes) {
    const Floats queries = random.normals(s.batch * s.queries * s.heads * s.dHead),
                 keys = random.normals(s.batch * s.capacity * s.heads * s.dHead),
                 values = random.normals(s.batch * s.capacity * s.heads * s.dHead);
    Attention a;
    a.queries = queries.data();
    a.keys = keys.data();
    a.values = values.data();
    a.batch = s.batch;
    a.heads = a.keyHeads = s.heads;
    a.dHead = s.dHead;
    a.queryPositions = s.queries;
    a.keyPositions = s.keys;
    a.keyCapacity = s.capacity;
    a.scale = 1 / std::sqrt(double(s.dHead));
    const std::string name = "attention " + std::to_string(s.queries) + " of " + std::to_string(s.keys) + ", dHead " +
                             std::to_string(s.dHead);
    test.close(name,
               test.floats(name,
                           [&](Kernels& k) {
                             Floats out(queries.size(), NAN);
                             k.attention(a, out.data());
                             return out;
                           }),
               reference::attention(a), 2e-6);

    const Doubles expectedScores = reference::attentionScores(a);
    const Floats scores = test.floats(name + ": scores", [&](Kernels& k) {
      Floats out(expectedScores.size(), NAN);
      k.attentionScores(a, out.data());
      return out;
    });
    test.close(name + ": scores", scores, expectedScores, 3e-6);
    const Floats pattern = random.normals(int64_t(expectedScores.size()));
    test.close(name + ": mix",
               test.floats(name + ": mix",
                           [&](Kernels& k) {
                             Floats out(queries.size(), NAN);
                             k.attentionMix(a, pattern.data(), out.data());
                             return out;
                           }),
               reference::attentionMix(a, reference::toDoubles(pattern)), 2e-5);
  }
  // Scores that would overflow without the running maximum.
  const Floats queries = {100, 100}, keys = {-100, 100}, values = {1, 2};
  Attention a;
  a.queries = queries.data();
  a.keys = keys.data();
  a.values = values.data();
  a.batch = a.heads = a.keyHeads = a.dHead = 1;
  a.queryPositions = a.keyPositions = a.keyCapacity = 2;
  Floats out(2);
  test.kernels().attention(a, out.data());
  test.same("large scores", out, Floats{1, 2});

  const Floats rows = {1, 2, 3, 4, 5, 6, 7, 8};  // [2, 2, 2]
  Floats cache(2 * 4 * 2, 0.0f);
  test.kernels().appendPositions(rows.data(), 2, 2, 2, 4, 1, cache.data());
  test.same("appendPositions", cache, Floats{0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0});
}

KERNEL_TEST("softmax", softmaxTests) {
  Random random(13);
  for (const int64_t columns : {1, 3, 17, 100, 129, 5000})
    for (const float spread : {1.0f, 50.0f}) {
      const int64_t rows = 9;
      Floats logits = random.normals(rows * columns, spread), other = random.normals(rows * columns, spread);
      if (columns > 3)
        for (int64_t c = 0; c < columns; c += 3) logits[size_t(c)] = -infinity;  // some places of row 0
      const std::string name = std::to_string(columns) + " columns, spread " + std::to_string(spread);
      Doubles softmax, logSoftmax, crossEntropy, divergence;
      std::vector<int32_t> targets;
      for (int64_t r = 0; r < rows; ++r) {
        const float* row = &logits[size_t(r * columns)];
        const Doubles p = reference::softmax(row, columns);
        const double logSum = reference::logSumExp(row, columns);
        const double logSumOther = reference::logSumExp(&other[size_t(r * columns)], columns);
        double kl = 0;
        for (int64_t c = 0; c < columns; ++c) {
          softmax.push_back(p[size_t(c)]);
          logSoftmax.push_back(double(row[c]) - logSum);
          if (p[size_t(c)] > 0)
            kl += p[size_t(c)] * (double(row[c]) - logSum - double(other[size_t(r * columns + c)]) + logSumOther);
        }
        divergence.push_back(kl);
        targets.push_back(r == 4 ? -100 : int32_t(random.below(columns)));
        crossEntropy.push_back(r == 4 ? 0 : logSum - double(row[targets.back()]));
      }
      const Matrix<const float> view = matrix(static_cast<const Floats&>(logits), rows);
      const auto compute = [&](const char* kernel, size_t size, const std::function<void(Kernels&, Floats&)>& call) {
        return test.floats(kernel + (" " + name), [&](Kernels& k) {
          Floats out(size, NAN);
          call(k, out);
          return out;
        });
      };
      const auto vector = [](Floats& v) { return Vector<float>{v.data(), int64_t(v.size())}; };
      test.close(
          "softmax " + name,
          compute("softmax", logits.size(), [&](Kernels& k, Floats& out) { k.softmaxRows(view, matrix(out, rows)); }),
          softmax, 1e-6);
      test.close(
          "logSoftmax " + name,
          compute("logSoftmax", logits.size(), [&](Kernels& k, Floats& out) { k.logSoftmax(view, matrix(out, rows)); }),
          logSoftmax, 2e-6);
      test.close("crossEntropy " + name,
                 compute("crossEntropy", size_t(rows),
                         [&](Kernels& k, Floats& out) {
                           k.crossEntropy(view, {targets.data(), rows}, vector(out));
                         }),
                 crossEntropy, 2e-6);
      test.close("klDivergence " + name,
                 compute("klDivergence", size_t(rows),
                         [&](Kernels& k, Floats& out) {
                           k.klDivergence(view, matrix(static_cast<const Floats&>(other), rows), vector(out));
                         }),
                 divergence, 2e-6);
    }
  const Floats masked(40, -infinity);
  Floats out(40, NAN);
  test.kernels().softmaxRows(matrix(masked, 2), matrix(out, 2));
  test.same("a row of only -infinity gives zeros", out, Floats(40, 0.0f));
  Floats withNaN(20, 1.0f);
  withNaN[3] = NAN;
  Floats result(20);
  test.kernels().softmaxRows(matrix(static_cast<const Floats&>(withNaN), 1), matrix(result, 1));
  test.check(std::isnan(result[0]) && std::isnan(result[19]), "NaN spreads over its row");
  Floats divergence(1, NAN);
  const Floats likely = {0, 1, -infinity, 3, 2}, impossible = {0, 1, 4, -infinity, 2};
  test.kernels().klDivergence(matrix(likely, 1), matrix(likely, 1), {divergence.data(), 1});
  test.same("the divergence from itself is exactly 0", divergence, Floats{0});
  test.kernels().klDivergence(matrix(likely, 1), matrix(impossible, 1), {divergence.data(), 1});
  test.check(divergence[0] == infinity, "what q thinks impossible diverges without bound");
  const Floats hidden = {-infinity, NAN, -infinity};
  test.kernels().softmaxRows(matrix(hidden, 1), {result.data(), 1, 3});
  test.check(std::isnan(result[0]), "NaN among -infinity is not hidden");
  const std::vector<int32_t> target = {20};
  test.throws("a target beyond the classes", ErrorCode::invalidArgument, [&] {
    test.kernels().crossEntropy(matrix(static_cast<const Floats&>(withNaN), 1), {target.data(), 1}, {result.data(), 1});
  });
}

}  // namespace
}  // namespace monosem::test
