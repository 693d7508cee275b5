// Dense vectors and matrices: elementwise operations, sums, copies.
#pragma once

#include "cpu/generic/weighted_rows.h"

namespace monosem::MONOSEM_ISA {

constexpr int64_t elementsPerItem = 16384;

// Rows per item, so that an item is about elementsPerItem elements.
inline int64_t rowsPerItem(int64_t columns) {
  return std::max<int64_t>(1, elementsPerItem / std::max<int64_t>(1, columns));
}

inline void fill(Vector<float> out, float value, ThreadPool& pool) {
  pool.forEachRange(out.size, elementsPerItem,
                    [&](int64_t begin, int64_t end, int) { std::fill(out.data + begin, out.data + end, value); });
}

// out = a + scale * b
inline void add(Vector<const float> a, Vector<const float> b, double scale, Vector<float> out, ThreadPool& pool) {
  const Floats factor = broadcast(float(scale));
  pool.forEachRange(out.size, elementsPerItem, [&](int64_t begin, int64_t end, int) {
    forEachVector(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      storeLanes(out.data + i, fma(factor, loadLanes(b.data + i, lanes), loadLanes(a.data + i, lanes)), lanes);
    });
  });
}

// out = combine(a, b), element by element.
template <class Combine>
inline void combineElements(Vector<const float> a, Vector<const float> b, const Combine& combine, Vector<float> out,
                            ThreadPool& pool) {
  pool.forEachRange(out.size, elementsPerItem, [&](int64_t begin, int64_t end, int) {
    forEachVector(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      storeLanes(out.data + i, combine(loadLanes(a.data + i, lanes), loadLanes(b.data + i, lanes)), lanes);
    });
  });
}

inline void multiply(Vector<const float> a, Vector<const float> b, Vector<float> out, ThreadPool& pool) {
  combineElements(
      a, b, [](Floats x, Floats y) { return x * y; }, out, pool);
}

inline void divide(Vector<const float> a, Vector<const float> b, Vector<float> out, ThreadPool& pool) {
  combineElements(
      a, b, [](Floats x, Floats y) { return x / y; }, out, pool);
}

inline void scale(Vector<const float> a, double factor, Vector<float> out, ThreadPool& pool) {
  const Floats factors = broadcast(float(factor));
  pool.forEachRange(out.size, elementsPerItem, [&](int64_t begin, int64_t end, int) {
    forEachVector(end - begin, [&](int64_t offset, int lanes) {
      const int64_t i = begin + offset;
      storeLanes(out.data + i, factors * loadLanes(a.data + i, lanes), lanes);
    });
  });
}

// out[r] = a[r] + scale * row
inline void addRow(Matrix<const float> a, Vector<const float> row, double scale, Matrix<float> out, ThreadPool& pool) {
  const Floats factor = broadcast(float(scale));
  pool.forEachRange(a.rows, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r)
      forEachVector(a.columns, [&](int64_t c, int lanes) {
        storeLanes(out.row(r) + c, fma(factor, loadLanes(row.data + c, lanes), loadLanes(a.row(r) + c, lanes)), lanes);
      });
  });
}

inline void scaleRow(const float* row, float factor, int64_t columns, float* out) {
  const Floats factors = broadcast(factor);
  forEachVector(columns,
                [&](int64_t c, int lanes) { storeLanes(out + c, factors * loadLanes(row + c, lanes), lanes); });
}

inline void scaleRows(Matrix<const float> a, Vector<const float> factors, Matrix<float> out, ThreadPool& pool) {
  pool.forEachRange(a.rows, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) scaleRow(a.row(r), factors[r], a.columns, out.row(r));
  });
}

// out[r, c] = a[r, c] * factors[c]
inline void scaleColumns(Matrix<const float> a, Vector<const float> factors, Matrix<float> out, ThreadPool& pool) {
  pool.forEachRange(a.rows, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r)
      forEachVector(a.columns, [&](int64_t c, int lanes) {
        storeLanes(out.row(r) + c, loadLanes(a.row(r) + c, lanes) * loadLanes(factors.data + c, lanes), lanes);
      });
  });
}

// out[r, c] = a[r, c] * factors[r] + shifts[r]
inline void affineRows(Matrix<const float> a, Vector<const float> factors, Vector<const float> shifts,
                       Matrix<float> out, ThreadPool& pool) {
  pool.forEachRange(a.rows, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const Floats factor = broadcast(factors[r]), shift = broadcast(shifts[r]);
      forEachVector(a.columns, [&](int64_t c, int lanes) {
        storeLanes(out.row(r) + c, fma(factor, loadLanes(a.row(r) + c, lanes), shift), lanes);
      });
    }
  });
}

// out[r] = the sum over the blocks of columns of a row, `blockWidths` wide (none: one of all columns), of their norms.
inline void rowNorms(Matrix<const float> a, const std::vector<int64_t>& blockWidths, Vector<float> out,
                     ThreadPool& pool) {
  const std::vector<int64_t> widths = blockWidths.empty() ? std::vector<int64_t>{a.columns} : blockWidths;
  pool.forEachRange(a.rows, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* block = a.row(r);
      double norms = 0;
      for (const int64_t columns : widths) {
        norms += std::sqrt(dotProductInDouble(block, block, columns));
        block += columns;
      }
      out[r] = float(norms);
    }
  });
}

inline void normaliseRows(Matrix<const float> a, double norm, Matrix<float> out, ThreadPool& pool) {
  pool.forEachRange(a.rows, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const double squaredNorm = dotProductInDouble(a.row(r), a.row(r), a.columns);
      scaleRow(a.row(r), squaredNorm == 0 ? 1.0f : float(norm / std::sqrt(squaredNorm)), a.columns, out.row(r));
    }
  });
}

// The sums over the rows run in double, rows ascending, for a block of columns at a time.
constexpr int64_t columnsPerItem = 64;

template <class Weight, class Finish>
inline void sumOverRows(Matrix<const float> a, const Weight& weight, const Finish& finish, ThreadPool& pool) {
  pool.forEachRange(a.columns, columnsPerItem, [&](int64_t begin, int64_t end, int) {
    double sums[columnsPerItem] = {};
    for (int64_t r = 0; r < a.rows; ++r)
      for (int64_t c = begin; c < end; ++c) sums[c - begin] += weight(r) * double(a.row(r)[c]);
    for (int64_t c = begin; c < end; ++c) finish(c, sums[c - begin]);
  });
}

inline void columnSums(Matrix<const float> a, double scale, Vector<float> out, ThreadPool& pool) {
  sumOverRows(
      a, [](int64_t) { return 1.0; }, [&](int64_t c, double sum) { out[c] = float(scale * sum); }, pool);
}

inline void weightedRowSum(Vector<const float> weights, Matrix<const float> a, double scale, Vector<float> out,
                           ThreadPool& pool) {
  sumOverRows(
      a, [&](int64_t r) { return double(weights[r]); }, [&](int64_t c, double sum) { out[c] = float(scale * sum); },
      pool);
}

inline void accumulateColumnSums(Matrix<const float> a, Vector<double> sums, ThreadPool& pool) {
  sumOverRows(
      a, [](int64_t) { return 1.0; }, [&](int64_t c, double sum) { sums[c] += sum; }, pool);
}

inline void requireRow(Vector<const int32_t> rows, int64_t position, int64_t count) {
  if (rows[position] < 0 || rows[position] >= count)
    throw EngineError(ErrorCode::invalidArgument, "Row " + std::to_string(rows[position]) + " (at position " +
                                                      std::to_string(position) + ") does not exist: the matrix has " +
                                                      std::to_string(count) + " rows.");
}

// out[r] = a[rows[r]]
inline void gatherRows(Matrix<const float> a, Vector<const int32_t> rows, Matrix<float> out, ThreadPool& pool) {
  pool.forEachRange(rows.size, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      requireRow(rows, r, a.rows);
      std::memcpy(out.row(r), a.row(rows[r]), sizeof(float) * size_t(a.columns));
    }
  });
}

// The same of bf16 numbers.
inline void gatherBrainRows(Matrix<const uint16_t> a, Vector<const int32_t> rows, Matrix<float> out, ThreadPool& pool) {
  pool.forEachRange(rows.size, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      requireRow(rows, r, a.rows);
      const uint16_t* row = a.row(rows[r]);
      forEachVector(a.columns,
                    [&](int64_t c, int lanes) { storeLanes(out.row(r) + c, loadBrainLanes(row + c, lanes), lanes); });
    }
  });
}

// out[rows[r]] = a[r]; of rows with the same place the last one stays. The places are checked before anything is
// written.
inline void scatterRows(Matrix<const float> a, Vector<const int32_t> rows, Matrix<float> out, Allocator& allocator,
                        ThreadPool& pool) {
  const Block lastOf = allocator.allocateArray<int64_t>(out.rows);  // of a row of out: which row of a goes there
  for (int64_t r = 0; r < rows.size; ++r) {
    requireRow(rows, r, out.rows);
    lastOf.as<int64_t>()[rows[r]] = r;
  }
  pool.forEachRange(rows.size, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r)
      if (lastOf.as<const int64_t>()[rows[r]] == r)
        std::memcpy(out.row(rows[r]), a.row(r), sizeof(float) * size_t(a.columns));
  });
}

// out[r, outColumn + c] = a[r, aColumn + c] for c in [0, columns).
inline void copyColumns(Matrix<const float> a, int64_t aColumn, Matrix<float> out, int64_t outColumn, int64_t columns,
                        ThreadPool& pool) {
  pool.forEachRange(a.rows, rowsPerItem(columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r)
      std::memcpy(out.row(r) + outColumn, a.row(r) + aColumn, sizeof(float) * size_t(columns));
  });
}

// Into out[firstRow ...].
inline void copyRows(Matrix<const float> a, Matrix<float> out, int64_t firstRow, ThreadPool& pool) {
  pool.forEachRange(a.rows, rowsPerItem(a.columns), [&](int64_t begin, int64_t end, int) {
    std::memcpy(out.row(firstRow + begin), a.row(begin), sizeof(float) * size_t((end - begin) * a.columns));
  });
}

// out[c * stride + r] = rows[r][c] for `count` rows of `columns` floats.
inline void transposeRows(const float* const* rows, int64_t count, int64_t columns, float* out, int64_t stride) {
  int64_t c = 0;
  for (; c + width <= columns; c += width) {
    int64_t r = 0;
    for (; r + width <= count; r += width) transposeSquare(rows + r, c, out + c * stride + r, stride);
    for (; r < count; ++r)
      for (int64_t i = c; i < c + width; ++i) out[i * stride + r] = rows[r][i];
  }
  for (; c < columns; ++c)
    for (int64_t r = 0; r < count; ++r) out[c * stride + r] = rows[r][c];
}

// In stretches of 64 rows: whole cache lines on both sides.
inline void transpose(Matrix<const float> a, Matrix<float> out, ThreadPool& pool) {
  constexpr int64_t stretch = 64;
  pool.forEachRange(a.rows, stretch, [&](int64_t begin, int64_t end, int) {
    const float* rows[stretch];
    for (int64_t r = begin; r < end; ++r) rows[r - begin] = a.row(r);
    transposeRows(rows, end - begin, a.columns, out.data + begin, a.rows);
  });
}

// Adds the items' partial sums, in order.
template <class PartialSum>
inline double sumOfItems(int64_t size, int64_t grain, const PartialSum& partialSum, Allocator& allocator,
                         ThreadPool& pool) {
  const int64_t items = (size + grain - 1) / grain;
  const Block partials = allocator.allocateArray<double>(items);
  pool.forEachRange(size, grain, [&](int64_t begin, int64_t end, int) {
    partials.as<double>()[begin / grain] = partialSum(begin, end);
  });
  double total = 0;
  for (int64_t item = 0; item < items; ++item) total += partials.as<double>()[item];
  return total;
}

// *sum += a . b
inline void dot(Vector<const float> a, Vector<const float> b, double* sum, Allocator& allocator, ThreadPool& pool) {
  *sum += sumOfItems(
      a.size, elementsPerItem,
      [&](int64_t begin, int64_t end) { return dotProductInDouble(a.data + begin, b.data + begin, end - begin); },
      allocator, pool);
}

// *total += sum of a
inline void sumElements(Vector<const float> a, double* total, Allocator& allocator, ThreadPool& pool) {
  *total += sumOfItems(
      a.size, elementsPerItem,
      [&](int64_t begin, int64_t end) {
        DoubleSum partial;
        forEachVector(end - begin,
                      [&](int64_t offset, int lanes) { partial.add(loadLanes(a.data + begin + offset, lanes)); });
        return partial.total();
      },
      allocator, pool);
}

// *sum += sum over the rows of a[r] . b[r] / (|a[r]| |b[r]|); rows of norm 0 add 0.
inline void sumOfRowCosines(Matrix<const float> a, Matrix<const float> b, double* sum, Allocator& allocator,
                            ThreadPool& pool) {
  *sum += sumOfItems(
      a.rows, rowsPerItem(a.columns),
      [&](int64_t begin, int64_t end) {
        double cosines = 0;
        for (int64_t r = begin; r < end; ++r) {
          const double squaredNorms =
              dotProductInDouble(a.row(r), a.row(r), a.columns) * dotProductInDouble(b.row(r), b.row(r), a.columns);
          if (squaredNorms != 0) cosines += dotProductInDouble(a.row(r), b.row(r), a.columns) / std::sqrt(squaredNorms);
        }
        return cosines;
      },
      allocator, pool);
}

// f16 or bf16 to f32, exactly.
inline void convert(const uint16_t* source, bool brain, Vector<float> out, ThreadPool& pool) {
  pool.forEachRange(out.size, elementsPerItem, [&](int64_t begin, int64_t end, int) {
    int64_t i = begin;
    for (; i + width <= end; i += width) store(out.data + i, brain ? loadBrain(source + i) : loadHalf(source + i));
    if (i < end) {
      uint16_t last[width] = {};
      std::memcpy(last, source + i, sizeof(uint16_t) * size_t(end - i));
      storeFirst(out.data + i, brain ? loadBrain(last) : loadHalf(last), int(end - i));
    }
  });
}

// f64 to f32, rounded to nearest. For running sums, which are short: the compiler's loop will do.
inline void convert(const double* source, Vector<float> out, ThreadPool& pool) {
  pool.forEachRange(out.size, elementsPerItem, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) out.data[i] = float(source[i]);
  });
}

}  // namespace monosem::MONOSEM_ISA
