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
# Half of the groups each: what is emulated keeps one core busy, no more.
for shard in 1 2; do
  KERNEL_TESTS_SHARD=$shard/2 qemu-aarch64 "$build/kernel_tests" >"$build/shard-$shard" &
done
wait
cat "$build/shard-1" "$build/shard-2"
awk '/^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3; shards++ }
  END { failed += 2 - shards; printf "%d passed, %d failed\n", passed, failed; exit failed > 0 }' "$build/shard-1" "$build/shard-2"
