#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/subprocess.h"

namespace martlet::test {

/// What to boot: one of the guests that tests/boot/prepare-guests lays out.
struct Guest {
  std::string kernel = "cloud-6.1";
  std::string image = "vmlinuz";  ///< or "vmlinux": the ELF file inside it
  std::string append{};           ///< after "martlet.test=WORD", which decides what the guest does
  std::uint32_t cpus = 1;
  std::uint32_t memory_mib = 512;
  std::vector<std::string> more{};  ///< more options of martlet's
  /// For its sh, beside the root; its status is the VM's exit code. With it comes martlet.test=script.
  std::string script{};
  std::vector<std::string> by{};  ///< a command that runs it, as another user perhaps
  bool with_root = true;          ///< give it its root by --root
  /// In the lab a boot takes 5 s on idle cores; on busy ones, many times that.
  std::chrono::seconds limit{150};
};

/// "cloud-6.1 vmlinuz, 2 CPUs, …"
std::ostream& operator<<(std::ostream& stream, const Guest& guest);

/// `name` among what prepare-guests made for `kernel`, e.g. "root.cpio".
[[nodiscard]] std::string guest_file(std::string_view kernel, std::string_view name);

/// The directory that tools/kernels prints of these words. What it fetches or builds, it has before the lab begins.
[[nodiscard]] std::string kernel_directory(std::vector<std::string> words);

/// How a VM ended.
struct Ended {
  Outcome outcome;         ///< of martlet; `out` is the console, without carriage returns
  nlohmann::json verdict;  ///< --result's; null if it was killed
  std::string bundle;      ///< of a triple fault or time-out: what --bundle kept, without the vmcore
};
std::ostream& operator<<(std::ostream& stream, const Ended& ended);

/// The options that make martlet keep, in `directory`, what read_ending() finds.
[[nodiscard]] std::vector<std::string> ending_options(const TempDir& directory);
/// Fills in what `ended` lacks: all but its outcome.
void read_ending(const TempDir& directory, Ended& ended);

/// A running martlet. Bounded twice: by its own --timeout, and by being killed.
class RunningGuest {
 public:
  /// `streams` tells its input and output; the rest of it is filled in here.
  explicit RunningGuest(const Guest& guest, Subprocess::Config streams = {});

  [[nodiscard]] Subprocess& process() noexcept { return *process_; }
  /// Until it ends.
  [[nodiscard]] Ended wait();

 private:
  TempDir directory_;
  std::unique_ptr<Subprocess> process_;
};

/// Boots it and waits for its end.
[[nodiscard]] Ended boot(const Guest& guest);

}  // namespace martlet::test
