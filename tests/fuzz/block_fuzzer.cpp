// A driver that sends whatever the input says to a block device on a disk in memory. The disk aborts when a
// request reaches outside of it; here it is seen that every request is answered, once, with a status.

#include <sys/epoll.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>

#include "../unit/fake_disk.h"
#include "../unit/virtio_driver.cpp"  // NOLINT(bugprone-suspicious-include): the unit tests' driver
#include "devices/virtio/block.h"

namespace {

using namespace martlet;
using namespace martlet::virtio;

constexpr std::size_t kDiskSize = 128 * kSector;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

class Input {
 public:
  explicit Input(std::span<const std::uint8_t> bytes) : bytes_{bytes} {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  std::span<const std::byte> take(std::size_t count) {
    const auto taken = bytes_.first(std::min(count, bytes_.size()));
    bytes_ = bytes_.subspan(taken.size());
    return std::as_bytes(taken);
  }
  template <class T>
  T take() {
    T value{};
    const auto from = take(sizeof(T));
    std::memcpy(&value, from.data(), from.size());
    return value;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

class Machine {
 public:
  Machine(Ring ring, DiskOptions options, FakeDisk::Answers answers)
      : driver_{{.size = 32, .ring = ring, .features = kIndirectDescriptors, .queues = 1}} {
    auto disk = std::make_unique<FakeDisk>(kDiskSize, answers);
    disk_ = disk.get();
    block_.emplace(loop_, options, std::move(disk));
  }

  void run(Input input) {
    const bool write_through = (input.take<std::uint8_t>() & 1U) != 0;
    disk_->error = 0;
    start(write_through);
    std::optional<FakeDriver::Chain> chain{driver_.chain()};
    bool writable = false;  // the chain has such a part
    std::size_t parts = 0;
    while (!input.empty() && parts < 28) {
      ++parts;
      const auto what = input.take<std::uint8_t>() % 10;
      const bool readable = what == 0 || what == 2 || what == 3 || what == 4;
      if (readable && writable) {
        continue;  // the queue would not let it through (§2.7.4.2), and has a fuzzer of its own
      }
      switch (what) {
        case 0:
          if (const auto bytes = input.take(input.take<std::uint8_t>()); !bytes.empty()) {
            chain->readable(bytes);
          }
          break;
        case 1:
          writable = true;
          chain->writable(input.take<std::uint16_t>() % 4096U + 1U);
          break;
        case 2:  // likely good
          chain->readable(BlockHeader{.type = input.take<std::uint8_t>() % 16U, .sector = input.take<std::uint8_t>()});
          break;
        case 3:
          chain->readable(input.take<BlockHeader>());
          break;
        case 4:
          chain->readable(BlockRange{.sector = input.take<std::uint8_t>(),
                                     .sectors = input.take<std::uint8_t>(),
                                     .flags = input.take<std::uint8_t>() % 4U});
          break;
        case 5:
          writable = true;
          chain->writable(512U * (input.take<std::uint8_t>() % 8U) + 1U);
          break;
        case 6:
          chain->indirect();
          break;
        case 7:
          disk_->error = input.take<std::uint8_t>() % 3 == 0 ? EIO : 0;
          break;
        case 8:
          come_round();  // so that all is taken from the ring
          block_->stop_queue(0);
          take_all(Answered::OrDropped);
          block_->stop();
          start(write_through);
          chain.emplace(driver_.chain());
          writable = false;
          break;
        default:
          send(*chain);
          chain.emplace(driver_.chain());
          writable = false;
          disk_->wait();
          break;
      }
    }
    send(*chain);
    settle();
    take_all(Answered::All);
    block_->stop();
  }

 private:
  enum class Answered { All, OrDropped };

  void start(bool write_through) {
    block_->start(driver_.features() | (write_through ? 0 : block_->features()), driver_);
    block_->start_queue(0, driver_.make_queue(), driver_.kick_fd());
  }
  void send(FakeDriver::Chain& chain) {
    try {
      chain.submit();
    } catch (const std::runtime_error&) {  // the ring is full, or there is nothing in it
    }
    block_->notified(0);
  }
  /// Gives the loop some turns: a device that has had its share of one leaves the rest for the next.
  void come_round() {
    const Fd turn = make_eventfd();
    signal_eventfd(turn.get());
    int turns = 0;
    loop_.watch(turn.get(), EPOLLIN, [&](std::uint32_t) {
      if (++turns == 3) {
        loop_.stop();
      }
    });
    loop_.run();
    loop_.unwatch(turn.get());
  }
  /// Until nobody has anything more to do.
  void settle() {
    do {
      while (disk_->waiting() != 0) {
        disk_->wait();
      }
      come_round();
    } while (disk_->waiting() != 0);
  }
  void take_all(Answered answered) {
    while (const auto used = driver_.take_used()) {
      std::size_t bytes = 0;
      for (const auto& buffer : used->data) {
        bytes += buffer.size();
      }
      require(used->written <= bytes);
      require(bytes == 0 || answered == Answered::OrDropped || used->data.back().back() <= std::byte{2});
    }
    require(driver_.in_flight() == 0);
  }

  FakeDriver driver_;
  EventLoop loop_;
  FakeDisk* disk_ = nullptr;
  std::optional<Block> block_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Machine split{Ring::Split, {.serial = "fuzz"}, FakeDisk::Answers::Later};
  static Machine packed{Ring::Packed, {.serial = "fuzz"}, FakeDisk::Answers::AtOnce};
  static Machine read_only{Ring::Split, {.access = DiskAccess::ReadOnly}, FakeDisk::Answers::Later};
  if (size == 0) {
    return 0;
  }
  Machine* const machines[] = {&split, &packed, &read_only};
  machines[data[0] % 3]->run(Input{{data + 1, size - 1}});
  return 0;
}
