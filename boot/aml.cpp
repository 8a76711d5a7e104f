#include "boot/aml.h"

#include <charconv>
#include <stdexcept>

namespace martlet::aml {
namespace {

// ACPI 6.5 §20.2 and §20.3.
enum Op : std::uint8_t {
  kZeroOp = 0x00,
  kOneOp = 0x01,
  kNameOp = 0x08,
  kBytePrefix = 0x0a,
  kWordPrefix = 0x0b,
  kDWordPrefix = 0x0c,
  kStringPrefix = 0x0d,
  kQWordPrefix = 0x0e,
  kScopeOp = 0x10,
  kBufferOp = 0x11,
  kPackageOp = 0x12,
  kMethodOp = 0x14,
  kDualNamePrefix = 0x2e,
  kMultiNamePrefix = 0x2f,
  kExtOpPrefix = 0x5b,
  kLocal0Op = 0x60,
  kStoreOp = 0x70,
  kAndOp = 0x7b,
  kNotifyOp = 0x86,
  kIfOp = 0xa0,
  // after kExtOpPrefix
  kOpRegionOp = 0x80,
  kFieldOp = 0x81,
  kDeviceOp = 0x82,
};
constexpr std::uint8_t kSystemIo = 1;    // RegionSpace, §20.2.5.2
constexpr std::uint8_t kByteAccess = 1;  // FieldFlags, §20.2.5.2: no lock, preserve
constexpr std::uint8_t kBitsInByte = 8;
constexpr std::size_t kSegmentLength = 4;  // of a name
constexpr std::size_t kEisaIdLength = 7;

// Resource descriptors' first bytes, §6.4.2 and §6.4.3.
enum Descriptor : std::uint8_t {
  kIrqNoFlags = 0x22,  // edge-triggered, active high, exclusive
  kIoPorts = 0x47,
  kEndTag = 0x79,
  kMemory32Fixed = 0x86,
  kDWordAddressSpace = 0x87,
  kWordAddressSpace = 0x88,
  kExtendedInterrupt = 0x89,
};
constexpr std::uint8_t kDecode16 = 1;
constexpr std::uint8_t kReadWrite = 1;
enum AddressSpace : std::uint8_t { kMemoryRange = 0, kBusNumberRange = 2 };  // §6.4.3.5
constexpr std::uint8_t kProducerFixed = 0x0c;              // §6.4.3.5: a bridge's window, both its ends fixed
constexpr std::uint8_t kConsumerEdgeHighExclusive = 0x03;  // §6.4.3.6: bit 0 consumer, bit 1 edge

void append(Bytes& to, const Bytes& more) { to.insert(to.end(), more.begin(), more.end()); }

void append(Bytes& to, Terms terms) {
  for (const auto& term : terms) {
    append(to, term);
  }
}

Bytes join(Terms terms) {
  Bytes all;
  append(all, terms);
  return all;
}

Bytes little_endian(std::uint64_t value, unsigned bytes) {
  Bytes result;
  for (unsigned i = 0; i < bytes; ++i) {
    result.push_back(static_cast<std::uint8_t>(value >> (kBitsInByte * i)));
  }
  return result;
}

/// PkgLength, which counts itself (§20.2.4): six bits in one byte, or four and up to three more bytes.
Bytes package_length(std::size_t content) {
  constexpr std::size_t kOneByteLimit = 1U << 6U;
  if (content + 1 < kOneByteLimit) {
    return {static_cast<std::uint8_t>(content + 1)};
  }
  for (unsigned more = 1; more <= 3; ++more) {
    const std::size_t length = content + 1 + more;
    if (length < std::size_t{1} << (4 + kBitsInByte * more)) {
      Bytes result{static_cast<std::uint8_t>(more << 6U | (length & 0xfU))};
      append(result, little_endian(length >> 4U, more));
      return result;
    }
  }
  throw std::logic_error{"an AML package of 256 MiB"};
}

/// NameString (§20.2.2): an optional root, then segments padded with '_'.
Bytes name_string(std::string_view path) {
  Bytes result;
  if (path.starts_with('\\')) {
    result.push_back('\\');
    path.remove_prefix(1);
  }
  Bytes segments;
  while (!path.empty()) {
    const auto segment = path.substr(0, path.find('.'));
    if (segment.empty() || segment.size() > kSegmentLength) {
      throw std::logic_error{"an AML name segment has one to four characters"};
    }
    segments.insert(segments.end(), segment.begin(), segment.end());
    segments.insert(segments.end(), kSegmentLength - segment.size(), '_');
    path.remove_prefix(std::min(segment.size() + 1, path.size()));
  }
  const auto count = segments.size() / kSegmentLength;
  if (count == 2) {
    result.push_back(kDualNamePrefix);
  } else if (count > 2) {
    append(result, {kMultiNamePrefix, static_cast<std::uint8_t>(count)});
  }
  append(result, segments);
  return result;
}

/// An opcode, PkgLength and content.
Bytes block(const Bytes& opcode, const Bytes& content) {
  return join({opcode, package_length(content.size()), content});
}

Bytes buffer(const Bytes& content) { return block({kBufferOp}, join({integer(content.size()), content})); }

}  // namespace

Bytes integer(std::uint64_t value) {
  if (value <= 1) {
    return {value == 0 ? kZeroOp : kOneOp};
  }
  if (value <= 0xff) {
    return join({{kBytePrefix}, little_endian(value, 1)});
  }
  if (value <= 0xffff) {
    return join({{kWordPrefix}, little_endian(value, 2)});
  }
  if (value <= 0xffffffff) {
    return join({{kDWordPrefix}, little_endian(value, 4)});
  }
  return join({{kQWordPrefix}, little_endian(value, 8)});
}

Bytes string(std::string_view text) { return join({{kStringPrefix}, Bytes(text.begin(), text.end()), {0}}); }

Bytes eisa_id(std::string_view id) {
  // Three letters of five bits, then four hexadecimal digits, big-endian (§19.3.4).
  std::uint16_t product = 0;
  if (id.size() != kEisaIdLength ||
      std::from_chars(id.data() + 3, id.data() + id.size(), product, 16).ptr != id.data() + id.size()) {
    throw std::logic_error{"an EISA id is three letters and four hexadecimal digits"};
  }
  std::uint32_t letters = 0;
  for (const char letter : id.substr(0, 3)) {
    letters = letters << 5U | static_cast<std::uint32_t>(letter - 'A' + 1);
  }
  const std::uint32_t number = letters << 16U | product;
  Bytes result{kDWordPrefix};
  for (const unsigned shift : {24U, 16U, 8U, 0U}) {
    result.push_back(static_cast<std::uint8_t>(number >> shift));
  }
  return result;
}

Bytes package(std::span<const Bytes> elements) {
  Bytes content{static_cast<std::uint8_t>(elements.size())};
  for (const auto& element : elements) {
    append(content, element);
  }
  return block({kPackageOp}, content);
}

Bytes name(std::string_view path, const Bytes& value) { return join({{kNameOp}, name_string(path), value}); }

Bytes scope(std::string_view path, Terms terms) { return block({kScopeOp}, join({name_string(path), join(terms)})); }

Bytes device(std::string_view path, Terms terms) {
  return block({kExtOpPrefix, kDeviceOp}, join({name_string(path), join(terms)}));
}

Bytes method(std::string_view path, std::uint8_t arguments, Terms terms) {
  return block({kMethodOp}, join({name_string(path), {arguments}, join(terms)}));
}

Bytes port_region(std::string_view path, std::uint16_t port, std::uint8_t length) {
  return join({{kExtOpPrefix, kOpRegionOp}, name_string(path), {kSystemIo}, integer(port), integer(length)});
}

Bytes byte_field(std::string_view region, std::string_view field) {
  return block({kExtOpPrefix, kFieldOp}, join({name_string(region), {kByteAccess}, name_string(field), {kBitsInByte}}));
}

Bytes reference(std::string_view path) { return name_string(path); }

Bytes local(std::uint8_t index) { return {static_cast<std::uint8_t>(kLocal0Op + index)}; }

Bytes store(const Bytes& value, const Bytes& target) { return join({{kStoreOp}, value, target}); }

Bytes bit_and(const Bytes& left, const Bytes& right) {
  return join({{kAndOp}, left, right, {kZeroOp}});  // the result is not stored anywhere
}

Bytes if_true(const Bytes& condition, Terms terms) { return block({kIfOp}, join({condition, join(terms)})); }

Bytes notify(std::string_view device, std::uint64_t value) {
  return join({{kNotifyOp}, name_string(device), integer(value)});
}

Bytes resources(Terms descriptors) {
  constexpr std::uint8_t kNoChecksum = 0;  // counts as correct, §6.4.2.9
  return buffer(join({join(descriptors), {kEndTag, kNoChecksum}}));
}

Bytes ports(std::uint16_t start, std::uint8_t size) {
  constexpr std::uint8_t kAlignment = 1;
  return join({{kIoPorts, kDecode16}, little_endian(start, 2), little_endian(start, 2), {kAlignment, size}});
}

Bytes isa_interrupt(std::uint8_t irq) { return join({{kIrqNoFlags}, little_endian(1ULL << irq, 2)}); }

Bytes interrupt(std::uint32_t gsi) {
  constexpr std::uint8_t kCount = 1;
  return join({{kExtendedInterrupt}, little_endian(6, 2), {kConsumerEdgeHighExclusive, kCount}, little_endian(gsi, 4)});
}

Bytes memory32(std::uint32_t start, std::uint32_t size) {
  return join({{kMemory32Fixed}, little_endian(9, 2), {kReadWrite}, little_endian(start, 4), little_endian(size, 4)});
}

Bytes bus_numbers(std::uint8_t first, std::uint8_t last) {
  return join({{kWordAddressSpace},
               little_endian(13, 2),
               {kBusNumberRange, kProducerFixed, 0},
               little_endian(0, 2),  // granularity
               little_endian(first, 2),
               little_endian(last, 2),
               little_endian(0, 2),  // translation
               little_endian(last - first + 1U, 2)});
}

Bytes memory_window32(std::uint32_t start, std::uint32_t size) {
  return join({{kDWordAddressSpace},
               little_endian(23, 2),
               {kMemoryRange, kProducerFixed, kReadWrite},
               little_endian(0, 4),  // granularity
               little_endian(start, 4),
               little_endian(start + size - 1, 4),
               little_endian(0, 4),  // translation
               little_endian(size, 4)});
}

}  // namespace martlet::aml
