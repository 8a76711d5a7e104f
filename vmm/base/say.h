#pragma once

#include <functional>
#include <string_view>

namespace martlet {

/// Tells people one line.
using Say = std::function<void(std::string_view)>;

}  // namespace martlet
