#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/backend.h"
#include "net/frame_batch.h"
#include "net/macvtap.h"
#include "net/options.h"
#include "net/port_guard.h"
#include "net/port_policy.h"
#include "net/rtnetlink.h"
#include "vmm/base/fd.h"

namespace martlet {

/// Frames by a TAP, the kernel's Ethernet interface with a program at its other end
/// (Documentation/networking/tuntap.rst).
///
/// One made here is not persistent: it goes with its last descriptor, so with the process however it ends,
/// and with it its place on the bridge.
class Tap final : public NetBackend {
 public:
  struct Wanted {
    std::string name{};  ///< one that is there
    std::uint16_t pairs = 1;
  };
  /// Takes a TAP that is there and that no program holds. Throws HostError.
  [[nodiscard]] static std::unique_ptr<Tap> open(const Wanted& wanted);
  /// Takes over an inherited descriptor of a TAP (a duplicate: `fd` itself stays open). Throws HostError.
  [[nodiscard]] static std::unique_ptr<Tap> inherit(int fd);
  struct Port {
    std::string bridge{};
    std::uint16_t pairs = 1;
    MacAddress guest{};  ///< the TAP's own address is made from it, and by default it is the only sender
    PortPolicy policy{};
  };
  /// Makes a TAP with a free name, mltN, and puts it on a bridge. Throws HostError, and nothing is left.
  [[nodiscard]] static std::unique_ptr<Tap> on_bridge(const Port& port);

  /// A macvtap on an interface of the host's. Throws HostError, and nothing is left.
  [[nodiscard]] static std::unique_ptr<Tap> on_interface(const MacvtapOptions& options);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }

  [[nodiscard]] std::uint16_t pairs() const noexcept override { return static_cast<std::uint16_t>(queues_.size()); }
  [[nodiscard]] std::uint32_t offloads() const noexcept override { return offloads_; }
  [[nodiscard]] std::uint16_t mtu() const noexcept override { return mtu_; }
  [[nodiscard]] int fd(std::uint16_t pair) const noexcept override { return queues_.at(pair).get(); }
  [[nodiscard]] int vhost_fd(std::uint16_t pair) const noexcept override { return fd(pair); }
  [[nodiscard]] int link_fd() const noexcept override { return link_ ? link_->fd() : -1; }
  [[nodiscard]] bool refresh_link() noexcept override { return !link_ || link_->refresh(); }
  [[nodiscard]] bool set_offloads(std::uint32_t offloads) noexcept override;
  [[nodiscard]] bool enable_pairs(std::uint16_t count) noexcept override;
  [[nodiscard]] std::ptrdiff_t receive(std::uint16_t pair, std::span<const iovec> into) noexcept override;
  [[nodiscard]] std::ptrdiff_t send(std::uint16_t pair, std::span<const iovec> frame) noexcept override;
  void receive_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept override;
  void send_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept override;

 private:
  Tap() = default;
  void configure();
  [[nodiscard]] bool attach(std::uint16_t pair, short how) const noexcept;

  std::string name_;
  std::vector<Fd> queues_;
  Fd home_;                                                 // a macvtap's network namespace
  std::optional<PortGuard> guard_;                          // goes with the process, as the TAP does
  std::unique_ptr<FrameBatch> batch_ = FrameBatch::make();  // null where the host has no such thing
  bool never_full_ = false;                                 // it takes all frames, at once
  std::optional<LinkWatch> link_;                           // where the interface is in our namespace
  std::uint16_t enabled_ = 1;
  std::uint32_t offloads_ = 0;
  std::uint16_t mtu_ = 1500;
};

}  // namespace martlet
