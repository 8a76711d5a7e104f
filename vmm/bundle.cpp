#include "vmm/bundle.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "vmm/base/error.h"
#include "vmm/base/fd.h"
#include "vmm/debug/dmesg.h"
#include "vmm/debug/post_mortem.h"
#include "vmm/debug/vmcore.h"
#include "vmm/terminal.h"

namespace martlet {
namespace {

void write_file(const std::string& path, std::string_view text) {
  const Fd fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  while (!text.empty()) {
    const auto written = ::write(fd.get(), text.data(), text.size());
    if (written < 0 && errno != EINTR) {
      fail_errno(errno, "cannot write " + path);
    }
    text.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
  }
}

std::string host() {
  utsname name{};
  return ::uname(&name) == 0 ? fmt::format("{} {} {}", name.sysname, name.release, name.version) : "unknown";
}

std::string read_me(const Bundle& bundle, const PostMortem& found) {
  std::string text = fmt::format("What martlet " MARTLET_VERSION
                                 " saw of a virtual machine.\n\n"
                                 "To do it again, in {}:\n  {}\n\n"
                                 "Host: {}\nGuest: {}\n\n"
                                 "verdict.json  how it ended (not there: it still ran)\n"
                                 "console.log   what its consoles said\n"
                                 "dmesg.txt     the kernel's log, read out of its memory\n"
                                 "cpus.txt      registers and backtrace of each vCPU\n"
                                 "exits.txt     the last exits of each vCPU\n"
                                 "stats.txt     all exits, by device, and KVM's own counters\n"
                                 "vmcore        its memory: crash vmlinux vmcore, drgn -c vmcore -s vmlinux, "
                                 "makedumpfile --dump-dmesg vmcore log\n",
                                 std::filesystem::current_path().string(), bundle.command, host(),
                                 found.info ? std::string{found.info->release()} : "unknown");
  for (const auto& remark : found.remarks) {
    text += "\nnote: " + remark;
  }
  text += '\n';
  return text;
}

}  // namespace

void write_bundle(const Bundle& bundle) {
  std::error_code error;
  std::filesystem::create_directories(bundle.directory, error);
  if (error) {
    fail_errno(error.value(), "cannot make the bundle's directory " + bundle.directory);
  }
  const auto file = [&bundle](std::string_view name) { return fmt::format("{}/{}", bundle.directory, name); };
  // What costs least and says most comes first, in case the disk is full.
  if (!bundle.verdict.empty()) {
    write_file(file("verdict.json"), bundle.verdict);
  }
  write_file(file("console.log"), bundle.console);
  write_file(file("exits.txt"), bundle.exits);
  write_file(file("stats.txt"), bundle.statistics);
  const auto found = examine(bundle.memory, bundle.cpus, bundle.vmlinux);
  if (found.log) {
    write_file(file("dmesg.txt"), format_dmesg(*found.log));
  }
  write_file(file("cpus.txt"), found.cpus);
  write_file(file("README.txt"), read_me(bundle, found));
  write_vmcore({.memory = bundle.memory,
                .cpus = bundle.cpus,
                .info = found.info ? &*found.info : nullptr,
                .path = file("vmcore")});
}

Bundles::Bundles(const std::optional<std::string>& directory, std::string command, std::string vmlinux,
                 Machine& machine)
    : directory_{directory.value_or("martlet-bundle")},
      kept_{directory.has_value()},
      command_{std::move(command)},
      vmlinux_{std::move(vmlinux)},
      machine_{machine} {}

void Bundles::write_now() {
  machine_.look([this] { write_to(fmt::format("{}.{}", directory_, ++live_), {}); });
}

void Bundles::write_to(const std::string& directory, const std::string& verdict) {
  constexpr std::size_t kExits = 1000;
  constexpr const char* kNotKept = "not kept: give --bundle at the start\n";
  const auto cpus = machine_.cpu_states();
  const auto* const recorder = machine_.recorder();
  try {
    write_bundle({.directory = directory,
                  .memory = machine_.memory(),
                  .cpus = cpus,
                  .console = kept_ ? console_.text() : kNotKept,
                  .verdict = verdict,
                  .exits = recorder != nullptr ? recorder->last_exits(kExits) : kNotKept,
                  .statistics = machine_.statistics(),
                  .command = command_,
                  .vmlinux = vmlinux_});
    say("wrote " + directory);
  } catch (const HostError& error) {
    say(error.what());
  }
}

std::string quoted(std::span<const std::string> command_line) {
  std::string text;
  for (const auto& word : command_line) {
    const bool plain = !word.empty() && word.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789-_=+,./:@%") == std::string::npos;
    auto safe = word;
    for (std::size_t at = 0; !plain && (at = safe.find('\'', at)) != std::string::npos; at += 4) {
      safe.replace(at, 1, "'\\''");
    }
    if (!text.empty()) {
      text += ' ';
    }
    text += plain ? safe : fmt::format("'{}'", safe);
  }
  return text;
}

}  // namespace martlet
