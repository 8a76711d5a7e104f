#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/vmcoreinfo.h"

namespace martlet {

/// What a guest's kernel has printed and still remembers.
struct LogRecord {
  std::uint64_t time_ns = 0;  ///< since the guest's start
  unsigned facility = 0;
  unsigned level = 0;  ///< 0 (emergency) to 7 (debug)
  std::string text{};  ///< as it is in memory: any bytes, several lines
};

/// Reads a kernel's log out of its memory: the ring of descriptors and texts (Linux 5.10 and later) or the ring of
/// records (3.5 to 5.9). The oldest record is first. Nothing when `info` does not say where the log is, or what is
/// there is none. The guest's word bounds nothing: at most some 64 MiB of text and a million records are read, in
/// bounded time.
[[nodiscard]] std::optional<std::vector<LogRecord>> read_dmesg(const GuestMemory& memory, const VmCoreInfo& info);

enum class LogLevels { Hidden, Shown };

/// As `dmesg` prints it: "[    0.123456] text", more lines of the same record indented, with "<6>" in front if levels
/// are shown. Only printable ASCII and tabs; other bytes become \xNN. What comes after 64 MiB of it is cut.
[[nodiscard]] std::string format_dmesg(std::span<const LogRecord> records, LogLevels levels = LogLevels::Hidden);

}  // namespace martlet
