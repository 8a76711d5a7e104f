#include "vmm/kvm/exit_recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace martlet {
namespace {

using What = ExitRecord::What;

std::uint64_t first_bytes(std::span<const std::byte> data) noexcept {
  std::uint64_t value = 0;
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
  return value;
}

std::uint16_t entry_at(const Bus& bus, std::uint64_t addr, std::size_t size, Bus::LastHit& last) noexcept {
  const auto* const entry = bus.find(addr, size, last);
  return static_cast<std::uint16_t>(entry != nullptr ? bus.index_of(*entry) : bus.entries().size());
}

}  // namespace

std::string_view name_of(What what) noexcept {
  switch (what) {
    case What::PortRead:
    case What::MmioRead:
      return "read";
    case What::PortWrite:
    case What::MmioWrite:
      return "write";
    case What::Interrupted:
      return "kick";
    case What::Other:
      break;
  }
  return "other";
}

ExitRecorder::ExitRecorder(const Buses& buses, std::size_t capacity)
    : buses_{&buses},
      records_(capacity),
      took_(2 * (buses.ports.entries().size() + 1) + 2 * (buses.mmio.entries().size() + 1) + 2) {}

void ExitRecorder::served(const Exit& exit) noexcept {
  auto& record = records_[count_ % records_.size()];
  record = {.left = left_};
  if (const auto* io = std::get_if<PortIo>(&exit)) {
    record.what = io->direction == Direction::Read ? What::PortRead : What::PortWrite;
    record.addr = io->port;
    record.size = io->size;
    record.value = first_bytes(io->data);
    record.entry = entry_at(buses_->ports, io->port, io->size, last_port_);
  } else if (const auto* mmio = std::get_if<Mmio>(&exit)) {
    record.what = mmio->direction == Direction::Read ? What::MmioRead : What::MmioWrite;
    record.addr = raw(mmio->addr);
    record.size = static_cast<std::uint8_t>(mmio->data.size());
    record.value = first_bytes(mmio->data);
    record.entry = entry_at(buses_->mmio, raw(mmio->addr), mmio->data.size(), last_mmio_);
  } else if (std::holds_alternative<Interrupted>(exit)) {
    record.what = What::Interrupted;
  }
  record.took = now() - left_;
  histogram(record).add(record.took);
  ++count_;
}

Histogram& ExitRecorder::histogram(const ExitRecord& record) noexcept {
  const std::size_t ports = buses_->ports.entries().size() + 1;
  const std::size_t mmio = buses_->mmio.entries().size() + 1;
  switch (record.what) {
    case What::PortRead:
      return took_[record.entry];
    case What::PortWrite:
      return took_[ports + record.entry];
    case What::MmioRead:
      return took_[2 * ports + record.entry];
    case What::MmioWrite:
      return took_[2 * ports + mmio + record.entry];
    case What::Interrupted:
      return took_[took_.size() - 2];
    case What::Other:
      break;
  }
  return took_.back();
}

std::vector<ExitRecord> ExitRecorder::last() const {
  const auto kept = std::min<std::uint64_t>(count_, records_.size());
  std::vector<ExitRecord> result;
  result.reserve(kept);
  for (auto i = count_ - kept; i < count_; ++i) {
    result.push_back(records_[i % records_.size()]);
  }
  return result;
}

std::string_view ExitRecorder::name_of(const ExitRecord& record) const noexcept {
  const auto pick = [&](const Bus& bus, std::string_view rest) -> std::string_view {
    return record.entry < bus.entries().size() ? std::string_view{bus.entries()[record.entry].name} : rest;
  };
  switch (record.what) {
    case What::PortRead:
    case What::PortWrite:
      return pick(buses_->ports, "other ports");
    case What::MmioRead:
    case What::MmioWrite:
      return pick(buses_->mmio, "other MMIO");
    case What::Interrupted:
    case What::Other:
      break;
  }
  return martlet::name_of(record.what);
}

std::string ExitRecorder::table() const {
  std::string text;
  const auto line = [&](std::string_view what, std::string_view who, const Histogram& took) {
    if (took.count() != 0) {
      const auto us = [](std::uint64_t ns) { return static_cast<double>(ns) / 1000; };
      text += fmt::format("  {:<6} {:<20} {:>10} {:>10.1f} {:>10.1f} {:>10.1f}\n", what, who, took.count(),
                          us(took.quantile(50)), us(took.quantile(99)), us(took.most()));
    }
  };
  std::size_t next = 0;
  const auto lines = [&](const Bus& bus, std::string_view rest) {
    for (const std::string_view what : {"read", "write"}) {
      for (std::size_t i = 0; i <= bus.entries().size(); ++i) {
        line(what, i < bus.entries().size() ? std::string_view{bus.entries()[i].name} : rest, took_[next++]);
      }
    }
  };
  lines(buses_->ports, "other ports");
  lines(buses_->mmio, "other MMIO");
  line("kick", "", took_[next++]);
  line("other", "", took_[next]);
  return text;
}

}  // namespace martlet
