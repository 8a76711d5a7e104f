#pragma once

#include <libmnl/libmnl.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <vector>

namespace martlet {

/// A netlink request under construction. Attributes are put by libmnl: mnl_attr_put_u32(message.header(), …).
class NetlinkMessage {
 public:
  static constexpr std::size_t kMost = 8192;  ///< bytes; what is put must fit
  explicit NetlinkMessage(std::uint16_t type, std::uint16_t flags = 0);
  NetlinkMessage(const NetlinkMessage&) = delete;
  NetlinkMessage& operator=(const NetlinkMessage&) = delete;

  /// Adds the family's own header (ifinfomsg, tcmsg, …), zeroed.
  template <class Header>
  Header& extra() {
    return *static_cast<Header*>(mnl_nlmsg_put_extra_header(header_, sizeof(Header)));
  }
  [[nodiscard]] nlmsghdr* header() const noexcept { return header_; }

 private:
  alignas(nlmsghdr) std::array<char, kMost> bytes_{};
  nlmsghdr* header_;
};

/// Calls `use` for each attribute of a message whose family's own header has `extra` bytes.
template <class Use>
void each_attribute(const nlmsghdr* message, unsigned extra, Use use) {
  const auto callback = [](const nlattr* attribute, void* data) {
    (*static_cast<Use*>(data))(attribute);
    return MNL_CB_OK;
  };
  mnl_attr_parse(message, extra, callback, &use);
}
/// Calls `use` for each attribute in a nest.
template <class Use>
void each_nested(const nlattr* nest, Use use) {
  const auto callback = [](const nlattr* attribute, void* data) {
    (*static_cast<Use*>(data))(attribute);
    return MNL_CB_OK;
  };
  mnl_attr_parse_nested(nest, callback, &use);
}

[[nodiscard]] bool is_string(const nlattr* attribute) noexcept;
[[nodiscard]] bool is_u32(const nlattr* attribute) noexcept;

/// A netlink(7) socket in this process's network namespace: one request at a time, until it is acknowledged.
class NetlinkSocket {
 public:
  explicit NetlinkSocket(int bus);  ///< NETLINK_ROUTE, NETLINK_NETFILTER. Throws HostError.

  /// Sends `message`, a dump or not, and gives each answer to `reader`. 0, or the errno that the kernel answered.
  template <class Reader>
  [[nodiscard]] int request(NetlinkMessage& message, Reader reader) {
    const auto callback = [](const nlmsghdr* answer, void* data) {
      (*static_cast<Reader*>(data))(answer);
      return MNL_CB_OK;
    };
    return exchange(message, callback, &reader);
  }
  [[nodiscard]] int request(NetlinkMessage& message) {
    return request(message, [](const nlmsghdr*) {});
  }

  [[nodiscard]] mnl_socket* handle() const noexcept { return socket_.get(); }

 private:
  struct Close {
    void operator()(mnl_socket* socket) const noexcept { mnl_socket_close(socket); }
  };
  [[nodiscard]] int exchange(NetlinkMessage& message, mnl_cb_t callback, void* data);

  std::unique_ptr<mnl_socket, Close> socket_;
  unsigned sequence_ = 0;
};

/// A message as the kernel sent it, to be kept.
class NetlinkAnswer {
 public:
  explicit NetlinkAnswer(const nlmsghdr* message);

  [[nodiscard]] const nlmsghdr* header() const noexcept {
    return reinterpret_cast<const nlmsghdr*>(bytes_.data());  // NOLINT: vectors are aligned for it
  }
  /// The family's own header. The kernel never sends less.
  template <class Header>
  [[nodiscard]] const Header& extra() const noexcept {
    return *static_cast<const Header*>(mnl_nlmsg_get_payload(header()));
  }
  template <class Header, class Use>
  void each(Use use) const {
    each_attribute(header(), sizeof(Header), use);
  }

 private:
  std::vector<char> bytes_;
};

/// All that `message` asks `bus` for, as it was at one moment: what changes meanwhile is asked for anew. 0, or the
/// errno that the kernel answered. Throws HostError.
[[nodiscard]] int dump(NetlinkMessage& message, int bus, std::vector<NetlinkAnswer>& answers);
/// The same of network interfaces. Throws HostError.
[[nodiscard]] std::vector<NetlinkAnswer> dump(NetlinkMessage& message);

}  // namespace martlet
