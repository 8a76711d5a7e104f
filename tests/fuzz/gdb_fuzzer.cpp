// A hostile gdb client, and a guest whose page tables and stops are as bad. The input is a list of moves, each a byte
// that says which, and its arguments.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "tests/unit/gdb_fake_target.h"
#include "vmm/debug/gdb/packet.h"
#include "vmm/debug/gdb/stub.h"

namespace martlet::gdb {
namespace {

class Input {
 public:
  explicit Input(std::string_view bytes) : rest_{bytes} {}
  [[nodiscard]] bool done() const { return rest_.empty(); }
  std::uint8_t byte() { return rest_.empty() ? std::uint8_t{0} : static_cast<std::uint8_t>(text(1)[0]); }
  std::uint64_t number() {
    std::uint64_t value = 0;
    for (int i = 0; i < 8; ++i) {
      value = value << 8U | byte();
    }
    return value;
  }
  std::string_view text(std::size_t most) {
    const auto part = rest_.substr(0, most);
    rest_.remove_prefix(part.size());
    return part;
  }

 private:
  std::string_view rest_;
};

void insist(bool holds) {
  if (!holds) {
    std::abort();
  }
}

/// What holds whatever client and guest do.
void check(const Stub& stub, const FakeTarget& target) {
  insist(stub.output().size() < 16 * kMaxPacket);
  insist(std::ranges::any_of(target.orders_, [](const CpuOrder& order) { return order.run; }) ||
         target.orders_.empty());
}

StopEvent stop_of(Input& input, const FakeTarget& target) {
  const auto kind = input.byte();
  const std::size_t cpu = kind >> 4U & 1U;
  if ((kind & 3U) == 0) {
    return {.kind = StopEvent::Kind::Interrupted};
  }
  if ((kind & 3U) == 1) {
    return {.kind = StopEvent::Kind::Fault, .cpu = cpu, .exit = {}, .detail = "fault"};
  }
  const auto dr6 = input.byte();
  const auto pc = (kind & 8U) != 0 ? input.number() : target.cpus_[cpu].regs.rip;
  return FakeTarget::debug_event(cpu, (kind & 4U) != 0 ? 3 : 1, pc, dr6 | (dr6 & 0x80U) << 7U);
}

void play(Input input) {
  FakeTarget target{2};
  target.int3_exits_ = (input.byte() & 1U) != 0;
  Stub stub{target, {.version = "Martlet"}};
  stub.connect();
  bool connected = true;
  while (!input.done()) {
    const auto move = input.byte();
    switch (move & 7U) {
      case 0:
      case 1:  // bytes as they are
        static_cast<void>(stub.feed(input.text(move >> 3U)));
        break;
      case 2:
      case 3:
      case 4:  // a whole packet
        static_cast<void>(stub.feed(frame(input.text(1 + (move >> 3U)))));
        break;
      case 5:
        if (!target.resting_) {
          target.stop({stop_of(input, target), stop_of(input, target)});
        }
        break;
      case 6:
        stub.sent(std::min<std::size_t>(stub.output().size(), std::size_t{move} << 8U));
        static_cast<void>(stub.feed(""));
        break;
      default:
        if ((move & 8U) != 0) {  // something in the page tables
          target.tables_.put(FakeTarget::kRoot + (input.number() & 0xffff8), input.number());
        } else if ((move & 16U) != 0) {
          target.end(move);
        } else if (connected) {
          stub.disconnect();
          connected = false;
        } else {
          stub.connect();
          connected = true;
        }
    }
    if (connected && stub.done()) {
      stub.disconnect();
      connected = false;
    }
    check(stub, target);
  }
  // Whoever leaves takes all breakpoints along.
  if (connected) {
    stub.disconnect();
  }
  if (!target.resting_ && target.listener_ != nullptr) {
    target.stop_by_interrupt();
  }
  for (const auto& order : target.orders_) {
    insist(target.resting_ || (order.run && order.debug.dr7 == 0 && !order.debug.single_step));
  }
}

}  // namespace
}  // namespace martlet::gdb

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  martlet::gdb::play(martlet::gdb::Input{{reinterpret_cast<const char*>(data), size}});
  return 0;
}
