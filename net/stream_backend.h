#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "net/backend.h"
#include "vmm/base/fd.h"

namespace martlet {

/// Frames over a stream socket, each behind its length, 32 bits in network order: what QEMU's `-netdev stream` and
/// passt speak. One pair, no offloads.
class StreamBackend final : public NetBackend {
 public:
  /// `socket` is connected. Throws HostError.
  StreamBackend(Fd socket, std::uint16_t mtu);

  [[nodiscard]] std::uint16_t pairs() const noexcept override { return 1; }
  [[nodiscard]] std::uint32_t offloads() const noexcept override { return 0; }
  [[nodiscard]] std::uint16_t mtu() const noexcept override { return mtu_; }
  [[nodiscard]] int fd(std::uint16_t /*pair*/) const noexcept override { return socket_.get(); }
  [[nodiscard]] bool set_offloads(std::uint32_t offloads) noexcept override { return offloads == 0; }
  [[nodiscard]] bool enable_pairs(std::uint16_t count) noexcept override { return count == 1; }

  /// Readable when the rest of a frame can go.
  [[nodiscard]] int link_fd() const noexcept override { return room_.get(); }
  [[nodiscard]] bool refresh_link() noexcept override;

  [[nodiscard]] std::ptrdiff_t receive(std::uint16_t pair, std::span<const iovec> into) noexcept override;
  [[nodiscard]] std::ptrdiff_t send(std::uint16_t pair, std::span<const iovec> frame) noexcept override;

 private:
  static constexpr std::size_t kLength = 4;

  [[nodiscard]] std::ptrdiff_t read_more(std::size_t wanted) noexcept;
  [[nodiscard]] bool send_rest() noexcept;
  void watch_for_room(std::uint32_t events) noexcept;

  Fd socket_;
  std::uint16_t mtu_;

  // The frame that is coming in, behind its length; no byte of the next but its length, so that the socket is
  // readable as long as there is another.
  std::vector<std::byte> in_;
  std::size_t have_ = 0;

  // What did not fit the socket of a frame that has begun to go. The device need not know: an epoll instance waits.
  std::vector<iovec> vectors_;
  std::vector<std::byte> rest_;
  Fd room_;
};

}  // namespace martlet
