#include "vmm/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

#include "tests/unit/stream_support.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

using namespace std::chrono_literals;
using Command = EscapeFilter::Command;

/// What comes out, commands as <names>.
std::string feed(EscapeFilter& filter, std::string_view typed) {
  std::string text;
  for (const auto& piece : filter.feed(std::as_bytes(std::span{typed}))) {
    text.append(reinterpret_cast<const char*>(piece.bytes.data()), piece.bytes.size());
    if (piece.command) {
      constexpr std::array kNames{"<quit>", "<help>", "<break>"};
      text += kNames[static_cast<std::size_t>(*piece.command)];
    }
  }
  return text;
}

TEST(EscapeFilter, FindsItsCommandsInOrder) {
  EscapeFilter filter;
  EXPECT_EQ(feed(filter, "ls\r"), "ls\r");
  EXPECT_EQ(feed(filter, "a\001bc\001hd\001xe"), "a<break>c<help>d<quit>e");
  EXPECT_EQ(feed(filter, "\001a\001\001"), "\001\001");
  EXPECT_EQ(feed(filter, ""), "");
}

TEST(EscapeFilter, GivesTheGuestWhatWasNotMeantForUs) {
  EscapeFilter filter;
  EXPECT_EQ(feed(filter, "\001k"), "\001k");
  EXPECT_EQ(feed(filter, "\001\r"), "\001\r");
  EXPECT_EQ(feed(filter, std::string_view{"\001\0", 2}), (std::string{"\001\0", 2}));
}

TEST(EscapeFilter, DoesNotCareHowInputIsCut) {
  const std::string typed = "one\001two\001x\001\001b\001a\001\001a\001h\001bb\001";
  EscapeFilter whole;
  const auto expected = feed(whole, typed);
  for (std::size_t cut = 0; cut <= typed.size(); ++cut) {
    EscapeFilter filter;
    const auto first = feed(filter, std::string_view{typed}.substr(0, cut));
    EXPECT_EQ(first + feed(filter, std::string_view{typed}.substr(cut)), expected) << cut;
  }
}

/// A session of its own on a pty: the child is its leader, its stdin the terminal.
struct Session : ::testing::Test {
  Session() : master{check(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), "openpt")} {
    check(::grantpt(master.get()), "grantpt");
    check(::unlockpt(master.get()), "unlockpt");
    std::array<char, 64> name{};
    ::ptsname_r(master.get(), name.data(), name.size());
    path = name.data();
    slave = open_file(path, O_RDWR | O_NOCTTY);
    ::tcgetattr(slave.get(), &original);
  }
  ~Session() override {
    if (child > 0) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
  }

  /// The child's exit status is what `body` returns.
  void start(const std::function<int()>& body) {
    std::fflush(nullptr);
    child = ::fork();
    if (child == 0) {
      ::setsid();
      const int tty = ::open(path.c_str(), O_RDWR);  // becomes the controlling terminal
      ::dup2(tty, 0);
      constexpr rlimit kNoCore{.rlim_cur = 0, .rlim_max = 0};
      ::setrlimit(RLIMIT_CORE, &kNoCore);
      for (const int signal : {SIGTSTP, SIGINT, SIGTERM, SIGSEGV, SIGABRT}) {
        std::signal(signal, SIG_DFL);  // whatever a sanitizer or the test's runner made of them
      }
      // std::exit, for the sake of atexit, but no static destructors and reports of the parent's.
      std::exit(body());
    }
  }
  int wait() {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    child = -1;
    return status;
  }
  [[nodiscard]] bool is_raw() const {
    termios now{};
    ::tcgetattr(slave.get(), &now);
    return (now.c_lflag & (ICANON | ECHO | ISIG)) == 0 && (now.c_oflag & OPOST) == 0;
  }
  [[nodiscard]] bool is_original() const {
    termios now{};
    ::tcgetattr(slave.get(), &now);
    return now.c_iflag == original.c_iflag && now.c_oflag == original.c_oflag && now.c_lflag == original.c_lflag &&
           now.c_cflag == original.c_cflag;
  }
  bool becomes_raw() {
    return eventually([this] { return is_raw(); });
  }

  [[noreturn]] static int wait_for_ever() {
    while (true) {
      ::pause();
    }
  }

  Fd master;
  Fd slave;
  std::string path;
  termios original{};
  pid_t child = -1;
};

TEST_F(Session, IsRawWhileItLives) {
  start([] {
    char go = 0;
    {
      const RawTerminal terminal{0};
      if (::read(0, &go, 1) != 1) {
        return 1;
      }
    }
    return go == 'x' && ::read(0, &go, 1) == 1 ? 0 : 1;
  });
  EXPECT_TRUE(becomes_raw());
  ASSERT_EQ(::write(master.get(), "x", 1), 1);
  EXPECT_TRUE(eventually([this] { return is_original(); }));
  ASSERT_EQ(::write(master.get(), "\n", 1), 1);
  EXPECT_EQ(wait(), 0);
}

TEST_F(Session, IsRestoredByAnExceptionAndByExit) {
  start([] {
    try {
      const RawTerminal terminal{0};
      throw std::runtime_error{"x"};
    } catch (const std::runtime_error&) {
    }
    static const auto* const leaked = new RawTerminal{0};
    std::exit(leaked->is_terminal() ? 7 : 1);
    return 0;
  });
  EXPECT_EQ(WEXITSTATUS(wait()), 7);
  EXPECT_TRUE(is_original());
}

TEST_F(Session, IsRestoredByFatalSignals) {
  for (const int signal :
       {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGSYS, SIGTRAP, SIGHUP, SIGINT, SIGQUIT, SIGTERM}) {
    start([signal] {
      std::signal(signal, SIG_DFL);
      const RawTerminal terminal{0};
      return wait_for_ever();
    });
    ASSERT_TRUE(becomes_raw());
    // To the main thread: TSan has one besides, which does not block SIGSYS, but fails when it gets it.
    ::tgkill(child, child, signal);
    const int status = wait();
    EXPECT_TRUE(WIFSIGNALED(status)) << signal;
    EXPECT_EQ(WTERMSIG(status), signal);
    ASSERT_TRUE(is_original()) << signal;  // or the next child's were raw before it came
  }
}

TEST_F(Session, IsRestoredByARealFaultAndByTerminate) {
  start([] {
    std::signal(SIGBUS, SIG_DFL);
    const RawTerminal terminal{0};
    std::array<char, 24> name{"/tmp/martlet-bus-XXXXXX"};
    const int empty = ::mkstemp(name.data());
    ::unlink(name.data());
    auto* const page = static_cast<volatile char*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, empty, 0));
    return static_cast<int>(page[0]);
  });
  int status = wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
  EXPECT_TRUE(is_original());
  start([]() -> int {
    std::signal(SIGABRT, SIG_DFL);
    ::close(2);
    const RawTerminal terminal{0};
    std::terminate();
  });
  status = wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) << status;
  EXPECT_TRUE(is_original());
}

TEST_F(Session, LeavesHandledAndIgnoredSignalsAlone) {
  start([] {
    std::signal(SIGHUP, SIG_IGN);
    static volatile std::sig_atomic_t term = 0;
    std::signal(SIGTERM, [](int) { term = 1; });
    const RawTerminal terminal{0};
    ::raise(SIGHUP);
    ::raise(SIGTERM);
    termios now{};
    ::tcgetattr(0, &now);
    return term == 1 && (now.c_lflag & ICANON) == 0 ? 0 : 1;
  });
  EXPECT_EQ(wait(), 0);
}

TEST_F(Session, IsRestoredWhileStoppedAndRawAgainAfter) {
  // The session's leader plays the shell, for the default SIGTSTP passes over an orphaned process group.
  start([this] {
    const pid_t job = ::fork();
    if (job == 0) {
      ::setpgid(0, 0);
      std::signal(SIGTTOU, SIG_IGN);
      ::tcsetpgrp(0, ::getpgrp());
      const RawTerminal terminal{0};
      pollfd wait{.fd = terminal.continued_fd(), .events = POLLIN, .revents = 0};
      while (::poll(&wait, 1, 30000) < 0) {
      }
      pollfd key{.fd = 0, .events = POLLIN, .revents = 0};
      while (::poll(&key, 1, 30000) < 0) {
      }
      std::exit((wait.revents & POLLIN) != 0 ? 9 : 1);
    }
    if (!becomes_raw()) {
      return 1;
    }
    ::kill(job, SIGTSTP);
    int status = 0;
    ::waitpid(job, &status, WUNTRACED);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTSTP || !is_original()) {
      return 2;
    }
    ::kill(job, SIGCONT);
    if (!becomes_raw()) {
      return 3;
    }
    if (::write(master.get(), "x", 1) != 1) {
      return 4;
    }
    ::waitpid(job, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 9 && is_original() ? 0 : 5;
  });
  EXPECT_EQ(WEXITSTATUS(wait()), 0);
}

TEST_F(Session, ABackgroundJobLeavesTheTerminalAloneUntilItIsInFront) {
  start([this] {
    const pid_t job = ::fork();
    if (job == 0) {
      ::setpgid(0, 0);
      const RawTerminal terminal{0};
      if (!is_original()) {
        std::exit(1);
      }
      ::raise(SIGSTOP);
      std::exit(is_raw() ? 9 : 2);
    }
    int status = 0;
    ::waitpid(job, &status, WUNTRACED);
    if (!WIFSTOPPED(status)) {
      return 1;
    }
    std::signal(SIGTTOU, SIG_IGN);
    ::tcsetpgrp(0, job);
    ::kill(job, SIGCONT);
    ::waitpid(job, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 9 && is_original() ? 0 : 2;
  });
  EXPECT_EQ(WEXITSTATUS(wait()), 0);
}

TEST(RawTerminal, LeavesWhatIsNoTerminalAlone) {
  const auto null = open_file("/dev/null", O_RDWR);
  const RawTerminal first{null.get()};
  const RawTerminal second{null.get()};
  EXPECT_FALSE(first.is_terminal());
  const RawTerminal closed{9999};
  EXPECT_FALSE(closed.is_terminal());
}

}  // namespace
}  // namespace martlet
