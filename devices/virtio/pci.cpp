#include "devices/virtio/pci.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <utility>

namespace martlet::virtio {
using namespace pci_layout;

namespace {

enum Isr : std::uint8_t { kQueueInterrupt = 1U << 0U, kConfigInterrupt = 1U << 1U };  // §4.1.4.5

}  // namespace

VirtioPci::VirtioPci(VirtioDevice& device, const Wiring& wiring)
    : PciFunction{identity(device.id())},
      doorbells_{wiring.doorbells},
      loop_{wiring.loop},
      registers_{device.queue_sizes().size()},
      window_at_{add_capabilities(config_, device.queue_sizes().size())},
      msix_{config_,
            wiring.router,
            {.bar = kBar,
             .table = offset_of(Page::MsixTable),
             .pending = offset_of(Page::MsixPending),
             .vectors = static_cast<std::uint16_t>(
                 std::min<std::size_t>(device.queue_sizes().size() + 1, Msix::kMaxVectors))}},
      rung_at_(device.queue_sizes().size()),
      state_{device, wiring.memory, wiring.loop, *this} {
  config_.add_bar(kBar, kBarSize);
  config_.set(pci::kInterruptPin, pci::kPinA);
  loop_.watch(intx_.resampled(), EPOLLIN, [this](std::uint32_t) {
    drain_counter(intx_.resampled());
    raise_intx();  // the guest has ended the interrupt; perhaps its reason has not ended
  });
}

VirtioPci::~VirtioPci() {
  for (std::uint16_t i = 0; i < state_.queue_count(); ++i) {
    if (rung_at_[i]) {
      doorbells_.remove(*rung_at_[i], state_.queue(i)->kick.get());
    }
  }
  loop_.call([this] { loop_.unwatch(intx_.resampled()); });
}

void VirtioPci::Registers::reset() noexcept {
  device_feature_select = driver_feature_select = queue_select = 0;
  config_vector = kNoVector;
  std::ranges::fill(queue_vectors, kNoVector);
  isr = 0;
}

// --- The BAR

void VirtioPci::on_bar_read(unsigned /*bar*/, std::uint64_t offset, std::span<std::byte> into) noexcept {
  const auto page = offset / kPageSize;
  offset %= kPageSize;
  std::ranges::fill(into, std::byte{0});
  if (into.size() > kPageSize - offset) {
    return;
  }
  switch (static_cast<Page>(page)) {
    case Page::Common:
      read_common(offset, into);
      break;
    case Page::Isr:
      if (offset == 0) {
        into[0] = std::byte{registers_.isr.exchange(0)};  // reading clears it, §4.1.4.5
      }
      break;
    case Page::Device:
      state_.device().read_config(static_cast<std::uint32_t>(offset), into);
      break;
    case Page::MsixTable:
      msix_.read_table(offset, into);
      break;
    case Page::MsixPending:
      msix_.read_pending(offset, into);
      break;
    case Page::Notify:
      break;
  }
}

void VirtioPci::on_bar_write(unsigned /*bar*/, std::uint64_t offset, std::span<const std::byte> bytes) noexcept {
  const auto page = offset / kPageSize;
  offset %= kPageSize;
  if (bytes.size() > kPageSize - offset) {
    return;
  }
  switch (static_cast<Page>(page)) {
    case Page::Common:
      write_common(offset, bytes);
      break;
    case Page::Device:
      state_.device().write_config(static_cast<std::uint32_t>(offset), bytes);
      break;
    case Page::Notify:
      // The address says which queue, as it does for a doorbell; the value says it again.
      if (const auto* queue = state_.queue(static_cast<std::uint32_t>(offset / kNotifyMultiplier));
          offset % kNotifyMultiplier == 0 && queue != nullptr && queue->enabled) {
        signal_eventfd(queue->kick.get());
      }
      break;
    case Page::MsixTable:
      msix_.write_table(offset, bytes);
      break;
    case Page::Isr:
    case Page::MsixPending:
      break;
  }
}

// --- The configuration space

/// Touching PCI_CFG's data accesses what it points at, with or without memory decoding (§4.1.4.9).
void VirtioPci::on_config_read(std::uint32_t offset, std::size_t length) noexcept {
  if (const auto window = config_window(offset, length)) {
    std::array<std::byte, sizeof(std::uint32_t)> bytes{};
    on_bar_read(kBar, window->offset, std::span{bytes}.first(window->length));
    for (std::size_t i = 0; i < window->length; ++i) {
      config_.set(window_at_ + kWindowData + i, std::to_integer<std::uint8_t>(bytes[i]));
    }
  }
}

void VirtioPci::on_config_written(std::uint32_t offset, std::size_t length) noexcept {
  if (const auto window = config_window(offset, length)) {
    std::array<std::byte, sizeof(std::uint32_t)> bytes{};
    const auto data = std::span{bytes}.first(window->length);
    config_.read(static_cast<std::uint32_t>(window_at_ + kWindowData), data);
    on_bar_write(kBar, window->offset, data);
  }
  const bool was_master = std::exchange(master_, (command() & pci::kBusMaster) != 0);
  if (was_master && !master_ && (state_.status() & kDriverOk) != 0) {
    // Who takes bus mastering away (a kernel before kexec) wants memory left alone from now on. The rings
    // cannot go on later as if nothing had been, so this is a reset, and the status says so.
    set_status(0);
  }
  msix_.settle();
  settle_intx();
  settle_doorbells();
}

/// Where an access to these bytes of the configuration space leads, if it does.
std::optional<VirtioPci::Window> VirtioPci::config_window(std::uint32_t offset, std::size_t length) const noexcept {
  const auto data = window_at_ + kWindowData;
  const Window window{.offset = config_.get<std::uint32_t>(window_at_ + kWindowOffset),
                      .length = config_.get<std::uint32_t>(window_at_ + kWindowLength)};
  const bool touched = offset < data + sizeof(std::uint32_t) && data < offset + length;
  const bool permitted = config_.get<std::uint8_t>(window_at_ + kWindowBar) == kBar &&
                         (window.length == 1 || window.length == 2 || window.length == 4) &&
                         window.offset % window.length == 0 && window.offset < kBarSize;
  return touched && permitted ? std::optional{window} : std::nullopt;
}

// --- Interrupts

bool VirtioPci::interrupting() const noexcept { return registers_.isr.load() != 0 && !msix_.enabled(); }

void VirtioPci::queue_used(std::uint16_t queue) noexcept {
  if (queue < registers_.queue_vectors.size()) {
    interrupt(registers_.queue_vectors[queue], kQueueInterrupt);
  }
}

void VirtioPci::config_changed() noexcept { interrupt(registers_.config_vector, kConfigInterrupt); }

void VirtioPci::needs_reset() noexcept {
  if (state_.set_needs_reset()) {
    config_changed();
  }
}

int VirtioPci::call_fd(std::uint16_t queue) const noexcept {
  if (queue >= registers_.queue_vectors.size() || !msix_.enabled()) {
    return -1;
  }
  const auto* const line = msix_.line(registers_.queue_vectors[queue]);
  return line != nullptr ? line->fd() : -1;
}

void VirtioPci::interrupt(const std::atomic<std::uint16_t>& vector, std::uint8_t reason) noexcept {
  if (!msix_.enabled()) {
    registers_.isr.fetch_or(reason);
    raise_intx();
  } else if (const auto* const line = msix_.line(vector)) {
    line->raise();
  }
}

/// Each side first says what it has to say and then looks at the other: interrupt() sets a reason and looks
/// whether it may; settle_intx() allows it and looks for a reason.
void VirtioPci::raise_intx() const noexcept {
  if (intx_allowed_.load() && registers_.isr.load() != 0) {
    intx_.raise();
  }
}

void VirtioPci::settle_intx() noexcept {
  const bool allowed = (command() & pci::kInterruptDisable) == 0 && !msix_.enabled();
  if (intx_allowed_.exchange(allowed) != allowed) {
    raise_intx();
  }
}

// --- Doorbells

/// One for each enabled queue, where the BAR has its notification address now. Where the host refuses,
/// notifications come as exits.
void VirtioPci::settle_doorbells() noexcept {
  const auto bar = bar_address(kBar);
  for (std::uint16_t i = 0; i < state_.queue_count(); ++i) {
    const auto& queue = *state_.queue(i);
    std::optional<GuestAddr> wanted;
    if (bar && queue.enabled) {
      wanted = *bar + offset_of(Page::Notify) + std::uint64_t{i} * kNotifyMultiplier;
    }
    if (rung_at_[i] == wanted) {
      continue;
    }
    if (rung_at_[i]) {
      doorbells_.remove(*rung_at_[i], queue.kick.get());
    }
    const bool rings = wanted && doorbells_.add(*wanted, queue.kick.get());
    rung_at_[i] = rings ? wanted : std::nullopt;
  }
}

}  // namespace martlet::virtio
