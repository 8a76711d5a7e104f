#pragma once
// The other side of virtqueues, for tests: a driver in a small guest memory of its own. Its use reads like
// a guest script, the same for split and packed rings:
//
//   FakeDriver driver{{.size = 16, .ring = Ring::Packed, .features = kIndirectDescriptors}};
//   device.start(driver.features(), driver);
//   device.start_queue(0, driver.make_queue(0), driver.kick_fd());
//   const auto id = driver.chain().readable(header).readable(data).writable(1).submit();
//   device.notified(0);
//   const auto used = driver.take_used();
//   ASSERT_TRUE(used && used->id == id);
//   EXPECT_EQ(used->data[0][0], std::byte{0});
//
// Destroy the device, or at least its queues, before the driver: they live in its memory.

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "devices/virtio/queue.h"
#include "devices/virtio/wire.h"
#include "guest_heap.h"
#include "vmm/base/fd.h"
#include "vmm/base/guest_memory.h"

namespace martlet::virtio {

enum class Ring { Split, Packed };

/// A descriptor just as the device shall find it. kNext is added where more follow.
struct RawDescriptor {
  std::uint64_t addr = 0;
  std::uint32_t len = 0;
  std::uint16_t flags = 0;
  std::optional<std::uint16_t> next{};  ///< split rings and tables: leads there instead; sets kNext
};

class FakeDriver final : public DriverInterrupts {
 public:
  struct Options {
    std::uint16_t size = 16;  ///< of each queue
    Ring ring = Ring::Split;
    std::uint64_t features = 0;  ///< VERSION_1 is added, and RING_PACKED where it is
    std::uint16_t queues = 4;
  };
  /// RAM lies below the hole and above 4 GiB, as a PC's does. Buffers and rings are allocated from the lower.
  static constexpr std::uint64_t kLowRam = 64U << 20U;
  static constexpr std::uint64_t kHole = 0xd000'0000;
  static constexpr std::uint64_t kHighRam = 1ULL << 32U;
  static constexpr std::uint64_t kHighRamSize = 2U << 20U;

  explicit FakeDriver(Options options);
  FakeDriver(const FakeDriver&) = delete;
  FakeDriver& operator=(const FakeDriver&) = delete;
  ~FakeDriver();

  [[nodiscard]] const GuestMemory& memory() const noexcept { return memory_; }
  [[nodiscard]] std::uint64_t features() const noexcept { return options_.features; }
  /// Where the queue's rings lie, to write anything into them by write().
  [[nodiscard]] const QueueSetup& setup(std::uint16_t queue = 0) const;
  /// The device's end, on fresh rings.
  [[nodiscard]] std::unique_ptr<VirtQueue> make_queue(std::uint16_t queue = 0);
  /// An eventfd that nobody signals, for VirtioDevice::start_queue().
  [[nodiscard]] int kick_fd() const noexcept { return kick_.get(); }

  // --- Requests

  /// One request being built. What is not submitted was never there.
  class Chain {
   public:
    Chain(Chain&&) = default;
    Chain& operator=(Chain&&) = delete;
    /// Releases what was not submitted.
    ~Chain();

    Chain& readable(std::span<const std::byte> bytes);
    Chain& readable(std::string_view text) { return readable(std::as_bytes(std::span{text})); }
    template <class T>
      requires(std::is_trivially_copyable_v<T> && !std::is_convertible_v<const T&, std::span<const std::byte>> &&
               !std::is_convertible_v<const T&, std::string_view>)
    Chain& readable(const T& value) {
      return readable(std::as_bytes(std::span{&value, 1}));
    }
    /// A buffer for the device to write, full of 0xcc.
    Chain& writable(std::uint32_t bytes);
    Chain& raw(const RawDescriptor& descriptor);
    /// All of it goes into an indirect table, which takes one descriptor of the ring.
    Chain& indirect();
    /// The table's length as told to the device, instead of the true one.
    Chain& table_bytes(std::uint32_t bytes);
    /// Flags of the descriptor that refers to the table, besides kIndirect.
    Chain& table_flags(std::uint16_t flags);
    /// Packed rings: this buffer id instead of a free one.
    Chain& id(std::uint16_t id);
    /// Makes it available, without a kick; returns what take_used() will call it. Throws std::runtime_error
    /// when the ring is full.
    std::uint16_t submit();

   private:
    friend class FakeDriver;
    Chain(FakeDriver& driver, std::uint16_t queue) : driver_{driver}, queue_{queue} {}

    FakeDriver& driver_;
    std::uint16_t queue_;
    std::vector<RawDescriptor> descriptors_;
    std::vector<GuestAddr> owned_;
    std::vector<std::span<std::byte>> writable_;
    bool indirect_ = false;
    std::optional<std::uint32_t> table_bytes_;
    std::uint16_t table_flags_ = 0;
    std::optional<std::uint16_t> id_;
  };
  [[nodiscard]] Chain chain(std::uint16_t queue = 0) { return Chain{*this, queue}; }

  struct Used {
    std::uint16_t id = 0;
    std::uint32_t written = 0;
    std::vector<std::vector<std::byte>> data;  ///< each writable buffer, whole

    /// The first `written` bytes of them all.
    [[nodiscard]] std::vector<std::byte> bytes() const;
    [[nodiscard]] std::string text() const;
  };
  /// The next request that the device gave back. Throws std::runtime_error if it was not in flight.
  std::optional<Used> take_used(std::uint16_t queue = 0);

  [[nodiscard]] std::size_t in_flight(std::uint16_t queue = 0) const;
  [[nodiscard]] std::size_t free_descriptors(std::uint16_t queue = 0) const;

  // --- Notifications, both ways

  /// How often the device interrupted for this queue.
  [[nodiscard]] unsigned interrupts(std::uint16_t queue = 0) const;
  [[nodiscard]] unsigned config_changes() const noexcept { return config_changes_; }
  [[nodiscard]] unsigned resets_wanted() const noexcept { return resets_wanted_; }

  /// As the driver starts: an interrupt for each request used.
  void want_interrupts(std::uint16_t queue = 0);
  void no_interrupts(std::uint16_t queue = 0);
  /// With kEventIndex: not before `descriptors` more were used (split rings: requests; packed: ring slots).
  void interrupt_after(std::uint16_t descriptors, std::uint16_t queue = 0);
  /// Would a driver kick now, for what it made available since it was last asked?
  [[nodiscard]] bool kick_wanted(std::uint16_t queue = 0);

  // --- The raw rings, for hostile drivers

  /// Guest memory of one's own, until release(); never reused for something else before.
  GuestAddr allocate(std::uint64_t bytes, std::uint64_t alignment = 16) { return heap_.allocate(bytes, alignment); }
  void release(GuestAddr addr) { heap_.release(addr); }
  template <class T>
  void write(GuestAddr addr, const T& value) {
    require(memory_.write(addr, value), "write outside of guest memory");
  }
  template <class T>
  [[nodiscard]] T read(GuestAddr addr) const {
    const auto value = memory_.read<T>(addr);
    require(value.has_value(), "read outside of guest memory");
    return *value;
  }
  /// Split rings: the descriptor that the next chain will begin with.
  [[nodiscard]] std::uint16_t next_head(std::uint16_t queue = 0) const;
  /// Split rings: makes `head` available, whatever it is.
  void push_head(std::uint16_t head, std::uint16_t queue = 0);
  /// Split rings: overwrites avail->idx.
  void set_avail_index(std::uint16_t index, std::uint16_t queue = 0);
  [[nodiscard]] std::uint16_t avail_index(std::uint16_t queue = 0) const;

  // --- DriverInterrupts
  void queue_used(std::uint16_t queue) noexcept override;
  void config_changed() noexcept override { ++config_changes_; }
  void needs_reset() noexcept override { ++resets_wanted_; }
  [[nodiscard]] int call_fd(std::uint16_t) const noexcept override { return -1; }

 private:
  struct Sent {
    std::vector<std::uint16_t> taken;  // of Queue::free
    std::uint16_t slots = 0;           // packed: how many it took of the ring
    std::vector<GuestAddr> owned;
    std::vector<std::span<std::byte>> writable;
  };
  enum class Interrupts { Always, Never, Once };
  struct Queue {
    QueueSetup setup{};
    std::multimap<std::uint16_t, Sent> sent;
    std::vector<std::uint16_t> free;  // split: descriptors; packed: buffer ids
    std::uint16_t free_slots = 0;     // packed
    std::uint16_t next_avail = 0;     // split: avail->idx; packed: ring slot
    std::uint16_t last_used = 0;
    std::uint16_t added = 0;  // since the last kick_wanted()
    bool avail_wrap = true;   // packed
    bool used_wrap = true;    // packed
    Interrupts wanted = Interrupts::Always;
    std::atomic<unsigned> interrupts = 0;
  };

  static void require(bool condition, const char* what);
  [[nodiscard]] Queue& at(std::uint16_t queue) const { return *queues_.at(queue); }
  [[nodiscard]] bool packed() const noexcept { return options_.ring == Ring::Packed; }
  [[nodiscard]] bool event_index() const noexcept { return (options_.features & kEventIndex) != 0; }
  template <class T>
  [[nodiscard]] std::atomic_ref<T> word(GuestAddr addr) const;
  void lay_out(Queue& queue);
  void reset(Queue& queue);
  std::uint16_t submit(Chain& chain);
  std::uint16_t put_split(Queue& queue, std::span<const RawDescriptor> descriptors, Sent sent);
  std::uint16_t put_packed(Queue& queue, std::span<const RawDescriptor> descriptors, std::optional<std::uint16_t> id,
                           Sent sent);
  void put_table(Chain& chain);
  void publish_head(Queue& queue, std::uint16_t head);
  void arm(Queue& queue, std::uint16_t ahead);
  std::optional<UsedElement> next_used(Queue& queue);

  Options options_;
  GuestMemory memory_;
  GuestHeap heap_{{GuestAddr{0x1000}, kLowRam - 0x1000}};  // without address 0, so that it is never right by chance
  std::vector<std::unique_ptr<Queue>> queues_;
  std::atomic<unsigned> config_changes_ = 0;
  std::atomic<unsigned> resets_wanted_ = 0;
  Fd kick_ = make_eventfd();
};

}  // namespace martlet::virtio
