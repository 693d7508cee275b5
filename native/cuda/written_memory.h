// The device memory that a kernel writes, told by the types of its arguments in the table (see abi.h): what is not
// const. The kernel's own memory (scratch, results) is not among them; nobody else knows it.
#pragma once

#include <type_traits>

#include "cuda/abi.h"

namespace monosem::cuda {

struct WrittenMemory {
  const void* begin = nullptr;
  size_t bytes = 0;  // 0: nothing is written
};

// Numbers, and structures of operands that are only read. Whoever adds a type of argument says here, or by an overload
// of writtenBy, what a kernel does with it.
template <class T, class... Structures>
constexpr bool isNumberOrOneOf = std::is_arithmetic_v<T> || std::is_enum_v<T> || (std::is_same_v<T, Structures> || ...);
template <class T>
constexpr bool isOnlyRead = isNumberOrOneOf<T, CodesView, FeatureOrderView, SelectionView, RowGradientView,
                                            EntryProduct, AdamStep, Clip, Attention, Sampling, FeatureDistribution>;

template <class T>
WrittenMemory writtenBy(const T&) {
  static_assert(isOnlyRead<T>, "an argument of which nobody has said whether a kernel writes to it");
  return {};
}
template <class T>
WrittenMemory writtenBy(const Vector<T>& operand) {
  return std::is_const_v<T> ? WrittenMemory() : WrittenMemory{operand.data, sizeof(T) * size_t(operand.size)};
}
template <class T>
WrittenMemory writtenBy(const Matrix<T>& operand) {
  return writtenBy(Vector<T>{operand.data, operand.rows * operand.columns});
}
// Of an output without a size only the first element is known. That is enough: operands begin where their blocks do, so
// that two that share memory begin at the same place.
template <class T>
WrittenMemory writtenBy(T* const& operand) {
  if constexpr (std::is_const_v<T>)
    return {};
  else
    return writtenBy(Vector<T>{operand, operand ? 1 : 0});
}
// What a call tells the host.
inline WrittenMemory writtenBy(MadeCodes* const&) {
  return {};
}
inline WrittenMemory writtenBy(MadeFeatureSet* const&) {
  return {};
}

}  // namespace monosem::cuda
