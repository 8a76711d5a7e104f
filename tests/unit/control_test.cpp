#include "vmm/control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <future>
#include <string>

#include "vmm/base/error.h"
#include "vmm/bundle_options.h"
#include "vmm/dump_command.h"

namespace martlet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(Control, FindsVmsAmongTheSocketsOfThisHost) {
  EXPECT_THAT(parse_unix_sockets("Num       RefCount Protocol Flags    Type St Inode Path\n"
                                 "0000000000000000: 00000002 00000000 00010000 0001 01 11 /run/x\n"
                                 "0000000000000000: 00000002 00000000 00010000 0005 01 12 @martlet/12/web\n"
                                 "0000000000000000: 00000003 00000000 00000000 0005 03 13 @martlet/12/web\n"
                                 "0000000000000000: 00000002 00000000 00010000 0005 01 14 @martlet/7/\n"),
              ElementsAre(VmAddress{12, "web"}, VmAddress{7, ""}));
}

TEST(Control, TakesNobodysWordForAVm) {
  EXPECT_THAT(parse_unix_sockets("1 @martlet/\n2 @martlet/x/y\n3 @martlet/-1/y\n4 @martlet/0/y\n5 @martlet/1\n"
                                 "6 @martlet/99999999999999999999/y\n @martlet/\n7 /tmp/@martlet/1/y\n @martle"),
              testing::IsEmpty());
}

TEST(Control, NamesAreCheckedWhenTheyAreGiven) {
  for (const char* name : {"web", "a.b-c_d", "0x", "4a"}) {
    EXPECT_NO_THROW(check_vm_name(name)) << name;
  }
  for (const std::string& name : {std::string{""}, std::string{"12"}, std::string{"a/b"}, std::string{"a b"},
                                  std::string{"a\n"}, std::string(65, 'a')}) {
    EXPECT_THROW(check_vm_name(name), HostError) << name;
  }
}

/// A VM's end on a loop, and somebody who asks from another thread.
struct Asked {
  explicit Asked(ControlSocket::Handler handler) : control{loop, "unit-test", std::move(handler)} {}

  std::string ask(const std::string& request) {
    auto answer = std::async(std::launch::async, [this, request] {
      std::string text;
      try {
        text = ask_vm(std::to_string(::getpid()), request);
      } catch (const HostError& error) {
        text = std::string{"error: "} + error.what();
      }
      loop.call([this] { loop.stop(); });
      return text;
    });
    loop.run();
    return answer.get();
  }

  EventLoop loop;
  ControlSocket control;
};

TEST(Control, ARequestIsAnswered) {
  std::string seen;
  Asked asked{[&](std::string_view request, const ControlSocket::Reply& reply) {
    seen = request;
    reply.done("here");
  }};
  EXPECT_EQ(asked.ask("dump path=x"), "here");
  EXPECT_EQ(seen, "dump path=x");
}

TEST(Control, WhatFailedIsAnErrorForTheOneWhoAsked) {
  Asked asked{[](std::string_view, const ControlSocket::Reply& reply) { reply.failed("no space"); }};
  EXPECT_THAT(asked.ask("x"), testing::AllOf(HasSubstr("error: VM unit-test"), HasSubstr("no space")));
}

TEST(Control, AVmThatAnswersNothingHasEnded) {
  Asked asked{[](std::string_view, const ControlSocket::Reply&) {}};
  EXPECT_THAT(asked.ask("x"), HasSubstr("ended before it answered"));
}

TEST(Control, ClientsThatSayNothingOrLeaveDoNoHarm) {
  int requests = 0;
  Asked asked{[&](std::string_view, const ControlSocket::Reply& reply) {
    ++requests;
    reply.done("here");
  }};
  const auto where = control_address({.pid = ::getpid(), .name = "unit-test"});
  std::array<Fd, 8> silent;
  for (auto& client : silent) {
    client = Fd{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&where.address), where.size), 0);
  }
  silent[0] = Fd{};
  ASSERT_EQ(::send(silent[1].get(), "x", 1, MSG_NOSIGNAL), 1);
  silent[1] = Fd{};  // asked, and gone before the answer
  EXPECT_EQ(asked.ask("x"), "here");
  EXPECT_EQ(requests, 2);
}

TEST(Control, AnAddressIsTakenOnce) {
  EventLoop loop;
  const ControlSocket first{loop, "twice", {}};
  EXPECT_THROW((ControlSocket{loop, "twice", {}}), HostError);
}

TEST(BundleOptions, AreReadBack) {
  for (const auto core : {BundleOptions::Core::Raw, BundleOptions::Core::Zstd, BundleOptions::Core::None}) {
    const auto read = parse_bundle(format_bundle({.directory = "/a,b=c,,d", .core = core}), "--bundle");
    EXPECT_EQ(read.directory, "/a,b=c,,d");
    EXPECT_EQ(read.core, core);
  }
  EXPECT_EQ(parse_bundle("dir", "--bundle").directory, "dir");
  EXPECT_THAT([] { (void)parse_bundle("dir,vmcore=xz", "--bundle"); }, ThrowsMessage<HostError>(HasSubstr("zstd")));
  EXPECT_THAT([] { (void)parse_bundle("vmcore=zstd", "--bundle"); }, ThrowsMessage<HostError>(HasSubstr("directory")));
}

TEST(BundleOptions, ARequestThatIsNoDumpIsRefused) {
  EXPECT_EQ(bundle_of_request("dump path=/x,vmcore=zstd").directory, "/x");
  for (const char* request : {"", "dump", "dump ", "stop", "dump vmcore=1", "dump path=", "dump path=/x,path=/y"}) {
    EXPECT_THROW((void)bundle_of_request(request), HostError) << request;
  }
}

}  // namespace
}  // namespace martlet
