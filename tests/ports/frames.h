#pragma once
// Ethernet frames as a guest would send them, and what arrives at another port.

#include <poll.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "net/backend.h"
#include "net/mac.h"

namespace martlet::test {

using Frame = std::vector<std::byte>;

struct FrameOptions {
  MacAddress from{};
  std::initializer_list<std::uint32_t> tags{};  ///< each tag's type and id: 0x8100'000a
  std::string text{};                           ///< what is in it
  std::size_t size = 60;
};

/// To everybody, of the local experimental type, with an empty virtio-net header in front.
inline Frame make_frame(const FrameOptions& options) {
  Frame frame(NetBackend::kHeaderSize);
  const auto put = [&](std::uint32_t value, int bytes) {
    while (bytes-- > 0) {
      frame.push_back(static_cast<std::byte>(value >> (8 * bytes)));
    }
  };
  put(0xffff, 2);
  put(0xffffffff, 4);
  for (const auto byte : options.from) {
    put(byte, 1);
  }
  for (const auto tag : options.tags) {
    put(tag, 4);
  }
  put(0x88b5, 2);
  put(static_cast<std::uint32_t>(options.text.size()), 1);
  for (const char letter : options.text) {
    put(static_cast<std::uint8_t>(letter), 1);
  }
  frame.resize(std::max(frame.size(), NetBackend::kHeaderSize + options.size));
  return frame;
}

inline bool send(NetBackend& port, const FrameOptions& options) {
  auto frame = make_frame(options);
  const iovec whole{frame.data(), frame.size()};
  return port.send(0, {&whole, 1}) == static_cast<std::ptrdiff_t>(frame.size());
}

/// The tags and text of our frames that have arrived, such as "8100:000a hello"; the kernel's own chatter is passed
/// over. A bridge delivers before send() returns, so what is not there will not come.
inline std::vector<std::string> arrived(NetBackend& port) {
  std::vector<std::string> all;
  for (;;) {
    Frame frame(NetBackend::kHeaderSize + NetBackend::kMaxFrame);
    const iovec whole{frame.data(), frame.size()};
    const auto got = port.receive(0, {&whole, 1});
    if (got < 0) {
      return all;
    }
    frame.resize(static_cast<std::size_t>(got) + 8);
    std::size_t at = NetBackend::kHeaderSize + 12;
    const auto take = [&](int bytes) {
      std::uint32_t value = 0;
      while (bytes-- > 0) {
        value = value << 8U | std::to_integer<std::uint32_t>(frame.at(at++));
      }
      return value;
    };
    std::string text;
    auto type = take(2);
    for (; type == 0x8100 || type == 0x88a8; type = take(2)) {
      const char* const digits = "0123456789abcdef";
      const auto id = take(2) & 0xfffU;
      text += type == 0x8100 ? "c" : "s";
      for (const unsigned shift : {8U, 4U, 0U}) {
        text += digits[id >> shift & 0xfU];
      }
      text += ' ';
    }
    if (type == 0x88b5) {
      for (auto letters = take(1); letters > 0; --letters) {
        text += static_cast<char>(take(1));
      }
      all.push_back(text);
    }
  }
}

}  // namespace martlet::test
