// A policy's file: it is refused in one line, or it is the same after a trip through JSON.

#include <cstddef>
#include <cstdint>
#include <string>

#include "net/port_policy.h"
#include "vmm/base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace martlet;
  try {
    const auto policy = parse_policy(std::string{reinterpret_cast<const char*>(data), size}, "policy");
    if (parse_policy(to_json(policy), "policy") != policy) {
      __builtin_trap();
    }
  } catch (const HostError& error) {
    if (std::string{error.what()}.find('\n') != std::string::npos) {
      __builtin_trap();
    }
  }
  return 0;
}
