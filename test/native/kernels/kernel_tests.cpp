// Runs every group on every instruction set of this machine. With arguments: only the groups whose name contains one.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "check.h"

int main(int argumentCount, char** arguments) {
  using namespace monosem::test;
  int passed = 0, failed = 0;
  for (const std::string& instructionSet : monosem::availableInstructionSets()) {
    for (const Group& group : groups()) {
      const bool wanted = argumentCount == 1 || std::any_of(arguments + 1, arguments + argumentCount, [&](char* part) {
                            return std::strstr(group.name, part) != nullptr;
                          });
      if (!wanted) continue;
      Test test(instructionSet);
      try {
        group.run(test);
      } catch (const std::exception& error) {
        test.check(false, std::string("no exception, but: ") + error.what());
      }
      std::printf("%-8s %-28s %5d passed%s\n", instructionSet.c_str(), group.name, test.passed,
                  test.failed ? (", " + std::to_string(test.failed) + " FAILED").c_str() : "");
      passed += test.passed;
      failed += test.failed;
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed ? 1 : 0;
}
