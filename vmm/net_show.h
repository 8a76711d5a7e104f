#pragma once

#include <string>

namespace martlet {

enum class NetFormat { Text, Json };

/// The bridges of this host, Martlet's switches among them. Throws HostError.
[[nodiscard]] std::string list_switches(NetFormat format);
/// All that can be told of one. Throws HostError when there is none.
[[nodiscard]] std::string show_switch(const std::string& name, NetFormat format);

}  // namespace martlet
