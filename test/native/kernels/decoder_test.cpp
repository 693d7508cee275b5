// What the decoders after GPT-2 are made of: RMS norm, rotary positions, gates, shared heads, masks, bf16 weights.
#include <array>

#include "check.h"
#include "data.h"
#include "reference.h"

namespace monosem::test {
namespace {

KERNEL_TEST("rmsNorm", rmsNormTests) {
  Random random(31);
  for (const int64_t columns : {1, 3, 17, 100, 129, 768})
    for (const int64_t rows : {1, 37}) {
      Floats x = random.normals(rows * columns, 3);
      for (float& value : x) value += 2;
      const Floats weight = random.normals(columns);
      const double epsilon = 1e-5;
      Doubles out, normalized, scale;
      for (int64_t r = 0; r < rows; ++r) {
        const float* row = &x[size_t(r * columns)];
        scale.push_back(std::sqrt(reference::dot(row, row, columns) / double(columns) + epsilon));
        for (int64_t c = 0; c < columns; ++c) {
          normalized.push_back(double(row[c]) / scale.back());
          out.push_back(normalized.back() * double(weight[size_t(c)]));
        }
      }
      const std::string name = "rmsNorm " + std::to_string(rows) + "x" + std::to_string(columns);
      const Floats all = test.floats(name, [&](Kernels& k) {
        Floats a(x.size(), NAN), b(x.size(), NAN), s(size_t(rows), NAN), alone(x.size(), NAN);
        k.rmsNorm(matrix(static_cast<const Floats&>(x), rows), view(weight), epsilon, matrix(a, rows), {}, {});
        k.rmsNorm(matrix(static_cast<const Floats&>(x), rows), {}, epsilon, matrix(alone, rows), matrix(b, rows),
                  view(s));
        for (const Floats* part : {&b, &s, &alone}) a.insert(a.end(), part->begin(), part->end());
        return a;
      });
      for (const Doubles* part : {&normalized, &scale, &normalized}) out.insert(out.end(), part->begin(), part->end());
      test.close(name, all, out, 2e-6);
    }
  const Floats zero(5, 0.0f), tooLarge = {1e30f, -1e30f};
  Floats out(5, NAN);
  test.kernels().rmsNorm(matrix(zero, 1), {}, 1e-6, matrix(out, 1), {}, {});
  test.same("a row of zeros stays", out, zero);
  Floats large(2, NAN);
  test.kernels().rmsNorm(matrix(tooLarge, 1), {}, 1e-6, matrix(large, 1), {}, {});
  test.close("squares that a float cannot hold", large, Doubles{1, -1}, 1e-6);
}

KERNEL_TEST("rotate", rotateTests) {
  Random random(32);
  for (const auto& [rows, heads, dHead, pairs] : std::initializer_list<std::array<int64_t, 4>>{
           {1, 1, 2, 1}, {3, 2, 8, 4}, {5, 3, 20, 3}, {37, 4, 64, 32}, {7, 2, 64, 8}, {2, 2, 5, 0}, {9, 1, 256, 128}})
    for (const bool interleaved : {false, true}) {
      const Floats x = random.normals(rows * heads * dHead), cosines = random.normals(rows * pairs),
                   sines = random.normals(rows * pairs);
      Doubles expected(x.begin(), x.end());
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t h = 0; h < heads; ++h)
          for (int64_t i = 0; i < pairs; ++i) {
            const size_t head = size_t((r * heads + h) * dHead);
            const size_t first = head + size_t(interleaved ? 2 * i : i),
                         second = first + size_t(interleaved ? 1 : pairs);
            const double cosine = double(cosines[size_t(r * pairs + i)]), sine = double(sines[size_t(r * pairs + i)]);
            expected[first] = double(x[first]) * cosine - double(x[second]) * sine;
            expected[second] = double(x[second]) * cosine + double(x[first]) * sine;
          }
      const std::string name = "rotate " + std::to_string(rows) + "x" + std::to_string(heads) + "x" +
                               std::to_string(dHead) + ", " + std::to_string(pairs) + " pairs";
      test.close(name,
                 test.floats(name,
                             [&](Kernels& k) {
                               Floats out(x.size(), NAN);
                               k.rotate(matrix(x, rows), heads, {cosines.data(), rows, pairs},
                                        {sines.data(), rows, pairs}, interleaved, matrix(out, rows));
                               return out;
                             }),
                 expected, 1e-6);
    }
}

KERNEL_TEST("gatedActivation", gatedActivationTests) {
  Random random(33);
  for (const int64_t size : {1, 5, 64, 4099})
    for (const Activation kind : {Activation::silu, Activation::geluTanh, Activation::gelu, Activation::relu}) {
      const Floats gate = random.normals(size, 3), x = random.normals(size);
      Doubles expected;
      for (int64_t i = 0; i < size; ++i)
        expected.push_back(reference::activation(double(gate[size_t(i)]), kind) * double(x[size_t(i)]));
      const std::string name = "gatedActivation " + std::to_string(size) + ", " + std::to_string(int(kind));
      test.close(name,
                 test.floats(name,
                             [&](Kernels& k) {
                               Floats out(x.size(), NAN);
                               k.gatedActivation(view(gate), view(x), kind, view(out));
                               return out;
                             }),
                 expected, 3e-6);
    }
}

struct Masked {
  int64_t heads, keyHeads, dHead, queries, keys;
  double softCap;
  int64_t window;
  bool padded;
};
const Masked masked[] = {
    {4, 2, 8, 5, 5, 0, 0, false},
    {4, 1, 17, 7, 9, 5, 0, false},
    {2, 2, 16, 70, 70, 0, 9, false},
    {6, 2, 64, 1, 300, 0, 100, true},
    {2, 1, 100, 130, 130, 2, 64, true},
    {8, 2, 32, 200, 330, 0, 1, true},
    {2, 1, 16, 3, 40, 50, 17, true},
    {2, 2, 64, 65, 193, 0, 65, true},
    {3, 3, 32, 90, 90, 1, 1000, true},
    // few queries and many keys, of which several blocks have a stretch each
    {4, 2, 100, 3, 900, 30, 700, true},
    {1, 1, 130, 1, 1000, 0, 0, true},
    {2, 1, 64, 8, 513, 0, 0, false},
};

KERNEL_TEST("attention: shared heads, soft cap, window, padding", maskedAttentionTests) {
  Random random(34);
  for (const Masked& s : masked) {
    const int64_t batch = 3, capacity = s.keys + 3;
    const Floats queries = random.normals(batch * s.queries * s.heads * s.dHead),
                 keys = random.normals(batch * capacity * s.keyHeads * s.dHead),
                 values = random.normals(batch * capacity * s.keyHeads * s.dHead);
    // One sequence without padding, one with some, one in which the first queries (or all) see nothing.
    const std::vector<int32_t> firstKeys = {-1, int32_t(s.keys / 3), int32_t(s.keys - 1)};
    Attention a;
    a.queries = queries.data();
    a.keys = keys.data();
    a.values = values.data();
    a.batch = batch;
    a.heads = s.heads;
    a.keyHeads = s.keyHeads;
    a.dHead = s.dHead;
    a.queryPositions = s.queries;
    a.keyPositions = s.keys;
    a.keyCapacity = capacity;
    a.scale = 1 / std::sqrt(double(s.dHead));
    a.softCap = s.softCap;
    a.window = s.window;
    if (s.padded) a.firstKeys = firstKeys.data();
    const std::string name = "attention " + std::to_string(s.queries) + " of " + std::to_string(s.keys) + ", heads " +
                             std::to_string(s.heads) + "/" + std::to_string(s.keyHeads) + ", window " +
                             std::to_string(s.window);
    const auto compute = [&](const std::string& what, size_t size, const std::function<void(Kernels&, float*)>& call) {
      return test.floats(what, [&](Kernels& k) {
        Floats out(size, NAN);
        call(k, out.data());
        return out;
      });
    };
    test.close(name, compute(name, queries.size(), [&](Kernels& k, float* out) { k.attention(a, out); }),
               reference::attention(a), 3e-6);
    const Doubles scores = reference::attentionScores(a);
    test.close(name + ": scores",
               compute(name + ": scores", scores.size(), [&](Kernels& k, float* out) { k.attentionScores(a, out); }),
               scores, 4e-6);
    const Floats pattern = random.normals(int64_t(scores.size()));
    test.close(name + ": mix",
               compute(name + ": mix", queries.size(),
                       [&](Kernels& k, float* out) { k.attentionMix(a, pattern.data(), out); }),
               reference::attentionMix(a, reference::toDoubles(pattern)), 3e-5);
  }
}

std::vector<uint16_t> brainsOf(const Floats& values) {
  std::vector<uint16_t> bits;
  for (const float& value : values) {
    uint32_t whole;
    std::memcpy(&whole, &value, sizeof whole);
    bits.push_back(uint16_t(whole >> 16));
  }
  return bits;
}
Floats widened(const std::vector<uint16_t>& bits) {
  Floats values;
  for (const uint16_t number : bits) {
    const uint32_t whole = uint32_t(number) << 16;
    float value;
    std::memcpy(&value, &whole, sizeof value);
    values.push_back(value);
  }
  return values;
}

KERNEL_TEST("linear: bf16 weights", linearBrainTests) {
  Random random(35);
  for (const auto& [rows, in, out] : std::initializer_list<std::array<int64_t, 3>>{{1, 1, 1},
                                                                                   {1, 192, 77},
                                                                                   {5, 50, 33},
                                                                                   {6, 52, 33},
                                                                                   {7, 65, 40},
                                                                                   {8, 64, 40},
                                                                                   {9, 770, 64},
                                                                                   {33, 7, 100},
                                                                                   {50, 65, 2049},
                                                                                   {200, 64, 1000}})
    for (const bool plain : {false, true}) {
      const std::vector<uint16_t> weights = brainsOf(random.normals(out * in, 0.3f));
      const Floats wide = widened(weights), x = random.normals(rows * in), bias = random.normals(out),
                   residual = random.normals(rows * out);
      const Activation activation = plain ? Activation::none : Activation::silu;
      const std::string name =
          "linear " + std::to_string(rows) + "x" + std::to_string(in) + "->" + std::to_string(out) + " bf16";
      const auto compute = [&](bool brain) {
        return test.floats(name, [&](Kernels& k) {
          Floats result(size_t(rows * out), NAN);
          const Vector<const float> added = plain ? Vector<const float>{} : view(bias);
          const Matrix<const float> onto = plain ? Matrix<const float>{} : matrix(residual, rows);
          if (brain)
            k.linearBrain(matrix(x, rows), {weights.data(), out, in}, added, activation, onto, matrix(result, rows));
          else
            k.linear(matrix(x, rows), matrix(wide, out), added, activation, onto, false, matrix(result, rows));
          return result;
        });
      };
      Doubles expected;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t f = 0; f < out; ++f)
          expected.push_back(reference::activation(reference::dot(&x[size_t(r * in)], &wide[size_t(f * in)], in) +
                                                       (plain ? 0 : double(bias[size_t(f)])),
                                                   activation) +
                             (plain ? 0 : double(residual[size_t(r * out + f)])));
      const Floats result = compute(true);
      test.close(name, result, expected, 5e-5);
      test.close(name + " as in float32", result, reference::toDoubles(compute(false)), 3e-5);
    }
}

KERNEL_TEST("gatherRows: bf16", gatherBrainRowsTests) {
  Random random(36);
  for (const int64_t columns : {1, 3, 16, 100, 129}) {
    const std::vector<uint16_t> table = brainsOf(random.normals(11 * columns));
    const Floats wide = widened(table);
    const std::vector<int32_t> rows = {10, 0, 3, 3, 7};
    Floats expected;
    for (const int32_t row : rows)
      expected.insert(expected.end(), &wide[size_t(row * columns)], &wide[size_t(row * columns)] + columns);
    test.same("gatherRows of bf16, " + std::to_string(columns),
              test.floats("gatherRows of bf16",
                          [&](Kernels& k) {
                            Floats out(expected.size(), NAN);
                            k.gatherBrainRows({table.data(), 11, columns}, {rows.data(), 5}, matrix(out, 5));
                            return out;
                          }),
              expected);
    const std::vector<int32_t> beyond = {11};
    Floats one(size_t(columns), 0.0f);
    test.throws("a row beyond the table", ErrorCode::invalidArgument, [&] {
      test.kernels().gatherBrainRows({table.data(), 11, columns}, {beyond.data(), 1}, matrix(one, 1));
    });
  }
}

}  // namespace
}  // namespace monosem::test
