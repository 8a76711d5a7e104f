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
                                 "makedumpfile --dump-dmesg vmcore log{}\n",
                                 std::filesystem::current_path().string(), bundle.command, host(),
                                 found.info ? std::string{found.info->release()} : "unknown",
                                 bundle.where.core == BundleOptions::Core::Zstd   ? "; first: zstd -d vmcore.zst"
                                 : bundle.where.core == BundleOptions::Core::None ? "; not wanted here"
                                                                                  : "");
  for (const auto& remark : found.remarks) {
    text += "\nnote: " + remark;
  }
  text += '\n';
  return text;
}

}  // namespace

void write_bundle(const Bundle& bundle) {
  std::error_code error;
  std::filesystem::create_directories(bundle.where.directory, error);
  if (error) {
    fail_errno(error.value(), "cannot make the bundle's directory " + bundle.where.directory);
  }
  const auto file = [&bundle](std::string_view name) { return fmt::format("{}/{}", bundle.where.directory, name); };
  // What another run left there is none of this one's.
  for (const auto* const name : {"verdict.json", "console.log", "exits.txt", "stats.txt", "dmesg.txt", "cpus.txt",
                                 "README.txt", "vmcore", "vmcore.zst"}) {
    std::filesystem::remove(file(name), error);
  }
  // What costs least and says most comes first, in case the disk is full.
  if (!bundle.verdict.empty()) {
    write_file(file("verdict.json"), bundle.verdict);
  }
  write_file(file("console.log"), bundle.console);
  write_file(file("exits.txt"), bundle.exits);
  write_file(file("stats.txt"), bundle.statistics);
  const auto found = examine(bundle.memory, bundle.cpus, bundle.vmlinux, bundle.vmcoreinfo);
  if (found.log) {
    write_file(file("dmesg.txt"), format_dmesg(*found.log));
  }
  write_file(file("cpus.txt"), found.cpus);
  write_file(file("README.txt"), read_me(bundle, found));
  if (bundle.where.core != BundleOptions::Core::None) {
    const bool compress = bundle.where.core == BundleOptions::Core::Zstd;
    write_vmcore({.memory = bundle.memory,
                  .cpus = bundle.cpus,
                  .info = found.info ? &*found.info : nullptr,
                  .path = file(compress ? "vmcore.zst" : "vmcore"),
                  .compression = compress ? Vmcore::Compression::Zstd : Vmcore::Compression::None});
  }
}

Bundles::Bundles(const std::optional<BundleOptions>& where, std::string command, std::string vmlinux, Machine& machine)
    : where_{where.value_or(BundleOptions{.directory = "martlet-bundle"})},
      command_{std::move(command)},
      vmlinux_{std::move(vmlinux)},
      machine_{machine} {}

void Bundles::write(const std::string& verdict) {
  const auto trouble = write_to(where_, verdict);
  say(trouble.empty() ? "wrote " + where_.directory : trouble);
}

void Bundles::write_now() {
  auto where = where_;
  where.directory += fmt::format(".{}", ++live_);
  write_now(where, [directory = where.directory](const std::string& trouble) {
    say(trouble.empty() ? "wrote " + directory : trouble);
  });
}

void Bundles::write_now(const BundleOptions& where, std::function<void(const std::string& trouble)> done) {
  machine_.look([this, where, done = std::move(done)] { done(write_to(where, {})); });
}

/// What stood in the way.
std::string Bundles::write_to(const BundleOptions& where, const std::string& verdict) {
  constexpr std::size_t kExits = 1000;
  const auto cpus = machine_.cpu_states();
  const auto* const recorder = machine_.recorder();
  try {
    write_bundle(
        {.where = where,
         .memory = machine_.memory(),
         .cpus = cpus,
         .vmcoreinfo = machine_.vmcoreinfo(),
         .console = console_.text(),
         .verdict = verdict,
         .exits = recorder != nullptr ? recorder->last_exits(kExits) : "not kept: give --bundle at the start\n",
         .statistics = machine_.statistics(),
         .command = command_,
         .vmlinux = vmlinux_});
  } catch (const HostError& error) {
    return error.what();
  }
  return {};
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
