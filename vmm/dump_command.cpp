#include "vmm/dump_command.h"

#include <filesystem>
#include <system_error>

#include "vmm/base/error.h"
#include "vmm/control.h"

namespace martlet {
namespace {

constexpr std::string_view kVerb = "dump ";

}  // namespace

std::string dump_vm(const DumpCommand& command) {
  auto where = command.where;
  std::error_code error;
  where.directory =
      std::filesystem::absolute(where.directory, error).string();  // the VM may have been started elsewhere
  if (error) {
    fail_errno(error.value(), "cannot tell the current directory");
  }
  return ask_vm(command.vm, std::string{kVerb} + format_bundle(where));
}

BundleOptions bundle_of_request(std::string_view request) {
  if (!request.starts_with(kVerb)) {
    throw HostError{"a request that this Martlet does not know"};
  }
  return parse_bundle(request.substr(kVerb.size()), "dump");
}

}  // namespace martlet
