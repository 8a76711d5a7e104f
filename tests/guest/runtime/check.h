#pragma once
// What a guest expects of its machine. A failed check is printed and remembered; the guest goes on.

#include "uart.h"

namespace guest {

inline int failures = 0;

inline void check(bool holds, const char* what) {
  if (!holds) {
    ++failures;
    print("FAILED: ", what, "\n");
  }
}
inline void check_equal(u64 actual, u64 expected, const char* what) {
  if (actual != expected) {
    ++failures;
    print("FAILED: ", what, ": ", Hex{actual}, ", expected ", Hex{expected}, "\n");
  }
}

/// The guest's exit code.
inline int verdict() { return failures == 0 ? 0 : 1; }

}  // namespace guest
