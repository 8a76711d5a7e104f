#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/unit/serial_support.h"

namespace martlet {
namespace {

using namespace std::chrono_literals;

struct SerialSocket : Serial {
  Fd dial() {
    Fd client{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    EXPECT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return client;
  }
  std::string path = directory.file("sock");
  SerialTarget target{.kind = SerialTarget::Kind::Socket, .path = path};
};

TEST_F(SerialSocket, KeepsOutputForAClientAndTakesTheNextOne) {
  make(target);
  run();
  put("boot log");
  auto first = dial();
  EXPECT_EQ(read_up_to(first.get(), 8), "boot log");
  auto second = dial();  // waits for its turn
  write_all(second.get(), "two");
  write_all(first.get(), "one");
  EXPECT_EQ(device.take(3), "one");
  first = Fd{};
  EXPECT_EQ(device.take(3), "two");
  put("hello two");
  EXPECT_EQ(read_up_to(second.get(), 9), "hello two");
  second = Fd{};
  EXPECT_TRUE(sleeps_on());
  halt();
  backend.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(SerialSocket, AHalfClosedClientStillReads) {
  make(target);
  run();
  auto client = dial();
  write_all(client.get(), "input, then only listening");
  ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
  EXPECT_EQ(device.take(26), "input, then only listening");
  EXPECT_TRUE(sleeps_on());
  put("still here");
  EXPECT_EQ(read_up_to(client.get(), 10), "still here");
  client = Fd{};
  client = dial();  // though the guest says nothing, it is noticed that the first one left
  write_all(client.get(), "next");
  EXPECT_EQ(device.take(4), "next");
}

TEST_F(SerialSocket, InputOfAClientThatLeftIsDeliveredFirst) {
  device.limit = 0;
  make(target);
  run();
  auto client = dial();
  write_all(client.get(), noise(5000));
  client = Fd{};
  EXPECT_TRUE(sleeps_on()) << "a hang-up that must wait wakes nobody";
  client = dial();
  write_all(client.get(), "next");
  {
    const std::lock_guard lock{device.mutex};
    device.limit = 16;
  }
  EXPECT_EQ(device.take(5004), noise(5000) + "next");
}

TEST_F(SerialSocket, AGuestThatNeverReadsHoldsUpNoClient) {
  device.limit = 0;
  make(target);
  run();
  auto client = dial();
  write_all(client.get(), "a few words");
  client = Fd{};
  put("for whom it concerns");
  client = dial();
  EXPECT_EQ(read_up_to(client.get(), 20), "for whom it concerns");
  {
    const std::lock_guard lock{device.mutex};
    device.limit = 16;
  }
  EXPECT_EQ(device.take(11), "a few words");
}

TEST_F(SerialSocket, AClientThatDoesNotReadLosesTheNewest) {
  make(target);
  run();
  auto client = dial();
  put_slowly(noise(1U << 20U));
  EXPECT_TRUE(sleeps_on());
  const auto got = read_up_to(client.get(), SerialBackend::kBacklogSize);
  EXPECT_TRUE(got == noise(1U << 20U).substr(0, got.size()));
  client = Fd{};
  EXPECT_TRUE(sleeps_on());
}

TEST_F(SerialSocket, ReplacesTheFileOfADeadListenerOnly) {
  {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    const Fd dead{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  make(target);
  EXPECT_THROW(SerialBackend(loop, target), HostError);
  EXPECT_TRUE(std::filesystem::exists(path)) << "it is the first one's";
  backend.reset();
  std::ofstream{path} << "precious";
  EXPECT_THROW(SerialBackend(loop, target), HostError);
  EXPECT_EQ(test::read_file(path), "precious");
}

TEST_F(SerialSocket, RefusesAPathThatIsTooLong) {
  target.path = directory.file("") + std::string(120, 'x');
  EXPECT_THROW(SerialBackend(loop, target), HostError);
  target.path = directory.file("missing/sock");
  EXPECT_THROW(SerialBackend(loop, target), HostError);
}

}  // namespace
}  // namespace martlet
