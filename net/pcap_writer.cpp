#include "net/pcap_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr auto kPatience = std::chrono::seconds{1};

}  // namespace

Fd open_capture(const std::string& path, std::string_view what) {
  Fd file{::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666)};
  if (!file && errno == ENXIO) {
    throw HostError{fmt::format("{}{}: nobody reads this pipe; start its reader first", what, path)};
  }
  if (!file) {
    fail_errno(errno, fmt::format("{}{}: cannot open it", what, path));
  }
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    throw HostError{fmt::format("{}{}: another capture writes there; choose another file", what, path)};
  }
  static_cast<void>(::ftruncate(file.get(), 0));  // pipes and terminals cannot, and need not
  return file;
}

PcapWriter::PcapWriter(const Options& options, Say say)
    : path_{options.path},
      say_{std::move(say)},
      file_{open_capture(path_, "-n pcap=")},
      room_{options.room},
      ring_{std::make_unique_for_overwrite<std::byte[]>(room_)} {
  put(pcapng::section("Martlet"));
  put(pcapng::interface(options.interface));
  filled_ = end_;
  thread_ = std::thread{[this] { run(); }};
}

PcapWriter::~PcapWriter() {
  filled_.fetch_or(kClosed);
  filled_.notify_one();
  signal_eventfd(closing_.get());
  thread_.join();
  const int error = error_;
  if (error == EAGAIN) {
    say_(fmt::format("-n pcap={}: its reader takes nothing; the capture is cut off", path_));
  } else if (error != 0) {
    say_(fmt::format("-n pcap={}: {}; the capture ends there", path_, std::generic_category().message(error)));
  }
  if (counts_.dropped != 0) {
    say_(fmt::format("-n pcap={}: {} of {} frames are missing: they came faster than they could be written", path_,
                     counts_.dropped, counts_.seen));
  }
}

// --- The producer's side

void PcapWriter::put(std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const std::size_t at = end_ % room_;
    const auto part = bytes.first(std::min(bytes.size(), room_ - at));
    std::memcpy(ring_.get() + at, part.data(), part.size());
    bytes = bytes.subspan(part.size());
    end_ += part.size();
  }
}

void PcapWriter::add(pcapng::Direction direction, std::span<const iovec> vectors, std::size_t skip,
                     std::size_t size) noexcept {
  ++counts_.seen;
  std::size_t there = 0;
  for (const auto& vector : vectors) {
    there += vector.iov_len;
  }
  size = std::min(size, there - std::min(skip, there));
  const pcapng::Envelope envelope{
      {.time = pcapng::now(), .size = static_cast<std::uint32_t>(size), .direction = direction, .lost = lost_}};
  const std::size_t whole = envelope.head().size() + size + envelope.tail().size();
  // Pairs with run(): it has read what it says it has written.
  const std::uint64_t used = end_ - written_.load(std::memory_order_acquire);
  if (whole > room_ - used || error_.load(std::memory_order_relaxed) != 0) {
    ++counts_.dropped;
    ++lost_;
    return;
  }
  lost_ = 0;
  put(envelope.head());
  for (const auto& vector : vectors) {
    const std::size_t skipped = std::min(skip, vector.iov_len);
    const std::size_t part = std::min(vector.iov_len - skipped, size);
    put({static_cast<const std::byte*>(vector.iov_base) + skipped, part});
    skip -= skipped;
    size -= part;
  }
  put(envelope.tail());
  filled_.store(end_, std::memory_order_release);
  filled_.notify_one();  // a system call only when the writer sleeps
}

// --- The writer's thread

void PcapWriter::run() noexcept {
  std::uint64_t done = 0;
  for (;;) {
    const auto filled = filled_.load(std::memory_order_acquire);  // pairs with add()
    const auto end = filled & ~kClosed;
    if (done != end) {
      const auto part = write(done, end);
      if (part == 0) {
        return;
      }
      done += part;
      written_.store(done, std::memory_order_release);
    } else if ((filled & kClosed) != 0) {
      [[maybe_unused]] const bool told = write_all(pcapng::statistics(0, counts_));
      return;
    } else {
      filled_.wait(filled, std::memory_order_acquire);
    }
  }
}

/// Some of the ring's bytes, whole blocks where the file takes them; 0 when it takes no more, with error_ set.
std::size_t PcapWriter::write(std::uint64_t begin, std::uint64_t end) noexcept {
  const std::size_t at = begin % room_;
  const auto size = static_cast<std::size_t>(end - begin);
  const auto first = std::min(size, room_ - at);
  const std::array<iovec, 2> parts{{{ring_.get() + at, first}, {ring_.get(), size - first}}};
  for (;;) {
    const auto result = ::writev(file_.get(), parts.data(), static_cast<int>(parts.size()));
    if (result > 0) {
      return static_cast<std::size_t>(result);
    }
    if (result < 0 && errno == EINTR) {
      continue;
    }
    if (result == 0 || errno != EAGAIN) {
      error_ = result == 0 ? ENOSPC : errno;
      return 0;
    }
    if (!wait_for_file()) {
      error_ = EAGAIN;
      return 0;
    }
  }
}

bool PcapWriter::write_all(std::span<const std::byte> bytes) noexcept {
  if (bytes.size() > room_) {
    return false;
  }
  while (!bytes.empty()) {
    std::memcpy(ring_.get(), bytes.data(), bytes.size());  // empty by now, and ours
    const auto part = write(0, bytes.size());
    if (part == 0) {
      return false;
    }
    bytes = bytes.subspan(part);
  }
  return true;
}

/// False when nobody will take what there is.
bool PcapWriter::wait_for_file() noexcept {
  std::array<pollfd, 2> wanted{
      {{.fd = file_.get(), .events = POLLOUT, .revents = 0}, {.fd = closing_.get(), .events = POLLIN, .revents = 0}}};
  if (!deadline_) {
    ::poll(wanted.data(), wanted.size(), -1);
    if ((wanted[1].revents & POLLIN) == 0) {
      return true;
    }
    deadline_ = std::chrono::steady_clock::now() + kPatience;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline_ - std::chrono::steady_clock::now()).count();
  return ::poll(wanted.data(), 1, static_cast<int>(std::max<std::int64_t>(left, 0))) > 0;
}

}  // namespace martlet
