// What Martlet makes of a machine that is at rest, shown on an ELF core: QEMU's (dump-guest-memory) or its own.
//
//   examine_core CORE [--vmlinux FILE] [--vmcore FILE [--zstd]]
//
// Prints dmesg, registers and backtraces; with --vmcore it also writes the machine as a vmcore again.

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <string_view>

#include "tests/support/core_file.h"
#include "vmm/debug/post_mortem.h"
#include "vmm/debug/vmcore.h"

namespace martlet {
namespace {

int run(std::span<char* const> arguments) {
  std::string core_path;
  std::string vmlinux;
  std::string vmcore;
  auto compression = Vmcore::Compression::None;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    const bool has_value = i + 1 < arguments.size();
    if (argument == "--vmlinux" && has_value) {
      vmlinux = arguments[++i];
    } else if (argument == "--vmcore" && has_value) {
      vmcore = arguments[++i];
    } else if (argument == "--zstd") {
      compression = Vmcore::Compression::Zstd;
    } else {
      core_path = argument;
    }
  }
  const auto core = test::read_core(core_path);
  const auto start = std::chrono::steady_clock::now();
  const auto found = examine(*core.memory, core.cpus, vmlinux);
  const auto examined = std::chrono::steady_clock::now();
  if (found.info) {
    fmt::print("release: {}\n", found.info->release());
  }
  fmt::print("symbols: {}, ORC rows: {}\n", found.code.symbols.size(), found.code.orc.size());
  for (const auto& remark : found.remarks) {
    fmt::print("remark: {}\n", remark);
  }
  fmt::print("--- dmesg\n{}--- vCPUs\n{}", format_dmesg(found.log.value_or(std::vector<LogRecord>{})), found.cpus);
  if (!vmcore.empty()) {
    write_vmcore({.memory = *core.memory,
                  .cpus = core.cpus,
                  .info = found.info ? &*found.info : nullptr,
                  .path = vmcore,
                  .compression = compression});
  }
  const std::chrono::duration<double> seconds = examined - start;
  const std::chrono::duration<double> written = std::chrono::steady_clock::now() - examined;
  fmt::print(stderr, "examined in {:.3f} s, written in {:.3f} s\n", seconds.count(), written.count());
  return 0;
}

}  // namespace
}  // namespace martlet

int main(int argc, char** argv) {
  try {
    return martlet::run({argv, static_cast<std::size_t>(argc)});
  } catch (const std::exception& error) {
    fmt::print(stderr, "examine_core: {}\n", error.what());
    return 1;
  }
}
