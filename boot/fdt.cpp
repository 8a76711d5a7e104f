#include "boot/fdt.h"

#include <asm/bootparam.h>
#include <fmt/format.h>
#include <libfdt.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "boot/file.h"
#include "boot/placement.h"
#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

constexpr std::uint32_t kIoApicPhandle = 1;
constexpr std::uint32_t kEdgeRising = 0;  // bindings/interrupt-controller/intel,ce4100-ioapic.yaml
constexpr std::uint32_t kIsaIoSpace = 1;  // the first cell of an ISA address
constexpr std::uint32_t kPortsEnd = 0x10000;
constexpr std::uint32_t kUartClock = 1'843'200;
constexpr std::uint64_t kMaxFileSize = 16 * layout::kMiB;
static_assert(sizeof(setup_data) == 16);

/// libfdt's sequential writer with values in place of error codes: the buffer is large enough, so an
/// error is a mistake in this file.
class FdtWriter {
 public:
  explicit FdtWriter(std::size_t capacity) : blob_(capacity) {
    expect(fdt_create(blob_.data(), static_cast<int>(blob_.size())));
    expect(fdt_finish_reservemap(blob_.data()));
  }

  template <class Body>
  void node(const std::string& name, Body body) {
    expect(fdt_begin_node(blob_.data(), name.c_str()));
    body();
    expect(fdt_end_node(blob_.data()));
  }
  void flag(const char* name) { expect(fdt_property(blob_.data(), name, nullptr, 0)); }
  void text(const char* name, const std::string& value) {
    expect(fdt_property(blob_.data(), name, value.c_str(), static_cast<int>(value.size() + 1)));
  }
  void cells(const char* name, std::initializer_list<std::uint32_t> values) {
    std::vector<fdt32_t> cells;
    for (const auto value : values) {
      cells.push_back(cpu_to_fdt32(value));
    }
    expect(fdt_property(blob_.data(), name, cells.data(), static_cast<int>(cells.size() * sizeof(fdt32_t))));
  }
  void wide(const char* name, std::uint64_t value) { expect(fdt_property_u64(blob_.data(), name, value)); }
  /// An address and a size of two cells each.
  void range(const char* name, const GuestRange& range) {
    const std::array pair{cpu_to_fdt64(raw(range.start)), cpu_to_fdt64(range.size)};
    expect(fdt_property(blob_.data(), name, pair.data(), sizeof pair));
  }
  std::vector<std::byte> finish() {
    expect(fdt_finish(blob_.data()));
    blob_.resize(fdt_totalsize(blob_.data()));
    return std::move(blob_);
  }

 private:
  static void expect(int error) {
    if (error != 0) {
      throw std::logic_error{fmt::format("writing the device tree: {}", fdt_strerror(error))};
    }
  }
  std::vector<std::byte> blob_;
};

std::string at(const char* name, std::uint64_t address) { return fmt::format("{}@{:x}", name, address); }

void write_cpus(FdtWriter& fdt, std::uint32_t cpus) {
  fdt.node("cpus", [&] {
    fdt.cells("#address-cells", {1});
    fdt.cells("#size-cells", {0});
    for (std::uint32_t id = 0; id < cpus; ++id) {
      fdt.node(at("cpu", id), [&] {
        fdt.text("device_type", "cpu");
        fdt.cells("reg", {id});
      });
    }
  });
}

/// bindings/virtio/mmio.yaml
void write_virtio_mmio(FdtWriter& fdt, std::size_t slot) {
  const auto range = layout::virtio_mmio(slot);
  fdt.node(at("virtio", raw(range.start)), [&] {
    fdt.text("compatible", "virtio,mmio");
    fdt.range("reg", range);
    fdt.cells("interrupt-parent", {kIoApicPhandle});
    fdt.cells("interrupts", {layout::kVirtioMmioIrqs.at(slot), kEdgeRising});
  });
}

void write_soc(FdtWriter& fdt, std::size_t virtio_mmio) {
  fdt.node("soc", [&] {
    fdt.text("compatible", "simple-bus");
    fdt.cells("#address-cells", {2});
    fdt.cells("#size-cells", {2});
    fdt.flag("ranges");
    fdt.node(at("interrupt-controller", raw(layout::kIoApic.start)), [&] {
      fdt.text("compatible", "intel,ce4100-ioapic");
      fdt.range("reg", layout::kIoApic);
      fdt.flag("interrupt-controller");
      fdt.cells("#address-cells", {0});
      fdt.cells("#interrupt-cells", {2});
      fdt.cells("phandle", {kIoApicPhandle});
    });
    fdt.node(at("interrupt-controller", raw(layout::kLocalApic.start)), [&] {
      fdt.text("compatible", "intel,ce4100-lapic");
      fdt.range("reg", layout::kLocalApic);
      fdt.flag("interrupt-controller");
      fdt.cells("#address-cells", {0});
      fdt.cells("#interrupt-cells", {2});
      fdt.flag("intel,virtual-wire-mode");
    });
    for (std::size_t slot = 0; slot < virtio_mmio; ++slot) {
      write_virtio_mmio(fdt, slot);
    }
  });
}

void write_isa(FdtWriter& fdt) {
  // At the root: x86 kernels look for devices on "isa" buses there, and on few others (arch/x86/kernel/devicetree.c).
  constexpr std::uint32_t kFirstPort = layout::kRtc.start;
  fdt.node(at("isa", kFirstPort), [&] {
    fdt.text("compatible", "isa");
    fdt.text("device_type", "isa");
    fdt.cells("#address-cells", {2});
    fdt.cells("#size-cells", {1});
    fdt.cells("ranges", {kIsaIoSpace, kFirstPort, 0, kFirstPort, kPortsEnd - kFirstPort});
    fdt.node(at("serial", layout::kCom1.start), [&] {
      fdt.text("compatible", "ns16550a");
      fdt.cells("reg", {kIsaIoSpace, layout::kCom1.start, layout::kCom1.size});
      fdt.cells("clock-frequency", {kUartClock});
      fdt.cells("interrupt-parent", {kIoApicPhandle});
      fdt.cells("interrupts", {layout::kCom1Irq, kEdgeRising});
    });
    fdt.node(at("rtc", layout::kRtc.start), [&] {
      fdt.text("compatible", "motorola,mc146818");
      fdt.cells("reg", {kIsaIoSpace, layout::kRtc.start, layout::kRtc.size});
    });
  });
}

/// 0, or libfdt's error.
int check_blob(std::span<const std::byte> blob) {
  constexpr std::uint32_t kOldestVersion = 16;  // older ones name nodes otherwise, and crash libfdt's check
  if (blob.size() < sizeof(fdt_header)) {
    return -FDT_ERR_TRUNCATED;
  }
  if (fdt_version(blob.data()) < kOldestVersion) {
    return -FDT_ERR_BADVERSION;
  }
  return fdt_check_full(blob.data(), blob.size());
}

/// Room for a record of `size` bytes behind its header; the header is written.
std::pair<GuestRange, std::span<std::byte>> make_record(const GuestMemory& memory, std::uint64_t size, GuestAddr floor,
                                                        GuestAddr ceiling) {
  const auto start = highest_place(memory, sizeof(setup_data) + size, floor, ceiling);
  if (!start) {
    throw HostError{fmt::format("there is no room in RAM for a device tree of {} KiB: use a larger -m",
                                align_up(size, layout::kKiB) / layout::kKiB)};
  }
  const setup_data header{.next = 0, .type = SETUP_DTB, .len = static_cast<std::uint32_t>(size)};
  const GuestRange range{*start, sizeof header + size};
  const auto bytes = memory.slice(range.start, range.size).value();
  std::ranges::copy(std::as_bytes(std::span{&header, 1}), bytes.begin());
  return {range, bytes.subspan(sizeof header)};
}

}  // namespace

std::vector<std::byte> make_fdt(const FdtConfig& config) {
  constexpr std::size_t kFixedPart = 4096;
  constexpr std::size_t kPerCpu = 128;
  constexpr std::size_t kPerRange = 128;
  constexpr std::size_t kPerDevice = 256;
  FdtWriter fdt{kFixedPart + config.cpus * kPerCpu + config.ram.size() * kPerRange + config.command_line.size() +
                config.virtio_mmio * kPerDevice};
  fdt.node("", [&] {
    fdt.text("compatible", "martlet,pc");
    fdt.text("model", "Martlet virtual machine");
    fdt.cells("#address-cells", {2});
    fdt.cells("#size-cells", {2});
    fdt.node("chosen", [&] {
      fdt.text("bootargs", config.command_line);
      fdt.text("stdout-path", fmt::format("/{}/{}", at("isa", layout::kRtc.start), at("serial", layout::kCom1.start)));
      if (config.initrd) {
        fdt.wide("linux,initrd-start", raw(config.initrd->start));
        fdt.wide("linux,initrd-end", config.initrd->end());
      }
    });
    for (const auto& ram : config.ram) {
      fdt.node(at("memory", raw(ram.start)), [&] {
        fdt.text("device_type", "memory");
        fdt.range("reg", ram);
      });
    }
    write_cpus(fdt, config.cpus);
    write_soc(fdt, config.virtio_mmio);
    write_isa(fdt);
  });
  return fdt.finish();
}

GuestRange place_fdt(const GuestMemory& memory, std::span<const std::byte> blob, GuestAddr floor, GuestAddr ceiling) {
  const auto [range, bytes] = make_record(memory, blob.size(), floor, ceiling);
  std::ranges::copy(blob, bytes.begin());
  return range;
}

GuestRange load_fdt(const GuestMemory& memory, const std::string& path, GuestAddr floor, GuestAddr ceiling) {
  const auto file = open_regular(path, "a device tree blob (.dtb)");
  if (file.size > kMaxFileSize) {
    throw HostError{fmt::format("{} has {} MiB; a device tree blob has at most {}", path, file.size / layout::kMiB,
                                kMaxFileSize / layout::kMiB)};
  }
  const auto [range, bytes] = make_record(memory, file.size, floor, ceiling);
  read_exactly(file.fd.get(), bytes, 0, path);
  if (const int error = check_blob(bytes); error != 0) {
    throw HostError{
        fmt::format("{} is not a valid device tree blob ({}): compile one with dtc -O dtb", path, fdt_strerror(error))};
  }
  return range;
}

}  // namespace martlet
