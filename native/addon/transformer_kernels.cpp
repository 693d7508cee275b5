// Bindings of the kernels of transformers. Arguments in the order in which they are read.
#include "addon/call.h"
#include "addon/exports.h"

namespace monosem {
namespace {

void linear(Call& call) {
  const auto x = call.read("x");
  const auto weights = call.readWeights("weights");
  const auto bias = call.readOptional("bias");
  const Activation activation = call.activation("activation");
  const auto residual = call.readOptional("residual");
  const bool exact = call.flag("exact");
  const auto out = call.write("out");
  call.require(x.columns() == weights.columns(), "x and weights differ in their inner size");
  call.require(!bias || bias.size() == weights.rows(), "bias must have one element per row of weights");
  call.require(out.rows() == x.rows() && out.columns() == weights.rows(), "out must be [tokens, rows of weights]");
  call.require(!residual || residual.size() == out.size(), "residual must be as large as the output");
  call.enqueue([=](Kernels& kernels) {
    const Matrix<float> result = out.matrix();
    const Matrix<const float> added =
        residual ? Matrix<const float>{residual.data(), result.rows, result.columns} : Matrix<const float>{};
    if (weights.brain())
      kernels.linearBrain(x.matrix(), weights.brainMatrix(), bias.vector(), activation, added, result);
    else
      kernels.linear(x.matrix(), weights.matrix(), bias.vector(), activation, added, exact, result);
  });
}

void activation(Call& call) {
  const auto x = call.read("x");
  const Activation activation = call.activation("activation");
  const auto out = call.write("out");
  call.require(out.size() == x.size(), "x and out must have the same shape");
  call.enqueue([=](Kernels& kernels) { kernels.activation(x.vector(), activation, out.vector()); });
}

void layerNorm(Call& call) {
  const auto x = call.read("x");
  const auto weight = call.readOptional("weight");
  const auto bias = call.readOptional("bias");
  const double epsilon = call.number("epsilon");
  const auto out = call.write("out");
  call.require(!weight || weight.size() == x.columns(), "weight must be as wide as x");
  call.require(!bias || bias.size() == x.columns(), "bias must be as wide as x");
  call.require(out.rows() == x.rows() && out.columns() == x.columns(), "x and out must have the same shape");
  call.enqueue([=](Kernels& kernels) {
    kernels.layerNorm(x.matrix(), weight.vector(), bias.vector(), epsilon, out.matrix(), {}, {});
  });
}

void layerNormParts(Call& call) {
  const auto x = call.read("x");
  const double epsilon = call.number("epsilon");
  const auto normalized = call.write("normalized");
  const auto scale = call.write("scale");
  call.require(normalized.rows() == x.rows() && normalized.columns() == x.columns() && scale.size() == x.rows(),
               "normalized must be as large as x, scale have one element per row");
  call.enqueue([=](Kernels& kernels) {
    kernels.layerNorm(x.matrix(), {}, {}, epsilon, {}, normalized.matrix(), scale.vector());
  });
}

void rmsNorm(Call& call) {
  const auto x = call.read("x");
  const auto weight = call.readOptional("weight");
  const double epsilon = call.number("epsilon");
  const auto out = call.write("out");
  call.require(!weight || weight.size() == x.columns(), "weight must be as wide as x");
  call.require(out.rows() == x.rows() && out.columns() == x.columns(), "x and out must have the same shape");
  call.enqueue([=](Kernels& kernels) { kernels.rmsNorm(x.matrix(), weight.vector(), epsilon, out.matrix(), {}, {}); });
}

void rmsNormParts(Call& call) {
  const auto x = call.read("x");
  const double epsilon = call.number("epsilon");
  const auto normalized = call.write("normalized");
  const auto scale = call.write("scale");
  call.require(normalized.rows() == x.rows() && normalized.columns() == x.columns() && scale.size() == x.rows(),
               "normalized must be as large as x, scale have one element per row");
  call.enqueue(
      [=](Kernels& kernels) { kernels.rmsNorm(x.matrix(), {}, epsilon, {}, normalized.matrix(), scale.vector()); });
}

// x is [..., heads, dHead]; what comes before the heads are the rows.
void rotate(Call& call) {
  const auto x = call.read("x");
  const auto cosines = call.read("cosines");
  const auto sines = call.read("sines");
  const bool interleaved = call.flag("interleaved");
  const auto out = call.write("out");
  call.require(x.shape().rank() >= 2, "x must be [..., heads, dHead]");
  const int64_t heads = x.shape()[x.shape().rank() - 2], dHead = x.columns();
  const int64_t rows = cosines.rows();
  call.require(rows * heads == x.rows() && sines.rows() == rows && sines.columns() == cosines.columns(),
               "cosines and sines must have a row per row of x");
  call.require(2 * cosines.columns() <= dHead, "a head has fewer elements than two per pair");
  call.require(out.size() == x.size(), "x and out must have the same shape");
  call.enqueue([=](Kernels& kernels) {
    kernels.rotate({x.data(), rows, heads * dHead}, heads, cosines.matrix(), sines.matrix(), interleaved,
                   {out.data(), rows, heads * dHead});
  });
}

void gatedActivation(Call& call) {
  const auto gate = call.read("gate");
  const auto x = call.read("x");
  const Activation activation = call.activation("activation");
  const auto out = call.write("out");
  call.require(gate.size() == x.size() && out.size() == x.size(), "gate, x and out must have the same shape");
  call.enqueue([=](Kernels& kernels) { kernels.gatedActivation(gate.vector(), x.vector(), activation, out.vector()); });
}

// queries, keys, values, keyPositions, scale, softCap, window, firstKeys.
class AttentionOperands {
 public:
  explicit AttentionOperands(Call& call)
      : queries_(call.read("queries")), keys_(call.read("keys")), values_(call.read("values")) {
    keyPositions_ = call.integer("keyPositions");
    scale_ = call.number("scale");
    softCap_ = call.number("softCap");
    window_ = call.integer("window");
    firstKeys_ = call.readOptional<int32_t>("firstKeys");
    const Shape &q = queries_.shape(), &k = keys_.shape(), &v = values_.shape();
    call.require(q.rank() == 4 && k.rank() == 4 && v.rank() == 4,
                 "queries, keys and values must be [batch, positions, heads, dHead]");
    for (int d : {0, 3}) {
      call.require(q[d] == k[d] && q[d] == v[d], "queries, keys and values differ in batch or dHead");
    }
    call.require(k[1] == v[1] && k[2] == v[2], "keys and values differ in capacity or heads");
    call.require(k[2] > 0 ? q[2] % k[2] == 0 : q[2] == 0, "heads of queries must be a multiple of those of keys");
    call.require(keyPositions_ <= k[1] && q[1] <= keyPositions_, "queries <= keyPositions <= capacity of the keys");
    call.require(!firstKeys_ || firstKeys_.size() == q[0], "firstKeys must have one element per sequence");
  }

  int64_t outputSize() const { return queries_.size(); }
  int64_t scoresSize() const {
    const Shape& q = queries_.shape();
    return q[0] * q[2] * q[1] * keyPositions_;
  }

  Attention resolve() const {
    const Shape& q = queries_.shape();
    Attention attention;
    attention.queries = queries_.data();
    attention.keys = keys_.data();
    attention.values = values_.data();
    attention.batch = q[0];
    attention.queryPositions = q[1];
    attention.heads = q[2];
    attention.keyHeads = keys_.shape()[2];
    attention.dHead = q[3];
    attention.keyPositions = keyPositions_;
    attention.keyCapacity = keys_.shape()[1];
    attention.scale = scale_;
    attention.softCap = softCap_;
    attention.window = window_;
    attention.firstKeys = firstKeys_.data();
    return attention;
  }

 private:
  TensorOperand<const float> queries_, keys_, values_;
  TensorOperand<const int32_t> firstKeys_;
  int64_t keyPositions_ = 0, window_ = 0;
  double scale_ = 1, softCap_ = 0;
};

void attention(Call& call) {
  const AttentionOperands operands(call);
  const auto out = call.write("out");
  call.require(out.size() == operands.outputSize(), "out must be as large as the queries");
  call.enqueue([=](Kernels& kernels) { kernels.attention(operands.resolve(), out.data()); });
}

void attentionScores(Call& call) {
  const AttentionOperands operands(call);
  const auto out = call.write("out");
  call.require(out.size() == operands.scoresSize(), "out must be [batch, heads, queryPositions, keyPositions]");
  call.enqueue([=](Kernels& kernels) { kernels.attentionScores(operands.resolve(), out.data()); });
}

void softmaxRows(Call& call) {
  const auto scores = call.read("scores");
  const auto out = call.write("out");
  call.require(out.size() == scores.size(), "scores and out must have the same shape");
  call.enqueue([=](Kernels& kernels) {
    kernels.softmaxRows(scores.matrix(), {out.data(), scores.rows(), scores.columns()});
  });
}

void attentionMix(Call& call) {
  const AttentionOperands operands(call);
  const auto pattern = call.read("pattern");
  const auto out = call.write("out");
  call.require(pattern.size() == operands.scoresSize(), "pattern must be [batch, heads, queryPositions, keyPositions]");
  call.require(out.size() == operands.outputSize(), "out must be as large as the queries");
  call.enqueue([=](Kernels& kernels) { kernels.attentionMix(operands.resolve(), pattern.data(), out.data()); });
}

void appendPositions(Call& call) {
  const auto rows = call.read("rows");
  const auto cache = call.writePart("cache");
  const int64_t first = call.integer("first");
  call.require(rows.shape().rank() == 3 && cache.shape().rank() == 3,
               "rows and cache must be [batch, positions, width]");
  const int64_t batch = rows.shape()[0], positions = rows.shape()[1], width = rows.shape()[2];
  const int64_t capacity = cache.shape()[1];
  call.require(cache.shape()[0] == batch && cache.shape()[2] == width, "rows and cache differ in batch or width");
  call.require(first <= capacity - positions, "the positions do not fit into the cache");
  call.enqueue([=](Kernels& kernels) {
    kernels.appendPositions(rows.data(), batch, positions, width, capacity, first, cache.data());
  });
}

void logSoftmax(Call& call) {
  const auto logits = call.read("logits");
  const auto out = call.write("out");
  call.require(out.size() == logits.size(), "logits and out must have the same shape");
  call.enqueue([=](Kernels& kernels) {
    kernels.logSoftmax(logits.matrix(), {out.data(), logits.rows(), logits.columns()});
  });
}

// Targets beyond the vocabulary are data: the kernel checks them.
void crossEntropy(Call& call) {
  const auto logits = call.read("logits");
  const auto targets = call.read<int32_t>("targets");
  const auto out = call.write("out");
  call.require(targets.size() == logits.rows() && out.size() == logits.rows(), "one target and result per row");
  call.enqueue([=](Kernels& kernels) { kernels.crossEntropy(logits.matrix(), targets.vector(), out.vector()); });
}

void klDivergence(Call& call) {
  const auto p = call.read("p");
  const auto q = call.read("q");
  const auto out = call.write("out");
  call.require(p.rows() == q.rows() && p.columns() == q.columns(), "p and q must have the same shape");
  call.require(out.size() == p.rows(), "out must have one element per row");
  call.enqueue([=](Kernels& kernels) { kernels.klDivergence(p.matrix(), q.matrix(), out.vector()); });
}

void sample(Call& call) {
  const auto logits = call.read("logits");
  Sampling sampling;
  sampling.temperature = call.number("temperature");
  sampling.topK = call.integer("topK");
  sampling.topP = call.number("topP");
  sampling.seed = uint64_t(call.integer("seed"));
  sampling.offset = uint64_t(call.integer("offset"));
  const auto out = call.write<int32_t>("out");
  call.require(out.size() == logits.rows(), "out must have one element per row");
  call.enqueue([=](Kernels& kernels) { kernels.sample(logits.matrix(), sampling, out.vector()); });
}

constexpr KernelBinding kBindings[] = {
    {"linear", linear},
    {"activation", activation},
    {"layerNorm", layerNorm},
    {"layerNormParts", layerNormParts},
    {"rmsNorm", rmsNorm},
    {"rmsNormParts", rmsNormParts},
    {"rotate", rotate},
    {"gatedActivation", gatedActivation},
    {"attention", attention},
    {"attentionScores", attentionScores},
    {"softmaxRows", softmaxRows},
    {"attentionMix", attentionMix},
    {"appendPositions", appendPositions},
    {"logSoftmax", logSoftmax},
    {"crossEntropy", crossEntropy},
    {"klDivergence", klDivergence},
    {"sample", sample},
};

}  // namespace

void exportTransformerKernels(Napi::Env env, Napi::Object exports) {
  exportKernels(env, exports, kBindings);
}

}  // namespace monosem
