// A vhost-user back-end that says anything, in one go, and hangs up: it is refused in one line, or the card lives
// on it until its cable is out.
//
// Input: pairs, MTU (2 bytes), whether a descriptor comes along; all the rest is what the back-end says.

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "devices/virtio/vhost_user_net.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr std::array<GuestRange, 1> kRam{{{GuestAddr{0}, 0x2'0000}}};
constexpr std::uint16_t kSize = 16;

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

struct Interrupts final : DriverInterrupts {
  int changes = 0;
  void queue_used(std::uint16_t) noexcept override {}
  void config_changed() noexcept override { ++changes; }
  void needs_reset() noexcept override {}
  [[nodiscard]] int call_fd(std::uint16_t) const noexcept override { return -1; }
};

/// A socket that listens, for all the inputs.
class Listener {
 public:
  Listener() : path{"/tmp/vhost-user-fuzzer-" + std::to_string(::getpid())} {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ::unlink(path.c_str());
    fd_ = Fd{check(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), path)};
    check(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), path);
    check(::listen(fd_.get(), 1), path);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() { ::unlink(path.c_str()); }

  /// Says `words` to the next who connects, and hears it out.
  void serve(std::span<const std::uint8_t> words, bool with_descriptor) const {
    const Fd peer{::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
    iovec part{const_cast<std::uint8_t*>(words.data()), words.size()};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (with_descriptor) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      auto* const rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int));
      const int fd = fd_.get();
      std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    [[maybe_unused]] const auto said = ::sendmsg(peer.get(), &message, MSG_NOSIGNAL);
    ::shutdown(peer.get(), SHUT_WR);
    for (std::array<std::byte, 4096> heard; ::read(peer.get(), heard.data(), heard.size()) > 0;) {
    }
  }

  std::string path;

 private:
  Fd fd_;
};

/// A driver that starts the card's rings and stops them, twice.
void use(VhostUserNet& net, const GuestMemory& memory) {
  Interrupts interrupts;
  const Fd kick = make_eventfd();
  for (int round = 0; round < 2; ++round) {
    const auto features = net.features() | kVersion1;
    net.start(features, interrupts);
    for (std::uint16_t index = 0; index < net.queue_sizes().size(); ++index) {
      const std::uint64_t base = 0x1000ULL * (1U + index);
      auto queue = VirtQueue::make(memory,
                                   {.index = index,
                                    .size = kSize,
                                    .descriptors = GuestAddr{base},
                                    .driver = GuestAddr{base + 0x400},
                                    .device = GuestAddr{base + 0x800},
                                    .features = features & ~std::uint64_t{kRingPacked}},
                                   interrupts);
      require(queue != nullptr);
      net.start_queue(index, std::move(queue), kick.get());
    }
    net.stop();
    for (std::uint16_t index = 0; index < net.queue_sizes().size(); ++index) {
      require(!net.serves_itself(index));
    }
  }
  require(interrupts.changes <= 1);  // the cable is out once
}

void run(std::span<const std::uint8_t> input) {
  static const Listener listener;
  constexpr std::size_t kSettings = 4;
  if (input.size() < kSettings) {
    return;
  }
  const VhostUser::Options options{.path = listener.path,
                                   .pairs = static_cast<std::uint16_t>(1 + input[0] % 4),
                                   .mtu = static_cast<std::uint16_t>(input[1] | input[2] << 8U)};
  const std::jthread back_end{
      [&] { listener.serve(input.subspan(kSettings), (input[3] & 1U) != 0); }};  // it ends when the card does
  const GuestMemory memory{kRam, GuestMemory::Backing::Memfd};
  EventLoop loop;
  int lost = 0;
  try {
    VhostUserNet net{loop, memory, {.back_end = options, .mac = {0x52}, .lost = [&] { ++lost; }}};
    use(net, memory);
    require(lost <= 1);
  } catch (const HostError& error) {
    require(std::string{error.what()}.find('\n') == std::string::npos);
  }
}

}  // namespace
}  // namespace martlet::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  martlet::virtio::run({data, size});
  return 0;
}
