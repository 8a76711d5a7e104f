#include "tests/boot/guest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <utility>

namespace martlet::test {
namespace {

// The program itself gets so much longer than its VM.
constexpr std::chrono::seconds kGrace{30};
// Of each file of a bundle, in a test's log.
constexpr std::size_t kBundleTail = 1500;

bool has_option(const Guest& guest, std::string_view name) {
  return std::ranges::find(guest.more, name) != guest.more.end();
}

}  // namespace

std::ostream& operator<<(std::ostream& stream, const Guest& guest) {
  stream << guest.kernel << " " << guest.image << ", " << guest.cpus << " CPUs, " << guest.memory_mib << " MiB, \""
         << guest.append << '"';
  for (const auto& option : guest.more) {
    stream << " " << option;
  }
  return stream;
}

std::ostream& operator<<(std::ostream& stream, const Ended& ended) {
  auto verdict = ended.verdict;
  if (verdict.is_object()) {
    verdict.erase("command");
  }
  return stream << ended.outcome << "--- its verdict\n" << verdict << '\n' << ended.bundle;
}

std::string guest_file(std::string_view kernel, std::string_view name) {
  return std::string{MARTLET_GUESTS "/"}.append(kernel).append("/").append(name);
}

std::string kernel_directory(std::vector<std::string> words) {
  words.insert(words.begin(), MARTLET_TOOLS "/kernels");
  const auto told = run({.command = std::move(words)});
  EXPECT_EQ(told.exit_code, 0) << told;
  return told.out.substr(0, told.out.find('\n'));
}

RunningGuest::RunningGuest(const Guest& guest, Subprocess::Config streams) {
  auto kernel = guest_file(guest.kernel, "kernel/" + guest.image);
  streams.command = guest.by;
  if (!guest.by.empty()) {
    std::filesystem::permissions(directory_.path(), std::filesystem::perms::all);
    std::filesystem::copy_file(kernel, directory_.file("kernel"));  // from a cache that is somebody's own
    kernel = directory_.file("kernel");
  }
  const auto add = [&](std::initializer_list<std::string> words) {
    streams.command.insert(streams.command.end(), words);
  };
  add({MARTLET_PROGRAM, "run", kernel});
  const bool scripted = !guest.script.empty();
  add({"-a", (scripted ? "quiet martlet.test=script " : "") + guest.append, "-c", std::to_string(guest.cpus), "-m",
       std::to_string(guest.memory_mib) + "M"});
  add({"--stats"});
  const auto ending = ending_options(directory_);
  streams.command.insert(streams.command.end(), ending.begin(), ending.end());
  if (scripted) {
    const auto root = directory_.file("root");
    std::filesystem::create_directory(root);
    std::ofstream{root + "/script"} << guest.script;
    add({"-i", guest_file(guest.kernel, "root.cpio"), "--root", root});
  } else if (guest.with_root) {
    add({"--root", guest_file(guest.kernel, "root")});
  }
  if (!has_option(guest, "--timeout")) {
    add({"--timeout", std::to_string(guest.limit.count()) + "s"});
  }
  streams.command.insert(streams.command.end(), guest.more.begin(), guest.more.end());
  streams.deadline = guest.limit + kGrace;
  process_ = std::make_unique<Subprocess>(std::move(streams));
}

Ended RunningGuest::wait() {
  Ended ended{.outcome = process_->wait(), .verdict = {}, .bundle = {}};
  std::erase(ended.outcome.out, '\r');
  read_ending(directory_, ended);
  return ended;
}

std::vector<std::string> ending_options(const TempDir& directory) {
  return {"--result", directory.file("verdict.json"), "--bundle", directory.file("bundle") + ",vmcore=none"};
}

void read_ending(const TempDir& directory, Ended& ended) {
  const auto wrote = "martlet: wrote " + directory.file("bundle") + "\n";
  if (const auto at = ended.outcome.err.find(wrote); at != std::string::npos) {
    ended.outcome.err.erase(at, wrote.size());  // of every exit code but 0: no test's business
  }
  const auto file = directory.file("verdict.json");
  if (!std::filesystem::exists(file)) {
    return;
  }
  ended.verdict = nlohmann::json::parse(read_file(file), nullptr, false);
  const auto word = ended.verdict.is_object() ? ended.verdict.value("verdict", "") : "";
  if (word != "triple-fault" && word != "timeout") {
    return;
  }
  for (const auto* name : {"cpus.txt", "dmesg.txt", "console.log", "exits.txt"}) {
    if (const auto kept = directory.file(std::string{"bundle/"} + name); std::filesystem::exists(kept)) {
      const auto text = read_file(kept);
      ended.bundle.append("--- ").append(name).append(", its end\n");
      ended.bundle.append(text, text.size() - std::min(text.size(), kBundleTail)).append("\n");
    }
  }
}

Ended boot(const Guest& guest) { return RunningGuest{guest}.wait(); }

}  // namespace martlet::test
