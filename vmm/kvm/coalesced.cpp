#include "vmm/kvm/coalesced.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>

namespace martlet {

void CoalescedWrites::attach(kvm_run& run, int page) noexcept {
  const auto offset = static_cast<std::size_t>(page) * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  ring_ = reinterpret_cast<kvm_coalesced_mmio_ring*>(reinterpret_cast<std::byte*>(&run) + offset);
}

bool CoalescedWrites::coalesce(std::uint16_t port, std::uint32_t size, bool enabled) noexcept {
  kvm_coalesced_mmio_zone zone{};
  zone.addr = port;
  zone.size = size;
  zone.pio = 1;
  return ::ioctl(vm_, enabled ? KVM_REGISTER_COALESCED_MMIO : KVM_UNREGISTER_COALESCED_MMIO, &zone) == 0;
}

void CoalescedWrites::drain_slowly() noexcept {
  const std::lock_guard lock{mutex_};
  const auto slots =
      static_cast<std::uint32_t>((static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) - sizeof(kvm_coalesced_mmio_ring)) /
                                 sizeof(kvm_coalesced_mmio));
  const std::atomic_ref first{ring_->first};
  const std::atomic_ref last{ring_->last};
  // Pairs with KVM's write barrier between filling a slot and moving `last` past it. `first` moves only
  // after the write was served: whoever finds the ring empty may rely on that.
  for (auto slot = first.load(std::memory_order_relaxed); slot != last.load(std::memory_order_acquire);) {
    const auto& put_aside = ring_->coalesced_mmio[slot];
    std::array<std::byte, sizeof put_aside.data> bytes{};
    std::memcpy(bytes.data(), put_aside.data, bytes.size());
    const auto data = std::span{bytes}.first(std::min<std::size_t>(put_aside.len, bytes.size()));
    const bool served = put_aside.pio != 0
                            ? dispatcher_.dispatch(PortIo{.direction = Direction::Write,
                                                          .size = static_cast<std::uint8_t>(data.size()),
                                                          .port = static_cast<std::uint16_t>(put_aside.phys_addr),
                                                          .data = data})
                            : dispatcher_.dispatch(Mmio{
                                  .direction = Direction::Write, .addr = GuestAddr{put_aside.phys_addr}, .data = data});
    static_cast<void>(served);  // an access always is
    slot = (slot + 1) % slots;
    first.store(slot, std::memory_order_release);
  }
}

}  // namespace martlet
