#include "vmm/debug/dmesg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "vmm/debug/virtual_memory.h"

namespace martlet {
namespace {

constexpr std::uint64_t kMaxText = 64U << 20U;
constexpr unsigned kMaxRingBits = 31;  // Linux' own limit of log_buf_len: 2 GiB
constexpr unsigned kMaxCountBits = 20;
constexpr std::size_t kMaxRecords = std::size_t{1} << kMaxCountBits;
constexpr std::uint64_t kOldHeader = 16;         // struct printk_log's least: what a record of bytes is made of
constexpr std::size_t kMaxPrinted = 64U << 20U;  // a record more at most: a newline becomes some 20 bytes

/// What follows the fields of struct printk_info and printk_log whose places VMCOREINFO tells: facility, then five
/// bits of flags and three of level.
struct Tail {
  std::uint8_t facility = 0;
  std::uint8_t flags_and_level = 0;

  [[nodiscard]] unsigned level() const noexcept { return flags_and_level >> 5U & 7U; }
};

/// Reads what the places and names that `info` tells lead to. The first thing that is not there spoils all that is
/// read afterwards, so that one question at the end is enough.
class Reader {
 public:
  Reader(const VirtualMemory& memory, const VmCoreInfo& info) : memory_{memory}, info_{info} {}

  [[nodiscard]] bool good() const noexcept { return good_; }

  std::uint64_t symbol(std::string_view name) { return known(info_.symbol(name)); }
  std::uint64_t offset(std::string_view field) { return known(info_.offset(field)); }
  std::uint64_t size(std::string_view type) { return known(info_.size(type)); }
  template <class T>
  T at(std::uint64_t addr) {
    return good_ ? known(memory_.read<T>(addr)) : T{};
  }

 private:
  template <class T>
  T known(const std::optional<T>& value) {
    good_ = good_ && value.has_value();
    return value.value_or(T{});
  }

  const VirtualMemory& memory_;
  const VmCoreInfo& info_;
  bool good_ = true;
};

/// Where things are in a ring of Linux 5.10 and later (kernel/printk/printk_ringbuffer.h). Descriptors and infos are
/// arrays of 2^count_bits; texts lie in 2^size_bits bytes, each in a block behind its descriptor's id.
class Ring {
 public:
  Ring(const VirtualMemory& memory, const VmCoreInfo& info) : memory_{memory} {
    Reader reader{memory, info};
    const auto ring = reader.at<std::uint64_t>(reader.symbol("prb"));
    const auto counter = reader.offset("atomic_long_t.counter");
    const auto descriptors = ring + reader.offset("printk_ringbuffer.desc_ring");
    count_bits_ = reader.at<std::uint32_t>(descriptors + reader.offset("prb_desc_ring.count_bits"));
    descs_ = reader.at<std::uint64_t>(descriptors + reader.offset("prb_desc_ring.descs"));
    infos_ = reader.at<std::uint64_t>(descriptors + reader.offset("prb_desc_ring.infos"));
    head_ = reader.at<std::uint64_t>(descriptors + reader.offset("prb_desc_ring.head_id") + counter);
    tail_ = reader.at<std::uint64_t>(descriptors + reader.offset("prb_desc_ring.tail_id") + counter);
    const auto texts = ring + reader.offset("printk_ringbuffer.text_data_ring");
    size_bits_ = reader.at<std::uint32_t>(texts + reader.offset("prb_data_ring.size_bits"));
    texts_ = reader.at<std::uint64_t>(texts + reader.offset("prb_data_ring.data"));
    desc_size_ = reader.size("prb_desc");
    state_ = reader.offset("prb_desc.state_var") + counter;
    const auto place = reader.offset("prb_desc.text_blk_lpos");
    begin_ = place + reader.offset("prb_data_blk_lpos.begin");
    next_ = place + reader.offset("prb_data_blk_lpos.next");
    info_size_ = reader.size("printk_info");
    time_ = reader.offset("printk_info.ts_nsec");
    length_ = reader.offset("printk_info.text_len");
    good_ = reader.good() && count_bits_ <= kMaxCountBits && size_bits_ <= kMaxRingBits;
  }

  [[nodiscard]] bool good() const noexcept { return good_; }

  [[nodiscard]] std::vector<LogRecord> records() const {
    std::vector<LogRecord> records;
    const std::uint64_t count = std::min(((head_ - tail_) & kIds) + 1, std::uint64_t{1} << count_bits_);
    std::uint64_t budget = std::min(kMaxText, std::uint64_t{1} << size_bits_);  // texts do not overlap
    for (std::uint64_t i = 0; i < count; ++i) {
      auto record = read((tail_ + i) & kIds, budget);
      if (record) {
        budget -= record->text.size();
        records.push_back(std::move(*record));
      }
    }
    return records;
  }

 private:
  static constexpr std::uint64_t kIds = (std::uint64_t{1} << 62U) - 1;  // the bits above are a descriptor's state
  enum class State : std::uint8_t { Reserved = 0, Committed = 1, Finalized = 2, Reusable = 3 };
  static constexpr std::uint64_t kNoBlock = 1;  // set in both positions: an empty text, or one that was lost

  [[nodiscard]] std::optional<LogRecord> read(std::uint64_t id, std::uint64_t budget) const {
    const std::uint64_t index = id & ((std::uint64_t{1} << count_bits_) - 1);
    const std::uint64_t desc = descs_ + index * desc_size_;
    const std::uint64_t info = infos_ + index * info_size_;
    const auto state = memory_.read<std::uint64_t>(desc + state_);
    const auto begin = memory_.read<std::uint64_t>(desc + begin_);
    const auto next = memory_.read<std::uint64_t>(desc + next_);
    const auto time = memory_.read<std::uint64_t>(info + time_);
    const auto length = memory_.read<std::uint16_t>(info + length_);
    const auto tail = memory_.read<Tail>(info + length_ + sizeof(std::uint16_t));
    if (!state || !begin || !next || !time || !length || !tail || (*state & kIds) != id) {
      return std::nullopt;
    }
    const auto kind = static_cast<State>(*state >> 62U);
    if (kind != State::Committed && kind != State::Finalized) {
      return std::nullopt;
    }
    auto text = read_text(*begin, *next, std::min<std::uint64_t>(*length, budget));
    if (!text) {
      return std::nullopt;
    }
    return LogRecord{.time_ns = *time, .facility = tail->facility, .level = tail->level(), .text = std::move(*text)};
  }

  [[nodiscard]] std::optional<std::string> read_text(std::uint64_t begin, std::uint64_t next,
                                                     std::uint64_t length) const {
    if ((begin & next & kNoBlock) != 0) {
      return std::string{};
    }
    const std::uint64_t ring_size = std::uint64_t{1} << size_bits_;
    std::uint64_t from = begin & (ring_size - 1);
    const std::uint64_t to = next & (ring_size - 1);
    if (begin >> size_bits_ != next >> size_bits_ && to != 0) {
      from = 0;  // it did not fit before the ring's end
    }
    const std::uint64_t end = to == 0 ? ring_size : to;
    if (end < from + sizeof(std::uint64_t)) {
      return std::nullopt;
    }
    std::string text(std::min(length, end - from - sizeof(std::uint64_t)), '\0');
    if (!memory_.read(texts_ + from + sizeof(std::uint64_t), std::as_writable_bytes(std::span{text}))) {
      return std::nullopt;
    }
    return text;
  }

  const VirtualMemory& memory_;
  bool good_ = false;
  unsigned count_bits_ = 0;
  unsigned size_bits_ = 0;
  std::uint64_t descs_ = 0, infos_ = 0, texts_ = 0;  // addresses
  std::uint64_t head_ = 0, tail_ = 0;                // ids
  std::uint64_t desc_size_ = 0, state_ = 0, begin_ = 0, next_ = 0;
  std::uint64_t info_size_ = 0, time_ = 0, length_ = 0;
};

/// The log of Linux 3.5 to 5.9: records one after the other, each with a header and its text; one of length 0 says
/// that the next is at the buffer's begin.
std::optional<std::vector<LogRecord>> read_old_log(const VirtualMemory& memory, const VmCoreInfo& info) {
  const std::string type = info.size("printk_log") ? "printk_log" : "log";  // the latter before 3.11
  Reader reader{memory, info};
  const auto buffer = reader.at<std::uint64_t>(reader.symbol("log_buf"));
  const auto buffer_size = reader.at<std::uint32_t>(reader.symbol("log_buf_len"));
  const auto first = reader.at<std::uint32_t>(reader.symbol("log_first_idx"));
  const auto next = reader.at<std::uint32_t>(reader.symbol("log_next_idx"));
  const auto header_size = reader.size(type);
  const auto time = reader.offset(type + ".ts_nsec");
  const auto record_length = reader.offset(type + ".len");
  const auto text_length = reader.offset(type + ".text_len");
  const auto dict_length = reader.offset(type + ".dict_len");
  if (!reader.good() || header_size < kOldHeader || header_size > 256) {
    return std::nullopt;
  }
  std::vector<LogRecord> records;
  std::uint64_t budget = std::min<std::uint64_t>(kMaxText, buffer_size);  // of bytes gone over
  std::uint64_t at = first;
  bool wrapped = false;
  while (at != next && at + header_size <= buffer_size && records.size() < kMaxRecords) {
    const std::uint64_t header = buffer + at;
    const auto length = reader.at<std::uint16_t>(header + record_length);
    if (length == 0 && !wrapped) {
      at = 0;
      wrapped = true;
      continue;
    }
    LogRecord record{.time_ns = reader.at<std::uint64_t>(header + time)};
    const auto tail = reader.at<Tail>(header + dict_length + sizeof(std::uint16_t));
    record.facility = tail.facility;
    record.level = tail.level();
    const std::uint64_t text = reader.at<std::uint16_t>(header + text_length);
    if (!reader.good() || length < header_size || length > budget || text > length - header_size) {
      break;
    }
    record.text.resize(text);
    if (!memory.read(header + header_size, std::as_writable_bytes(std::span{record.text}))) {
      break;
    }
    records.push_back(std::move(record));
    budget -= length;
    at += length;
  }
  return records;
}

void append_escaped(std::string& out, std::string_view text, std::size_t indent) {
  for (const char c : text) {
    if (c == '\n') {
      out += '\n';
      out.append(indent, ' ');
    } else if ((c >= ' ' && c <= '~') || c == '\t') {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
}

}  // namespace

std::optional<std::vector<LogRecord>> read_dmesg(const GuestMemory& memory, const VmCoreInfo& info) {
  const auto paging = info.kernel_paging();
  if (!paging) {
    return std::nullopt;
  }
  const VirtualMemory kernel{memory, *paging};
  if (!info.symbol("prb")) {
    return read_old_log(kernel, info);
  }
  const Ring ring{kernel, info};
  return ring.good() ? std::optional{ring.records()} : std::nullopt;
}

std::string format_dmesg(std::span<const LogRecord> records, LogLevels levels) {
  std::string out;
  for (const auto& record : records) {
    const std::size_t begin = out.size();
    if (begin > kMaxPrinted) {
      out += "(the rest is cut: too long)\n";
      break;
    }
    if (levels == LogLevels::Shown) {
      out += fmt::format("<{}>", record.facility * 8 + record.level);
    }
    out += fmt::format("[{:5}.{:06}] ", record.time_ns / 1'000'000'000, record.time_ns % 1'000'000'000 / 1000);
    append_escaped(out, record.text, out.size() - begin);
    out += '\n';
  }
  return out;
}

}  // namespace martlet
