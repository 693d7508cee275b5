// What a kernel sees of its operands: a pointer into the device's memory and sizes, owning nothing.
#pragma once

#include <cstdint>

namespace monosem {

// Contiguous elements.
template <class T>
struct Vector {
  T* data = nullptr;
  int64_t size = 0;

  explicit operator bool() const { return data != nullptr; }  // an absent optional operand is a null vector
  T& operator[](int64_t i) const { return data[i]; }
};

// Contiguous rows: element (r, c) stands at data[r * columns + c].
template <class T>
struct Matrix {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;

  explicit operator bool() const { return data != nullptr; }
  T* row(int64_t r) const { return data + r * columns; }
};

}  // namespace monosem
