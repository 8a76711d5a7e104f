#include "net/netlink.h"

#include <linux/netlink.h>
#include <sys/socket.h>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::size_t kAnswer = 32768;  // libmnl(7): what fits any answer

}  // namespace

NetlinkMessage::NetlinkMessage(std::uint16_t type, std::uint16_t flags) : header_{mnl_nlmsg_put_header(bytes_.data())} {
  header_->nlmsg_type = type;
  header_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
}

bool is_string(const nlattr* attribute) noexcept { return mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0; }
bool is_u32(const nlattr* attribute) noexcept { return mnl_attr_validate(attribute, MNL_TYPE_U32) >= 0; }

NetlinkSocket::NetlinkSocket(int bus) : socket_{mnl_socket_open2(bus, SOCK_CLOEXEC)} {
  if (!socket_ || mnl_socket_bind(socket_.get(), 0, MNL_SOCKET_AUTOPID) < 0) {
    fail_errno(errno, "netlink: cannot talk to the kernel about network interfaces");
  }
}

int NetlinkSocket::exchange(NetlinkMessage& message, mnl_cb_t callback, void* data) {
  auto* const header = message.header();
  header->nlmsg_seq = ++sequence_;
  header->nlmsg_flags |= NLM_F_ACK;
  if (mnl_socket_sendto(socket_.get(), header, header->nlmsg_len) < 0) {
    return errno;
  }
  std::vector<char> buffer(kAnswer);
  for (;;) {
    const auto got = mnl_socket_recvfrom(socket_.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return errno;
    }
    const int result = mnl_cb_run(buffer.data(), static_cast<std::size_t>(got), sequence_,
                                  mnl_socket_get_portid(socket_.get()), callback, data);
    if (result < 0) {
      return errno;
    }
    if (result == MNL_CB_STOP) {  // the acknowledgement, or the end of a dump
      return 0;
    }
  }
}

NetlinkAnswer::NetlinkAnswer(const nlmsghdr* message)
    : bytes_{reinterpret_cast<const char*>(message),  // NOLINT: bytes of whatever type
             reinterpret_cast<const char*>(message) + message->nlmsg_len} {}

int dump(NetlinkMessage& message, int bus, std::vector<NetlinkAnswer>& answers) {
  message.header()->nlmsg_flags |= NLM_F_DUMP;
  for (;;) {
    NetlinkSocket socket{bus};  // an interrupted dump leaves answers behind: they go with their socket
    answers.clear();
    const int error = socket.request(message, [&](const nlmsghdr* answer) { answers.emplace_back(answer); });
    if (error != EINTR) {  // NLM_F_DUMP_INTR
      return error;
    }
  }
}

std::vector<NetlinkAnswer> dump(NetlinkMessage& message) {
  std::vector<NetlinkAnswer> answers;
  if (const int error = dump(message, NETLINK_ROUTE, answers); error != 0) {
    fail_errno(error, "netlink: cannot ask the kernel about network interfaces");
  }
  return answers;
}

}  // namespace martlet
