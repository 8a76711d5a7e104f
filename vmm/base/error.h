#pragma once
// Host trouble while setting up: thrown once with its whole story, caught once in main().
// What a guest does is never an error of this kind.

#include <stdexcept>
#include <string>
#include <string_view>

namespace martlet {

/// The host or the command line is at fault. `what()` is one line that names the thing, says what
/// was expected and what to do. Ends the program with exit code 125.
class HostError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Returns `result` unless it is negative; else throws HostError "`what`: <errno's text>".
int check(int result, std::string_view what);

/// Throws HostError "`what`: <text of `error`>".
[[noreturn]] void fail_errno(int error, std::string_view what);

}  // namespace martlet
