#include "vmm/base/error.h"

#include <cerrno>
#include <system_error>

namespace martlet {

int check(int result, std::string_view what) {
  if (result < 0) {
    fail_errno(errno, what);
  }
  return result;
}

void fail_errno(int error, std::string_view what) {
  throw HostError{std::string{what} + ": " + std::generic_category().message(error)};
}

}  // namespace martlet
