// The kernels of the library: each queues its work on the context's stream. What they compute says engine/kernels.h.
#pragma once

#include "cuda/library/context.h"

namespace monosem::cuda {

// Declares the functions that the table's entries call, from the table itself: `Kernel<&Api::add>` is the type of add.
template <class T>
struct KernelOf;
template <class... Arguments>
struct KernelOf<int32_t (*Api::*)(Context*, uint64_t, const Memory*, Arguments...)> {
  using Type = void(Context& gpu, Arguments...);
};
template <auto member>
using Kernel = typename KernelOf<decltype(member)>::Type;

Kernel<&Api::encode> encode;
Kernel<&Api::decode> decode;
Kernel<&Api::decodeGradient> decodeGradient;
Kernel<&Api::orderByFeature> orderByFeature;
Kernel<&Api::featureSums> featureSums;
Kernel<&Api::featureCounts> featureCounts;
Kernel<&Api::densify> densify;
Kernel<&Api::selectTop> selectTop;
Kernel<&Api::updateRunningMinimum> updateRunningMinimum;
Kernel<&Api::entryProduct> entryProduct;
Kernel<&Api::power> power;
Kernel<&Api::featureRange> featureRange;
Kernel<&Api::windowSums> windowSums;
Kernel<&Api::rowGradientSquaredNorm> rowGradientSquaredNorm;
Kernel<&Api::rowGradient> rowGradient;
Kernel<&Api::stepRows> stepRows;
Kernel<&Api::stepVector> stepVector;
Kernel<&Api::updateTokensSinceFired> updateTokensSinceFired;
Kernel<&Api::featuresNotFiredFor> featuresNotFiredFor;

Kernel<&Api::fill> fill;
Kernel<&Api::add> add;
Kernel<&Api::scale> scale;
Kernel<&Api::addRow> addRow;
Kernel<&Api::scaleRows> scaleRows;
Kernel<&Api::multiply> multiply;
Kernel<&Api::divide> divide;
Kernel<&Api::scaleColumns> scaleColumns;
Kernel<&Api::affineRows> affineRows;
Kernel<&Api::standardiseRows> standardiseRows;
Kernel<&Api::rowNorms> rowNorms;
Kernel<&Api::normaliseRows> normaliseRows;
Kernel<&Api::columnSums> columnSums;
Kernel<&Api::weightedRowSum> weightedRowSum;
Kernel<&Api::gatherRows> gatherRows;
Kernel<&Api::scatterRows> scatterRows;
Kernel<&Api::copyColumns> copyColumns;
Kernel<&Api::copyRows> copyRows;
Kernel<&Api::transpose> transpose;
Kernel<&Api::dot> dot;
Kernel<&Api::sum> sum;
Kernel<&Api::accumulateColumnSums> accumulateColumnSums;
Kernel<&Api::sumOfRowCosines> sumOfRowCosines;
Kernel<&Api::convert> convert;
Kernel<&Api::roundToBfloat16> roundToBfloat16;
Kernel<&Api::randomUniform> randomUniform;
Kernel<&Api::randomNormal> randomNormal;
Kernel<&Api::randomPermutation> randomPermutation;
Kernel<&Api::drawFeatures> drawFeatures;

Kernel<&Api::linear> linear;
Kernel<&Api::activation> activation;
Kernel<&Api::layerNorm> layerNorm;
Kernel<&Api::attention> attention;
Kernel<&Api::attentionScores> attentionScores;
Kernel<&Api::softmaxRows> softmaxRows;
Kernel<&Api::attentionMix> attentionMix;
Kernel<&Api::appendPositions> appendPositions;
Kernel<&Api::logSoftmax> logSoftmax;
Kernel<&Api::crossEntropy> crossEntropy;
Kernel<&Api::klDivergence> klDivergence;
Kernel<&Api::sample> sample;
Kernel<&Api::rmsNorm> rmsNorm;
Kernel<&Api::rotate> rotate;
Kernel<&Api::gatedActivation> gatedActivation;
Kernel<&Api::linearBrain> linearBrain;
Kernel<&Api::gatherBrainRows> gatherBrainRows;

}  // namespace monosem::cuda
