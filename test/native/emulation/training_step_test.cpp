// A training step of a TopK SAE never waits for the device and reads nothing that a CUDA graph could not hold: from the
// encoder to Adam the host only queues kernels, so that it can run ahead, and a step could be captured.
#include "cuda_host.h"
#include "encode_problem.h"

namespace monosem::test {
namespace {

struct Parameter {
  Floats weights, m, v;
  int64_t rows, columns;

  Parameter(Floats initial, int64_t rows, int64_t columns)
      : weights(std::move(initial)), m(weights.size(), 0), v(weights.size(), 0), rows(rows), columns(columns) {}
  Matrix<float> matrix(Floats& data) { return {data.data(), rows, columns}; }
  Matrix<const float> values() const { return {weights.data(), rows, columns}; }
  Vector<const float> vector() const { return {weights.data(), columns}; }
};

// The kernels of lib/sae/topk.ts and lib/training/optimizer.ts, in their order, at two densities of the codes.
KERNEL_TEST("a TopK step waits for nothing", unattendedStepTests) {
  for (const auto& [rows, dSae, dIn, k] : {std::tuple{24, 900, 36, 7}, {130, 64, 20, 40}}) {
    Random random(93);
    const Problem problem(random, rows, dSae, dIn);
    Parameter encoder(problem.encoder, dSae, dIn), decoder(random.normals(dSae * dIn), dSae, dIn),
        encoderBias(problem.bias, 1, dSae), decoderBias(random.normals(dIn), 1, dIn);
    std::vector<double> tokensSinceFired(size_t(dSae), 0);
    const Matrix<const float> x{problem.x.data(), rows, dIn};
    Floats residual(size_t(rows * dIn)), dPreActivations(size_t(rows * k)), dBias(static_cast<size_t>(dSae)),
        dDecoderBias(static_cast<size_t>(dIn));
    double squaredError = 0, squaredNorm = 0;
    Kernels& kernels = test.kernels();
    kernels.settle();
    const cuda_host::HostWork before = cuda_host::hostWork;

    Selection selection;
    selection.select = Select::topk;
    selection.k = k;
    const Codes codes = kernels.encode(x, encoder.values(), encoderBias.vector(), selection);
    kernels.updateTokensSinceFired(codes, rows, {tokensSinceFired.data(), dSae});
    const Matrix<float> out{residual.data(), rows, dIn};
    kernels.decode(codes, decoder.values(), decoderBias.vector(), x, out, &squaredError);
    const Matrix<const float> dOutput{residual.data(), rows, dIn};
    const double scale = 2.0 / rows;
    kernels.decodeGradient(codes, decoder.values(), dOutput, scale, {}, 0, false, dPreActivations.data());
    kernels.featureSums(codes, dPreActivations.data(), 1, {dBias.data(), dSae});
    kernels.columnSums(dOutput, scale, {dDecoderBias.data(), dIn});
    RowGradient ofEncoder, ofDecoder;
    ofEncoder.terms.push_back({&codes, dPreActivations.data(), x, 1});
    ofDecoder.terms.push_back({&codes, nullptr, dOutput, scale});
    ofDecoder.projectOutRow = true;
    const Block keptOfEncoder = kernels.rowGradientSquaredNorm(ofEncoder, encoder.values(), &squaredNorm);
    const Block keptOfDecoder = kernels.rowGradientSquaredNorm(ofDecoder, decoder.values(), &squaredNorm);
    for (const Floats* gradient : {&dBias, &dDecoderBias}) {
      const Vector<const float> all{gradient->data(), int64_t(gradient->size())};
      kernels.dot(all, all, &squaredNorm);
    }
    AdamStep adam;
    adam.learningRate = 1e-3;
    const Clip clip{&squaredNorm, 1};
    kernels.stepRows(ofEncoder, encoder.matrix(encoder.weights), encoder.matrix(encoder.m), encoder.matrix(encoder.v),
                     adam, clip, false, keptOfEncoder);
    kernels.stepRows(ofDecoder, decoder.matrix(decoder.weights), decoder.matrix(decoder.m), decoder.matrix(decoder.v),
                     adam, clip, true, keptOfDecoder);
    const auto step = [&](Parameter& parameter, const Floats& gradient) {
      const int64_t size = int64_t(gradient.size());
      kernels.stepVector({gradient.data(), size}, {parameter.weights.data(), size}, {parameter.m.data(), size},
                         {parameter.v.data(), size}, adam, clip);
    };
    step(encoderBias, dBias);
    step(decoderBias, dDecoderBias);

    const std::string name = problem.name("step", k);
    test.check(cuda_host::hostWork.waits == before.waits, name + ": nothing is waited for");
    test.check(cuda_host::hostWork.uploads == before.uploads, name + ": nothing is uploaded");
    kernels.settle();
    test.check(cuda_host::hostWork.waits > before.waits, name + ": a barrier does wait");
    test.check(std::isfinite(squaredNorm) && squaredNorm > 0 && encoder.weights != problem.encoder,
               name + ": a step was made");
  }
}

}  // namespace
}  // namespace monosem::test
