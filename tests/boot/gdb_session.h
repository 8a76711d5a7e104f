#pragma once
// Stock gdb, told what to do, at a guest that martlet runs.

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/boot/guest.h"

namespace martlet::test {

class GdbSession : public ::testing::Test {
 protected:
  [[nodiscard]] std::string socket() const { return directory_.file("gdb"); }

  /// Beside gdb's own, the commands have Python's interrupt_after(SECONDS): ^C so long after the guest next goes on;
  /// `sent` is when, by time.monotonic().
  [[nodiscard]] Subprocess::Config gdb(const std::string& symbols, const std::vector<std::string>& commands) const {
    const auto interrupt = directory_.file("interrupt_after.py");
    std::ofstream{interrupt} << "import gdb, os, signal, threading, time\n"
                                "def interrupt_after(seconds):\n"
                                "    def send():\n"
                                "        global sent\n"
                                "        sent = time.monotonic()\n"
                                "        os.kill(os.getpid(), signal.SIGINT)\n"
                                "    def arm(event):\n"
                                "        gdb.events.cont.disconnect(arm)\n"
                                "        threading.Timer(seconds, send).start()\n"
                                "    gdb.events.cont.connect(arm)\n";
    std::vector<std::string> words{
        "gdb", "-q", "-nx", "-batch", "-ex", "set pagination off", "-ex", "source " + interrupt};
    words.insert(words.end(), {"-ex", "target remote " + socket()});
    for (const auto& each : commands) {
      words.insert(words.end(), {"-ex", each});
    }
    words.push_back(symbols);
    return {.command = std::move(words)};
  }

  [[nodiscard]] Guest guest(std::string script, std::vector<std::string> more) const {
    more.insert(more.end(), {"--gdb", "unix:" + socket()});
    return {.cpus = 2, .memory_mib = 256, .more = std::move(more), .script = std::move(script)};
  }

 private:
  TempDir directory_;
};

}  // namespace martlet::test
