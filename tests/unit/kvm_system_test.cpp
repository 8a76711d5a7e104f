#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "vmm/base/error.h"
#include "vmm/kvm/capabilities.h"
#include "vmm/kvm/system.h"

namespace martlet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string refusal(const std::string& path) {
  try {
    const KvmSystem system{path};
  } catch (const HostError& error) {
    return error.what();
  }
  return "(opened)";
}

TEST(KvmSystem, AMissingDeviceComesWithItsFix) {
  EXPECT_THAT(refusal("/dev/no-such-kvm"), AllOf(HasSubstr("/dev/no-such-kvm"), HasSubstr("modprobe")));
}

TEST(KvmSystem, WhatIsNoKvmIsSaidToBeNone) {
  EXPECT_THAT(refusal("/dev/null"), HasSubstr("/dev/null is not a KVM device"));
}

TEST(KvmSystem, AMissingCapabilityIsNamedWithTheLinuxThatHasIt) {
  const auto all_but = [](int missing) { return [missing](int number) { return number == missing ? 0 : 1; }; };
  try {
    require_capabilities(all_but(KVM_CAP_IMMEDIATE_EXIT));
    ADD_FAILURE() << "accepted";
  } catch (const HostError& error) {
    EXPECT_THAT(std::string{error.what()}, AllOf(HasSubstr("KVM_CAP_IMMEDIATE_EXIT"), HasSubstr("4.11")));
  }
  EXPECT_NO_THROW(require_capabilities(all_but(KVM_CAP_BINARY_STATS_FD))) << "Martlet does without";
}

TEST(KvmSystem, EachReasonHasItsFix) {
  EXPECT_THAT(std::string{fix_for_kvm_open(EACCES)}, HasSubstr("usermod -aG kvm"));
  EXPECT_THAT(std::string{fix_for_kvm_open(ENODEV)}, HasSubstr("firmware"));
  EXPECT_THAT(std::string{fix_for_kvm_open(ENOENT)}, HasSubstr("modprobe"));
  EXPECT_TRUE(fix_for_kvm_open(EMFILE).empty());
}

}  // namespace
}  // namespace martlet
