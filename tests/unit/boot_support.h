#pragma once
// What the tests of boot/ share: guests without a VM, files that are gone afterwards, tools of others.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/subprocess.h"
#include "vmm/base/error.h"
#include "vmm/base/guest_memory.h"
#include "vmm/x86_64/layout.h"
#include "vmm/x86_64/ram.h"

namespace martlet::test {

using layout::kGiB;
using layout::kKiB;
using layout::kMiB;
using Bytes = std::vector<std::byte>;

inline GuestMemory make_guest(std::uint64_t size) { return GuestMemory{ram_ranges(size)}; }

/// A directory of its own for each test, and files in it.
class FileDir : public TempDir {
 public:
  std::string operator/(const std::string& name) const { return file(name); }

  std::string write(const std::string& name, std::span<const std::byte> bytes) const {
    const std::filesystem::path path = file(name);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream{path, std::ios::binary}.write(reinterpret_cast<const char*>(bytes.data()),
                                                static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  std::string write(const std::string& name, std::string_view text) const {
    return write(name, std::as_bytes(std::span{text}));
  }
};

/// The message of the HostError that `action` throws; a test failure when it throws none.
template <class Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const HostError& error) {
    return error.what();
  }
  ADD_FAILURE() << "expected a HostError";
  return {};
}

struct Ran {
  int status = -1;
  std::string output;
};
/// Runs a shell command; a missing tool is a failure with its name in the output.
inline Ran run(const std::string& command) {
  Ran ran;
  FILE* pipe = ::popen(("{ " + command + "; } 2>&1").c_str(), "r");
  std::array<char, 4096> chunk;
  for (std::size_t got = 0; (got = std::fread(chunk.data(), 1, chunk.size(), pipe)) != 0;) {
    ran.output.append(chunk.data(), got);
  }
  const int status = ::pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

/// Overwrites bytes of `into` at `offset` with those of `value`.
template <class T>
void poke(Bytes& into, std::size_t offset, const T& value) {
  ASSERT_LE(offset + sizeof value, into.size());
  std::memcpy(&into[offset], &value, sizeof value);
}

inline unsigned byte_sum(std::span<const std::byte> bytes) {
  unsigned sum = 0;
  for (const auto byte : bytes) {
    sum += std::to_integer<unsigned>(byte);
  }
  return sum & 0xffU;
}

}  // namespace martlet::test
