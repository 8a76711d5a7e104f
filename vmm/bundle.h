#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "vmm/base/guest_memory.h"
#include "vmm/bundle_options.h"
#include "vmm/debug/console_log.h"
#include "vmm/machine.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet {

/// All that a failure bundle is made of. The machine rests or has ended.
struct Bundle {
  BundleOptions where;  ///< a directory that is made if it is not there
  const GuestMemory& memory;
  std::span<const CpuState> cpus;
  std::optional<GuestRange> vmcoreinfo;  ///< where the guest says it is, if it does
  std::string console;                   ///< what the consoles said
  std::string verdict;                   ///< as --result writes it; "" while the VM runs
  std::string exits;                     ///< each vCPU's last
  std::string statistics;
  std::string command;  ///< how to do it again
  std::string vmlinux;  ///< --vmlinux; "" without
};

/// Writes console.log, verdict.json, exits.txt, stats.txt, dmesg.txt, cpus.txt, vmcore (or vmcore.zst) and a README.txt
/// that says what each is and what could not be had; another run's are removed. Needs nothing of the guest. Throws
/// HostError when the directory cannot be written.
void write_bundle(const Bundle& bundle);

/// Bundles of one run: of its failure, or whenever somebody asks. On the loop's thread.
class Bundles {
 public:
  /// `where`: none if nobody asked for one at the start; `command`: how to do it again.
  Bundles(const std::optional<BundleOptions>& where, std::string command, std::string vmlinux, Machine& machine);

  /// A console's output, to be kept.
  void hear(std::span<const std::byte> output) { console_.add(output); }
  [[nodiscard]] const ConsoleLog& console() const noexcept { return console_; }
  /// The VM has ended. What stands in the way is said, not thrown.
  void write(const std::string& verdict);
  /// It runs on: a bundle beside the one of its end.
  void write_now();
  /// The same in a place of somebody's choice. `done` is called with what stood in the way, or "" for nothing; not at
  /// all when the VM ends first.
  void write_now(const BundleOptions& where, std::function<void(const std::string& trouble)> done);

 private:
  [[nodiscard]] std::string write_to(const BundleOptions& where, const std::string& verdict);

  BundleOptions where_;
  std::string command_;
  std::string vmlinux_;
  Machine& machine_;
  ConsoleLog console_;
  unsigned live_ = 0;
};

/// A command line as a shell takes it.
[[nodiscard]] std::string quoted(std::span<const std::string> command_line);

}  // namespace martlet
