#!/bin/sh
# Builds the kernel tests for 64-bit ARM and runs them, NEON and baseline, under emulation.
# Needs: apt-get install g++-aarch64-linux-gnu qemu-user cmake
set -eu
cd "$(dirname "$0")/.."
build="${1:-build/neon}"
cmake -S . -B "$build" -DMONOSEM_ADDON=OFF -DMONOSEM_TESTS=ON -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_EXE_LINKER_FLAGS=-static
cmake --build "$build" --parallel 2 --target kernel_tests
qemu-aarch64 "$build/kernel_tests"
