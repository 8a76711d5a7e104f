#pragma once
// A file in memory that does what it is asked to in any order, and can lose its power.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/image_file.h"

namespace martlet::virtio {

class MemoryImage final : public ImageFile, private Disk {
 public:
  using Bytes = std::vector<std::byte>;
  MemoryImage(Bytes content, std::uint32_t seed) : bytes{std::move(content)}, durable_{bytes}, random_{seed} {}

  Bytes bytes;          ///< as its readers see it
  int write_error = 0;  ///< of all writes from now on
  int sync_error = 0;   ///< of all flushes
  std::size_t writes = 0;
  std::uint64_t max_size = 1ULL << 30U;  ///< growing beyond fails

  /// What is left after a power cut: what was flushed, and of later writes some sectors, or none.
  [[nodiscard]] Bytes cut() {
    auto left = durable_;
    left.resize(std::max(left.size(), bytes.size()));
    const auto some = [&](std::uint64_t offset, std::span<const std::byte> data) {
      if (coin()) {
        return;
      }
      const bool torn = random_() % 4 == 0;
      for (std::size_t at = 0; at < data.size();) {
        // Sectors are written as a whole.
        const auto part = std::min<std::size_t>(512 - (offset + at) % 512, data.size() - at);
        if (!torn || coin()) {
          put(left, offset + at, data.subspan(at, part));
        }
        at += part;
      }
    };
    for (std::size_t i = synced_; i < log_.size(); ++i) {
      some(log_[i].offset, log_[i].data);
    }
    for (const auto& waiting : waiting_) {
      if (waiting.request->work.kind == DiskRequest::Kind::Write) {
        some(waiting.request->work.offset, gather(waiting.request->work));
      }
    }
    return left;
  }
  /// Everything that was written, in the page cache: what is left when only the process is killed.
  [[nodiscard]] Bytes killed() const { return bytes; }

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::uint64_t size() const noexcept override { return bytes.size(); }
  [[nodiscard]] Growth growth() const noexcept override { return Growth::Zeroes; }
  int grow(std::uint64_t size) noexcept override {
    if (size > max_size) {
      return ENOSPC;
    }
    bytes.resize(size);
    return 0;
  }
  int read(std::span<std::byte> into, std::uint64_t offset) noexcept override {
    std::ranges::fill(into, std::byte{0});
    if (offset < bytes.size()) {
      std::memcpy(into.data(), bytes.data() + offset, std::min<std::uint64_t>(into.size(), bytes.size() - offset));
    }
    return 0;
  }
  [[nodiscard]] Disk& disk() noexcept override { return *this; }

 private:
  struct Waiting {
    DiskRequest* request;
    std::size_t written;  // of the log, when it came
  };
  struct Entry {
    std::uint64_t offset;
    Bytes data;
  };

  [[nodiscard]] DiskShape shape() const noexcept override { return {.size = bytes.size()}; }
  void submit(DiskRequest& request) noexcept override { waiting_.push_back({&request, log_.size()}); }
  void commit() noexcept override {}
  void wait() noexcept override {
    if (waiting_.empty()) {
      return;
    }
    std::swap(waiting_[random_() % waiting_.size()], waiting_.back());
    const auto now = waiting_.back();
    waiting_.pop_back();
    now.request->done(carry_out(now));
    settled();
  }

  int carry_out(const Waiting& now) {
    const auto& work = now.request->work;
    switch (work.kind) {
      case DiskRequest::Kind::Read:
        if (work.offset > bytes.size() || work.length > bytes.size() - work.offset) {
          return EIO;
        }
        for (auto at = work.offset; const auto& buffer : work.buffers) {
          std::memcpy(buffer.iov_base, bytes.data() + at, buffer.iov_len);
          at += buffer.iov_len;
        }
        return 0;
      case DiskRequest::Kind::Write: {
        ++writes;
        if (write_error != 0) {
          return write_error;
        }
        auto data = gather(work);
        put(bytes, work.offset, data);
        log_.push_back({work.offset, std::move(data)});
        return 0;
      }
      case DiskRequest::Kind::Flush:
        if (sync_error != 0) {
          return sync_error;
        }
        for (; synced_ < now.written; ++synced_) {
          put(durable_, log_[synced_].offset, log_[synced_].data);
          log_[synced_].data = {};
        }
        return 0;
      default:
        return EOPNOTSUPP;
    }
  }

  [[nodiscard]] static Bytes gather(const DiskRequest::Work& work) {
    Bytes data;
    for (const auto& buffer : work.buffers) {
      const auto* const from = static_cast<const std::byte*>(buffer.iov_base);
      data.insert(data.end(), from, from + buffer.iov_len);
    }
    return data;
  }
  static void put(Bytes& where, std::uint64_t offset, std::span<const std::byte> data) {
    where.resize(std::max<std::size_t>(where.size(), offset + data.size()));
    std::ranges::copy(data, where.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  bool coin() { return random_() % 2 == 0; }

  std::string name_ = "memory";
  Bytes durable_;
  std::vector<Entry> log_;  // of writes
  std::size_t synced_ = 0;  // of them
  std::vector<Waiting> waiting_;
  std::mt19937 random_;
};

}  // namespace martlet::virtio
