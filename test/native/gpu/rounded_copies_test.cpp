// The rounded copies that trained weights and activations have in bfloat16: kernels read what the last step wrote, or
// what the first of them rounded, and never what something else has overwritten since. Where there is no copy, kernels
// round what they read, so that results are the same; whether there is one shows in the memory in use, and whether
// activations were rounded, in the number of calls.
#include <functional>
#include <thread>
#include <tuple>

#include "check.h"
#include "cuda/rounded_copies.h"
#include "cuda/written_memory.h"
#include "encode_problem.h"
#include "reference.h"
#include "rounding_device.h"

namespace monosem::test {
namespace {

constexpr double tolerance = 1e-4;

// Weights in training, with codes to decode by them and the gradient of what is decoded.
class Trained {
 public:
  Trained(RoundingDevice& device, Random& random, int64_t dSae, int64_t columns)
      : dSae(dSae),
        columns(columns),
        plainCodes(randomCodes(random, 9, dSae, std::min(0.1, 100.0 / double(dSae)), true)),
        dOutput(random.normals(9 * columns)),
        rowWeights(random.normals(dSae)),
        weights(device.uploaded(random.normals(dSae * columns))),
        device_(device),
        m_(device.uploaded(random.normals(dSae * columns))),
        v_(device.uploaded(Floats(size_t(dSae * columns), 0.5f))),
        codes_(device.uploaded(plainCodes)),
        onDevice_(device.uploaded(dOutput)),
        rowWeightsOnDevice_(device.uploaded(rowWeights)) {}

  Matrix<float> matrix() const { return {weights.as<float>(), dSae, columns}; }
  Matrix<const float> rows() const { return {weights.as<const float>(), dSae, columns}; }
  Vector<float> vector() const { return {weights.as<float>(), dSae * columns}; }
  const Codes& codes() const { return codes_; }
  Floats values() const { return device_.downloaded(weights, dSae * columns); }

  // Its moments alone move the weights.
  void step(bool unitNorm = false, const Clip& clip = {}) const { stepAs(dSae, columns, unitNorm, clip); }
  void stepAs(int64_t asRows, int64_t asColumns, bool unitNorm = false, const Clip& clip = {}) const {
    const auto as = [&](const Block& block) { return Matrix<float>{block.as<float>(), asRows, asColumns}; };
    device_.kernels().stepRows({}, as(weights), as(m_), as(v_), {0.1}, clip, unitNorm, {});
  }

  Floats decoded() const {
    const Block out = device_.memory().allocateArray<float>(9 * columns);
    device_.kernels().decode(codes_, rows(), {}, {}, {out.as<float>(), 9, columns}, nullptr);
    return device_.downloaded(out, 9 * columns);
  }
  Floats decodedGradient() const {
    const Block out = device_.memory().allocateArray<float>(plainCodes.entries());
    device_.kernels().decodeGradient(codes_, rows(), {onDevice_.as<const float>(), 9, columns}, 2, {}, 0, true,
                                     out.as<float>());
    return device_.downloaded(out, plainCodes.entries());
  }
  Floats rowSum() const {
    const Block out = device_.memory().allocateArray<float>(columns);
    device_.kernels().weightedRowSum({rowWeightsOnDevice_.as<const float>(), dSae}, rows(), 2,
                                     {out.as<float>(), columns});
    return device_.downloaded(out, columns);
  }
  // That kernels read these numbers.
  void reads(Test& test, const std::string& what, const Floats& numbers) const {
    test.close(what + ": decode", decoded(), reference::decode(plainCodes, numbers, nullptr, nullptr, columns),
               tolerance);
    test.close(what + ": decodeGradient", decodedGradient(),
               reference::decodeGradient(plainCodes, numbers, dOutput, 2, nullptr, 0, true, columns), tolerance);
    Doubles sums(size_t(columns), 0);
    for (int64_t row = 0; row < dSae; ++row)
      for (int64_t column = 0; column < columns; ++column)
        sums[size_t(column)] += 2.0 * double(rowWeights[size_t(row)]) * double(numbers[size_t(row * columns + column)]);
    test.close(what + ": weightedRowSum", rowSum(), sums, tolerance);
  }
  // That they read the weights as they are now, in the device's precision.
  void readsWeights(Test& test, const std::string& what) const {
    reads(test, what, device_.rounds() ? rounded(values()) : values());
  }
  // All that is read with or without a copy.
  std::vector<Floats> results() const { return {decoded(), decodedGradient(), rowSum()}; }

  const int64_t dSae, columns;
  const PlainCodes plainCodes;
  const Floats dOutput, rowWeights;
  Block weights;

 private:
  RoundingDevice& device_;
  Block m_, v_;
  Codes codes_;
  Block onDevice_, rowWeightsOnDevice_;
};

std::string shapeOf(int64_t dSae, int64_t columns) {
  return std::to_string(dSae) + "x" + std::to_string(columns);
}

KERNEL_TEST("bfloat16: copies of stepped weights", steppedCopiesTests) {
  Random random(62);
  for (const auto& [dSae, columns] : {std::pair<int64_t, int64_t>{40, 36}, {33, 129}, {70, 768}, {5, 16388}, {9, 1}})
    for (const bool unitNorm : {false, true}) {
      RoundingDevice device;
      const Trained trained(device, random, dSae, columns);
      const std::string what = shapeOf(dSae, columns) + (unitNorm ? " unit norm" : "");
      trained.readsWeights(test, what + ": before the first step");
      const Floats before = trained.values();
      for (const char* which : {": first step", ": second step"}) {
        trained.step(unitNorm);
        trained.readsWeights(test, what + which);
      }
      test.check(trained.values() != before, what + ": the weights moved");
      const std::vector<Floats> byCopy = trained.results();
      const Floats numbers = trained.values();
      const uint64_t with = device.memory().statistics().current;
      device.memory().upload(numbers.data(), trained.weights, sizeof(float) * numbers.size());
      test.check(device.memory().statistics().current < with, what + ": an upload lets the copy go");
      test.check(trained.results() == byCopy, what + ": the same bits without it");
    }
  RoundingDevice exact(cuda::Precision::float32);
  const Trained trained(exact, random, 40, 36);
  trained.step();
  trained.readsWeights(test, "float32 has no copies");
}

// The product takes rounded weights in any case: with a copy of them it must have the same bits.
KERNEL_TEST("bfloat16: encode by the copy", encodeByCopyTests) {
  Random random(63);
  // The last one in several chunks, on a large GPU as well.
  for (const auto& [rows, dSae, columns] :
       {std::tuple<int64_t, int64_t, int64_t>{21, 900, 36}, {5, 130, 129}, {700, 12000, 4}}) {
    RoundingDevice device;
    const Trained trained(device, random, dSae, columns);
    const Block x = device.uploaded(random.normals(rows * columns)), bias = device.uploaded(random.normals(dSae));
    std::vector<uint32_t> indices, positions(size_t(dSae), UINT32_MAX);
    for (int64_t feature = 1; feature < dSae; feature += 3) {
      positions[size_t(feature)] = uint32_t(indices.size());
      indices.push_back(uint32_t(feature));
    }
    auto subset = std::make_shared<FeatureSet>();
    subset->dSae = dSae;
    subset->count = int64_t(indices.size());
    subset->indices = device.uploaded(indices);
    subset->position = device.uploaded(positions);
    const auto scores = [&](const Block& encoder, const std::shared_ptr<const FeatureSet>& of) {
      Selection selection;
      selection.select = Select::all;
      selection.subset = of;
      const Codes codes =
          device.kernels().encode({x.as<const float>(), rows, columns}, {encoder.as<const float>(), dSae, columns},
                                  {bias.as<const float>(), dSae}, selection);
      return device.downloaded(codes.preActivations, codes.entries);
    };
    for (const char* which : {" first step", " second step"}) {
      const Floats last = scores(trained.weights, nullptr);
      trained.step();
      trained.readsWeights(test, shapeOf(dSae, columns) + which);
      const Block withoutCopy = device.uploaded(trained.values());
      const Floats all = scores(trained.weights, nullptr);
      test.same(shapeOf(dSae, columns) + which + ": encode", all, scores(withoutCopy, nullptr));
      test.same(shapeOf(dSae, columns) + which + ": of a subset", scores(trained.weights, subset),
                scores(withoutCopy, subset));
      test.check(all != last, shapeOf(dSae, columns) + which + ": scores that the step changed");
    }
  }
}

KERNEL_TEST("bfloat16: copies of what is overwritten", overwrittenCopiesTests) {
  Random random(64);
  RoundingDevice device;
  Kernels& kernels = device.kernels();
  CachingAllocator& memory = device.memory();
  const int64_t dSae = 40, columns = 36, size = dSae * columns;
  const Trained trained(device, random, dSae, columns), other(device, random, dSae, columns);
  const Block factors = device.uploaded(random.normals(size)), row = device.uploaded(random.normals(columns)),
              moments = device.uploaded(Floats(size_t(size), 0.5f));
  const Floats numbers = random.normals(size);
  const auto afterStep = [&](const std::string& what, const std::function<void()>& write) {
    const uint64_t without = memory.statistics().current;
    trained.step();
    test.check(memory.statistics().current >= without + sizeof(uint16_t) * uint64_t(size), what + ": there is a copy");
    trained.readsWeights(test, what + ": before it");
    const Floats before = trained.values();
    write();
    test.check(trained.values() != before, what + ": something was written");
    trained.readsWeights(test, what + ": after it");
    test.check(memory.statistics().current == without, what + ": the copy's memory is free");
  };
  const Matrix<float> weights = trained.matrix();
  const Vector<float> elements = trained.vector();
  // Sums of these, as doubles that nothing small can change, are modest numbers as pairs of floats.
  const Block powers = device.uploaded(Floats(size_t(size), 0x1p60f));
  const Vector<const float> large{powers.as<const float>(), size};

  afterStep("a vector that a kernel writes", [&] { kernels.fill(elements, 0.3f); });
  memory.upload(numbers.data(), trained.weights, sizeof(float) * numbers.size());
  afterStep("a matrix that a kernel writes", [&] {
    kernels.scaleRows(trained.rows(), {factors.as<const float>(), dSae}, weights);
  });
  afterStep("its last element", [&] { kernels.fill({elements.data + size - 1, 1}, 7); });
  afterStep("an output without a size", [&] {
    kernels.entryProduct(trained.codes(), {nullptr, nullptr, {}, 0.7, nullptr}, elements.data);
  });
  afterStep("a sum", [&] { kernels.dot(large, large, trained.weights.as<double>()); });
  memory.upload(numbers.data(), trained.weights, sizeof(float) * numbers.size());
  afterStep("a vector of doubles", [&] {
    kernels.accumulateColumnSums({large.data, size, 1}, {trained.weights.as<double>(), 1});
  });
  memory.upload(numbers.data(), trained.weights, sizeof(float) * numbers.size());
  afterStep("moments of another step", [&] {
    const Matrix<float> v{moments.as<float>(), dSae, columns};
    kernels.stepRows({}, other.matrix(), weights, v, {0.1, 0.5}, {}, false, {});
    kernels.fill(other.vector(), 0.2f);  // whose own copy would be counted
  });
  memory.upload(numbers.data(), trained.weights, sizeof(float) * numbers.size());
  afterStep("an upload", [&] { memory.upload(numbers.data(), trained.weights, sizeof(float) * numbers.size()); });
  afterStep("an upload of its beginning", [&] { memory.upload(numbers.data(), trained.weights, sizeof(float)); });
  afterStep("clearing", [&] { memory.clear(trained.weights, sizeof(float) * size_t(size)); });

  // What is written elsewhere does not matter.
  memory.upload(numbers.data(), trained.weights, sizeof(float) * numbers.size());
  trained.step();
  other.step();
  kernels.fill(other.vector(), 2);
  memory.clear(other.weights, sizeof(float) * size_t(size));
  other.readsWeights(test, "another matrix");
  trained.readsWeights(test, "a matrix beside the one that is written");
}

KERNEL_TEST("bfloat16: copies of other shapes", reshapedCopiesTests) {
  Random random(65);
  RoundingDevice device;
  const Trained trained(device, random, 40, 36);
  trained.stepAs(20, 72);
  trained.readsWeights(test, "a copy of another shape");
  trained.step();
  trained.readsWeights(test, "of its own");
  const uint64_t withOne = device.memory().statistics().current;
  trained.stepAs(80, 18);
  trained.readsWeights(test, "after a step of another shape");
  test.check(device.memory().statistics().current == withOne, "there is one copy at a time");
}

KERNEL_TEST("bfloat16: copies of released weights", releasedCopiesTests) {
  Random random(66);
  for (const bool onOtherThread : {false, true}) {
    const std::string what = onOtherThread ? "released by another thread" : "released";
    RoundingDevice device;
    CachingAllocator& memory = device.memory();
    Trained trained(device, random, 40, 36);
    const Floats next = random.normals(40 * 36);
    const uint64_t without = memory.statistics().current;
    trained.step();
    const void* const address = trained.weights.as<void>();
    const uint64_t ofBlock = trained.weights.size();
    const auto release = [&] { trained.weights = Block(); };
    if (onOtherThread)
      std::thread(release).join();
    else
      release();
    test.check(memory.statistics().current == without - ofBlock, what + ": the copy went with it");
    const Block reused = memory.allocate(ofBlock);
    test.check(reused.as<void>() == address, what + ": its memory is used again");
    trained.weights = reused;
    // Not an upload, which by itself would let a copy go; on the device its bits are those of the last weights.
    trained.readsWeights(test, what + ": new weights there");
    memory.upload(next.data(), trained.weights, sizeof(float) * next.size());
    trained.step();
    trained.readsWeights(test, what + ": the new weights' own copy");
  }
  RoundingDevice device;
  const Trained trained(device, random, 40, 36);
  const uint64_t without = device.memory().statistics().current;
  trained.step();
  device.closeKernels();
  test.check(device.memory().statistics().current == without, "copies go with the kernels");
}

KERNEL_TEST("bfloat16: steps that make no copy", missingCopiesTests) {
  Random random(67);
  RoundingDevice device;
  const Trained trained(device, random, 40, 36);
  const Floats before = trained.values();
  const Block notFinite = device.uploaded(std::vector<double>{double(NAN)});
  const Clip refusing{notFinite.as<const double>(), 1};
  const auto refusedStep = [&](const char* what) {
    trained.step(true, refusing);
    trained.readsWeights(test, std::string("a step that is refused, ") + what);
    try {
      device.kernels().settle();
      test.check(false, "the refusal is told");
    } catch (const EngineError& error) {
      test.check(error.code() == ErrorCode::nonFinite, "the refusal is told");
    }
  };
  refusedStep("without a copy before");
  test.same("the weights stay", trained.values(), before);
  trained.step();
  refusedStep("with a copy before");

  RoundingDevice full;
  const Trained large(full, random, 400, 36);
  full.memory().setLimit(full.memory().statistics().current + 16 * 1024);
  const Floats initial = large.values();
  large.step();
  test.check(large.values() != initial, "without memory for a copy the step is made");
  full.memory().setLimit(0);
  large.readsWeights(test, "without memory for a copy");
  large.step();
  large.readsWeights(test, "with memory again");

  const uint64_t withCopy = full.memory().statistics().current, spare = 4096;
  full.memory().setLimit(withCopy + spare);
  const std::vector<Floats> results = large.results();
  const Block wanted = full.memory().allocate(size_t(2 * spare));
  test.check(full.memory().statistics().current < withCopy + 2 * spare, "a copy makes room for what is asked for");
  test.check(large.results() == results, "what is read is the same without it");
  test.throws("more than copies hold", ErrorCode::outOfMemory, [&] { full.memory().allocate(1 << 20); });
}

// Activations, and what a training step makes of them: codes, and gradients for the entries of other codes.
class Activations {
 public:
  Activations(RoundingDevice& device, Random& random, double density)
      : device_(device),
        plainCodes_(randomCodes(random, rows, dSae, density, true)),
        codes_(device.uploaded(plainCodes_)),
        encoder_(device.uploaded(random.normals(dSae * columns))),
        bias_(device.uploaded(random.normals(dSae))),
        m_(device.uploaded(random.normals(dSae * columns))),
        v_(device.uploaded(Floats(size_t(dSae * columns), 0.5f))) {
    set(random.normals(size()));
    device.kernels().featureCounts(codes_, {m_.as<float>(), dSae});  // makes the order of the codes, which is a call
  }

  static int64_t size() { return rows * columns; }
  static uint64_t copyBytes() { return sizeof(uint16_t) * uint64_t(size()); }

  // In a new block.
  void set(const Floats& values) { x = device_.uploaded(values); }
  Matrix<float> matrix() const { return {x.as<float>(), rows, columns}; }
  Matrix<const float> constMatrix() const { return {x.as<const float>(), rows, columns}; }

  Floats scores() const {
    Selection selection;
    selection.select = Select::all;
    const Codes codes = device_.kernels().encode(constMatrix(), {encoder_.as<const float>(), dSae, columns},
                                                 {bias_.as<const float>(), dSae}, selection);
    return device_.downloaded(codes.preActivations, codes.entries);
  }
  Floats gradient() const {
    const Block out = device_.memory().allocateArray<float>(dSae * columns);
    device_.kernels().rowGradient(ofEntries(), {encoder_.as<const float>(), dSae, columns},
                                  {out.as<float>(), dSae, columns});
    return device_.downloaded(out, dSae * columns);
  }
  void squaredNorm() const {
    const Block out = device_.memory().allocateArray<double>(1);
    device_.kernels().rowGradientSquaredNorm(ofEntries(), {encoder_.as<const float>(), dSae, columns},
                                             out.as<double>());
  }
  void step() const {
    const auto as = [&](const Block& block) { return Matrix<float>{block.as<float>(), dSae, columns}; };
    device_.kernels().stepRows(ofEntries(), as(encoder_), as(m_), as(v_), {0.1}, {}, false, {});
  }

  // How many calls of kernels it takes.
  uint64_t callsOf(const std::function<void()>& work) const {
    const uint64_t before = device_.kernels().calls();
    work();
    return device_.kernels().calls() - before;
  }
  // That the next kernel rounds x, and the kernels after it read that copy: of x as it is now.
  void roundsOnce(Test& test, const std::string& what) const {
    test.check(callsOf([&] { scores(); }) == 2, what + ": the first kernel makes a copy");
    test.check(callsOf([&] { scores(), gradient(), squaredNorm(); }) == 3, what + ": the others read it");
    readsX(test, what);
  }
  void readsX(Test& test, const std::string& what) const {
    Activations fresh = *this;  // with x in a block of its own, of which there is no copy yet
    fresh.set(device_.downloaded(x, size()));
    test.same(what + ": scores", scores(), fresh.scores());
    const Floats ofX = gradient();
    test.same(what + ": gradient", ofX, fresh.gradient());
    const Floats values = rounded(device_.downloaded(x, size()));
    const Doubles expected = reference::rowGradient({{&plainCodes_, nullptr, &values, 0.25}}, nullptr, 0, {}, false,
                                                    Floats(size_t(dSae * columns)), dSae);
    // Coefficients of dense codes are rounded as well.
    test.close(what + ": gradient of rounded rows", ofX, expected, plainCodes_.entries() < 4096 ? tolerance : 1e-2);
  }

  static constexpr int64_t rows = 70, dSae = 90, columns = 36;
  Block x;

 private:
  RowGradient ofEntries() const {
    RowGradient gradient;
    gradient.terms.push_back({&codes_, nullptr, constMatrix(), 0.25});
    return gradient;
  }

  RoundingDevice& device_;
  PlainCodes plainCodes_;
  Codes codes_;
  Block encoder_, bias_, m_, v_;
};

KERNEL_TEST("bfloat16: copies of activations", activationsTests) {
  Random random(68);
  for (const double density : {0.05, 1.0}) {  // gathered rows, and products
    RoundingDevice device;
    CachingAllocator& memory = device.memory();
    Activations activations(device, random, density);
    const std::string what = density < 1 ? "sparse" : "dense";
    const uint64_t without = memory.statistics().current;
    test.check(activations.callsOf([&] { activations.gradient(); }) == 2, what + ": a gradient makes a copy");
    test.check(activations.callsOf([&] { activations.squaredNorm(), activations.step(), activations.scores(); }) == 3,
               what + ": a training step reads it");
    activations.readsX(test, what + ": a gradient's copy");
    activations.set(random.normals(Activations::size()));
    activations.roundsOnce(test, what + ": an encode's copy");
    test.check(memory.statistics().current >= without + Activations::copyBytes(), what + ": there is a copy");

    const Floats numbers = random.normals(Activations::size());
    memory.upload(numbers.data(), activations.x, sizeof(float) * numbers.size());
    activations.roundsOnce(test, what + ": an upload");
    device.kernels().scaleRows(activations.constMatrix(), {activations.constMatrix().data, Activations::rows},
                               activations.matrix());
    activations.roundsOnce(test, what + ": overwritten by a kernel");
    const void* const address = activations.x.as<void>();
    activations.x = Block();
    activations.set(numbers);
    test.check(activations.x.as<void>() == address, what + ": its memory is used again");
    activations.roundsOnce(test, what + ": of another x at the same place");
  }

  RoundingDevice device;
  CachingAllocator& memory = device.memory();
  Activations activations(device, random, 0.05);
  activations.x = Block();
  const uint64_t withoutAny = memory.statistics().current;
  std::vector<Block> many;
  for (int i = 0; i < 10; ++i) {
    activations.set(random.normals(Activations::size()));
    many.push_back(activations.x);
  }
  const uint64_t without = memory.statistics().current;
  const auto copies = [&] { return (memory.statistics().current - without) / Activations::copyBytes(); };
  for (const Block& x : many) {
    activations.x = x;
    activations.scores();
  }
  test.check(copies() == cuda::RoundedCopies::mostOfActivations, "only the last activations have copies");
  test.check(activations.callsOf([&] { activations.scores(); }) == 1, "the last one has");
  activations.x = many.front();
  activations.roundsOnce(test, "the first one has none");
  activations.x = Block();
  many.clear();
  test.check(memory.statistics().current == withoutAny, "copies go with their activations");

  RoundingDevice full;
  Activations large(full, random, 0.05);
  full.memory().setLimit(full.memory().statistics().current + 1024);
  try {
    large.squaredNorm();
  } catch (const EngineError& error) {
    test.check(error.code() == ErrorCode::outOfMemory, "without memory for a copy or for rounding anew");
  }
  full.memory().setLimit(0);
  large.roundsOnce(test, "with memory again");

  RoundingDevice exact(cuda::Precision::float32);
  const Activations notRounded(exact, random, 0.05);
  test.check(notRounded.callsOf([&] { notRounded.scores(), notRounded.gradient(); }) == 2, "float32 has no copies");
}

KERNEL_TEST("bfloat16: what a kernel writes", writtenMemoryTests) {
  float number = 0;
  double sum = 0;
  cuda::MadeCodes made;
  const auto bytes = [&](const auto& argument) { return cuda::writtenBy(argument).bytes; };
  test.check(bytes(Vector<float>{&number, 3}) == 12 && bytes(Vector<double>{&sum, 2}) == 16, "vectors");
  test.check(bytes(Matrix<float>{&number, 3, 5}) == 60, "matrices");
  test.check(bytes(&number) == 4 && bytes(&sum) == 8, "pointers");
  test.check(bytes(Vector<const float>{&number, 3}) == 0 && bytes(Matrix<const float>{&number, 3, 5}) == 0 &&
                 bytes(static_cast<const float*>(&number)) == 0,
             "nothing that is const");
  test.check(bytes(static_cast<float*>(nullptr)) == 0 && bytes(&made) == 0 && bytes(Clip{&sum, 1}) == 0,
             "nothing that is absent, the host's, or an operand");
  test.check(cuda::writtenBy(Matrix<float>{&number, 3, 5}).begin == &number, "from its beginning");
}

}  // namespace
}  // namespace monosem::test
