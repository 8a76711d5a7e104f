#include "vmm/kvm/exit_recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>

namespace martlet {
namespace {

using What = ExitRecord::What;

constexpr std::size_t kPlacesShown = 32;

std::uint64_t first_bytes(std::span<const std::byte> data) noexcept {
  std::uint64_t value = 0;
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
  return value;
}

std::uint16_t entry_at(const Bus& bus, std::uint64_t addr, std::size_t size, Bus::LastHit& last) noexcept {
  const auto* const entry = bus.find(addr, size, last);
  return static_cast<std::uint16_t>(entry != nullptr ? bus.index_of(*entry) : bus.entries().size());
}

What what_of(const Exit& exit) noexcept {
  if (const auto* io = std::get_if<PortIo>(&exit)) {
    return io->direction == Direction::Read ? What::PortRead : What::PortWrite;
  }
  if (const auto* mmio = std::get_if<Mmio>(&exit)) {
    return mmio->direction == Direction::Read ? What::MmioRead : What::MmioWrite;
  }
  if (std::holds_alternative<Interrupted>(exit)) {
    return What::Interrupted;
  }
  if (std::holds_alternative<Halted>(exit)) {
    return What::Halted;
  }
  if (std::holds_alternative<Shutdown>(exit)) {
    return What::Shutdown;
  }
  if (std::holds_alternative<SystemEvent>(exit)) {
    return What::SystemEvent;
  }
  return std::holds_alternative<Debug>(exit) ? What::Debug : What::Fault;
}

/// Of a table, for many of them.
std::string_view plural_of(What what) noexcept {
  constexpr std::array<std::string_view, 10> kNames{"port reads",  "port writes", "MMIO reads", "MMIO writes",
                                                    "kicks",       "halts",       "shutdowns",  "system events",
                                                    "debug exits", "errors"};
  return kNames[static_cast<std::size_t>(what)];
}

std::string line(std::string_view name, const Histogram& took) {
  const auto us = [](std::uint64_t ns) { return static_cast<double>(ns) / 1000; };
  return fmt::format("  {:<27} {:>10} {:>10.1f} {:>10.1f} {:>10.1f}\n", name, took.count(), us(took.quantile(50)),
                     us(took.quantile(99)), us(took.most()));
}

}  // namespace

std::string_view name_of(What what) noexcept {
  constexpr std::array<std::string_view, 10> kNames{"read", "write",    "read",  "write", "kick",
                                                    "halt", "shutdown", "event", "debug", "error"};
  return kNames[static_cast<std::size_t>(what)];
}

ExitRecorder::ExitRecorder(const Buses& buses, std::size_t capacity) : buses_{&buses}, records_(capacity) {
  for (std::size_t i = 0; i < kWhats; ++i) {
    const auto* const bus = bus_of(static_cast<What>(i));
    took_[i].resize(bus != nullptr ? bus->entries().size() + 1 : 1);
  }
  places_.reserve(kPlaces);
}

const Bus* ExitRecorder::bus_of(What what) const noexcept {
  if (what == What::PortRead || what == What::PortWrite) {
    return &buses_->ports;
  }
  return what == What::MmioRead || what == What::MmioWrite ? &buses_->mmio : nullptr;
}

void ExitRecorder::served(const Exit& exit) noexcept {
  auto& record = records_[count_ % records_.size()];
  record = {.left = left_, .what = what_of(exit)};
  bool is_access = true;
  if (const auto* io = std::get_if<PortIo>(&exit)) {
    record.addr = io->port;
    record.size = io->size;
    record.value = first_bytes(io->data);
    record.entry = entry_at(buses_->ports, io->port, io->size, last_port_);
  } else if (const auto* mmio = std::get_if<Mmio>(&exit)) {
    record.addr = raw(mmio->addr);
    record.size = static_cast<std::uint8_t>(mmio->data.size());
    record.value = first_bytes(mmio->data);
    record.entry = entry_at(buses_->mmio, raw(mmio->addr), mmio->data.size(), last_mmio_);
  } else {
    is_access = false;
  }
  record.took = now() - left_;
  took_[static_cast<std::size_t>(record.what)][record.entry].add(record.took);
  if (is_access) {
    at_place(record).add(record.took);
  }
  ++count_;
}

/// By open addressing. Once there is no room for more places, all others are one.
Histogram& ExitRecorder::at_place(const ExitRecord& record) noexcept {
  constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;
  const auto key = record.addr << 2U | static_cast<std::uint64_t>(record.what);  // an access: 0 to 3
  for (auto i = static_cast<std::size_t>(key * kGolden >> (64 - kSlotBits));; i = (i + 1) % slots_.size()) {
    if (slots_[i] == 0) {
      if (places_.size() == kPlaces) {
        return elsewhere_;
      }
      places_.push_back({.what = record.what, .addr = record.addr, .took = {}});
      slots_[i] = static_cast<std::uint16_t>(places_.size());
      return places_.back().took;
    }
    if (auto& place = places_[slots_[i] - 1U]; place.addr == record.addr && place.what == record.what) {
      return place.took;
    }
  }
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

std::string_view ExitRecorder::name_at(What what, std::size_t entry) const noexcept {
  const auto* const bus = bus_of(what);
  if (bus == nullptr) {
    return martlet::name_of(what);
  }
  if (entry < bus->entries().size()) {
    return bus->entries()[entry].name;
  }
  return bus == &buses_->ports ? "other ports" : "other MMIO";
}

std::string_view ExitRecorder::name_of(const ExitRecord& record) const noexcept {
  return name_at(record.what, record.entry);
}

std::string ExitRecorder::table() const {
  std::string reasons;
  std::string devices;
  for (std::size_t i = 0; i < kWhats; ++i) {
    const auto what = static_cast<What>(i);
    Histogram all;
    for (std::size_t entry = 0; entry < took_[i].size(); ++entry) {
      const auto& took = took_[i][entry];
      all.add(took);
      if (took.count() != 0 && bus_of(what) != nullptr) {
        devices += line(fmt::format("{:<6} {}", martlet::name_of(what), name_at(what, entry)), took);
      }
    }
    if (all.count() != 0) {
      reasons += line(plural_of(what), all);
    }
  }
  return reasons + devices + table_of_places();
}

std::string ExitRecorder::table_of_places() const {
  std::vector<const Place*> most;
  std::ranges::transform(places_, std::back_inserter(most), [](const Place& place) { return &place; });
  const auto count = [](const Place* place) { return place->took.count(); };
  std::ranges::stable_sort(most, std::ranges::greater{}, count);
  Histogram rest = elsewhere_;
  std::string text;
  for (std::size_t i = 0; i < most.size(); ++i) {
    const auto& [what, addr, took] = *most[i];
    if (i < kPlacesShown) {
      Bus::LastHit last;
      const auto name = name_at(what, entry_at(*bus_of(what), addr, 1, last));
      text += line(fmt::format("{:<6} {:#x} {}", martlet::name_of(what), addr, name), took);
    } else {
      rest.add(took);
    }
  }
  return rest.count() == 0 ? text : text + line("all other addresses", rest);
}

}  // namespace martlet
