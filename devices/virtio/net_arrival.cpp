#include <algorithm>
#include <cstring>

#include "devices/virtio/net_queues.h"

namespace martlet::virtio {
namespace {

constexpr std::size_t kHeader = sizeof(NetHeader);
constexpr std::size_t kMostVectors = 1024;  // UIO_MAXIOV
// Our header before the guest's buffers, our overflow behind.
constexpr std::size_t kOwnVectors = 2;

}  // namespace

void NetArrival::aim(std::size_t expected) noexcept {
  // A chain has no more buffers than its queue descriptors (§2.7.5.3.1), so the first always fits.
  vectors.clear();
  vectors.push_back({&header, kHeader});
  direct = 0;
  direct_chains = 0;
  for (const auto& [chain, written] : chains) {
    if (direct >= expected || vectors.size() + chain.writable().size() + kOwnVectors > kMostVectors) {
      break;
    }
    std::size_t skip = direct == 0 ? kHeader : 0;  // which is there already
    for (auto buffer : chain.writable()) {
      const auto skipped = std::min(skip, buffer.size());
      skip -= skipped;
      buffer = buffer.subspan(skipped);
      if (!buffer.empty()) {
        vectors.push_back({buffer.data(), buffer.size()});
      }
    }
    direct += chain.writable_bytes();
    ++direct_chains;
  }
  vectors.push_back({overflow.data(), NetBackend::kMaxFrame});
}

void NetArrival::unload() noexcept {
  const auto there = std::min(length, direct);
  std::memmove(overflow.data() + there, overflow.data(), length - there);
  auto rest = overflow.first(there);
  for (std::size_t i = 0; !rest.empty(); ++i) {
    for (const auto& buffer : chains[i].chain.writable()) {
      const auto part = std::min(buffer.size(), rest.size());
      std::memcpy(rest.data(), buffer.data(), part);
      rest = rest.subspan(part);
    }
  }
  direct = 0;
  direct_chains = 0;
}

std::size_t NetArrival::fill_chains() noexcept {
  std::span<const std::byte> rest = overflow.first(length > direct ? length - direct : 0);
  for (std::size_t i = direct_chains; !rest.empty(); ++i) {
    rest = rest.subspan(ChainWriter{chains[i].chain}.copy(rest));
  }
  std::size_t left = length;
  std::size_t count = 0;
  for (; left != 0; ++count) {
    auto& [chain, written] = chains[count];
    written = static_cast<std::uint32_t>(std::min<std::size_t>(left, chain.writable_bytes()));
    left -= written;
  }
  header.num_buffers = static_cast<std::uint16_t>(count);  // 1 without mergeable buffers, §5.1.6.4.1
  [[maybe_unused]] const bool fits = ChainWriter{chains.front().chain}.write(header);
  return count;
}

}  // namespace martlet::virtio
