// The boot tests' program: GoogleTest's main(), which also tells with-kvm when it may have been the lab's CPU.

#include <gtest/gtest.h>

#include <cstdio>

#include "tests/boot/guest.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const int status = RUN_ALL_TESTS();
  if (status != 0 && martlet::test::lab_is_suspect()) {
    std::fputs("boot_tests: in the lab, a VM ended in a triple fault or ran out of time\n", stderr);
    return 125;  // "the lab failed": once more, by with-kvm --again
  }
  return status;
}
