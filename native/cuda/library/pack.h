// Neighbouring elements that move as one: a thread reads and writes 16 bytes at a time where the memory allows it.
#pragma once

#include <type_traits>

#include "cuda/library/gpu.h"

namespace monosem::cuda {

template <class T, int width>
struct alignas(sizeof(T) * width) Pack {
  T at[width];
};

template <int width, class T>
__device__ inline Pack<T, width> loadPack(const T* place) {
  return *reinterpret_cast<const Pack<T, width>*>(place);
}
template <int width, class T>
__device__ inline void storePack(T* place, const Pack<T, width>& pack) {
  *reinterpret_cast<Pack<T, width>*>(place) = pack;
}

constexpr int packWidth = 4;

// Whether packs may be read and written from `place` on.
template <int width = packWidth, class T>
bool packsAt(const T* place) {
  return reinterpret_cast<uintptr_t>(place) % sizeof(Pack<T, width>) == 0;
}
// Whether every row begins with a pack and ends with one.
template <int width = packWidth, class T>
bool rowsOfPacks(Matrix<T> matrix) {
  return packsAt<width>(matrix.data) && matrix.columns % width == 0;
}

// Calls work(width) with the constant that a kernel's template takes: packWidth where elements move in packs, else 1.
template <class Work>
void withPackWidth(bool packs, const Work& work) {
  if (packs)
    work(std::integral_constant<int, packWidth>());
  else
    work(std::integral_constant<int, 1>());
}

}  // namespace monosem::cuda
