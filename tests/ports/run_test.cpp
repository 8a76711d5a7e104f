// martlet run on a bridge, ended by force.

#include <fcntl.h>
#include <gtest/gtest.h>

#include "tests/ports/left.h"
#include "tests/support/namespace.h"

namespace martlet {
namespace {

TEST(RunOnABridge, LeavesNothingWheneverItIsKilled) {
  if (::access("/dev/kvm", R_OK | W_OK) != 0) {
    GTEST_SKIP() << "no /dev/kvm here";
  }
  test::in_namespace([] {
    test::run_shell("ip link add br0 type bridge && ip link set br0 up");
    int running = 0;
    for (int round = 0; round < 50; ++round) {
      const pid_t martlet = ::fork();
      if (martlet == 0) {
        const int null = ::open("/dev/null", O_RDWR);
        for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) {
          ::dup2(null, fd);
        }
        ::execl(MARTLET_PROGRAM, MARTLET_PROGRAM, "run", GUEST_DIR "/spin.elf", "-n",
                "bridge=br0,rate=1M,isolated=on,queues=2", "-n", "bridge=br0", nullptr);
        ::_exit(1);
      }
      Rtnetlink netlink;
      bool over = false;
      while (round % 2 != 0 && !over && !netlink.find("mlt0")) {
        ::usleep(1000);  // half of them once the port is there, however long the program takes to start
        over = ::waitpid(martlet, nullptr, WNOHANG) != 0;
      }
      ASSERT_FALSE(over) << "it ended by itself";
      ::usleep(static_cast<useconds_t>(round * 2003));
      running += netlink.find("mlt0") ? 1 : 0;
      ::kill(martlet, SIGKILL);
      ::waitpid(martlet, nullptr, 0);
      test::expect_nothing_left();
    }
    EXPECT_GE(running, 25);
  });
}

}  // namespace
}  // namespace martlet
