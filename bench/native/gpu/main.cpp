// Times the kernels of a training step, and whole steps, on the first GPU, through the library that
// MONOSEM_CUDA_LIBRARY names; prints a JSON object a line.
//
//   bench_gpu [--quick | --tiny]
//
//   --quick   the smaller of the two shapes alone
//   --tiny    a shape for the emulated library, each case timed once: shows that everything runs
//
// In each precision:
//   copy       kernel `scale` of a gigabyte: the bandwidth, of bytes read and written
//   attention  one query of 12 heads of 64, and 8192 cached positions
//   product    kernel `linear` without bias: one product of cuBLAS, float32 operands and result
//   encode, decode, decodeGradient, featureOrder (with featureCounts), rowNorm and rowStep of encoder and decoder:
//              the kernels of a TopK step, k = 32
//   step       whole training steps (training.h): TopK by itself, with decoder rows kept at norm 1 ("unit") and with
//   AuxK,
//              and ReLU, JumpReLU and Gated at an L0 of about 100
//
// A line has what was timed, its time in milliseconds (the median over batches of runs, the fastest and the slowest
// batch), and `phases`: [operations, bytes] of its parts (work.h), from which whoever knows the rates of product and
// copy gets the least time that it could take. Lines of steps have the device memory in use at most.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

#include "engine/error.h"
#include "timing.h"
#include "training.h"

namespace {

using namespace monosem;
using namespace monosem::bench;

struct Plan {
  std::vector<Shape> shapes;
  int64_t k;
  double l0;
  int64_t deadLatents;
  int64_t copied;           // numbers
  int64_t cachedPositions;  // that attention looks at
  Effort effort;
};

Plan planOf(int argumentCount, char** arguments) {
  Plan plan{{{4096, 768, 24576}, {4096, 2304, 65536}}, 32, 100, 512, int64_t(1) << 28, 8192, {}};
  for (int i = 1; i < argumentCount; ++i) {
    if (std::strcmp(arguments[i], "--quick") == 0) {
      plan.shapes.resize(1);
    } else if (std::strcmp(arguments[i], "--tiny") == 0) {
      plan = {{{48, 16, 128}}, 4, 10, 8, 1024, 600, {1, 0}};
    } else {
      std::fprintf(stderr, "usage: bench_gpu [--quick | --tiny]\n");
      std::exit(2);
    }
  }
  return plan;
}

// What a line of output says besides its times.
struct Case {
  std::string name;
  Shape shape;
  int64_t entries;
  Phases phases;
};

class Bench {
 public:
  Bench(const char* precision, Gpu& gpu, const Plan& plan) : precision_(precision), gpu_(gpu), plan_(plan) {}

  void run() {
    copy();
    attention();
    for (const Shape& shape : plan_.shapes) {
      gpu_.memory().releaseCache();
      kernels(shape);
      step("step topk", topkTraining, shape, plan_.k, int64_t(0), false);
      step("step topk unit", topkTraining, shape, plan_.k, int64_t(0), true);
      step("step topk auxk", topkTraining, shape, plan_.k, plan_.deadLatents, false);
      step("step relu", reluTraining, shape, plan_.l0);
      step("step jumprelu", jumpReluTraining, shape, plan_.l0);
      step("step gated", gatedTraining, shape, plan_.l0);
    }
  }

 private:
  void copy() {
    const Tensor from = gpu_.normal(1, plan_.copied, 1);
    Tensor to = gpu_.empty(plan_.copied);
    print({"copy", {1, plan_.copied, 1}, 0, {{0, 8.0 * double(plan_.copied)}}},
          timed(gpu_, plan_.effort, [&] { gpu_.kernels().scale(from, 1, to); }));
  }

  // One token of GPT-2 small's shape that looks at a long cache, in the words of an SAE's shape: a row, its width,
  // keys.
  void attention() {
    constexpr int64_t heads = 12, dHead = 64;
    const Shape shape{1, heads * dHead, plan_.cachedPositions};
    const Tensor queries = gpu_.normal(1, shape.dIn, 1), keys = gpu_.normal(shape.dSae, shape.dIn, 1),
                 values = gpu_.normal(shape.dSae, shape.dIn, 1);
    Tensor out = gpu_.empty(1, shape.dIn);
    Attention a;
    a.queries = queries.block.as<const float>();
    a.keys = keys.block.as<const float>();
    a.values = values.block.as<const float>();
    a.batch = a.queryPositions = 1;
    a.heads = a.keyHeads = heads;
    a.dHead = dHead;
    a.keyPositions = a.keyCapacity = shape.dSae;
    a.scale = 1 / std::sqrt(double(dHead));
    const double cached = double(shape.dSae * shape.dIn);
    print({"attention", shape, 0, {{0, 8 * cached}}},
          timed(gpu_, plan_.effort, [&] { gpu_.kernels().attention(a, out.block.as<float>()); }));
  }

  // The kernels of a TopK step by themselves, on the operands that they have in one.
  void kernels(const Shape& shape) {
    Kernels& kernels = gpu_.kernels();
    Sae sae(gpu_, shape, 0);
    const Tensor x = gpu_.normal(shape.rows, shape.dIn, 1);
    {
      Tensor out = gpu_.empty(shape.rows, shape.dSae);
      print({"product", shape, 0, {Counting(shape, 0, gpu_.rounds()).product()}}, timed(gpu_, plan_.effort, [&] {
              kernels.linear(x, sae["encoder"], {}, Activation::none, {}, false, out);
            }));
    }
    {  // a step, after which weights have the copies that kernels read in training
      const Reconstruction first = reconstruct(sae, encodeTopK(sae, x, plan_.k), x);
      Gradients gradients;
      gradients.decoderPaths.push_back({&first.codes, &first.residual, 2.0 / double(shape.rows), true});
      gradients.encoderPaths.push_back({&first.codes, first.dPreActivations, true});
      sae.step(gradients, x);
    }
    const Reconstruction r = reconstruct(sae, encodeTopK(sae, x, plan_.k), x);
    const Counting count(shape, r.codes.entries, gpu_.rounds());
    const auto time = [&](const char* name, const Work& work, const std::function<void()>& body) {
      print({name, shape, r.codes.entries, {work}}, timed(gpu_, plan_.effort, body));
    };
    Tensor residual = gpu_.empty(shape.rows, shape.dIn);
    const Block error = gpu_.zeroSum(), gradient = gpu_.entryValues(r.codes);
    time("encode", count.encode(), [&] { encodeTopK(sae, x, plan_.k); });
    time("decode", count.decode(),
         [&] { kernels.decode(r.codes, sae["decoder"], sae["decoderBias"], x, residual, error.as<double>()); });
    time("decodeGradient", count.decodeGradient(),
         [&] { kernels.decodeGradient(r.codes, sae["decoder"], r.residual, 1, {}, 0, false, gradient.as<float>()); });
    Tensor counts = gpu_.empty(shape.dSae);
    time("featureOrder", count.featureOrder(), [&] {
      Codes unordered = r.codes;
      unordered.featureOrder = std::make_shared<FeatureOrder>();
      kernels.featureCounts(unordered, counts);
    });

    const auto rows = [&](const std::string& name, const RowGradient& rowGradient) {
      Tensor weights = gpu_.copyOf(sae[name]), m = gpu_.filled(shape.dSae, shape.dIn, 0),
             v = gpu_.filled(shape.dSae, shape.dIn, 0);
      const Block norm = gpu_.zeroSum();
      Block kept;
      const auto takeNorm = [&] { kept = kernels.rowGradientSquaredNorm(rowGradient, weights, norm.as<double>()); };
      takeNorm();
      time(("rowNorm " + name).c_str(), count.rowNorm(bool(kept)), takeNorm);
      const Block one = gpu_.zeroSum();
      AdamStep adam;
      adam.learningRate = 1e-6;
      time(("rowStep " + name).c_str(), count.rowStep(bool(kept)), [&] {
        kernels.stepRows(rowGradient, weights, m, v, adam, {one.as<double>(), 1}, false, kept);
      });
    };
    rows("encoder", encoderGradient(r, x));
    rows("decoder", decoderGradient(r));
  }

  template <class Make, class... Arguments>
  void step(const char* name, const Make& make, const Shape& shape, Arguments... arguments) {
    const std::unique_ptr<Training> training = make(gpu_, shape, arguments...);
    for (int i = 0; i < 12; ++i) training->step();  // until latents that never fire count as dead
    gpu_.kernels().settle();
    gpu_.memory().resetPeak();
    const Timing timing = timed(gpu_, plan_.effort, [&] { training->step(); });
    print({name, shape, training->entries(), training->phases()}, timing, gpu_.memory().statistics().peak);
  }

  void print(const Case& what, const Timing& timing, uint64_t peakBytes = 0) const {
    std::printf(
        "{\"case\":\"%s\",\"precision\":\"%s\",\"rows\":%lld,\"dIn\":%lld,\"dSae\":%lld,\"entries\":%lld,"
        "\"milliseconds\":%.6g,\"fastest\":%.6g,\"slowest\":%.6g,\"batches\":%d,\"runs\":%d",
        what.name.c_str(), precision_, (long long)what.shape.rows, (long long)what.shape.dIn,
        (long long)what.shape.dSae, (long long)what.entries, timing.milliseconds, timing.fastest, timing.slowest,
        timing.batches, timing.runs);
    if (peakBytes) std::printf(",\"peakBytes\":%llu", (unsigned long long)peakBytes);
    std::printf(",\"phases\":[");
    for (size_t i = 0; i < what.phases.size(); ++i)
      std::printf("%s[%.6g,%.6g]", i ? "," : "", what.phases[i].operations, what.phases[i].bytes);
    std::printf("]}\n");
    std::fflush(stdout);
  }

  const char* precision_;
  Gpu& gpu_;
  const Plan& plan_;
};

}  // namespace

int main(int argumentCount, char** arguments) {
  const Plan plan = planOf(argumentCount, arguments);
  try {
    for (const auto& [name, precision] : {std::pair{"bfloat16", cuda::Precision::bfloat16},
                                          {"tf32", cuda::Precision::tf32},
                                          {"float32", cuda::Precision::float32}}) {
      Gpu gpu(precision);
      std::fprintf(stderr, "%s\n", gpu.kernels().description().c_str());
      Bench(name, gpu, plan).run();
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_gpu: %s\n", error.what());
    return 1;
  }
  return 0;
}
