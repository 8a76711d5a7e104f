#include "devices/virtio/vhost_user.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "devices/virtio/net_wire.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr int kSetUpSeconds = 5;
constexpr int kRunSeconds = 2;  // the event loop waits for no back-end longer
constexpr std::size_t kMaxRegions = 8;
constexpr std::uint64_t kProtocolFeatures = 1ULL << 30U;

enum Protocol : std::uint64_t { kMultiQueue = 1U << 0U, kReplyAck = 1U << 3U, kMtu = 1U << 4U };
enum Flag : std::uint32_t { kVersion = 1, kVersionMask = 3, kReply = 1U << 2U, kNeedReply = 1U << 3U };

struct Header {
  std::uint32_t request = 0;
  std::uint32_t flags = 0;
  std::uint32_t size = 0;  // of the payload
};
static_assert(sizeof(Header) == 12);

struct RingState {
  std::uint32_t index = 0;
  std::uint32_t number = 0;
};

struct RingAddresses {
  std::uint32_t index = 0;
  std::uint32_t flags = 0;
  std::uint64_t descriptors = 0;
  std::uint64_t device = 0;
  std::uint64_t driver = 0;
  std::uint64_t log = 0;
};
static_assert(sizeof(RingAddresses) == 40);

struct MemoryTable {
  struct Region {
    std::uint64_t guest = 0;
    std::uint64_t size = 0;
    std::uint64_t user = 0;
    std::uint64_t offset = 0;
  };
  std::uint32_t count = 0;
  std::uint32_t padding = 0;
  std::array<Region, kMaxRegions> regions{};
};
static_assert(sizeof(MemoryTable) == 8 + kMaxRegions * 32);

/// What we know how to pass on; the rest of what a back-end offers stays unused.
constexpr std::uint64_t kKnown = kIndirectDescriptors | kEventIndex | kVersion1 | kRingPacked |
                                 std::uint64_t{kNetMergeableBuffers} | kNetChecksum | kNetGuestChecksum |
                                 kNetGuestTso4 | kNetGuestTso6 | kNetGuestEcn | kNetGuestUfo | kNetHostTso4 |
                                 kNetHostTso6 | kNetHostEcn | kNetHostUfo | kNetMultiQueue;

std::uint64_t user_address(std::span<std::byte> bytes) { return reinterpret_cast<std::uint64_t>(bytes.data()); }

}  // namespace

enum class VhostUser::Request : std::uint32_t {
  GetFeatures = 1,
  SetFeatures = 2,
  SetOwner = 3,
  SetMemoryTable = 5,
  SetRingSize = 8,
  SetRingAddresses = 9,
  SetRingBase = 10,
  GetRingBase = 11,
  SetRingKick = 12,
  SetRingCall = 13,
  SetRingError = 14,
  GetProtocolFeatures = 15,
  SetProtocolFeatures = 16,
  GetQueueCount = 17,
  SetRingEnable = 18,
  SetMtu = 20,
};

struct VhostUser::Message {
  Request request;
  std::span<const std::byte> payload{};
  std::span<const int> files{};
  std::uint32_t flags = 0;
};

namespace {

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span{&value, 1});
}

}  // namespace

VhostUser::VhostUser(const Options& options, const GuestMemory& memory) : path_{options.path}, memory_{&memory} {
  const auto name = "-n vhost-user=" + path_;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path) {
    throw HostError{fmt::format("{}: a socket's path has at most {} bytes, this one has {}", name,
                                sizeof address.sun_path - 1, path_.size())};
  }
  path_.copy(address.sun_path, path_.size());
  if (memory.file() < 0) {
    throw HostError{name + ": the guest's memory must be a file that can be shared: write --memory SIZE,shared=on"};
  }
  if (memory.regions().size() > kMaxRegions) {
    throw HostError{
        fmt::format("{}: memory in {} pieces; the protocol carries {}", name, memory.regions().size(), kMaxRegions)};
  }
  socket_ = Fd{check(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), name)};
  wait_at_most(kSetUpSeconds);
  if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fail_errno(errno, name + ": cannot connect; the back-end (OVS, DPDK) must listen there before the guest starts");
  }
  negotiate(options);
  hand_over_memory();
  wait_at_most(kRunSeconds);
}

void VhostUser::wait_at_most(int seconds) const {
  const timeval time{.tv_sec = seconds, .tv_usec = 0};
  check(::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), "SO_RCVTIMEO");
  check(::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time), "SO_SNDTIMEO");
}

void VhostUser::negotiate(const Options& options) {
  const auto name = "-n vhost-user=" + path_;
  const auto offered = ask_number(Request::GetFeatures, "GET_FEATURES");
  if ((offered & kVersion1) == 0) {
    throw HostError{name + ": the back-end does not offer virtio 1.0 (VIRTIO_F_VERSION_1); a newer one is needed"};
  }
  if ((offered & kProtocolFeatures) != 0) {
    protocol_ = ask_number(Request::GetProtocolFeatures, "GET_PROTOCOL_FEATURES") &
                (kMultiQueue | kReplyAck | (options.mtu != 0 ? std::uint64_t{kMtu} : 0));
  }
  std::uint64_t most = 1;
  bool sent = (offered & kProtocolFeatures) == 0 ||
              send({.request = Request::SetProtocolFeatures, .payload = bytes_of(protocol_)});
  if (sent && (protocol_ & kMultiQueue) != 0) {
    most = ask_number(Request::GetQueueCount, "GET_QUEUE_NUM");
  }
  if (options.pairs > most) {
    throw HostError{fmt::format("{},queues={}: the back-end has {}", name, options.pairs, most)};
  }
  sent = sent && send({.request = Request::SetOwner});
  const std::uint64_t mtu = options.mtu;
  if (sent && (protocol_ & kMtu) != 0) {
    sent = send({.request = Request::SetMtu, .payload = bytes_of(mtu)});
  }
  if (!sent) {
    throw HostError{name + ": the back-end hung up during the negotiation; its own log says why"};
  }
  features_ = offered & (kKnown | kProtocolFeatures);
}

void VhostUser::hand_over_memory() {
  MemoryTable table;
  std::array<int, kMaxRegions> files{};
  for (const auto& region : memory_->regions()) {
    files[table.count] = memory_->file();
    table.regions[table.count++] = {.guest = raw(region.range.start),
                                    .size = region.range.size,
                                    .user = user_address(region.bytes),
                                    .offset = region.file_offset};
  }
  const bool acknowledged = (protocol_ & kReplyAck) != 0;
  const Message message{.request = Request::SetMemoryTable,
                        .payload = bytes_of(table).first(8 + table.count * sizeof(MemoryTable::Region)),
                        .files = std::span{files}.first(table.count),
                        .flags = acknowledged ? std::uint32_t{kNeedReply} : 0U};
  std::uint64_t failed = 0;
  if (!(acknowledged ? ask(message, failed) : send(message)) || failed != 0) {
    throw HostError{"-n vhost-user=" + path_ + ": the back-end did not take the guest's memory (SET_MEM_TABLE)"};
  }
}

bool VhostUser::end() noexcept {
  alive_ = false;
  ::shutdown(socket_.get(), SHUT_RDWR);
  return false;
}

bool VhostUser::send(const Message& message) noexcept {
  if (!alive_) {
    return false;
  }
  Header header{.request = static_cast<std::uint32_t>(message.request),
                .flags = kVersion | message.flags,
                .size = static_cast<std::uint32_t>(message.payload.size())};
  std::array<iovec, 2> parts{iovec{&header, sizeof header},
                             iovec{const_cast<std::byte*>(message.payload.data()), message.payload.size()}};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxRegions * sizeof(int))> control{};
  msghdr whole{};
  whole.msg_iov = parts.data();
  whole.msg_iovlen = message.payload.empty() ? 1 : 2;
  if (!message.files.empty()) {
    whole.msg_control = control.data();
    whole.msg_controllen = CMSG_SPACE(message.files.size_bytes());
    auto* const rights = CMSG_FIRSTHDR(&whole);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(message.files.size_bytes());
    std::memcpy(CMSG_DATA(rights), message.files.data(), message.files.size_bytes());
  }
  const auto sent = ::sendmsg(socket_.get(), &whole, MSG_NOSIGNAL);
  return sent == static_cast<ssize_t>(sizeof header + message.payload.size()) || end();
}

/// Without room for control data the kernel drops descriptors that came along, and says so.
bool VhostUser::answer(Request request, std::span<std::byte> payload) noexcept {
  Header header;
  std::array<iovec, 2> parts{iovec{&header, sizeof header}, iovec{payload.data(), payload.size()}};
  msghdr whole{};
  whole.msg_iov = parts.data();
  whole.msg_iovlen = parts.size();
  const auto got = ::recvmsg(socket_.get(), &whole, MSG_WAITALL);
  const bool good = got == static_cast<ssize_t>(sizeof header + payload.size()) &&
                    (whole.msg_flags & MSG_CTRUNC) == 0 && header.request == static_cast<std::uint32_t>(request) &&
                    (header.flags & (kVersionMask | kReply)) == (kVersion | kReply) && header.size == payload.size();
  return good || end();
}

template <class T>
bool VhostUser::ask(const Message& message, T& into) noexcept {
  return send(message) && answer(message.request, std::as_writable_bytes(std::span{&into, 1}));
}

std::uint64_t VhostUser::ask_number(Request request, const char* name) {
  std::uint64_t number = 0;
  if (!ask({.request = request}, number)) {
    throw HostError{
        fmt::format("-n vhost-user={}: no sensible answer to {} within {} s; is it a vhost-user back-end "
                    "that listens?",
                    path_, name, kSetUpSeconds)};
  }
  return number;
}

bool VhostUser::set_features(std::uint64_t features) noexcept {
  const std::uint64_t wanted = features_ & (features | kProtocolFeatures);
  return send({.request = Request::SetFeatures, .payload = bytes_of(wanted)});
}

bool VhostUser::start(const QueueSetup& setup, const Wiring& wiring, Ring state) noexcept {
  const bool packed = (setup.features & kRingPacked) != 0;
  const auto descriptors = memory_->slice(setup.descriptors, sizeof(SplitDescriptor) * setup.size);
  const auto driver = memory_->slice(setup.driver, packed ? sizeof(PackedEvent) : 6 + 2ULL * setup.size);
  const auto device = memory_->slice(setup.device, packed ? sizeof(PackedEvent) : 6 + sizeof(UsedElement) * setup.size);
  if (!descriptors || !driver || !device) {
    return false;
  }
  const RingState size{.index = setup.index, .number = setup.size};
  // A packed ring's two indices come with their wrap counters, which begin at 1 (virtio 1.2 §2.8.1).
  const RingState base{.index = setup.index, .number = packed ? 0x8000'8000U : 0U};
  const RingAddresses addresses{.index = setup.index,
                                .descriptors = user_address(*descriptors),
                                .device = user_address(*device),
                                .driver = user_address(*driver)};
  const std::uint64_t index = setup.index;
  return send({.request = Request::SetRingSize, .payload = bytes_of(size)}) &&
         send({.request = Request::SetRingBase, .payload = bytes_of(base)}) &&
         send({.request = Request::SetRingAddresses, .payload = bytes_of(addresses)}) &&
         send({.request = Request::SetRingCall, .payload = bytes_of(index), .files = {&wiring.call, 1}}) &&
         send({.request = Request::SetRingError, .payload = bytes_of(index), .files = {&wiring.failed, 1}}) &&
         send({.request = Request::SetRingKick, .payload = bytes_of(index), .files = {&wiring.kick, 1}}) &&
         enable(setup.index, state);
}

bool VhostUser::enable(std::uint16_t index, Ring state) noexcept {
  if ((features_ & kProtocolFeatures) == 0) {
    return alive_;  // a ring is enabled once it is started
  }
  const RingState wanted{.index = index, .number = state == Ring::Enabled ? 1U : 0U};
  return send({.request = Request::SetRingEnable, .payload = bytes_of(wanted)});
}

bool VhostUser::stop(std::uint16_t index) noexcept {
  const RingState which{.index = index, .number = 0};
  RingState base;
  return ask({.request = Request::GetRingBase, .payload = bytes_of(which)}, base) && (base.index == index || end());
}

}  // namespace martlet::virtio
