#pragma once
// Guest scripts against block devices: what a driver sends and what it sees.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/block.h"
#include "devices/virtio/block_wire.h"
#include "fake_disk.h"
#include "virtio_driver.h"
#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {

using Bytes = std::vector<std::byte>;

[[nodiscard]] inline Bytes pattern(std::size_t size, unsigned seed) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>((i * 31 + i / 512 + seed) & 0xffU);
  }
  return bytes;
}

/// A file that goes when the test does.
class TempFile {
 public:
  explicit TempFile(const Bytes& content, std::string folder = ::testing::TempDir()) {
    path_ = std::move(folder) + "/martlet-test-XXXXXX";
    fd_ = Fd{check(::mkstemp(path_.data()), path_)};
    if (!content.empty()) {
      check(static_cast<int>(::pwrite(fd_.get(), content.data(), content.size(), 0)), path_);
    }
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  ~TempFile() { ::unlink(path_.c_str()); }

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] Bytes content() const {
    Bytes bytes(static_cast<std::size_t>(::lseek(fd_.get(), 0, SEEK_END)));
    read_exactly(fd_.get(), bytes, 0, path_);
    return bytes;
  }

 private:
  std::string path_;
  Fd fd_;
};

/// What HostError says that `what` throws.
[[nodiscard]] inline std::string host_error(const std::function<void()>& what) {
  try {
    what();
  } catch (const HostError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no HostError";
  return {};
}

/// A driver, a block device and what they say to each other.
class BlockGuest {
 public:
  explicit BlockGuest(Ring ring, std::uint16_t size = 64)
      : driver{{.size = size, .ring = ring, .features = kIndirectDescriptors}} {}

  FakeDriver driver;
  EventLoop loop;
  Disk* disk = nullptr;
  std::unique_ptr<Block> block;  // goes before what it uses

  void attach(std::unique_ptr<Disk> with, const DiskOptions& options = {}, std::uint64_t without = 0) {
    disk = with.get();
    block = std::make_unique<Block>(loop, options, std::move(with));
    block->begin();
    start(without);
  }
  void start(std::uint64_t without = 0) {
    block->start(driver.features() | (block->features() & ~without), driver);
    for (std::uint16_t i = 0; i < block->queue_sizes().size(); ++i) {
      block->start_queue(i, driver.make_queue(i), driver.kick_fd());
    }
  }
  FakeDisk& attach_fake(FakeDisk::Answers answers, const DiskOptions& options = {}, std::uint64_t without = 0) {
    auto fake = std::make_unique<FakeDisk>(kFakeSize, answers);
    auto& reference = *fake;
    attach(std::move(fake), options, without);
    return reference;
  }
  static constexpr std::size_t kFakeSize = 64 * kSector;

  struct Answer {
    BlockStatus status{};
    Bytes data{};  ///< what the device wrote before it
    std::uint32_t written = 0;
  };
  /// The next answer; nothing when none came.
  std::optional<Answer> take_answer(std::uint16_t queue = 0) {
    const auto used = driver.take_used(queue);
    if (!used) {
      return std::nullopt;
    }
    Answer answer{.written = used->written};
    for (const auto& buffer : used->data) {
      answer.data.insert(answer.data.end(), buffer.begin(), buffer.end());
    }
    if (!answer.data.empty()) {
      answer.status = static_cast<BlockStatus>(answer.data.back());
      answer.data.pop_back();
    }
    return answer;
  }
  /// Kicks, and waits for the disk as long as it has something to do.
  Answer finish(std::uint16_t queue = 0) {
    block->notified(queue);
    for (int i = 0; i < 100'000; ++i) {
      if (auto answer = take_answer(queue)) {
        return *answer;
      }
      disk->wait();
    }
    throw std::runtime_error{"the device never answers"};
  }

  [[nodiscard]] static BlockHeader header(BlockType type, std::uint64_t sector = 0) {
    return {.type = static_cast<std::uint32_t>(type), .sector = sector};
  }
  Answer read(std::uint64_t sector, std::uint32_t bytes) {
    driver.chain().readable(header(BlockType::In, sector)).writable(bytes).writable(1).submit();
    return finish();
  }
  BlockStatus write(std::uint64_t sector, const Bytes& bytes) {
    driver.chain().readable(header(BlockType::Out, sector)).readable(bytes).writable(1).submit();
    return finish().status;
  }
  BlockStatus flush() {
    driver.chain().readable(header(BlockType::Flush)).writable(1).submit();
    return finish().status;
  }
  BlockStatus ranges(BlockType type, std::initializer_list<BlockRange> list) {
    auto chain = driver.chain();
    chain.readable(header(type));
    for (const auto& range : list) {
      chain.readable(range);
    }
    chain.writable(1).submit();
    return finish().status;
  }
  template <class T>
  [[nodiscard]] T config(std::uint32_t offset) {
    T value{};
    block->read_config(offset, std::as_writable_bytes(std::span{&value, 1}));
    return value;
  }
};

}  // namespace martlet::virtio
