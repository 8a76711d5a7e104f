#include "net/switch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <net/if.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <system_error>
#include <utility>

#include "net/bridge.h"
#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet {
namespace {

using Action = std::function<void()>;

/// Goes back over what was done, the last step first, unless it was told to keep it.
class Undo {
 public:
  Undo() = default;
  Undo(const Undo&) = delete;
  Undo& operator=(const Undo&) = delete;
  ~Undo() {
    for (; !steps_.empty(); steps_.pop_back()) {
      try {
        steps_.back()();
      } catch (const HostError&) {  // NOLINT: the first trouble is the one to be told; go on with the rest
      }
    }
  }
  void add(Action step) { steps_.push_back(std::move(step)); }
  void keep() noexcept { steps_.clear(); }

 private:
  std::vector<Action> steps_;
};

/// One at a time in this network namespace, whose file is the lock: it goes with the process.
Fd lock_namespace() {
  Fd fd = open_file("/proc/self/ns/net", O_RDONLY);
  while (::flock(fd.get(), LOCK_EX) != 0) {
    if (errno != EINTR) {
      fail_errno(errno, "/proc/self/ns/net: cannot lock");
    }
  }
  return fd;
}

[[noreturn]] void fail(std::string_view name, std::string_view why) {
  throw HostError{fmt::format("switch {}: {}", name, why)};
}

/// Throws unless `error`, of a request about switch `name`, is 0.
void expect_done(int error, std::string_view name, std::string_view what) {
  if (error == EPERM) {
    fail(name, fmt::format("cannot {}: needs CAP_NET_ADMIN; run as root", what));
  }
  if (error != 0) {
    fail(name, fmt::format("cannot {}: {}", what, std::generic_category().message(error)));
  }
}

void refuse_nonsense(const SwitchOptions& wanted) {
  const auto& name = wanted.name;
  if (name.size() >= IFNAMSIZ) {
    fail(name, fmt::format("the name is too long, Linux allows {} characters", IFNAMSIZ - 1));
  }
  if (name.empty() || name == "." || name == ".." || name.find_first_of("/: \t\n%") != std::string::npos) {
    fail(name, "not a name for a network interface");
  }
}

std::vector<Link> ports_of(const std::vector<Link>& links, const Link& bridge) {
  std::vector<Link> ports;
  std::ranges::copy_if(links, std::back_inserter(ports), [&](const Link& link) { return link.master == bridge.index; });
  return ports;
}

/// What create_switch() leaves behind when it is killed before it has put its mark: there is nothing to lose.
bool is_bare(Rtnetlink& netlink, const Link& bridge) {
  return bridge.alias.empty() && (bridge.flags & IFF_UP) == 0 && ports_of(netlink.links(), bridge).empty();
}

void set_mark(Rtnetlink& netlink, int index, const SwitchMark& mark) {
  expect_done(netlink.change(index, {.alias = to_alias(mark)}), mark.options.name, "write its alias");
}

/// Takes away `bridge` and all that Martlet put around it, as far as it is there.
void tear_down(Rtnetlink& netlink, const Link& bridge, SwitchMark mark) {
  mark.finished = false;
  set_mark(netlink, bridge.index, mark);
  if (const int error = netlink.remove(bridge.index); error != ENODEV) {
    expect_done(error, bridge.name, "delete it");
  }
}

}  // namespace

SwitchNews create_switch(const SwitchOptions& wanted) {
  refuse_nonsense(wanted);
  SwitchNews news;
  const auto lock = lock_namespace();
  Rtnetlink netlink;
  SwitchMark mark{.options = wanted};
  if (const auto there = netlink.find(wanted.name)) {
    const auto found = read_mark(*there);
    if (!found && (there->kind != "bridge" || !is_bare(netlink, *there))) {
      fail(wanted.name, there->kind == "bridge"
                            ? "that bridge is there, and not made by martlet net; use it as it is, or another name"
                            : "the name is taken by another interface");
    }
    if (found && found->finished) {
      mark.finished = true;
      mark.uplink_was_down = found->uplink_was_down;
      if (to_alias(mark) != there->alias) {
        fail(wanted.name, fmt::format("is there with other settings ('{}'); to change them: martlet net delete {}",
                                      there->alias, wanted.name));
      }
      news.lines.push_back(fmt::format("switch {} is there already, just so", wanted.name));
      return news;
    }
    tear_down(netlink, *there, found.value_or(SwitchMark{.options = {.name = wanted.name}}));
    news.lines.push_back(fmt::format("switch {} was half made: begun anew", wanted.name));
  }

  Undo undo;
  const int error = make_bridge(netlink, wanted.name);
  if (error == EOPNOTSUPP) {
    fail(wanted.name, "this kernel has no bridges; load the module: modprobe bridge");
  }
  expect_done(error, wanted.name, "make a bridge");
  undo.add([&] {
    if (const auto half = netlink.find(wanted.name)) {
      tear_down(netlink, *half, mark);
    }
  });
  const auto bridge = netlink.find(wanted.name);
  if (!bridge) {
    fail(wanted.name, "somebody deleted it while it was made");
  }
  set_mark(netlink, bridge->index, mark);
  expect_done(netlink.change(bridge->index, {.state = LinkChange::State::Up}), wanted.name, "set it up");
  mark.finished = true;
  set_mark(netlink, bridge->index, mark);
  undo.keep();
  news.lines.push_back(
      fmt::format("switch {} is made; guests get on it by: martlet run -n bridge={}", wanted.name, wanted.name));
  return news;
}

SwitchNews delete_switch(const SwitchRemoval& removal) {
  const auto& name = removal.name;
  SwitchNews news;
  const auto lock = lock_namespace();
  Rtnetlink netlink;
  const auto bridge = netlink.find(name);
  if (!bridge) {
    news.lines.push_back(fmt::format("there is no switch {}", name));
    return news;
  }
  const auto mark = read_mark(*bridge);
  if (!mark && (bridge->kind != "bridge" || !is_bare(netlink, *bridge))) {
    fail(name, bridge->kind == "bridge"
                   ? "was not made by martlet net; to delete it all the same: ip link delete " + name
                   : "is no switch, but another interface");
  }
  if (!removal.force) {
    for (const auto& port : ports_of(netlink.links(), *bridge)) {
      if (!mark || port.name != mark->options.uplink) {
        fail(name, fmt::format("{} is on it; end its VM first, or --force", port.name));
      }
    }
  }
  tear_down(netlink, *bridge, mark.value_or(SwitchMark{.options = {.name = name}}));
  news.lines.push_back(fmt::format("switch {} is deleted", name));
  return news;
}

}  // namespace martlet
