// A kernel's memory that anyone may have written to: VMCOREINFO, its log in both layouts, its symbols and stacks.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "tests/unit/fake_log.h"
#include "vmm/debug/post_mortem.h"

namespace martlet {
namespace {

class Input {
 public:
  explicit Input(std::span<const std::uint8_t> bytes) : bytes_{bytes} {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  template <class T>
  T take() {
    T value{};
    const auto count = std::min(sizeof(T), bytes_.size());
    std::memcpy(&value, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
    return value;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

constexpr std::uint64_t kStack = FakeKernel::kDirectMap + 0x10'0000;

/// Where things of interest are; what is written goes near them.
constexpr std::array kPlaces{FakeRing::kRing - 8, FakeRing::kDescs,    FakeRing::kInfos, FakeRing::kTexts,
                             FakeOldLog::kBuffer, FakeKernel::kTables, kStack,           FakeKernel::kText};

void run(Input input) {
  FakeKernel kernel;
  const auto kind = input.take<std::uint8_t>();
  if ((kind & 1U) != 0) {
    FakeRing ring{kernel};
    for (unsigned i = 0; i < 12; ++i) {
      ring.print(i * 1'000'000'007ULL, i % 8, "a line of text that was printed");
    }
  } else {
    const FakeOldLog log{kernel};
    log.put(0, 64, 1'000'000'007, 6, "a line of text");
    log.put(64, 64, 2'000'000'007, 6, "another");
    log.set_indices(0, 128);
  }
  if ((kind & 2U) != 0) {
    for (const auto* const name : {"names", "token_table", "token_index", "offsets", "relative_base", "num_syms"}) {
      kernel.say(std::string{"SYMBOL(kallsyms_"} + name + ")", fmt::format("{:x}", FakeKernel::kText + 8));
    }
  }
  auto cpu = kernel.cpu(FakeKernel::kText, kStack, kStack + 64);
  while (!input.empty()) {
    const auto what = input.take<std::uint8_t>();
    const auto offset = input.take<std::uint16_t>();
    if (what < kPlaces.size()) {
      kernel.poke(kPlaces.at(what) + offset, input.take<std::uint64_t>());
    } else if (what % 2 == 0) {
      kernel.text.at(offset % kernel.text.size()) = input.take<char>();
    } else {
      cpu.regs.rbp += offset;
    }
  }
  kernel.publish();
  const auto result = examine(kernel.memory, std::span{&cpu, 1});
  if (result.log && format_dmesg(*result.log).size() > 1U << 20U) {
    std::abort();  // no more than its rings hold, escaped
  }
}

}  // namespace
}  // namespace martlet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  martlet::run(martlet::Input{{data, size}});
  return 0;
}
