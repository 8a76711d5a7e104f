#pragma once

#include <sys/uio.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>

#include "net/pcapng.h"
#include "vmm/base/fd.h"
#include "vmm/base/say.h"

namespace martlet {

/// Opens the file of a capture for a writer that shares it with nobody. Throws HostError that begins with `what`.
[[nodiscard]] Fd open_capture(const std::string& path, std::string_view what);

/// Writes what one interface carries to a pcapng file, on a thread of its own: whoever hands frames over copies
/// them into a ring and goes on. When the ring is full, frames are missing in the file, which says where and how many.
class PcapWriter {
 public:
  struct Options {
    std::string path{};
    pcapng::Interface interface {};
    std::size_t room = std::size_t{8} << 20U;  ///< bytes of the ring
  };
  /// Throws HostError. `say` hears of trouble when all is over.
  PcapWriter(const Options& options, Say say);
  PcapWriter(const PcapWriter&) = delete;
  PcapWriter& operator=(const PcapWriter&) = delete;
  /// Waits until what is in the ring is written, unless the file (a pipe) takes nothing for a second.
  ~PcapWriter();

  /// A frame: `size` bytes of `vectors` after the first `skip`. Always from one thread; never waits.
  void add(pcapng::Direction direction, std::span<const iovec> vectors, std::size_t skip, std::size_t size) noexcept;

  [[nodiscard]] const pcapng::Counts& counts() const noexcept { return counts_; }

 private:
  void put(std::span<const std::byte> bytes) noexcept;
  void run() noexcept;
  [[nodiscard]] std::size_t write(std::uint64_t begin, std::uint64_t end) noexcept;
  [[nodiscard]] bool write_all(std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] bool wait_for_file() noexcept;

  // The top bit of filled_: no more will come.
  static constexpr std::uint64_t kClosed = std::uint64_t{1} << 63U;

  std::string path_;
  Say say_;
  Fd file_;
  Fd closing_ = make_eventfd();

  // Bytes of the file are counted from its start, and byte n is at n % room_ in the ring.
  std::size_t room_;
  std::unique_ptr<std::byte[]> ring_;
  std::uint64_t end_ = 0;    // the producer's: what it has put
  std::uint64_t lost_ = 0;   // the producer's: dropped since the last frame that was not
  pcapng::Counts counts_{};  // the producer's
  std::atomic<std::uint64_t> filled_ = 0;
  std::atomic<std::uint64_t> written_ = 0;
  std::atomic<int> error_ = 0;  // the writer gave up

  std::optional<std::chrono::steady_clock::time_point> deadline_;  // the writer's, once closed
  std::thread thread_;
};

}  // namespace martlet
