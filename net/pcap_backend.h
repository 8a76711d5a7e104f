#pragma once

#include <memory>
#include <utility>

#include "net/backend.h"
#include "net/pcap_writer.h"

namespace martlet {

/// Captures what another backend carries, as the guest's card sees it: without virtio's headers, so with the
/// checksums and sizes that an offload left open. The kernel cannot carry frames past it: no vhost-net.
class PcapBackend final : public NetBackend {
 public:
  /// Throws HostError.
  PcapBackend(std::unique_ptr<NetBackend> inner, const PcapWriter::Options& options, Say say)
      : inner_{std::move(inner)}, writer_{options, std::move(say)} {}

  [[nodiscard]] std::uint16_t pairs() const noexcept override { return inner_->pairs(); }
  [[nodiscard]] std::uint32_t offloads() const noexcept override { return inner_->offloads(); }
  [[nodiscard]] std::uint16_t mtu() const noexcept override { return inner_->mtu(); }
  [[nodiscard]] int fd(std::uint16_t pair) const noexcept override { return inner_->fd(pair); }
  [[nodiscard]] int link_fd() const noexcept override { return inner_->link_fd(); }
  [[nodiscard]] bool refresh_link() noexcept override { return inner_->refresh_link(); }
  [[nodiscard]] bool set_offloads(std::uint32_t offloads) noexcept override { return inner_->set_offloads(offloads); }
  [[nodiscard]] bool enable_pairs(std::uint16_t count) noexcept override { return inner_->enable_pairs(count); }

  [[nodiscard]] std::ptrdiff_t receive(std::uint16_t pair, std::span<const iovec> into) noexcept override {
    return captured(pcapng::Direction::Inbound, into, inner_->receive(pair, into));
  }
  [[nodiscard]] std::ptrdiff_t send(std::uint16_t pair, std::span<const iovec> frame) noexcept override {
    return captured(pcapng::Direction::Outbound, frame, inner_->send(pair, frame));
  }
  [[nodiscard]] const pcapng::Counts& counts() const noexcept { return writer_.counts(); }
  void receive_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept override;
  void send_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept override;

 private:
  std::ptrdiff_t captured(pcapng::Direction direction, std::span<const iovec> vectors, std::ptrdiff_t result) noexcept;

  std::unique_ptr<NetBackend> inner_;
  PcapWriter writer_;
};

}  // namespace martlet
