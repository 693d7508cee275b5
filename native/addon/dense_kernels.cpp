// Bindings of the kernels of dense vectors and matrices, and of the random generator. Arguments in the order in which
// they are read.
#include "addon/call.h"
#include "addon/exports.h"

namespace monosem {
namespace {

void fill(Call& call) {
  const auto out = call.write("out");
  const double value = call.number("value");
  call.enqueue([=](Kernels& kernels) { kernels.fill(out.vector(), float(value)); });
}

void add(Call& call) {
  const auto a = call.read("a");
  const auto b = call.read("b");
  const double scale = call.number("scale");
  const auto out = call.write("out");
  call.require(a.size() == b.size() && out.size() == a.size(), "a, b and out must have the same shape");
  call.enqueue([=](Kernels& kernels) { kernels.add(a.vector(), b.vector(), scale, out.vector()); });
}

void scale(Call& call) {
  const auto a = call.read("a");
  const double factor = call.number("factor");
  const auto out = call.write("out");
  call.require(out.size() == a.size(), "a and out must have the same shape");
  call.enqueue([=](Kernels& kernels) { kernels.scale(a.vector(), factor, out.vector()); });
}

void addRow(Call& call) {
  const auto a = call.read("a");
  const auto row = call.read("row");
  const double scale = call.number("scale");
  const auto out = call.write("out");
  call.require(row.size() == a.columns() && out.size() == a.size(), "row must be as wide as a, out as large");
  call.enqueue([=](Kernels& kernels) {
    kernels.addRow(a.matrix(), row.vector(), scale, {out.data(), a.rows(), a.columns()});
  });
}

void scaleRows(Call& call) {
  const auto a = call.read("a");
  const auto factors = call.read("factors");
  const auto out = call.write("out");
  call.require(factors.size() == a.rows() && out.size() == a.size(), "one factor per row of a, out as large as a");
  call.enqueue([=](Kernels& kernels) {
    kernels.scaleRows(a.matrix(), factors.vector(), {out.data(), a.rows(), a.columns()});
  });
}

template <void (Kernels::*combine)(Vector<const float>, Vector<const float>, Vector<float>)>
void combineElements(Call& call) {
  const auto a = call.read("a");
  const auto b = call.read("b");
  const auto out = call.write("out");
  call.require(a.size() == b.size() && out.size() == a.size(), "a, b and out must have the same shape");
  call.enqueue([=](Kernels& kernels) { (kernels.*combine)(a.vector(), b.vector(), out.vector()); });
}

void scaleColumns(Call& call) {
  const auto a = call.read("a");
  const auto factors = call.read("factors");
  const auto out = call.write("out");
  call.require(factors.size() == a.columns() && out.size() == a.size(),
               "one factor per column of a, out as large as a");
  call.enqueue([=](Kernels& kernels) {
    kernels.scaleColumns(a.matrix(), factors.vector(), {out.data(), a.rows(), a.columns()});
  });
}

void affineRows(Call& call) {
  const auto a = call.read("a");
  const auto factors = call.read("factors");
  const auto shifts = call.read("shifts");
  const auto out = call.write("out");
  call.require(factors.size() == a.rows() && shifts.size() == a.rows() && out.size() == a.size(),
               "one factor and one shift per row of a, out as large as a");
  call.enqueue([=](Kernels& kernels) {
    kernels.affineRows(a.matrix(), factors.vector(), shifts.vector(), {out.data(), a.rows(), a.columns()});
  });
}

void standardiseRows(Call& call) {
  const auto x = call.read("x");
  const double epsilon = call.number("epsilon");
  const auto normalized = call.write("normalized");
  const auto mean = call.write("mean");
  const auto standardDeviation = call.write("standardDeviation");
  call.require(normalized.size() == x.size() && mean.size() == x.rows() && standardDeviation.size() == x.rows(),
               "normalized must be as large as x, mean and standardDeviation have one element per row");
  call.enqueue([=](Kernels& kernels) {
    kernels.standardiseRows(x.matrix(), epsilon, {normalized.data(), x.rows(), x.columns()}, mean.vector(),
                            standardDeviation.vector());
  });
}

void rowNorms(Call& call) {
  const auto a = call.read("a");
  const std::vector<int64_t> blockWidths = call.integers("blockWidths", 1);
  const auto out = call.write("out");
  call.requireBlocks(blockWidths, a.columns());
  call.require(out.size() == a.rows(), "out must have one element per row of a");
  call.enqueue([=](Kernels& kernels) { kernels.rowNorms(a.matrix(), blockWidths, out.vector()); });
}

void normaliseRows(Call& call) {
  const auto a = call.read("a");
  const double norm = call.number("norm");
  const auto out = call.write("out");
  call.require(out.size() == a.size(), "a and out must have the same shape");
  call.enqueue([=](Kernels& kernels) { kernels.normaliseRows(a.matrix(), norm, {out.data(), a.rows(), a.columns()}); });
}

void columnSums(Call& call) {
  const auto a = call.read("a");
  const double scale = call.number("scale");
  const auto out = call.write("out");
  call.require(out.size() == a.columns(), "out must have one element per column of a");
  call.enqueue([=](Kernels& kernels) { kernels.columnSums(a.matrix(), scale, out.vector()); });
}

void weightedRowSum(Call& call) {
  const auto weights = call.read("weights");
  const auto a = call.read("a");
  const double scale = call.number("scale");
  const auto out = call.write("out");
  call.require(weights.size() == a.rows() && out.size() == a.columns(), "one weight per row of a, out as wide as a");
  call.enqueue([=](Kernels& kernels) { kernels.weightedRowSum(weights.vector(), a.matrix(), scale, out.vector()); });
}

// The row numbers are data: the kernel checks them.
void gatherRows(Call& call) {
  const auto a = call.readWeights("a");
  const auto rows = call.read<int32_t>("rows");
  const auto out = call.write("out");
  call.require(out.columns() == a.columns() && out.rows() == rows.size(), "out must be [rows, columns of a]");
  call.enqueue([=](Kernels& kernels) {
    if (a.brain())
      kernels.gatherBrainRows(a.brainMatrix(), rows.vector(), out.matrix());
    else
      kernels.gatherRows(a.matrix(), rows.vector(), out.matrix());
  });
}

void scatterRows(Call& call) {
  const auto a = call.read("a");
  const auto rows = call.read<int32_t>("rows");
  const auto out = call.writePart("out");
  call.require(out.columns() == a.columns() && a.rows() == rows.size(),
               "one row number per row of a, out as wide as a");
  call.enqueue([=](Kernels& kernels) { kernels.scatterRows(a.matrix(), rows.vector(), out.matrix()); });
}

void sliceColumns(Call& call) {
  const auto a = call.read("a");
  const int64_t firstColumn = call.integer("firstColumn");
  const auto out = call.write("out");
  call.require(out.rows() == a.rows(), "a and out differ in rows");
  call.require(firstColumn <= a.columns() - out.columns(), "a has fewer columns");
  call.enqueue([=](Kernels& kernels) { kernels.copyColumns(a.matrix(), firstColumn, out.matrix(), 0, out.columns()); });
}

void copyColumns(Call& call) {
  const auto a = call.read("a");
  const auto out = call.writePart("out");
  const int64_t firstColumn = call.integer("firstColumn");
  call.require(out.rows() == a.rows(), "a and out differ in rows");
  call.require(firstColumn <= out.columns() - a.columns(), "the columns of a do not fit into out");
  call.enqueue([=](Kernels& kernels) { kernels.copyColumns(a.matrix(), 0, out.matrix(), firstColumn, a.columns()); });
}

void copyRows(Call& call) {
  const auto a = call.read("a");
  const auto out = call.writePart("out");
  const int64_t firstRow = call.integer("firstRow");
  call.require(out.columns() == a.columns(), "a and out differ in columns");
  call.require(firstRow <= out.rows() - a.rows(), "the rows of a do not fit into out");
  call.enqueue([=](Kernels& kernels) { kernels.copyRows(a.matrix(), out.matrix(), firstRow); });
}

// A part of a as a matrix of its own: a copy into row 0 of out.
void sliceRows(Call& call) {
  const auto a = call.read("a");
  const int64_t firstRow = call.integer("firstRow");
  const auto out = call.write("out");
  call.require(out.columns() == a.columns(), "a and out differ in columns");
  call.require(firstRow <= a.rows() - out.rows(), "a has fewer rows");
  call.enqueue([=](Kernels& kernels) {
    kernels.copyRows({a.data() + firstRow * a.columns(), out.rows(), a.columns()}, out.matrix(), 0);
  });
}

void transpose(Call& call) {
  const auto a = call.read("a");
  const auto out = call.write("out");
  call.require(out.rows() == a.columns() && out.columns() == a.rows(), "out must be [columns, rows] of a");
  call.enqueue([=](Kernels& kernels) { kernels.transpose(a.matrix(), out.matrix()); });
}

void dot(Call& call) {
  const auto a = call.read("a");
  const auto b = call.read("b");
  const auto sum = call.update<double>("sum");
  call.require(a.size() == b.size() && sum.size() == 1, "a and b must have the same shape, sum must be [1]");
  call.enqueue([=](Kernels& kernels) { kernels.dot(a.vector(), b.vector(), sum.data()); });
}

void sum(Call& call) {
  const auto a = call.read("a");
  const auto sum = call.update<double>("sum");
  call.require(sum.size() == 1, "sum must be [1]");
  call.enqueue([=](Kernels& kernels) { kernels.sum(a.vector(), sum.data()); });
}

void accumulateColumnSums(Call& call) {
  const auto a = call.read("a");
  const auto sums = call.update<double>("sums");
  call.require(sums.size() == a.columns(), "sums must have one element per column of a");
  call.enqueue([=](Kernels& kernels) { kernels.accumulateColumnSums(a.matrix(), sums.vector()); });
}

void sumOfRowCosines(Call& call) {
  const auto a = call.read("a");
  const auto b = call.read("b");
  const auto sum = call.update<double>("sum");
  call.require(a.rows() == b.rows() && a.columns() == b.columns() && sum.size() == 1,
               "a and b must have the same shape, sum must be [1]");
  call.enqueue([=](Kernels& kernels) { kernels.sumOfRowCosines(a.matrix(), b.matrix(), sum.data()); });
}

void toFloat32(Call& call) {
  const Tensor a = call.readAny("a");
  const auto out = call.write("out");
  call.require(a.dtype == DType::f16 || a.dtype == DType::bf16 || a.dtype == DType::f64, "a must be f16, bf16 or f64");
  call.require(out.size() == a.shape.elements(), "a and out must have the same shape");
  call.enqueue([=](Kernels& kernels) {
    kernels.convert(a.storage->block.as<const void>(), a.dtype == DType::f64 ? 64 : 16, a.dtype == DType::bf16,
                    out.vector());
  });
}

void randomUniform(Call& call) {
  const auto out = call.write("out");
  const uint64_t seed = uint64_t(call.integer("seed"));
  const uint64_t offset = uint64_t(call.integer("offset"));
  const double low = call.number("low");
  const double high = call.number("high");
  call.enqueue([=](Kernels& kernels) { kernels.randomUniform(seed, offset, float(low), float(high), out.vector()); });
}

void randomNormal(Call& call) {
  const auto out = call.write("out");
  const uint64_t seed = uint64_t(call.integer("seed"));
  const uint64_t offset = uint64_t(call.integer("offset"));
  const double standardDeviation = call.number("standardDeviation");
  call.enqueue([=](Kernels& kernels) { kernels.randomNormal(seed, offset, float(standardDeviation), out.vector()); });
}

void randomPermutation(Call& call) {
  const auto out = call.write<int32_t>("out");
  const uint64_t seed = uint64_t(call.integer("seed"));
  const uint64_t offset = uint64_t(call.integer("offset"));
  call.enqueue([=](Kernels& kernels) { kernels.randomPermutation(seed, offset, out.vector()); });
}

constexpr KernelBinding kBindings[] = {
    {"fill", fill},
    {"add", add},
    {"scale", scale},
    {"addRow", addRow},
    {"scaleRows", scaleRows},
    {"multiply", combineElements<&Kernels::multiply>},
    {"divide", combineElements<&Kernels::divide>},
    {"scaleColumns", scaleColumns},
    {"affineRows", affineRows},
    {"standardiseRows", standardiseRows},
    {"rowNorms", rowNorms},
    {"normaliseRows", normaliseRows},
    {"columnSums", columnSums},
    {"weightedRowSum", weightedRowSum},
    {"gatherRows", gatherRows},
    {"scatterRows", scatterRows},
    {"sliceColumns", sliceColumns},
    {"copyColumns", copyColumns},
    {"copyRows", copyRows},
    {"sliceRows", sliceRows},
    {"transpose", transpose},
    {"dot", dot},
    {"sum", sum},
    {"accumulateColumnSums", accumulateColumnSums},
    {"sumOfRowCosines", sumOfRowCosines},
    {"toFloat32", toFloat32},
    {"randomUniform", randomUniform},
    {"randomNormal", randomNormal},
    {"randomPermutation", randomPermutation},
};

}  // namespace

void exportDenseKernels(Napi::Env env, Napi::Object exports) {
  exportKernels(env, exports, kBindings);
}

}  // namespace monosem
