// The boundary between the addon and libmonosem_cuda: a table of C functions over plain data.
//
// The library is compiled by nvcc, carries the CUDA runtime and may be missing; the addon opens it at run time and
// takes the table. Nothing is thrown across: a function returns 0 or an ErrorCode + 1, whose message Api::message
// tells. Views (pointers into device memory and sizes) are passed by value; the memory itself belongs to the caller,
// who also gives kernels theirs (see Memory). Both sides include this file, and a table of another version is refused.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/kernels.h"
#include "engine/views.h"

namespace monosem::cuda {

// Raised with every change of this file or of what it includes.
constexpr uint32_t abiVersion = 8;

class Context;  // a device opened by the library: its stream, its cuBLAS handle

// How matrix products are computed; sums are float32 in all of them.
enum class Precision : int32_t {
  float32,   // of float32 factors
  tf32,      // of factors rounded to 10 bits
  bfloat16,  // of factors rounded to 8 bits
};

// Where a kernel's scratch memory and results come from: blocks that live until the call's caller lets them go. Work on
// the device's stream may go on using a block that was given back: who gets it next queues its work behind.
struct Memory {
  void* owner;
  void* (*allocate)(void* owner, size_t bytes);      // null: there is no more, and the owner knows why
  void (*release)(void* owner, const void* memory);  // before the call returns
};

struct FeatureSetView {
  const uint32_t* indices = nullptr;  // null: all features
  const uint32_t* position = nullptr;
  int64_t count = 0;  // of all features: dSae
};

struct CodesView {
  int64_t rows = 0, dSae = 0, entries = 0;
  const uint64_t* offsets = nullptr;  // [rows + 1]
  const uint32_t* features = nullptr;
  const float* preActivations = nullptr;
  const float* values = nullptr;  // never null: the pre-activations where they are the same
  FeatureSetView eligible;
};

struct FeatureOrderView {
  const uint64_t* offsets = nullptr;  // [dSae + 1]
  const uint32_t* entries = nullptr;
  const uint32_t* rows = nullptr;
};

// Codes that a kernel has made, in blocks of its Memory.
struct MadeCodes {
  int64_t entries = 0;
  uint64_t* rowOffsets = nullptr;
  uint32_t* features = nullptr;
  float* preActivations = nullptr;
  float* values = nullptr;  // null: equal to the pre-activations
};

struct MadeFeatureSet {
  int64_t count = 0;
  uint32_t* indices = nullptr;
  uint32_t* position = nullptr;
};

struct SelectionView {
  Select select = Select::positive;
  int64_t k = 0;
  bool byMagnitude = false;
  Vector<const float> thresholds;
  double margin = 0;
  FeatureSetView subset;
};

struct EntryTermView {
  CodesView codes;
  FeatureOrderView order;
  const float* coefficients = nullptr;  // never null
  Matrix<const float> dense;
  const uint16_t* rounded = nullptr;  // as beside other matrices, see Api
  double scale = 1;
};

struct RowGradientView {
  const EntryTermView* terms = nullptr;
  int64_t termCount = 0;
  Vector<const float> rowCoefficients;
  double rowScale = 0;
  const int64_t* blockWidths = nullptr;  // never none: one block of all columns
  int64_t blockCount = 0;
  bool projectOutRow = false;
};

struct OpenOptions {
  int32_t ordinal = 0;
  Precision precision = Precision::float32;
  const char* cublasPath = nullptr;  // a folder or file to look for cuBLAS in first; null: none
};

// What went wrong where there is no context to ask.
struct OpenFailure {
  int32_t status = 0;
  char message[1024] = {};
};

template <class Signature>
struct EntryOf;
template <class... Arguments>
struct EntryOf<void(Arguments...)> {
  using Type = int32_t (*)(Context*, uint64_t, const Memory*, Arguments...);
};
// A kernel: a number for this call (not 0), its memory, and the arguments of the method of monosem::Kernels that has
// its name, as views.
template <class Signature>
using Entry = typename EntryOf<Signature>::Type;

using Floats = Vector<const float>;
using Rows = Matrix<const float>;

struct Api {
  uint32_t version;

  Context* (*open)(const OpenOptions& options, OpenFailure* failure);  // null: see failure
  void (*close)(Context* context);
  const char* (*description)(const Context* context);
  const char* (*message)(const Context* context);  // of the last call that did not return 0; on its thread

  // ---- Memory. Transfers keep the order of the stream.
  int32_t (*allocate)(Context* context, size_t bytes, void** memory);  // null memory: the device has no more
  void (*release)(Context* context, void* memory);
  int32_t (*upload)(Context* context, const void* host, void* memory, size_t bytes);    // `host` may change afterwards
  int32_t (*download)(Context* context, const void* memory, void* host, size_t bytes);  // waits
  int32_t (*clear)(Context* context, void* memory, size_t bytes);
  // Waits for all work so far; the status of the first kernel that found out late that it had to fail, and the number
  // of its call (0: of none).
  int32_t (*settle)(Context* context, uint64_t* call);

  // ---- SAE. `rounded`: beside a matrix a copy of it in bfloat16, of the same shape, or null; kernels read it instead
  // where the precision is bfloat16.
  Entry<void(Rows x, const uint16_t* roundedX, Rows encoder, const uint16_t* roundedEncoder, Floats bias,
             const SelectionView& selection, MadeCodes* made)>
      encode;
  Entry<void(CodesView codes, Rows decoder, const uint16_t* rounded, Floats bias, Rows target, Matrix<float> out,
             double* squaredError)>
      decode;
  Entry<void(CodesView codes, Rows decoder, const uint16_t* rounded, Rows dOutput, double scale, Floats perFeature,
             double featureScale, bool every, float* out)>
      decodeGradient;
  // Whether these codes are so dense that gradients take them as a matrix, for which they need no order.
  bool (*areDense)(const Context* context, const CodesView& codes);
  // Fills offsets [dSae + 1], entries and rows [entries].
  Entry<void(CodesView codes, uint64_t* offsets, uint32_t* entries, uint32_t* rows)> orderByFeature;
  // Codes with a subset may be without an order: they are then taken as a matrix.
  Entry<void(CodesView codes, FeatureOrderView order, const float* coefficients, double scale, Vector<float> out)>
      featureSums;
  Entry<void(CodesView codes, FeatureOrderView order, Vector<float> out)> featureCounts;
  Entry<void(CodesView codes, Matrix<float> out)> densify;
  Entry<void(CodesView codes, int64_t k, MadeCodes* made)> selectTop;
  Entry<void(CodesView codes, double decay, Vector<double> state, Vector<float> out)> updateRunningMinimum;
  Entry<void(CodesView codes, EntryProduct product, float* out)> entryProduct;
  Entry<void(Floats x, double exponent, Vector<float> out)> power;
  Entry<void(CodesView codes, int64_t from, int64_t to, MadeCodes* made)> featureRange;
  Entry<void(CodesView codes, FeatureOrderView order, Floats thresholds, double bandwidth, const float* coefficients,
             double scale, Vector<float> out)>
      windowSums;
  // `kept`: null, or where the gradient's rows are written as well.
  Entry<void(const RowGradientView& gradient, Rows weights, double* squaredNorm, float* kept)> rowGradientSquaredNorm;
  Entry<void(const RowGradientView& gradient, Rows weights, Matrix<float> out)> rowGradient;
  // `rounded`: null, or where a copy of the new weights in bfloat16 is written; a step that fails late writes one of
  // the weights as they stay.
  Entry<void(const RowGradientView& gradient, Matrix<float> weights, uint16_t* rounded, Matrix<float> m,
             Matrix<float> v, AdamStep adam, Clip clip, bool unitNorm, const float* kept)>
      stepRows;
  Entry<void(Floats gradient, Vector<float> weights, Vector<float> m, Vector<float> v, AdamStep adam, Clip clip)>
      stepVector;
  Entry<void(CodesView codes, FeatureOrderView order, int64_t tokens, Vector<double> tokensSinceFired)>
      updateTokensSinceFired;
  Entry<void(Vector<const double> tokensSinceFired, double threshold, MadeFeatureSet* made)> featuresNotFiredFor;

  // ---- Dense vectors and matrices
  Entry<void(Vector<float> out, float value)> fill;
  Entry<void(Floats a, Floats b, double scale, Vector<float> out)> add;
  Entry<void(Floats a, double factor, Vector<float> out)> scale;
  Entry<void(Rows a, Floats row, double scale, Matrix<float> out)> addRow;
  Entry<void(Rows a, Floats factors, Matrix<float> out)> scaleRows;
  Entry<void(Floats a, Floats b, Vector<float> out)> multiply;
  Entry<void(Floats a, Floats b, Vector<float> out)> divide;
  Entry<void(Rows a, Floats factors, Matrix<float> out)> scaleColumns;
  Entry<void(Rows a, Floats factors, Floats shifts, Matrix<float> out)> affineRows;
  Entry<void(Rows x, double epsilon, Matrix<float> normalized, Vector<float> mean, Vector<float> standardDeviation)>
      standardiseRows;
  Entry<void(Rows a, const int64_t* blockWidths, int64_t blockCount, Vector<float> out)> rowNorms;
  Entry<void(Rows a, double norm, Matrix<float> out)> normaliseRows;
  Entry<void(Rows a, double scale, Vector<float> out)> columnSums;
  Entry<void(Floats weights, Rows a, const uint16_t* rounded, double scale, Vector<float> out)> weightedRowSum;
  Entry<void(Rows a, Vector<const int32_t> rows, Matrix<float> out)> gatherRows;
  Entry<void(Rows a, Vector<const int32_t> rows, Matrix<float> out)> scatterRows;
  Entry<void(Rows a, int64_t aColumn, Matrix<float> out, int64_t outColumn, int64_t columns)> copyColumns;
  Entry<void(Rows a, Matrix<float> out, int64_t firstRow)> copyRows;
  Entry<void(Rows a, Matrix<float> out)> transpose;
  Entry<void(Floats a, Floats b, double* sum)> dot;
  Entry<void(Floats a, double* sum)> sum;
  Entry<void(Rows a, Vector<double> sums)> accumulateColumnSums;
  Entry<void(Rows a, Rows b, double* sum)> sumOfRowCosines;
  Entry<void(const void* source, int32_t sourceBits, bool brain, Vector<float> out)> convert;
  // out: [a.rows, a.columns] of bfloat16, to nearest, ties to even.
  Entry<void(Rows a, uint16_t* out)> roundToBfloat16;
  Entry<void(uint64_t seed, uint64_t offset, float low, float high, Vector<float> out)> randomUniform;
  Entry<void(uint64_t seed, uint64_t offset, float standardDeviation, Vector<float> out)> randomNormal;
  Entry<void(uint64_t seed, uint64_t offset, Vector<int32_t> out)> randomPermutation;
  Entry<void(FeatureDistribution features, int64_t rows, uint64_t seed, uint64_t offset, MadeCodes* made)> drawFeatures;

  // ---- Transformers
  Entry<void(Rows x, Rows weights, Floats bias, Activation activation, Rows residual, bool exact, Matrix<float> out)>
      linear;
  Entry<void(Floats x, Activation activation, Vector<float> out)> activation;
  Entry<void(Rows x, Floats weight, Floats bias, double epsilon, Matrix<float> out, Matrix<float> normalized,
             Vector<float> scale)>
      layerNorm;
  Entry<void(Attention operands, float* out)> attention;
  Entry<void(Attention operands, float* scores)> attentionScores;
  Entry<void(Rows scores, Matrix<float> out)> softmaxRows;
  Entry<void(Attention operands, const float* pattern, float* out)> attentionMix;
  Entry<void(const float* rows, int64_t batch, int64_t positions, int64_t width, int64_t capacity, int64_t first,
             float* cache)>
      appendPositions;
  Entry<void(Rows logits, Matrix<float> out)> logSoftmax;
  Entry<void(Rows logits, Vector<const int32_t> targets, Vector<float> out)> crossEntropy;
  Entry<void(Rows p, Rows q, Vector<float> out)> klDivergence;
  Entry<void(Rows logits, Sampling sampling, Vector<int32_t> out)> sample;
  Entry<void(Rows x, Floats weight, double epsilon, Matrix<float> out, Matrix<float> normalized, Vector<float> scale)>
      rmsNorm;
  Entry<void(Rows x, int64_t heads, Rows cosines, Rows sines, bool interleaved, Matrix<float> out)> rotate;
  Entry<void(Floats gate, Floats x, Activation activation, Vector<float> out)> gatedActivation;
  Entry<void(Rows x, Matrix<const uint16_t> weights, Floats bias, Activation activation, Rows residual,
             Matrix<float> out)>
      linearBrain;
  Entry<void(Matrix<const uint16_t> a, Vector<const int32_t> rows, Matrix<float> out)> gatherBrainRows;
};

}  // namespace monosem::cuda

// The table, or null where the library is of another version.
#if defined(_WIN32)
#define MONOSEM_CUDA_EXPORT __declspec(dllexport)
#else
#define MONOSEM_CUDA_EXPORT __attribute__((visibility("default")))
#endif
extern "C" MONOSEM_CUDA_EXPORT const monosem::cuda::Api* monosem_cuda_api(uint32_t version);
