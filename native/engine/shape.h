// Sizes of a tensor's dimensions, row-major. Held in place: a shape is copied with every queued kernel.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace monosem {

class Shape {
 public:
  static constexpr int maxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) {
    for (int64_t size : sizes) append(size);
  }

  // The caller keeps to maxRank.
  void append(int64_t size) { sizes_[size_t(rank_++)] = size; }

  int rank() const { return rank_; }
  int64_t operator[](int dimension) const { return sizes_[size_t(dimension)]; }
  int64_t elements() const {
    int64_t product = 1;
    for (int d = 0; d < rank_; ++d) product *= sizes_[size_t(d)];
    return product;
  }
  // As a matrix: the last dimension, and all the others together.
  int64_t columns() const { return rank_ == 0 ? 1 : sizes_[size_t(rank_ - 1)]; }
  int64_t rows() const {
    int64_t product = 1;
    for (int d = 0; d + 1 < rank_; ++d) product *= sizes_[size_t(d)];
    return product;
  }
  // "[4096, 768]"
  std::string text() const {
    std::string text = "[";
    for (int d = 0; d < rank_; ++d) text += (d ? ", " : "") + std::to_string(sizes_[size_t(d)]);
    return text + "]";
  }

 private:
  std::array<int64_t, maxRank> sizes_{};
  int rank_ = 0;
};

}  // namespace monosem
