#include "tests/kvm/network.h"

#include <unistd.h>

#include <sstream>

#include "tests/support/subprocess.h"

namespace martlet::test {

std::vector<std::string> in_network(const std::string& setup, const std::vector<std::string>& command) {
  std::vector<std::string> wrapped{"unshare", "--net", "--mount"};
  if (::geteuid() != 0) {
    wrapped.emplace_back("--map-root-user");
  }
  wrapped.insert(wrapped.end(),
                 {"sh", "-c",
                  // /sys is another namespace's; and PATH may be nowhere after `setup`.
                  "PATH=$PATH:/usr/sbin:/sbin; set -e; "
                  "links() { while read -r name rest; do echo \"${name%%:*}\"; done < /proc/self/net/dev; }; " +
                      setup +
                      "; before=\" $(echo $(links)) \"; code=0; \"$@\" || code=$?; for link in $(links); do "
                      "case \"$before\" in *\" $link \"*) ;; *) echo \"left behind: $link\" ;; esac; done; exit $code",
                  "sh"});
  wrapped.insert(wrapped.end(), command.begin(), command.end());
  return wrapped;
}

std::string no_network() {
  const auto tried = run({.command = in_network(std::string{kTap} + "; " + kBridge, {"true"})});
  if (tried.exit_code == 0) {
    return {};
  }
  std::ostringstream why;
  why << "no network namespace with a TAP and a bridge here: " << tried;
  return why.str();
}

}  // namespace martlet::test
