// Element types of tensors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace monosem {

enum class DType : uint8_t { f32, f16, bf16, i32, u32, f64 };

inline size_t bytesPerElement(DType dtype) {
  switch (dtype) {
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::f64:
      return 8;
    default:
      return 4;
  }
}

inline const char* nameOf(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
    case DType::u32:
      return "u32";
    case DType::f64:
      return "f64";
  }
  return "?";
}

// The tensor element type that a C++ type stands for.
template <class T>
constexpr DType dtypeOf();
template <>
constexpr DType dtypeOf<float>() {
  return DType::f32;
}
template <>
constexpr DType dtypeOf<double>() {
  return DType::f64;
}
template <>
constexpr DType dtypeOf<int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtypeOf<uint32_t>() {
  return DType::u32;
}

}  // namespace monosem
