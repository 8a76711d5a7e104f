#include "net/pcap_backend.h"

namespace martlet {

std::ptrdiff_t PcapBackend::captured(pcapng::Direction direction, std::span<const iovec> vectors,
                                     std::ptrdiff_t result) noexcept {
  constexpr auto kHeader = static_cast<std::ptrdiff_t>(kHeaderSize);
  if (result > kHeader) {
    writer_.add(direction, vectors, kHeaderSize, static_cast<std::size_t>(result - kHeader));
  }
  return result;
}

void PcapBackend::receive_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept {
  inner_->receive_all(pair, transfers);
  for (const auto& transfer : transfers) {
    captured(pcapng::Direction::Inbound, transfer.vectors, transfer.result);
  }
}

void PcapBackend::send_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept {
  inner_->send_all(pair, transfers);
  for (const auto& transfer : transfers) {
    captured(pcapng::Direction::Outbound, transfer.vectors, transfer.result);
  }
}

}  // namespace martlet
