#pragma once
// A small builder of ACPI machine language (ACPI 6.5 §20): each function returns the bytes of one
// term, and terms nest as they do in ASL.

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace martlet::aml {

using Bytes = std::vector<std::uint8_t>;
using Terms = std::initializer_list<Bytes>;

// --- Data. Names are as in ASL: "_HID", "\\_SB", "\\_SB.PWRB".
[[nodiscard]] Bytes integer(std::uint64_t value);
[[nodiscard]] Bytes string(std::string_view text);
/// A compressed EISA id, for example "PNP0501".
[[nodiscard]] Bytes eisa_id(std::string_view id);
[[nodiscard]] Bytes package(std::span<const Bytes> elements);
[[nodiscard]] inline Bytes package(Terms elements) { return package(std::span{elements.begin(), elements.size()}); }

// --- Named objects.
[[nodiscard]] Bytes name(std::string_view path, const Bytes& value);
[[nodiscard]] Bytes scope(std::string_view path, Terms terms);
[[nodiscard]] Bytes device(std::string_view path, Terms terms);
[[nodiscard]] Bytes method(std::string_view path, std::uint8_t arguments, Terms terms);
/// A region of ports, and one byte-wide field over each byte of it that is read or written.
[[nodiscard]] Bytes port_region(std::string_view path, std::uint16_t port, std::uint8_t length);
[[nodiscard]] Bytes byte_field(std::string_view region, std::string_view field);

// --- Code.
[[nodiscard]] Bytes reference(std::string_view path);
[[nodiscard]] Bytes local(std::uint8_t index);
[[nodiscard]] Bytes store(const Bytes& value, const Bytes& target);
[[nodiscard]] Bytes bit_and(const Bytes& left, const Bytes& right);
[[nodiscard]] Bytes if_true(const Bytes& condition, Terms terms);
[[nodiscard]] Bytes notify(std::string_view device, std::uint64_t value);

// --- Resources (ACPI 6.5 §6.4), for a _CRS.
[[nodiscard]] Bytes resources(Terms descriptors);
[[nodiscard]] Bytes ports(std::uint16_t start, std::uint8_t size);
/// Edge-triggered, active high, exclusive: how every interrupt of ours is wired.
[[nodiscard]] Bytes isa_interrupt(std::uint8_t irq);
[[nodiscard]] Bytes interrupt(std::uint32_t gsi);
[[nodiscard]] Bytes memory32(std::uint32_t start, std::uint32_t size);
/// What a bridge hands on to the bus behind it: bus numbers, addresses of memory.
[[nodiscard]] Bytes bus_numbers(std::uint8_t first, std::uint8_t last);
[[nodiscard]] Bytes memory_window32(std::uint32_t start, std::uint32_t size);

}  // namespace martlet::aml
