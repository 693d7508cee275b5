// Every kernel's formula as a plain loop in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "data.h"
#include "engine/kernels.h"

namespace monosem::test::reference {

inline Doubles toDoubles(const Floats& values) {
  return Doubles(values.begin(), values.end());
}

inline double dot(const float* a, const float* b, int64_t size) {
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

// The absolute values. What a sum gives for them is the sum of its terms' absolute values, see Test::products.
inline Floats absolute(Floats values) {
  for (float& value : values) value = std::fabs(value);
  return values;
}
inline PlainCodes absolute(PlainCodes codes) {
  codes.values = absolute(codes.values);
  return codes;
}
inline Floats negative(Floats values) {
  for (float& value : values) value = -value;
  return values;
}

// ---- Codes

inline Doubles decode(const PlainCodes& codes, const Floats& decoder, const Floats* bias, const Floats* target,
                      int64_t columns) {
  Doubles out(size_t(codes.rows * columns), 0.0);
  for (int64_t row = 0; row < codes.rows; ++row)
    for (int64_t c = 0; c < columns; ++c) {
      double sum = bias ? double((*bias)[size_t(c)]) : 0.0;
      for (uint64_t e = codes.offsets[size_t(row)]; e < codes.offsets[size_t(row) + 1]; ++e)
        sum += double(codes.values[e]) * double(decoder[size_t(int64_t(codes.features[e]) * columns + c)]);
      if (target) sum -= double((*target)[size_t(row * columns + c)]);
      out[size_t(row * columns + c)] = sum;
    }
  return out;
}

inline Doubles decodeGradient(const PlainCodes& codes, const Floats& decoder, const Floats& dOutput, double scale,
                              const Floats* perFeature, double featureScale, bool every, int64_t columns) {
  Doubles out;
  for (int64_t e = 0; e < codes.entries(); ++e) {
    const int64_t feature = int64_t(codes.features[size_t(e)]);
    double gradient =
        scale * dot(&dOutput[size_t(codes.rowOf(e) * columns)], &decoder[size_t(feature * columns)], columns);
    if (perFeature) gradient += featureScale * double((*perFeature)[size_t(feature)]);
    out.push_back(every || codes.values[size_t(e)] != 0 ? gradient : 0);
  }
  return out;
}

// Of decode's sums the terms' absolute values, added up.
inline Doubles decodeTerms(const PlainCodes& codes, const Floats& decoder, const Floats* bias, const Floats* target,
                           int64_t columns) {
  const Floats absoluteBias = bias ? absolute(*bias) : Floats(),
               subtracted = target ? negative(absolute(*target)) : Floats();
  return decode(absolute(codes), absolute(decoder), bias ? &absoluteBias : nullptr, target ? &subtracted : nullptr,
                columns);
}

// Of decodeGradient's sums the terms' absolute values, added up; for scale and featureScale >= 0.
inline Doubles decodeGradientTerms(const PlainCodes& codes, const Floats& decoder, const Floats& dOutput, double scale,
                                   const Floats* perFeature, double featureScale, bool every, int64_t columns) {
  const Floats absolutePerFeature = perFeature ? absolute(*perFeature) : Floats();
  return decodeGradient(codes, absolute(decoder), absolute(dOutput), scale, perFeature ? &absolutePerFeature : nullptr,
                        featureScale, every, columns);
}

inline Doubles featureSums(const PlainCodes& codes, const Floats& coefficients, double scale) {
  Doubles out(size_t(codes.dSae), 0.0);
  for (size_t e = 0; e < codes.features.size(); ++e) out[codes.features[e]] += scale * double(coefficients[e]);
  return out;
}

inline Doubles featureCounts(const PlainCodes& codes) {
  Doubles out(size_t(codes.dSae), 0.0);
  for (size_t e = 0; e < codes.features.size(); ++e) out[codes.features[e]] += codes.values[e] != 0 ? 1 : 0;
  return out;
}

// Null: absent.
struct Product {
  const Floats* a;
  const Floats* b;
  const Floats* perFeature;
  double scale;
  const Floats* plus;
};

inline Doubles entryProduct(const PlainCodes& codes, const Product& product) {
  Doubles out;
  for (size_t e = 0; e < codes.features.size(); ++e) {
    double value = product.scale;
    if (product.perFeature) value *= double((*product.perFeature)[codes.features[e]]);
    if (product.a) value *= double((*product.a)[e]);
    if (product.b) value *= double((*product.b)[e]);
    out.push_back(product.plus ? value + double((*product.plus)[e]) : value);
  }
  return out;
}

inline double power(double x, double exponent) {
  return x <= 0 ? 0 : std::pow(x, exponent);
}

inline Doubles windowSums(const PlainCodes& codes, const Floats& thresholds, double bandwidth,
                          const Floats* coefficients, double scale) {
  Doubles out(size_t(codes.dSae), 0.0);
  for (size_t e = 0; e < codes.features.size(); ++e) {
    const double threshold = double(thresholds[codes.features[e]]);
    if (std::fabs(double(codes.preActivations[e]) - threshold) < bandwidth / 2)
      out[codes.features[e]] += scale * (coefficients ? double((*coefficients)[e]) : 1);
  }
  return out;
}

inline PlainCodes featureRange(const PlainCodes& codes, int64_t from, int64_t to) {
  PlainCodes out;
  out.rows = codes.rows;
  out.dSae = codes.dSae;
  for (int64_t row = 0; row < codes.rows; ++row) {
    for (uint64_t e = codes.offsets[size_t(row)]; e < codes.offsets[size_t(row) + 1]; ++e) {
      if (codes.features[e] < from || codes.features[e] >= to) continue;
      out.features.push_back(codes.features[e]);
      out.preActivations.push_back(codes.preActivations[e]);
      out.values.push_back(codes.values[e]);
    }
    out.offsets.push_back(out.features.size());
  }
  return out;
}

inline Doubles densify(const PlainCodes& codes) {
  Doubles out(size_t(codes.rows * codes.dSae), 0.0);
  for (int64_t e = 0; e < codes.entries(); ++e)
    out[size_t(codes.rowOf(e) * codes.dSae + int64_t(codes.features[size_t(e)]))] = double(codes.values[size_t(e)]);
  return out;
}

// ---- Row gradients and Adam

struct Term {
  const PlainCodes* codes;
  const Floats* coefficients;  // null: the values
  const Floats* dense;
  double scale;
};

inline Doubles rowGradient(const std::vector<Term>& terms, const Floats* rowCoefficients, double rowScale,
                           std::vector<int64_t> blockWidths, bool projectOutRow, const Floats& weights, int64_t rows) {
  const int64_t columns = int64_t(weights.size()) / rows;
  Doubles out(weights.size(), 0.0);
  for (const Term& term : terms)
    for (int64_t e = 0; e < term.codes->entries(); ++e) {
      const double coefficient =
          double(term.coefficients ? (*term.coefficients)[size_t(e)] : term.codes->values[size_t(e)]);
      for (int64_t c = 0; c < columns; ++c)
        out[size_t(int64_t(term.codes->features[size_t(e)]) * columns + c)] +=
            term.scale * coefficient * double((*term.dense)[size_t(term.codes->rowOf(e) * columns + c)]);
    }
  if (blockWidths.empty()) blockWidths = {columns};
  for (int64_t f = 0; f < rows; ++f) {
    const float* row = &weights[size_t(f * columns)];
    double* gradient = &out[size_t(f * columns)];
    if (rowCoefficients) {
      int64_t first = 0;
      for (const int64_t width : blockWidths) {
        const double norm = std::sqrt(dot(row + first, row + first, width));
        for (int64_t c = first; norm != 0 && c < first + width; ++c)
          gradient[c] += rowScale * double((*rowCoefficients)[size_t(f)]) * double(row[c]) / norm;
        first += width;
      }
    }
    const double squaredNorm = dot(row, row, columns);
    if (!projectOutRow || squaredNorm == 0) continue;
    double along = 0;
    for (int64_t c = 0; c < columns; ++c) along += gradient[c] * double(row[c]);
    for (int64_t c = 0; c < columns; ++c) gradient[c] -= along / squaredNorm * double(row[c]);
  }
  return out;
}

// Of the sums of a row gradient that is entry terms alone, the terms' absolute values, added up; for scales >= 0.
inline Doubles rowGradientTerms(const std::vector<Term>& terms, const Floats& weights, int64_t rows) {
  Doubles out(weights.size(), 0.0);
  for (const Term& term : terms) {
    const PlainCodes codes = absolute(*term.codes);
    const Floats coefficients = absolute(term.coefficients ? *term.coefficients : codes.values),
                 dense = absolute(*term.dense);
    const Doubles sums =
        rowGradient({{&codes, &coefficients, &dense, term.scale}}, nullptr, 0, {}, false, weights, rows);
    for (size_t i = 0; i < out.size(); ++i) out[i] += sums[i];
  }
  return out;
}

struct AdamState {
  Doubles weights, m, v;
};

inline void adam(const Doubles& gradient, AdamState& state, const AdamStep& step, double clipFactor) {
  for (size_t i = 0; i < gradient.size(); ++i) {
    const double g = gradient[i] * clipFactor;
    state.m[i] = step.beta1 * state.m[i] + (1 - step.beta1) * g;
    state.v[i] = step.beta2 * state.v[i] + (1 - step.beta2) * g * g;
    const double mHat = state.m[i] / (1 - std::pow(step.beta1, double(step.step)));
    const double vHat = state.v[i] / (1 - std::pow(step.beta2, double(step.step)));
    state.weights[i] -= step.learningRate * mHat / (std::sqrt(vHat) + step.epsilon);
  }
}

inline void normaliseRows(Doubles& values, int64_t columns, double norm) {
  for (size_t first = 0; first < values.size(); first += size_t(columns)) {
    double squaredNorm = 0;
    for (int64_t c = 0; c < columns; ++c) squaredNorm += values[first + size_t(c)] * values[first + size_t(c)];
    if (squaredNorm == 0) continue;
    for (int64_t c = 0; c < columns; ++c) values[first + size_t(c)] *= norm / std::sqrt(squaredNorm);
  }
}

// ---- Transformers

inline double activation(double x, Activation kind) {
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::relu:
      return std::max(0.0, x);
    case Activation::geluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::exp:
      return std::exp(x);
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::heaviside:
      return x > 0 ? 1 : 0;
    case Activation::silu:
      return x / (1 + std::exp(-x));
  }
  return x;
}

inline double logSumExp(const float* row, int64_t columns) {
  const double shift = double(*std::max_element(row, row + columns));
  double sum = 0;
  for (int64_t c = 0; c < columns; ++c) sum += std::exp(double(row[c]) - shift);
  return shift + std::log(sum);
}

inline Doubles softmax(const float* row, int64_t columns) {
  Doubles out(size_t(columns), 0.0);
  if (*std::max_element(row, row + columns) == -std::numeric_limits<float>::infinity()) return out;
  const double logSum = logSumExp(row, columns);
  for (int64_t c = 0; c < columns; ++c) out[size_t(c)] = std::exp(double(row[c]) - logSum);
  return out;
}

// [batch, heads, queryPositions, keyPositions]
inline Doubles attentionScores(const Attention& a) {
  Doubles out;
  for (int64_t b = 0; b < a.batch; ++b)
    for (int64_t h = 0; h < a.heads; ++h)
      for (int64_t q = 0; q < a.queryPositions; ++q)
        for (int64_t k = 0; k < a.keyPositions; ++k) {
          const int64_t position = a.keyPositions - a.queryPositions + q, keyHead = h / (a.heads / a.keyHeads);
          const bool seen =
              k <= position && (a.window == 0 || k > position - a.window) && (!a.firstKeys || k >= a.firstKeys[b]);
          const double score =
              a.scale * dot(a.queries + ((b * a.queryPositions + q) * a.heads + h) * a.dHead,
                            a.keys + ((b * a.keyCapacity + k) * a.keyHeads + keyHead) * a.dHead, a.dHead);
          out.push_back(!seen            ? -std::numeric_limits<double>::infinity()
                        : a.softCap == 0 ? score
                                         : a.softCap * std::tanh(score / a.softCap));
        }
  return out;
}

// [batch, queryPositions, heads, dHead]
inline Doubles attentionMix(const Attention& a, const Doubles& pattern) {
  Doubles out(size_t(a.batch * a.queryPositions * a.heads * a.dHead), 0.0);
  for (int64_t b = 0; b < a.batch; ++b)
    for (int64_t h = 0; h < a.heads; ++h)
      for (int64_t q = 0; q < a.queryPositions; ++q)
        for (int64_t k = 0; k < a.keyPositions; ++k)
          for (int64_t c = 0; c < a.dHead; ++c)
            out[size_t(((b * a.queryPositions + q) * a.heads + h) * a.dHead + c)] +=
                pattern[size_t(((b * a.heads + h) * a.queryPositions + q) * a.keyPositions + k)] *
                double(a.values[((b * a.keyCapacity + k) * a.keyHeads + h / (a.heads / a.keyHeads)) * a.dHead + c]);
  return out;
}

inline Doubles attention(const Attention& a) {
  Doubles pattern = attentionScores(a);
  for (size_t first = 0; first < pattern.size(); first += size_t(a.keyPositions)) {
    const auto row = pattern.begin() + int64_t(first);
    const double shift = *std::max_element(row, row + a.keyPositions);
    double sum = 0;
    for (int64_t k = 0; k < a.keyPositions; ++k)
      sum += row[k] = row[k] == -std::numeric_limits<double>::infinity() ? 0 : std::exp(row[k] - shift);
    for (int64_t k = 0; k < a.keyPositions; ++k) row[k] /= sum == 0 ? 1 : sum;
  }
  return attentionMix(a, pattern);
}

}  // namespace monosem::test::reference
