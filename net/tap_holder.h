#pragma once

#include <sys/types.h>

#include <map>
#include <string>

namespace martlet {

/// Which process of this network namespace has each TAP open, by the TAP's name, as far as this user may know.
[[nodiscard]] std::map<std::string, pid_t> tap_holders();

}  // namespace martlet
