#include "guest/trouble.h"

#include <linux/reboot.h>

#include "guest/system.h"

namespace guest {
namespace {

constexpr long kExecPort = 0x504;  // layout::kExecPort: a line of text, byte by byte

void tell_console(const Line& line) noexcept {
  for (const auto* path : {"/dev/console", "/dev/kmsg"}) {
    if (const auto fd = open(path, O_WRONLY | O_NOCTTY); fd >= 0) {
      write(fd, line.c_str(), line.view().size());
      close(fd);
      return;
    }
  }
}

void tell_host(const Line& line) noexcept {
  if (call(__NR_ioperm, kExecPort, 1, 1) == 0) {
    for (const char c : line.view()) {
      asm volatile("outb %b0, %w1" : : "a"(c), "Nd"(kExecPort));
    }
  } else if (const auto fd = open("/dev/port", O_WRONLY); fd >= 0) {  // a kernel without CONFIG_X86_IOPL_IOPERM
    for (const char c : line.view()) {
      call(__NR_pwrite64, fd, &c, 1, kExecPort);
    }
  }
}

}  // namespace

void give_up(const Line& why) noexcept {
  Line line;
  line << "martlet: " << why.view() << "\n";
  tell_console(line);
  Line told;
  told << why.view() << "\n";
  tell_host(told);
  for (;;) {  // nobody ended us: then the host knows by this that something went wrong
    call(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, nullptr);
    sleep_ms(1000);
  }
}

}  // namespace guest
