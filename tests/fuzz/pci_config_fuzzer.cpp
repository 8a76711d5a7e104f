// A guest that writes anything to PCI's ports, ECAM and window. Each 8 bytes of input are one access.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "devices/pci/host.h"
#include "devices/pci/msix.h"

namespace martlet {
namespace {

constexpr GuestRange kWindow{GuestAddr{0xc0000000}, 0x20000000};

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

struct Router final : MsiRouter {
  void connect(const IrqLine& line, const MsiMessage& /*message*/) noexcept override {
    if (std::ranges::find(joined, &line) == joined.end()) {
      joined.push_back(&line);
    }
  }
  void disconnect(const IrqLine& line) noexcept override { require(std::erase(joined, &line) == 1); }
  std::vector<const IrqLine*> joined;
};

/// Two BARs, the second with MSI-X in it.
class Function final : public PciFunction {
 public:
  explicit Function(MsiRouter& router)
      : PciFunction{{.vendor = 0x1af4, .device = 0x1044}},
        msix_{config_, router, {.bar = 1, .table = 0, .pending = 0x1000, .vectors = 33}} {
    config_.add_bar(0, 0x100);
    config_.add_bar(1, 0x2000);
  }

 private:
  void on_bar_read(unsigned bar, std::uint64_t offset, std::span<std::byte> into) noexcept override {
    require(offset + into.size() <= bar_size(bar));
    if (bar == 1 && offset < 0x1000) {
      msix_.read_table(offset, into);
    } else if (bar == 1) {
      msix_.read_pending(offset - 0x1000, into);
    }
  }
  void on_bar_write(unsigned bar, std::uint64_t offset, std::span<const std::byte> bytes) noexcept override {
    require(offset + bytes.size() <= bar_size(bar));
    if (bar == 1 && offset < 0x1000) {
      msix_.write_table(offset, bytes);
    } else if (const auto* const line = msix_.line(static_cast<std::uint16_t>(offset))) {
      line->raise();
    }
  }
  void on_config_written(std::uint32_t /*offset*/, std::size_t /*length*/) noexcept override {
    for (unsigned bar = 0; bar < PciConfig::kBarCount; ++bar) {
      const auto address = bar_address(bar);
      require(!address || kWindow.contains({*address, bar_size(bar)}));
    }
    msix_.settle();
  }

  Msix msix_;
};

struct Access {
  std::uint8_t what;  // bits 0 to 1: which entrance; 2: write; 4 to 5: width
  std::uint8_t high;
  std::uint16_t low;
  std::uint32_t value;
};
static_assert(sizeof(Access) == 8);

}  // namespace
}  // namespace martlet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace martlet;
  static Router router;
  {
    Function one{router};
    Function two{router};
    PciHost host{kWindow};
    host.add(one);
    host.add(two);
    for (; size >= sizeof(Access); data += sizeof(Access), size -= sizeof(Access)) {
      Access access{};
      std::memcpy(&access, data, sizeof access);
      const std::array<std::pair<BusDevice*, std::uint64_t>, 4> entrances{{{&host.ecam(), PciHost::kEcamSize},
                                                                           {&host.address_port(), 4},
                                                                           {&host.data_port(), 4},
                                                                           {&host.window(), kWindow.size}}};
      const auto [device, range] = entrances[access.what & 3U];
      const std::size_t width = std::size_t{1} << (access.what >> 4U & 3U);
      // Near functions' registers, or near where BARs are placed first.
      const auto offset = (std::uint64_t{access.high} << 15U | access.low) % range;
      if (offset + width > range) {
        continue;
      }
      std::array<std::byte, 8> bytes{};
      std::memcpy(bytes.data(), &access.value, sizeof access.value);
      if ((access.what & 4U) != 0) {
        device->write(offset, std::span{bytes}.first(width));
      } else {
        device->read(offset, std::span{bytes}.first(width));
      }
    }
  }
  require(router.joined.empty());
  return 0;
}
