// A network card with a driver that says anything: frames with any header, any command, buffers of any size,
// queues stopped and started at any time. What reaches the network must be fit for it.
//
// Input: feature bits (8 bytes), pairs, then operations with their arguments.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "devices/virtio/net.h"
#include "devices/virtio/net_header.h"
#include "devices/virtio/queue.h"
#include "net/backend.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/guest_memory.h"

namespace martlet::virtio {
namespace {

constexpr std::array<GuestRange, 1> kRam{{{GuestAddr{0}, 0x8'0000}}};
constexpr std::uint16_t kSize = 32;
constexpr std::uint64_t kRings = 0x1000;  // for each queue: descriptors, avail ring, used ring
constexpr std::uint64_t kBuffers = 0x2'0000;

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

struct Interrupts final : DriverInterrupts {
  void queue_used(std::uint16_t) noexcept override {}
  void config_changed() noexcept override {}
  void needs_reset() noexcept override {}
  [[nodiscard]] int call_fd(std::uint16_t) const noexcept override { return -1; }
};

class Input {
 public:
  explicit Input(std::span<const std::uint8_t> bytes) : bytes_{bytes} {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  template <class T>
  T take() {
    T value{};
    const auto count = std::min(sizeof(T), bytes_.size());
    std::memcpy(static_cast<void*>(&value), bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
    return value;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

class Network final : public NetBackend {
 public:
  explicit Network(std::uint16_t pairs) : descriptors_(pairs) {
    for (auto& fd : descriptors_) {
      fd = make_eventfd();
    }
  }

  std::deque<std::vector<std::byte>> frames;
  bool full = false;
  std::uint64_t features = 0;

  [[nodiscard]] std::uint16_t pairs() const noexcept override {
    return static_cast<std::uint16_t>(descriptors_.size());
  }
  [[nodiscard]] std::uint32_t offloads() const noexcept override { return 0x3f; }
  [[nodiscard]] std::uint16_t mtu() const noexcept override { return 1500; }
  [[nodiscard]] int fd(std::uint16_t pair) const noexcept override { return descriptors_[pair].get(); }
  [[nodiscard]] bool set_offloads(std::uint32_t bits) noexcept override {
    require((bits & ~0x3fU) == 0);
    return true;
  }
  [[nodiscard]] bool enable_pairs(std::uint16_t count) noexcept override {
    require(count >= 1 && count <= pairs());
    return true;
  }
  [[nodiscard]] std::ptrdiff_t receive(std::uint16_t pair, std::span<const iovec> into) noexcept override {
    require(pair < pairs() && into.size() <= 1024);
    if (frames.empty()) {
      return -EAGAIN;
    }
    const auto frame = std::move(frames.front());
    frames.pop_front();
    std::size_t done = 0;
    for (const auto& vector : into) {
      const auto part = std::min(vector.iov_len, frame.size() - done);
      std::copy_n(frame.begin() + static_cast<std::ptrdiff_t>(done), part, static_cast<std::byte*>(vector.iov_base));
      done += part;
    }
    require(done == frame.size());  // never cut
    return static_cast<std::ptrdiff_t>(done);
  }
  [[nodiscard]] std::ptrdiff_t send(std::uint16_t pair, std::span<const iovec> frame) noexcept override {
    require(pair < pairs() && frame.size() <= 1024 && frame[0].iov_len == sizeof(NetHeader));
    NetHeader header;
    std::memcpy(static_cast<void*>(&header), frame[0].iov_base, sizeof header);
    std::size_t length = 0;
    for (const auto& vector : frame.subspan(1)) {
      length += vector.iov_len;
    }
    require(length >= 14 && length <= kMaxFrame);
    require(takes(host_offloads(features), header));
    require((header.flags & ~kNeedsChecksum) == 0 && header.num_buffers == 0);
    require(header.flags == 0 || std::size_t{header.csum_start} + header.csum_offset + 2 <= length);
    require(header.gso_type == 0 || (header.flags != 0 && header.gso_size != 0 && header.hdr_len <= length));
    require(header.gso_type == 0 || length / header.gso_size <= kMaxFrame / 8);  // segments
    return full ? -EAGAIN : static_cast<std::ptrdiff_t>(length + sizeof header);
  }

 private:
  std::vector<Fd> descriptors_;
};

class Driver {
 public:
  Driver(const GuestMemory& memory, Interrupts& interrupts) : memory_{memory}, interrupts_{interrupts} {}

  std::unique_ptr<VirtQueue> make(std::uint16_t queue, std::uint64_t features) {
    avail_[queue] = 0;
    slot_[queue] = 0;
    wrap_[queue] = true;
    packed_ = (features & kRingPacked) != 0;
    const auto base = rings(queue);
    std::ranges::fill(*memory_.slice(GuestAddr{base}, kRings), std::byte{0});
    return VirtQueue::make(memory_,
                           {.index = queue,
                            .size = kSize,
                            .descriptors = GuestAddr{base},
                            .driver = GuestAddr{base + 0x400},
                            .device = GuestAddr{base + 0x600},
                            .features = features},
                           interrupts_);
  }
  /// `readable` in pieces of `piece` bytes, then buffers to write.
  void submit(std::uint16_t queue, std::span<const std::byte> readable, std::size_t piece, std::uint32_t writable,
              int count) {
    const std::uint16_t head = next_;
    std::vector<Buffer> buffers;
    const auto add = [&](std::uint64_t addr, std::uint32_t length, std::uint16_t flags) {
      next_ = static_cast<std::uint16_t>((next_ + 1) % kSize);
      buffers.push_back({addr, length, static_cast<std::uint16_t>(flags | kNext)});
    };
    std::uint64_t at = kBuffers + std::uint64_t{head} * 0x400;
    for (int pieces = 0; !readable.empty() && pieces < 16; ++pieces) {
      const auto part = readable.first(std::min(readable.size(), pieces == 15 ? readable.size() : piece + 1));
      if (!memory_.write(GuestAddr{at}, part)) {
        break;
      }
      add(at, static_cast<std::uint32_t>(part.size()), 0);
      at += part.size();
      readable = readable.subspan(part.size());
    }
    for (int i = 0; i < count; ++i) {
      add(0x4'0000 + std::uint64_t{next_} * 0x1000, writable, kWrite);
    }
    if (!buffers.empty()) {
      buffers.back().flags &= static_cast<std::uint16_t>(~kNext);
    }
    if (packed_) {
      put_packed(queue, head, buffers);
    } else {
      put_split(queue, head, buffers);
    }
  }

 private:
  struct Buffer {
    std::uint64_t addr;
    std::uint32_t length;
    std::uint16_t flags;
  };
  void put_split(std::uint16_t queue, std::uint16_t head, std::span<const Buffer> buffers) {
    auto slot = head;
    for (const auto& buffer : buffers) {
      const auto next = static_cast<std::uint16_t>((slot + 1) % kSize);
      put(rings(queue) + slot * sizeof(SplitDescriptor),
          SplitDescriptor{buffer.addr, buffer.length, buffer.flags, next});
      slot = next;
    }
    put(rings(queue) + 0x400 + 4 + avail_[queue] % kSize * 2U, head);
    put(rings(queue) + 0x400 + 2, ++avail_[queue]);
  }
  void put_packed(std::uint16_t queue, std::uint16_t id, std::span<const Buffer> buffers) {
    for (const auto& buffer : buffers) {
      const unsigned available = wrap_[queue] ? unsigned{kPackedAvail} : unsigned{kPackedUsed};
      put(rings(queue) + slot_[queue] * sizeof(PackedDescriptor),
          PackedDescriptor{buffer.addr, buffer.length, id, static_cast<std::uint16_t>(buffer.flags | available)});
      slot_[queue] = static_cast<std::uint16_t>((slot_[queue] + 1) % kSize);
      wrap_[queue] = wrap_[queue] != (slot_[queue] == 0);
    }
  }
  static std::uint64_t rings(std::uint16_t queue) { return kRings * (1ULL + queue); }
  template <class T>
  void put(std::uint64_t addr, const T& value) {
    require(memory_.write(GuestAddr{addr}, value));
  }

  const GuestMemory& memory_;
  Interrupts& interrupts_;
  bool packed_ = false;
  std::array<std::uint16_t, 16> avail_{};
  std::array<std::uint16_t, 16> slot_{};  // packed
  std::array<bool, 16> wrap_{};
  std::uint16_t next_ = 0;
};

enum class Operation : std::uint8_t { Send, Offer, Frame, Command, Kick, StopQueue, StartQueue, Restart, Full, Link };

void run(std::span<const std::uint8_t> bytes) {
  Input input{bytes};
  auto features = input.take<std::uint64_t>();
  const auto pairs = static_cast<std::uint16_t>(1 + input.take<std::uint8_t>() % 4);
  const auto queues = static_cast<std::uint16_t>(2 * pairs + 1);

  const GuestMemory memory{kRam};
  Interrupts interrupts;
  EventLoop loop;
  auto made = std::make_unique<Network>(pairs);
  auto& network = *made;
  Net net{loop, std::move(made), {.mac = {0x52}}};
  Driver driver{memory, interrupts};
  std::uint64_t rings = 0;
  const auto start = [&](std::uint64_t wanted) {
    features = wanted & net.features();
    rings = wanted & (kEventIndex | kIndirectDescriptors | kRingPacked);
    network.features = features;
    net.start(features, interrupts);
    for (std::uint16_t i = 0; i < queues; ++i) {
      net.start_queue(i, driver.make(i, rings), -1);
    }
  };
  start(features);
  for (int operations = 0; !input.empty() && operations < 200; ++operations) {
    const auto operation = static_cast<Operation>(input.take<std::uint8_t>() % 10);
    const auto queue = static_cast<std::uint16_t>(input.take<std::uint8_t>() % queues);
    switch (operation) {
      case Operation::Send: {
        const auto header = input.take<NetHeader>();
        std::vector<std::byte> frame(sizeof header + input.take<std::uint16_t>());
        std::memcpy(frame.data(), &header, sizeof header);
        driver.submit(queue, frame, input.take<std::uint16_t>(), 0, 0);
        net.notified(queue);
        break;
      }
      case Operation::Offer: {
        const auto size = input.take<std::uint16_t>();
        const int count = 1 + input.take<std::uint8_t>() % 8;
        driver.submit(queue, {}, 0, size, count);
        net.notified(queue);
        break;
      }
      case Operation::Frame: {
        const auto header = input.take<NetHeader>();
        std::vector<std::byte> frame(input.take<std::uint16_t>());
        std::ranges::copy(std::as_bytes(std::span{&header, 1}).first(std::min(frame.size(), sizeof header)),
                          frame.begin());
        network.frames.push_back(std::move(frame));
        net.notified(0);
        break;
      }
      case Operation::Command: {
        std::vector<std::byte> request(input.take<std::uint8_t>() % 64);
        for (auto& byte : request) {
          byte = input.take<std::byte>();
        }
        const auto control = static_cast<std::uint16_t>((features & kNetMultiQueue) != 0 ? queues - 1 : 2);
        driver.submit(control, request, queue, 1, 1);
        net.notified(control);
        break;
      }
      case Operation::Kick:
        net.notified(queue);
        break;
      case Operation::StopQueue:
        net.stop_queue(queue);
        break;
      case Operation::StartQueue:
        net.stop_queue(queue);
        net.start_queue(queue, driver.make(queue, rings), -1);
        break;
      case Operation::Restart:
        net.stop();
        start(input.take<std::uint64_t>());
        break;
      case Operation::Full:
        network.full = !network.full;
        break;
      case Operation::Link:
        net.set_link(queue % 2 == 0 ? Net::Link::Up : Net::Link::Down);
        break;
    }
  }
  net.stop();
}

}  // namespace
}  // namespace martlet::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  martlet::virtio::run({data, size});
  return 0;
}
