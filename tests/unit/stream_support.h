#pragma once
// What tests of consoles and serial ports do with their other ends.

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <thread>

namespace martlet {

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span{text}); }
inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::string noise(std::size_t size) {
  std::string text(size, '\0');
  std::uint32_t state = 4711;
  for (auto& c : text) {
    state = state * 1664525U + 1013904223U;
    c = static_cast<char>(state >> 24U);
  }
  return text;
}

/// Waits for a condition, but not for ever.
template <class Condition>
bool eventually(Condition condition, std::chrono::microseconds between = std::chrono::microseconds{200}) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{30};
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    std::this_thread::sleep_for(between);
  }
  return true;
}

/// Reads until `size` bytes or the end came, or nothing did for long.
inline std::string read_up_to(int fd, std::size_t size,
                              std::chrono::microseconds pause = std::chrono::microseconds{0}) {
  std::string text;
  std::array<char, 65536> chunk;
  while (text.size() < size) {
    std::this_thread::sleep_for(pause);
    pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
    const auto got =
        ::poll(&wait, 1, 30000) > 0 ? ::read(fd, chunk.data(), std::min(chunk.size(), size - text.size())) : 0;
    if (got <= 0) {
      break;
    }
    text.append(chunk.data(), static_cast<std::size_t>(got));
  }
  return text;
}

inline void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto put = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    const auto written = put < 0 && errno == ENOTSOCK ? ::write(fd, text.data(), text.size()) : put;
    ASSERT_GT(written, 0);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace martlet
