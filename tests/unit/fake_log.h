#pragma once

#include "tests/unit/fake_kernel.h"

namespace martlet {

/// Writes a kernel's log as Linux does since 5.10 (kernel/printk/printk_ringbuffer.c), with structures laid out
/// otherwise than Linux', so that only who goes by VMCOREINFO finds its way.
class FakeRing {
 public:
  static constexpr unsigned kCountBits = 3;
  static constexpr unsigned kSizeBits = 8;
  static constexpr std::uint64_t kRing = FakeKernel::kText + 0x10'0000;
  static constexpr std::uint64_t kDescs = kRing + 0x1000;
  static constexpr std::uint64_t kInfos = kRing + 0x2000;
  static constexpr std::uint64_t kTexts = FakeKernel::kDirectMap + 0x1'0000;
  enum State : std::uint64_t { Reserved = 0, Committed = 1, Finalized = 2, Reusable = 3 };

  explicit FakeRing(FakeKernel& kernel) : kernel_{kernel} {
    kernel.say("SYMBOL(prb)", fmt::format("{:x}", kRing - 8));
    for (const auto& [field, offset] :
         std::initializer_list<std::pair<const char*, int>>{{"printk_ringbuffer.desc_ring", 16},
                                                            {"printk_ringbuffer.text_data_ring", 80},
                                                            {"prb_desc_ring.count_bits", 0},
                                                            {"prb_desc_ring.descs", 8},
                                                            {"prb_desc_ring.infos", 16},
                                                            {"prb_desc_ring.head_id", 24},
                                                            {"prb_desc_ring.tail_id", 40},
                                                            {"prb_data_ring.size_bits", 4},
                                                            {"prb_data_ring.data", 8},
                                                            {"prb_desc.state_var", 0},
                                                            {"prb_desc.text_blk_lpos", 16},
                                                            {"prb_data_blk_lpos.begin", 8},
                                                            {"prb_data_blk_lpos.next", 0},
                                                            {"printk_info.ts_nsec", 16},
                                                            {"printk_info.text_len", 4},
                                                            {"atomic_long_t.counter", 8}}) {
      kernel.say(fmt::format("OFFSET({})", field), std::to_string(offset));
    }
    kernel.say("SIZE(prb_desc)", "40");
    kernel.say("SIZE(printk_info)", "24");
    kernel.poke(kRing - 8, kRing);
    kernel.poke(kRing + 16, std::uint32_t{kCountBits});
    kernel.poke(kRing + 24, kDescs);
    kernel.poke(kRing + 32, kInfos);
    kernel.poke(kRing + 84, std::uint32_t{kSizeBits});
    kernel.poke(kRing + 88, kTexts);
    publish_ids();
  }

  void print(std::uint64_t time_ns, unsigned level, std::string_view text, State state = Finalized) {
    const std::uint64_t size = (8 + text.size() + 7) / 8 * 8;
    const std::uint64_t begin = lpos_;
    std::uint64_t next = begin + size;
    std::uint64_t at = begin % (1U << kSizeBits);
    if (begin >> kSizeBits != next >> kSizeBits) {
      next = (next >> kSizeBits << kSizeBits) + size;
      at = 0;
    }
    kernel_.poke(kTexts + at, head_);
    kernel_.poke(kTexts + at + 8, text);
    describe(time_ns, level, static_cast<std::uint16_t>(text.size()), text.empty() ? 3 : begin, text.empty() ? 3 : next,
             state);
    lpos_ = text.empty() ? lpos_ : next;
  }

  void describe(std::uint64_t time_ns, unsigned level, std::uint16_t length, std::uint64_t begin, std::uint64_t next,
                State state = Finalized) {
    const std::uint64_t index = head_ % (1U << kCountBits);
    kernel_.poke(kDescs + index * 40 + 8, head_ | state << 62U);
    kernel_.poke(kDescs + index * 40 + 24, begin);
    kernel_.poke(kDescs + index * 40 + 16, next);
    kernel_.poke(kInfos + index * 24 + 4, length);
    kernel_.poke(kInfos + index * 24 + 6, std::uint8_t{1});
    kernel_.poke(kInfos + index * 24 + 7, static_cast<std::uint8_t>(level << 5U | 0x11U));
    kernel_.poke(kInfos + index * 24 + 16, time_ns);
    publish_ids();
    ++head_;
  }

  void set_ids(std::uint64_t head, std::uint64_t tail) const {
    kernel_.poke(kRing + 16 + 24 + 8, head);
    kernel_.poke(kRing + 16 + 40 + 8, tail);
  }

 private:
  void publish_ids() const {
    const std::uint64_t count = 1U << kCountBits;
    set_ids(head_, head_ < count ? 0 : head_ - count + 1);
  }

  FakeKernel& kernel_;
  std::uint64_t head_ = 0;
  std::uint64_t lpos_ = 0;
};

/// The log of Linux 3.5 to 5.9.
class FakeOldLog {
 public:
  static constexpr std::uint64_t kVariables = FakeKernel::kText + 0x10'0000;
  static constexpr std::uint64_t kBuffer = kVariables + 0x1000;
  static constexpr std::uint32_t kSize = 256;

  explicit FakeOldLog(FakeKernel& kernel) : kernel_{kernel} {
    kernel.say("SYMBOL(log_buf)", fmt::format("{:x}", kVariables));
    kernel.say("SYMBOL(log_buf_len)", fmt::format("{:x}", kVariables + 8));
    kernel.say("SYMBOL(log_first_idx)", fmt::format("{:x}", kVariables + 16));
    kernel.say("SYMBOL(log_next_idx)", fmt::format("{:x}", kVariables + 24));
    kernel.say("SIZE(printk_log)", "16");
    kernel.say("OFFSET(printk_log.ts_nsec)", "0");
    kernel.say("OFFSET(printk_log.len)", "8");
    kernel.say("OFFSET(printk_log.text_len)", "10");
    kernel.say("OFFSET(printk_log.dict_len)", "12");
    kernel.poke(kVariables, kBuffer);
    kernel.poke(kVariables + 8, kSize);
    set_indices(0, 0);
  }

  void put(std::uint32_t at, std::uint16_t length, std::uint64_t time_ns, unsigned level, std::string_view text) const {
    kernel_.poke(kBuffer + at, time_ns);
    kernel_.poke(kBuffer + at + 8, length);
    kernel_.poke(kBuffer + at + 10, static_cast<std::uint16_t>(text.size()));
    kernel_.poke(kBuffer + at + 14, std::uint8_t{0});
    kernel_.poke(kBuffer + at + 15, static_cast<std::uint8_t>(level << 5U));
    kernel_.poke(kBuffer + at + 16, text);
  }
  void set_indices(std::uint32_t first, std::uint32_t next) const {
    kernel_.poke(kVariables + 16, first);
    kernel_.poke(kVariables + 24, next);
  }

 private:
  FakeKernel& kernel_;
};

}  // namespace martlet
