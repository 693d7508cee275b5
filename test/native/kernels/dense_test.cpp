// Dense vectors and matrices.
#include <limits>

#include "check.h"
#include "reference.h"

namespace monosem::test {
namespace {

const int64_t sizes[] = {1, 3, 17, 100, 129, 40000};
const std::pair<int64_t, int64_t> matrixShapes[] = {{1, 1}, {3, 17}, {129, 5}, {33, 768}, {70, 65}, {400, 100}};

std::string name(const char* kernel, int64_t rows, int64_t columns) {
  return std::string(kernel) + " " + std::to_string(rows) + "x" + std::to_string(columns);
}

// Sizes at which a device may cut sums into one part more, and one with several rounds of parts.
KERNEL_TEST("sums of all sizes", sumTests) {
  Random random(17);
  for (const int64_t size : {0, 1023, 1024, 1025, 24576, 1050001}) {
    const Floats a = random.normals(size), b = random.normals(size);
    double dot = 1, sum = 1;
    for (size_t i = 0; i < size_t(size); ++i) {
      dot += double(a[i]) * double(b[i]);
      sum += double(a[i]);
    }
    const auto check = [&](const char* kernel, double expected, const std::function<void(Kernels&, double*)>& add) {
      const double result = test.number(name(kernel, size, 1), [&](Kernels& kernels) {
        double number = 1;
        add(kernels, &number);
        return number;
      });
      test.close(name(kernel, size, 1), result, expected, 1e-9);  // of a million terms, to rounding
    };
    check("dot", dot, [&](Kernels& k, double* out) { k.dot(view(a), view(b), out); });
    check("sum", sum, [&](Kernels& k, double* out) { k.sum(view(a), out); });
  }
}

KERNEL_TEST("vectors", vectorTests) {
  Random random(7);
  for (const int64_t size : sizes) {
    const Floats a = random.normals(size), b = random.normals(size);
    const auto elementwise = [&](const char* kernel, const std::function<void(Kernels&, Vector<float>)>& compute,
                                 const std::function<double(size_t)>& expected) {
      const Floats out = test.floats(name(kernel, size, 1), [&](Kernels& kernels) {
        Floats result(size_t(size), NAN);
        compute(kernels, view(result));
        return result;
      });
      Doubles wanted;
      for (size_t i = 0; i < size_t(size); ++i) wanted.push_back(expected(i));
      test.close(name(kernel, size, 1), out, wanted, 1e-6);
    };
    elementwise(
        "fill", [&](Kernels& k, Vector<float> out) { k.fill(out, 2.5f); }, [](size_t) { return 2.5; });
    elementwise(
        "add", [&](Kernels& k, Vector<float> out) { k.add(view(a), view(b), -0.5, out); },
        [&](size_t i) { return double(a[i]) - 0.5 * double(b[i]); });
    elementwise(
        "scale", [&](Kernels& k, Vector<float> out) { k.scale(view(a), 3, out); },
        [&](size_t i) { return 3 * double(a[i]); });
    double dot = 1, sum = 1;
    for (size_t i = 0; i < size_t(size); ++i) {
      dot += double(a[i]) * double(b[i]);
      sum += double(a[i]);
    }
    test.close(name("dot", size, 1),
               test.number("dot",
                           [&](Kernels& k) {
                             double result = 1;
                             k.dot(view(a), view(b), &result);
                             return result;
                           }),
               dot, 1e-12);
    test.close(name("sum", size, 1),
               test.number("sum",
                           [&](Kernels& k) {
                             double result = 1;
                             k.sum(view(a), &result);
                             return result;
                           }),
               sum, 1e-12);
  }
  Floats inPlace = {1, 2, 3};
  test.kernels().add(view(static_cast<const Floats&>(inPlace)), view(static_cast<const Floats&>(inPlace)), 1,
                     view(inPlace));
  test.same("add in place", inPlace, Floats{2, 4, 6});
}

KERNEL_TEST("matrices", matrixTests) {
  Random random(8);
  for (const auto& [rows, columns] : matrixShapes) {
    Floats a = random.normals(rows * columns);
    const Floats b = random.normals(rows * columns), row = random.normals(columns), factors = random.normals(rows);
    std::fill(a.begin(), a.begin() + columns, 0.0f);  // a row of norm 0
    const Matrix<const float> ma = matrix(static_cast<const Floats&>(a), rows), mb = matrix(b, rows);
    const auto at = [columns = columns](int64_t r, int64_t c) { return size_t(r * columns + c); };
    const auto compare = [&](const char* kernel, int64_t size, const std::function<void(Kernels&, Floats&)>& compute,
                             const std::function<double(int64_t, int64_t)>& expected, double tolerance) {
      const Floats out = test.floats(name(kernel, ma.rows, ma.columns), [&](Kernels& kernels) {
        Floats result(size_t(size), NAN);
        compute(kernels, result);
        return result;
      });
      Doubles wanted;
      const int64_t width = size == ma.rows * ma.columns ? ma.columns : 1;
      for (int64_t i = 0; i < size; ++i) wanted.push_back(expected(i / width, i % width));
      test.close(name(kernel, ma.rows, ma.columns), out, wanted, tolerance);
    };
    Doubles norms, columnTotals(size_t(columns), 0.0), weightedTotals(size_t(columns), 0.0);
    double cosines = 0;
    for (int64_t r = 0; r < rows; ++r) {
      norms.push_back(std::sqrt(reference::dot(ma.row(r), ma.row(r), columns)));
      for (int64_t c = 0; c < columns; ++c) {
        columnTotals[size_t(c)] += double(a[at(r, c)]);
        weightedTotals[size_t(c)] += double(factors[size_t(r)]) * double(a[at(r, c)]);
      }
      const double normB = std::sqrt(reference::dot(mb.row(r), mb.row(r), columns));
      if (norms.back() > 0) cosines += reference::dot(ma.row(r), mb.row(r), columns) / (norms.back() * normB);
    }
    const int64_t size = rows * columns;
    compare(
        "addRow", size, [&](Kernels& k, Floats& out) { k.addRow(ma, view(row), 2, matrix(out, ma.rows)); },
        [&](int64_t r, int64_t c) { return double(a[at(r, c)]) + 2 * double(row[size_t(c)]); }, 1e-6);
    compare(
        "scaleRows", size, [&](Kernels& k, Floats& out) { k.scaleRows(ma, view(factors), matrix(out, ma.rows)); },
        [&](int64_t r, int64_t c) { return double(a[at(r, c)]) * double(factors[size_t(r)]); }, 1e-6);
    compare(
        "normaliseRows", size, [&](Kernels& k, Floats& out) { k.normaliseRows(ma, 3, matrix(out, ma.rows)); },
        [&](int64_t r, int64_t c) { return norms[size_t(r)] ? 3 * double(a[at(r, c)]) / norms[size_t(r)] : 0; }, 1e-6);
    compare(
        "rowNorms", rows, [&](Kernels& k, Floats& out) { k.rowNorms(ma, {}, view(out)); },
        [&, columns = columns](int64_t r, int64_t c) { return norms[size_t(columns == 1 ? r : r + c)]; }, 1e-6);
    test.close(name("columnSums", rows, columns),
               test.floats("columnSums",
                           [&](Kernels& k) {
                             Floats out(columnTotals.size(), NAN);
                             k.columnSums(ma, 1, view(out));
                             return out;
                           }),
               columnTotals, 1e-6);
    test.close(name("weightedRowSum", rows, columns),
               test.floats("weightedRowSum",
                           [&](Kernels& k) {
                             Floats out(columnTotals.size(), NAN);
                             k.weightedRowSum(view(factors), ma, 1, view(out));
                             return out;
                           }),
               weightedTotals, 1e-6);
    test.close(name("accumulateColumnSums", rows, columns),
               test.run<double>("accumulateColumnSums",
                                [&](Kernels& k) {
                                  Doubles out(columnTotals.size(), 0.0);
                                  k.accumulateColumnSums(ma, {out.data(), int64_t(out.size())});
                                  return out;
                                }),
               columnTotals, 1e-12);
    test.close(name("sumOfRowCosines", rows, columns),
               test.number("sumOfRowCosines",
                           [&](Kernels& k) {
                             double sum = 0;
                             k.sumOfRowCosines(ma, mb, &sum);
                             return sum;
                           }),
               cosines, 1e-9);
    compare(
        "transpose", size, [&](Kernels& k, Floats& out) { k.transpose(ma, matrix(out, ma.columns)); },
        [&](int64_t r, int64_t c) {
          const int64_t i = r * ma.columns + c;
          return double(a[at(i % ma.rows, i / ma.rows)]);
        },
        0);
    std::vector<int32_t> order;
    for (int64_t r = 0; r < rows; ++r) order.push_back(int32_t(random.below(rows)));
    compare(
        "gatherRows", size,
        [&](Kernels& k, Floats& out) {
          k.gatherRows(ma, {order.data(), ma.rows}, matrix(out, ma.rows));
        },
        [&](int64_t r, int64_t c) { return double(a[at(order[size_t(r)], c)]); }, 0);
    Floats bigger(size_t((rows + 2) * columns), 7.0f);
    test.kernels().copyRows(ma, matrix(bigger, rows + 2), 1);
    test.check(std::equal(a.begin(), a.end(), bigger.begin() + columns) && bigger.front() == 7 && bigger.back() == 7,
               name("copyRows", rows, columns));
  }
  const std::vector<int32_t> wrong = {0, 3};
  Floats a(6), out(4);
  test.throws("gatherRows beyond the matrix", ErrorCode::invalidArgument, [&] {
    test.kernels().gatherRows(matrix(static_cast<const Floats&>(a), 3), {wrong.data(), 2}, matrix(out, 2));
  });
}

KERNEL_TEST("products and quotients", productTests) {
  Random random(24);
  for (const int64_t size : sizes) {
    const Floats a = random.normals(size), b = random.normals(size);
    Doubles products, quotients;
    for (size_t i = 0; i < size_t(size); ++i) {
      products.push_back(double(a[i] * b[i]));
      quotients.push_back(double(a[i] / b[i]));
    }
    const auto combine = [&](const char* kernel,
                             void (Kernels::*compute)(Vector<const float>, Vector<const float>, Vector<float>)) {
      return test.floats(name(kernel, size, 1), [&](Kernels& kernels) {
        Floats out(size_t(size), NAN);
        (kernels.*compute)(view(a), view(b), view(out));
        return out;
      });
    };
    test.close(name("multiply", size, 1), combine("multiply", &Kernels::multiply), products, 0);
    test.close(name("divide", size, 1), combine("divide", &Kernels::divide), quotients, 0);
  }
  Floats a = {1, -1, 0, NAN, 6};
  const Floats b = {0, 0, 0, 1, 2};
  test.kernels().divide(view(static_cast<const Floats&>(a)), view(b), view(a));
  test.close("divide in place, by zero, NaN", a, {INFINITY, -INFINITY, NAN, NAN, 3}, 0);
  Floats c = {3, -2};
  test.kernels().multiply(view(static_cast<const Floats&>(c)), view(static_cast<const Floats&>(c)), view(c));
  test.same("multiply in place", c, Floats{9, 4});
}

KERNEL_TEST("columns", columnTests) {
  Random random(25);
  for (const auto& [rows, columns] : matrixShapes) {
    const Floats a = random.normals(rows * columns), perColumn = random.normals(columns),
                 factors = random.normals(rows), shifts = random.normals(rows);
    const int64_t first = columns / 3, count = columns - first - columns / 4;
    Doubles scaled, affine, sliced;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        const double value = double(a[size_t(r * columns + c)]);
        scaled.push_back(value * double(perColumn[size_t(c)]));
        affine.push_back(value * double(factors[size_t(r)]) + double(shifts[size_t(r)]));
        if (c >= first && c < first + count) sliced.push_back(value);
      }
    const auto compare = [&, rows = rows, columns = columns](
                             const char* kernel, const std::function<void(Kernels&, Matrix<float>)>& compute,
                             int64_t width, const Doubles& expected, double tolerance) {
      test.close(name(kernel, rows, columns),
                 test.floats(name(kernel, rows, columns),
                             [&](Kernels& kernels) {
                               Floats out(size_t(rows * width), NAN);
                               compute(kernels, matrix(out, rows));
                               return out;
                             }),
                 expected, tolerance);
    };
    const Matrix<const float> ma = matrix(a, rows);
    compare(
        "scaleColumns", [&](Kernels& k, Matrix<float> out) { k.scaleColumns(ma, view(perColumn), out); }, columns,
        scaled, 1e-7);
    compare(
        "affineRows", [&](Kernels& k, Matrix<float> out) { k.affineRows(ma, view(factors), view(shifts), out); },
        columns, affine, 3e-7);
    compare(
        "copyColumns, a part", [&](Kernels& k, Matrix<float> out) { k.copyColumns(ma, first, out, 0, count); }, count,
        sliced, 0);
    Floats wider(size_t(rows * (columns + 2)), 7.0f), inPlace = a;
    test.kernels().copyColumns(ma, 0, matrix(wider, rows), 1, columns);
    bool whole = true;
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = &wider[size_t(r * (columns + 2))];
      whole = whole && row[0] == 7 && row[columns + 1] == 7 && std::equal(row + 1, row + 1 + columns, ma.row(r));
    }
    test.check(whole, name("copyColumns into a wider matrix", rows, columns));
    test.kernels().affineRows(matrix(static_cast<const Floats&>(inPlace), rows), view(factors), view(shifts),
                              matrix(inPlace, rows));
    test.close(name("affineRows in place", rows, columns), inPlace, affine, 3e-7);

    for (const std::vector<int64_t>& widths :
         {std::vector<int64_t>{columns}, {1, columns - 1}, {columns / 2, columns - columns / 2}}) {
      if (std::any_of(widths.begin(), widths.end(), [](int64_t width) { return width < 1; })) continue;
      Doubles norms;
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        int64_t from = 0;
        for (const int64_t width : widths) {
          sum += std::sqrt(reference::dot(ma.row(r) + from, ma.row(r) + from, width));
          from += width;
        }
        norms.push_back(sum);
      }
      test.close(name("rowNorms of blocks", rows, columns),
                 test.floats("rowNorms of blocks",
                             [&](Kernels& k) {
                               Floats out(size_t(ma.rows), NAN);
                               k.rowNorms(ma, widths, view(out));
                               return out;
                             }),
                 norms, 1e-6);
    }
  }
}

KERNEL_TEST("scatterRows", scatterRowsTests) {
  Random random(26);
  for (const auto& [rows, columns] : matrixShapes)
    for (const int64_t places : {int64_t(1), rows, 2 * rows + 3}) {
      const Floats a = random.normals(rows * columns), before = random.normals(places * columns);
      std::vector<int32_t> to;
      for (int64_t r = 0; r < rows; ++r) to.push_back(int32_t(random.below(places)));
      Floats expected = before;
      for (int64_t r = 0; r < rows; ++r)
        std::copy_n(a.begin() + r * columns, columns, expected.begin() + to[size_t(r)] * columns);
      test.same(name("scatterRows", rows, columns),
                test.floats("scatterRows",
                            [&, rows = rows, places = places](Kernels& k) {
                              Floats out = before;
                              k.scatterRows(matrix(a, rows), {to.data(), rows}, matrix(out, places));
                              return out;
                            }),
                expected);
    }
  const Floats a = {1, 2, 3, 4};
  for (const int32_t beyond : {-1, 3}) {
    const std::vector<int32_t> wrong = {0, beyond};
    Floats out(6, 7.0f);
    test.throws("scatterRows beyond the matrix", ErrorCode::invalidArgument, [&] {
      test.kernels().scatterRows(matrix(a, 2), {wrong.data(), 2}, matrix(out, 3));
    });
    test.same("which writes nothing", out, Floats(6, 7.0f));
  }
  Floats out(6, 7.0f);
  test.kernels().scatterRows({a.data(), 0, 2}, {}, matrix(out, 3));
  test.same("scatterRows of no rows", out, Floats(6, 7.0f));
}

// All 65536 bit patterns of both formats against their definition.
KERNEL_TEST("convert", convertTests) {
  for (const bool brain : {false, true}) {
    std::vector<uint16_t> source(65536 + 3);
    for (size_t i = 0; i < source.size(); ++i) source[i] = uint16_t(i);
    const Floats out = test.floats("convert", [&](Kernels& k) {
      Floats result(source.size());
      k.convert(source.data(), 16, brain, view(result));
      return result;
    });
    bool exact = true;
    for (size_t i = 0; i < source.size(); ++i) {
      const uint32_t half = source[i];
      const int exponentBits = brain ? 8 : 5, fractionBits = 15 - exponentBits;
      const int exponent = int(half >> fractionBits & ((1u << exponentBits) - 1)), bias = (1 << (exponentBits - 1)) - 1;
      const uint32_t fraction = half & ((1u << fractionBits) - 1);
      double value = exponent == 2 * bias + 1 ? (fraction ? NAN : INFINITY)
                     : exponent == 0          ? std::ldexp(double(fraction), 1 - bias - fractionBits)
                                     : std::ldexp(1 + std::ldexp(double(fraction), -fractionBits), exponent - bias);
      if (half >> 15) value = -value;
      exact = exact && (std::isnan(value) ? std::isnan(out[i])
                                          : double(out[i]) == value && std::signbit(out[i]) == std::signbit(value));
    }
    test.check(exact, brain ? "every bf16 number" : "every f16 number");
  }
  const std::vector<double> doubles{1.0 / 3, 1 + std::ldexp(1, -25), -1e300, 0, 5e-324};
  const Floats rounded = test.floats("convert of f64", [&](Kernels& k) {
    Floats result(doubles.size());
    k.convert(doubles.data(), 64, false, view(result));
    return result;
  });
  test.same("convert of f64", rounded, Floats{1.0f / 3, 1, -INFINITY, 0, 0});
}

}  // namespace
}  // namespace monosem::test
