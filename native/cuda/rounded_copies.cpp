#include "cuda/rounded_copies.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace monosem::cuda {
namespace {

bool isSame(Rows a, Rows b) {
  return a.data == b.data && a.rows == b.rows && a.columns == b.columns;
}

bool overlaps(Rows matrix, const void* begin, size_t bytes) {
  const auto first = reinterpret_cast<uintptr_t>(matrix.data), other = reinterpret_cast<uintptr_t>(begin);
  return first < other + bytes && other < first + sizeof(float) * size_t(matrix.rows * matrix.columns);
}

}  // namespace

template <class Condition>
Block RoundedCopies::takeWhere(const Condition& condition) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto place = std::find_if(copies_.begin(), copies_.end(), condition);
  if (place == copies_.end()) return {};
  Block rounded = std::move(place->rounded);
  copies_.erase(place);
  return rounded;
}

Block RoundedCopies::of(Rows matrix) const {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Copy& copy : copies_)
    if (isSame(copy.matrix, matrix)) return copy.rounded;
  return {};
}

Block RoundedCopies::take(Rows matrix) {
  return takeWhere([&](const Copy& copy) { return isSame(copy.matrix, matrix); });
}

void RoundedCopies::keep(Rows weights, Block rounded) {
  std::lock_guard<std::mutex> lock(mutex_);
  copies_.push_back({weights, std::move(rounded), false});
}

void RoundedCopies::keepForNow(Rows activations, Block rounded) {
  Block replaced;  // let go after the lock
  std::lock_guard<std::mutex> lock(mutex_);
  const auto isOfActivations = [](const Copy& copy) { return copy.ofActivations; };
  if (std::count_if(copies_.begin(), copies_.end(), isOfActivations) == mostOfActivations) {
    const auto oldest = std::find_if(copies_.begin(), copies_.end(), isOfActivations);
    replaced = std::move(oldest->rounded);
    copies_.erase(oldest);
  }
  copies_.push_back({activations, std::move(rounded), true});
}

bool RoundedCopies::makeRoom() noexcept {
  std::vector<Copy> gone;  // let go after the lock
  std::lock_guard<std::mutex> lock(mutex_);
  gone.swap(copies_);
  return !gone.empty();
}

void RoundedCopies::contentGone(const void* begin, size_t bytes) noexcept {
  const auto isGone = [&](const Copy& copy) { return overlaps(copy.matrix, begin, bytes); };
  while (takeWhere(isGone)) {
  }
}

}  // namespace monosem::cuda
